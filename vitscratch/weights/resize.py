"""Weights for other pictures than they were trained on: another grid of patches, other channels."""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

Method = Literal["timm", "torchvision"]


def resize_position_embedding(
    pos_embed: Float[Tensor, "1 n d"],
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    method: Method = "timm",
) -> Float[Tensor, "1 _ d"]:
    """Interpolate the positions of patches to another grid; the class token's row stays as it is, to the bit.

    Two bicubic forms are in use, and weights do best with the one that their library fine-tunes with: "timm" as
    `timm.layers.resample_abs_pos_embed` (smoothed where the grid shrinks), "torchvision" as
    `torchvision.models.vision_transformer.interpolate_embeddings` (corners stay corners). Half precision is
    computed in float32.

    Args:
        pos_embed: (1, 1 + rows * columns, d), the class token first.
        old_grid, new_grid: rows and columns of patches. The same grid gives the same tensor.
        method: "timm" or "torchvision".

    Raises:
        ValueError: another method, a grid without patches, or positions that are not those of `old_grid`.
    """
    if method not in ("timm", "torchvision"):
        raise ValueError(f"method {method!r} is unknown; expected 'timm' or 'torchvision'")
    rows, columns = old_grid
    if pos_embed.shape[1] != 1 + rows * columns:
        raise ValueError(
            f"pos_embed has {pos_embed.shape[1]} rows; expected {1 + rows * columns}: the class token's and one for "
            f"each of {rows} x {columns} patches"
        )
    if min(new_grid) < 1:
        raise ValueError(f"a grid of {new_grid[0]} x {new_grid[1]} patches; expected at least 1 x 1")
    if tuple(new_grid) == tuple(old_grid):
        return pos_embed
    grid = rearrange(pos_embed[:, 1:], "1 (rows columns) d -> 1 d rows columns", rows=rows)
    if method == "timm":
        resized = F.interpolate(_at_least_float32(grid), size=new_grid, mode="bicubic", antialias=True)
    else:
        resized = F.interpolate(_at_least_float32(grid), size=new_grid, mode="bicubic", align_corners=True)
    patches = rearrange(resized.to(pos_embed.dtype), "1 d rows columns -> 1 (rows columns) d")
    return torch.cat([pos_embed[:, :1], patches], dim=1)


def adapt_channels(weight: Float[Tensor, "d c p q"], in_channels: int) -> Float[Tensor, "d _ p q"]:
    """Fit the kernel of a patch embedding to pictures with another number of channels, as timm does.

    Grey: the sum over the channels, so that a grey picture gives what its copies in every channel gave.
    Otherwise the channels are repeated in turn and scaled by old / new, so that tokens keep their size.

    Args:
        weight: (d, c, p, q), `patch_embed.proj.weight`.
        in_channels: at least 1. The same number gives the same tensor.

    Raises:
        ValueError: fewer than 1 channel.
    """
    if in_channels < 1:
        raise ValueError(f"in_channels {in_channels}: expected at least 1")
    channels = weight.shape[1]
    if in_channels == channels:
        return weight
    exact = _at_least_float32(weight)
    if in_channels == 1:
        return exact.sum(dim=1, keepdim=True).to(weight.dtype)
    turn = torch.arange(in_channels, device=weight.device) % channels
    return (exact[:, turn] * (channels / in_channels)).to(weight.dtype)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor
