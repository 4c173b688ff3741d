"""Weights: a trained model in one file, and pretrained weights from every ecosystem."""

from vitscratch.weights.builders import pretrained
from vitscratch.weights.contents import Weights
from vitscratch.weights.files import read_tensors, write_tensors
from vitscratch.weights.heads import NormedHead, PreLogitsHead
from vitscratch.weights.loading import LoadReport, build_from, load
from vitscratch.weights.reading import ECOSYSTEMS, recognise
from vitscratch.weights.resize import adapt_channels, resize_position_embedding
from vitscratch.weights.saved import FORMAT, SavedModel, load_model, save_model
from vitscratch.weights.shipped import shipped, shipped_names
from vitscratch.weights.sources import Source, read_weights
from vitscratch.weights.writing import to_ecosystem

__all__ = [
    "ECOSYSTEMS",
    "FORMAT",
    "LoadReport",
    "NormedHead",
    "PreLogitsHead",
    "SavedModel",
    "Source",
    "Weights",
    "adapt_channels",
    "build_from",
    "load",
    "load_model",
    "pretrained",
    "read_tensors",
    "read_weights",
    "recognise",
    "resize_position_embedding",
    "save_model",
    "shipped",
    "shipped_names",
    "to_ecosystem",
    "write_tensors",
]
