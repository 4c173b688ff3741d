"""Run two models side by side and say where they first part: shapes, values, gradients, updates."""

from vitscratch.parity.compare import assert_parity, compare, compare_updates
from vitscratch.parity.names import NameMapping, Reference, pair_parameters
from vitscratch.parity.references import timm_twin, torchvision_twin
from vitscratch.parity.report import Report, Row
from vitscratch.parity.weights import awaken, copy_parameters

__all__ = [
    "NameMapping",
    "Reference",
    "Report",
    "Row",
    "assert_parity",
    "awaken",
    "compare",
    "compare_updates",
    "copy_parameters",
    "pair_parameters",
    "timm_twin",
    "torchvision_twin",
]
