"""Real or generated? Handwritten digits (scikit-learn's scans of 8 x 8 pixels) against ones that a model has drawn.

The fakes come from principal components and a kernel density, fitted to the training part alone
(`vitscratch.data.real_or_fake`): 1,797 scans and 1,797 fakes, of which a fifth is validation and a fifth is test.

Command: `vitscratch train fake-digits`.
"""

from dataclasses import dataclass
from typing import Literal

from vitscratch.recipes.base import Recipe


@dataclass(frozen=True, kw_only=True)
class FakeDigits(Recipe):
    """Real handwritten digits against generated ones: a ViT of 338,114 parameters, about a minute on one CPU core."""

    data: str = "fake-digits"
    preset: str = "vit_nano_8"
    validation_fraction: float = 0.2
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 3.0
    label_smoothing: float = 0.1
    threads: int | None = 1  # see `Digits`
    position: Literal["normal", "sincos"] = "sincos"
    # No augmentation: a scan that is turned is smoothed, and smoothness is what gives the fakes away.
