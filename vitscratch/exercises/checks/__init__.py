"""How solutions are checked: one file per exercise, and what they share."""
