"""Experiments: one file each; its docstring gives the command, the time and the result to expect."""
