"""Weights: a trained model in one file, and the files of other ecosystems."""

from vitscratch.weights.saved import FORMAT, SavedModel, load_model, save_model

__all__ = ["FORMAT", "SavedModel", "load_model", "save_model"]
