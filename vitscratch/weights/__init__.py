"""Weights: a trained model in one file, and the files of other ecosystems."""

from vitscratch.weights.contents import Weights
from vitscratch.weights.files import read_tensors, write_tensors
from vitscratch.weights.heads import PreLogitsHead
from vitscratch.weights.reading import ECOSYSTEMS, read_weights, recognise
from vitscratch.weights.saved import FORMAT, SavedModel, load_model, save_model
from vitscratch.weights.writing import to_ecosystem

__all__ = [
    "ECOSYSTEMS",
    "FORMAT",
    "PreLogitsHead",
    "SavedModel",
    "Weights",
    "load_model",
    "read_tensors",
    "read_weights",
    "recognise",
    "save_model",
    "to_ecosystem",
    "write_tensors",
]
