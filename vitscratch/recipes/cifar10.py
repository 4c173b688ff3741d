"""CIFAR-10 from scratch with a plain small ViT: no convolution beyond the patch projection, no pretraining.

Commands: `vitscratch train cifar10` (for a GPU), `vitscratch train cifar10-short` (a quarter of an hour on CPU cores)
and `vitscratch train cifar10-cpu` (the preset vit_nano_32 for patient CPUs). All download CIFAR-10 unless `--data`
names a folder, or an .npz of JPEG files (`vitscratch.data.load_splits` describes it).

cifar10: NOT YET MEASURED (it needs a GPU).
cifar10-short: test accuracy 65.67 % (6,567 of 10,000, one seed), 17 minutes of one CPU core (AMD EPYC, torch 2.15,
fp32), on CIFAR-10 as JPEG files of quality 75, which are a little worse than the originals.
cifar10-cpu: test accuracy 77.85 % (7,785 of 10,000, one seed), 81 minutes of one CPU core (AMD EPYC with AVX-512 BF16,
torch 2.15, bf16), on the same JPEG files, with `--validation-fraction 0.02 --threads 1`. The weights that come
with the package (`vit_nano_32(weights="cifar10")`) had a second round from there; their model card says how.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vitscratch.config import ViTConfig
from vitscratch.recipes.base import Recipe

if TYPE_CHECKING:
    from vitscratch.data import Augmentation


@dataclass(frozen=True, kw_only=True)
class Cifar10(Recipe):
    """CIFAR-10 from scratch for a GPU: 100 epochs, mixup and cutmix, averaged weights, compiled. Not yet measured."""

    data: str = "cifar10"
    preset: str = "vit_nano_32"
    epochs: int = 100
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warmup_epochs: float = 5.0
    label_smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    ema_decay: float = 0.999
    compile: bool = True
    validation_fraction: float = 0.05

    embed_dim: int = 192
    """Width of a token."""

    depth: int = 6
    """Encoder blocks."""

    num_heads: int = 3
    """Attention heads; divides the width."""

    position: Literal["normal", "sincos"] = "sincos"

    padding: int = 4
    """Pixels by which a picture is shifted at most, each way."""

    def augmentation(self) -> "Augmentation | None":
        """Random shift and mirror image."""
        from vitscratch.data import RandomCropFlip

        return RandomCropFlip(self.padding, flip=0.5)

    def model_config(self, num_classes: int) -> ViTConfig:
        """The preset with this width, depth and number of heads; the MLP is four times as wide."""
        return replace(
            super().model_config(num_classes),
            embed_dim=self.embed_dim,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_dim=4 * self.embed_dim,
        )


@dataclass(frozen=True, kw_only=True)
class Cifar10Short(Cifar10):
    """CIFAR-10 from scratch for CPUs: a narrower model, 5 epochs, no mixing, nothing compiled: 65.67 % (see above)."""

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema_decay: float = 0.0
    compile: bool = False
    embed_dim: int = 96


@dataclass(frozen=True, kw_only=True)
class Cifar10Cpu(Cifar10Short):
    """CIFAR-10 from scratch for patient CPUs: the preset vit_nano_32, 24 epochs: 77.85 % (see above)."""

    epochs: int = 24
    batch_size: int = 128
    label_smoothing: float = 0.0  # what transfers best is not smoothed (arXiv 2010.16402)
    embed_dim: int = 192
