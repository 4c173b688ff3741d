"""A small ViT learns to read handwritten digits (scikit-learn's 1,797 scans of 8 x 8 pixels).

Command: `vitscratch quickstart` (this and the parity proof), `vitscratch bench digits` (beside baselines).
RESULT-PLACEHOLDER
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from vitscratch.config import PRESETS
from vitscratch.data import Pictures, TensorBatches, random_affine, stratified_split
from vitscratch.training import EpochRecord, evaluate, fit
from vitscratch.vit import VisionTransformer, init_weights


@dataclass(frozen=True)
class DigitsRecipe:
    """Everything that decides the result. Chosen by validation inside the training part of split 0."""

    preset: str = "vit_nano_8"
    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 3.0
    label_smoothing: float = 0.1
    degrees: float = 12.0
    shift: float = 0.7
    scale: float = 0.1
    shear: float = 0.0
    test_fraction: float = 0.2


@dataclass(frozen=True)
class Split:
    """The two parts of a set, normalised with the training part's mean and standard deviation."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    train_indices: torch.Tensor
    test_indices: torch.Tensor


def split(pictures: Pictures, test_fraction: float, seed: int) -> Split:
    """Hold out a stratified part. Statistics come from the training part: the test part is used for nothing."""
    train, test = stratified_split(pictures.labels, test_fraction, seed)
    std, mean = torch.std_mean(pictures.images[train])
    images = (pictures.images - mean) / std
    return Split(images[train], pictures.labels[train], images[test], pictures.labels[test], train, test)


def train(
    recipe: DigitsRecipe,
    data: Split,
    seed: int,
    device: str = "cpu",
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> tuple[VisionTransformer, list[EpochRecord]]:
    """Train on the training part of a split, for a fixed number of epochs."""
    torch.manual_seed(seed)
    model = VisionTransformer.from_config(PRESETS[recipe.preset])
    init_weights(model, position="sincos")
    augment = partial(
        random_affine, degrees=recipe.degrees, shift=recipe.shift, scale=recipe.scale, shear=recipe.shear
    )
    history = fit(
        model.to(device),
        TensorBatches(data.train_images, data.train_labels, recipe.batch_size, seed=seed, augment=augment),
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_epochs=recipe.warmup_epochs,
        label_smoothing=recipe.label_smoothing,
        on_epoch=on_epoch,
    )
    return model, history


def held_out_accuracy(model: VisionTransformer, data: Split) -> float:
    """Fraction of the held-out part that the model reads correctly."""
    return evaluate(model, TensorBatches(data.test_images, data.test_labels, batch_size=256)).accuracy
