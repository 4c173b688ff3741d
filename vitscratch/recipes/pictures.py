"""A small ViT learns to tell apart the classes of any folder of pictures, from scratch, at 32 x 32 pixels.

Command: `vitscratch train pictures --data FOLDER`. FOLDER holds one folder for each class (a tenth is then held out for
validation and a fifth for the test), or train, val and test with these folders in each. Add `--image-size` for larger
pictures: with patches of 4 pixels, 64 x 64 cost four times as many tokens.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitscratch.recipes.base import Recipe

if TYPE_CHECKING:
    from vitscratch.data import Augmentation


@dataclass(frozen=True, kw_only=True)
class PicturesRecipe(Recipe):
    """Any folder of pictures, one folder for each class: a small ViT at 32 x 32 pixels, from scratch."""

    data: str = ""
    preset: str = "vit_nano_32"
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_epochs: float = 3.0
    label_smoothing: float = 0.1

    padding: int = 4
    """Pixels by which a picture is shifted at most, each way."""

    flip: float = 0.5
    """Probability of a mirror image; 0 where left and right matter, as in letters."""

    def augmentation(self) -> "Augmentation | None":
        """Random shift and mirror image."""
        from vitscratch.data import RandomCropFlip

        return RandomCropFlip(self.padding, self.flip)
