"""Transfer learning: a pretrained body, a new head, and what of them is trained."""

from vitscratch.transfer.freeze import freeze, unfreeze
from vitscratch.transfer.groups import parameter_groups
from vitscratch.transfer.head import head_name, replace_head
from vitscratch.transfer.table import trainable_table

__all__ = ["freeze", "head_name", "parameter_groups", "replace_head", "trainable_table", "unfreeze"]
