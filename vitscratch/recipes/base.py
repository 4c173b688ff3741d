"""What a recipe says, and what follows from it: pictures, model and batches. Needs no torch until it is run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vitscratch.config import PRESETS, TrainingConfig, ViTConfig

if TYPE_CHECKING:
    from vitscratch.data import Augmentation
    from vitscratch.vit import VisionTransformer


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainingConfig):
    """An experiment in numbers. Together with the pictures it decides the result."""

    data: str
    """The pictures: a folder (FOLDER/class/*.jpg or FOLDER/{train,val,test}/class/*.jpg), a built-in set (digits,
    cifar10, cifar100, fashion-mnist), or an .npz of JPEG files."""

    data_dir: Path | None = None
    """Where files of built-in sets lie, or are downloaded to; by default a cache folder in your home."""

    validation_fraction: float = 0.1
    """Share of the pictures that is held out to watch the training, if the set has no validation part."""

    test_fraction: float = 0.2
    """Share of the pictures that is held out for the very end, if the set has no test part."""

    split_seed: int = 0
    """Of these splits."""

    skip_bad: bool = False
    """Train without the files that cannot be decoded, instead of refusing the folder."""

    preset: str
    """The model's size: a name that `vitscratch summary` knows."""

    image_size: int | None = None
    """Side in pixels to which pictures are brought; by default the preset's."""

    batch_size: int = 64
    """Pictures of a batch, over all processes together."""

    workers: int = 2
    """Processes that decode pictures when the set does not fit into memory; 0 decodes in the loop."""

    threads: int | None = None
    """CPU threads to compute with; None leaves it to torch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is unknown; there are {', '.join(PRESETS)}")
        if self.batch_size < 1 or self.workers < 0:
            raise ValueError(
                f"batch_size {self.batch_size} and workers {self.workers}: expected at least 1 and at least 0"
            )

    def quick(self) -> "Recipe":
        """The same, small enough to end within two minutes on two cores."""
        return replace(self, epochs=1, warmup_epochs=0.0)

    def picture_shape(self) -> tuple[tuple[int, int], int]:
        """(height, width) in pixels and channels of the pictures that the model takes."""
        preset = PRESETS[self.preset]
        size = self.image_size if self.image_size is not None else preset.image_size
        return (size, size) if isinstance(size, int) else size, preset.in_channels

    def model_config(self, num_classes: int) -> ViTConfig:
        """Architecture of the model for so many classes."""
        return replace(PRESETS[self.preset], image_size=self.picture_shape()[0], num_classes=num_classes)

    def build(self, config: ViTConfig) -> "VisionTransformer":
        """A fresh model, from torch's random state."""
        from vitscratch.vit import VisionTransformer

        return VisionTransformer.from_config(config)

    def augmentation(self) -> "Augmentation | None":
        """What happens to training pictures, at random; None for nothing."""
        return None
