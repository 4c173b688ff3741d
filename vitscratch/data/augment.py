"""Augmentation of a whole batch at once, on the device the batch is on.

An augmentation is a pure function of a batch and of numbers drawn for it: all its randomness is `draws` uniform numbers
for each picture. So a picture gets the same augmentation in whichever process it lands, and an epoch can be repeated
from its middle.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@runtime_checkable
class Augmentation(Protocol):
    """Changes (b, c, H, W) pictures by (b, draws) numbers, uniform in [0, 1), a row for each picture."""

    @property
    def draws(self) -> int:
        """Uniform numbers needed for each picture."""
        ...

    def __call__(
        self, images: Float[Tensor, "b c H W"], uniform: Float[Tensor, "b draws"]
    ) -> Float[Tensor, "b c H W"]: ...


@dataclass(frozen=True)
class RandomAffine:
    """Turn, shift, scale and shear every picture by its own random amount, with bilinear interpolation.

    Each amount is uniform between its limit and minus its limit. What comes in from outside is a copy of the edge.

    Args:
        degrees: of the turn. shift: in pixels, each way. scale: as a fraction (0.1: from 0.9 to 1.1 of the size).
        shear: of the rows, as a fraction of their distance from the middle one.
    """

    degrees: float
    shift: float
    scale: float
    shear: float = 0.0

    @property
    def draws(self) -> int:
        """Angle, size, slant, shift right and shift down."""
        return 5

    def __call__(self, images: Float[Tensor, "b c H W"], uniform: Float[Tensor, "b draws"]) -> Float[Tensor, "b c H W"]:
        height, width = images.shape[2:]
        amount = (2 * uniform - 1).T
        angle, size = amount[0] * math.radians(self.degrees), 1 / (1 + amount[1] * self.scale)  # size: of the source
        slant, (dx, dy) = amount[2] * self.shear, amount[3:] * self.shift
        cos, sin = torch.cos(angle), torch.sin(angle)
        # Where each pixel of the result comes from, in grid_sample's coordinates from -1 to 1.
        aspect = height / width  # a turn is one in pixels, not in those coordinates
        to_source = torch.stack(
            [
                cos * size,
                (slant * cos - sin) * size * aspect,
                2 * dx / width,
                sin * size / aspect,
                (slant * sin + cos) * size,
                2 * dy / height,
            ]
        )
        grid = F.affine_grid(to_source.T.reshape(-1, 2, 3).to(images), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class RandomCropFlip:
    """Pad, crop back to the old size at a random place, and mirror left to right: the usual CIFAR augmentation.

    Args:
        padding: pixels on each side, at least 0; with "reflect" less than the picture's sides.
        flip: probability of the mirror image. What a mirror changes (digits, text) wants 0.
        fill: "reflect" continues the picture as in a mirror, "zero" with black.
    """

    padding: int
    flip: float = 0.5
    fill: Literal["reflect", "zero"] = "reflect"

    def __post_init__(self) -> None:
        if self.padding < 0 or not 0 <= self.flip <= 1 or self.fill not in ("reflect", "zero"):
            raise ValueError(
                f"RandomCropFlip(padding={self.padding}, flip={self.flip}, fill={self.fill!r}): expected a padding of "
                "0 or more, a flip probability in [0, 1], and a fill of 'reflect' or 'zero'"
            )

    @property
    def draws(self) -> int:
        """Shift down, shift right, and whether to flip."""
        return 3

    def __call__(self, images: Float[Tensor, "b c H W"], uniform: Float[Tensor, "b draws"]) -> Float[Tensor, "b c H W"]:
        b, c, height, width = images.shape
        if self.fill == "reflect" and self.padding >= min(height, width):
            raise ValueError(
                f"padding {self.padding} px reflects a picture of {height} x {width} px more than once; "
                f"expected at most {min(height, width) - 1}, or fill='zero'"
            )
        shifts = (uniform[:, :2] * (2 * self.padding + 1)).long() - self.padding
        columns = torch.arange(width, device=images.device).expand(b, width)
        columns = torch.where(uniform[:, 2:] < self.flip, width - 1 - columns, columns) + shifts[:, 1:]
        rows = torch.arange(height, device=images.device) + shifts[:, :1]
        # One gather from flattened pixels does crop and flip together.
        source = _reflected(rows, height)[:, :, None] * width + _reflected(columns, width)[:, None, :]
        cropped = images.flatten(2).gather(2, source.view(b, 1, -1).expand(b, c, -1)).view(images.shape)
        if self.fill == "reflect":
            return cropped
        inside = _inside(rows, height)[:, :, None] & _inside(columns, width)[:, None, :]
        return cropped * inside[:, None]


def _reflected(index: Int[Tensor, "b n"], size: int) -> Int[Tensor, "b n"]:
    """Indices before the first and after the last mirrored back; clamped, for those that "zero" blackens anyway."""
    return (size - 1 - (size - 1 - index.abs()).abs()).clamp(min=0)


def _inside(index: Int[Tensor, "b n"], size: int) -> Bool[Tensor, "b n"]:
    return (index >= 0) & (index < size)


@dataclass(frozen=True)
class Cutout:
    """Cover a square of every picture with the picture's mean colour (arXiv 1708.04552).

    The square's centre is any pixel, so part of it may lie outside.

    Args:
        size: side of the square in pixels, at least 1.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"Cutout(size={self.size}): expected at least 1 pixel")

    @property
    def draws(self) -> int:
        """Row and column of the centre."""
        return 2

    def __call__(self, images: Float[Tensor, "b c H W"], uniform: Float[Tensor, "b draws"]) -> Float[Tensor, "b c H W"]:
        rows = self._covered(uniform[:, :1], images.shape[2])
        columns = self._covered(uniform[:, 1:], images.shape[3])
        covered = (rows[:, :, None] & columns[:, None, :])[:, None]
        return torch.where(covered, images.mean(dim=(2, 3), keepdim=True), images)

    def _covered(self, uniform: Float[Tensor, "b 1"], side: int) -> Bool[Tensor, "b side"]:
        first = (uniform * side).long() - self.size // 2
        return _inside(torch.arange(side, device=uniform.device) - first, self.size)


class Chain:
    """Augmentations one after the other.

    Args:
        augmentations: the first is applied first; none at all changes nothing.
    """

    def __init__(self, *augmentations: Augmentation) -> None:
        self.augmentations = augmentations

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.augmentations))})"

    @property
    def draws(self) -> int:
        """The sum of theirs."""
        return sum(augmentation.draws for augmentation in self.augmentations)

    def __call__(self, images: Float[Tensor, "b c H W"], uniform: Float[Tensor, "b draws"]) -> Float[Tensor, "b c H W"]:
        parts = uniform.split([augmentation.draws for augmentation in self.augmentations], dim=1)
        for augmentation, part in zip(self.augmentations, parts, strict=True):
            images = augmentation(images, part)
        return images
