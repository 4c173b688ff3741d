"""Augmentation of a whole batch at once."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def random_affine(
    images: Float[Tensor, "b c H W"],
    generator: torch.Generator,
    *,
    degrees: float,
    shift: float,
    scale: float,
    shear: float = 0.0,
) -> Float[Tensor, "b c H W"]:
    """Turn, shift, scale and shear every picture by its own random amount, with bilinear interpolation.

    What comes in from outside the picture is a copy of its edge.

    Args:
        images: (b, c, H, W).
        generator: source of the amounts; each is uniform between its limit and minus its limit.
        degrees: of the turn. shift: in pixels, each way. scale: as a fraction (0.1: from 0.9 to 1.1 of the size).
        shear: of the rows, as a fraction of their distance from the middle one.
    """
    b, _, height, width = images.shape
    uniform = 2 * torch.rand(5, b, generator=generator) - 1
    angle, size = uniform[0] * math.radians(degrees), 1 / (1 + uniform[1] * scale)  # size: of the source
    slant, (dx, dy) = uniform[2] * shear, uniform[3:] * shift
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
    grid = F.affine_grid(to_source.T.reshape(b, 2, 3).to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
