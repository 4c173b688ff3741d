"""Transfer learning: a pretrained body, a new head, and what of them is trained."""

from vitscratch.transfer.head import head_name, replace_head

__all__ = ["head_name", "replace_head"]
