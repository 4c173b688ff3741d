"""Transfer learning: a pretrained body, a new head, and what of them is trained."""

from vitscratch.transfer.features import CachedFeatures, cached_features, extract_features
from vitscratch.transfer.fine_tune import fine_tune, train_all, train_head, train_last
from vitscratch.transfer.freeze import freeze, unfreeze
from vitscratch.transfer.groups import parameter_groups
from vitscratch.transfer.head import head_name, replace_head
from vitscratch.transfer.neighbours import nearest_neighbours, neighbour_accuracy
from vitscratch.transfer.probe import LogisticProbe, linear_probe, logistic_probe
from vitscratch.transfer.table import trainable_table

__all__ = [
    "CachedFeatures",
    "LogisticProbe",
    "cached_features",
    "extract_features",
    "fine_tune",
    "freeze",
    "head_name",
    "linear_probe",
    "logistic_probe",
    "nearest_neighbours",
    "neighbour_accuracy",
    "parameter_groups",
    "replace_head",
    "train_all",
    "train_head",
    "train_last",
    "trainable_table",
    "unfreeze",
]
