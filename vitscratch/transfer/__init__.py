"""Transfer learning: a pretrained body, a new head, and what of them is trained."""

from vitscratch.transfer.features import CachedFeatures, cached_features, extract_features
from vitscratch.transfer.head import head_name, replace_head
from vitscratch.transfer.neighbours import nearest_neighbours, neighbour_accuracy
from vitscratch.transfer.probe import LogisticProbe, linear_probe, logistic_probe

__all__ = [
    "CachedFeatures",
    "LogisticProbe",
    "cached_features",
    "extract_features",
    "head_name",
    "linear_probe",
    "logistic_probe",
    "nearest_neighbours",
    "neighbour_accuracy",
    "replace_head",
]
