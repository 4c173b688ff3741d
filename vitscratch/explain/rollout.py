"""Attention through all blocks at once, and what of it concerns the answer."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


def attention_rollout(maps: Float[Tensor, "depth b h n n"]) -> Float[Tensor, "b n n"]:
    """How much of each token after the last block comes from each token before the first, by attention alone.

    With A_l the mean over heads in block l, the rollout is the product of 0.5 A_l + 0.5 I, the last block on the left.
    The identity stands for the residual, by which a token keeps itself (arXiv 2005.00928; half is its authors' guess,
    not measured in the model). The paper draws its attention maps with it. MLPs, norms and values are left out.

    Args:
        maps: as from `attention_maps`; the rows of the last axis sum to one.

    Returns:
        (b, n, n): `rollout[picture, token, origin]`; every row sums to one, for no factor changes the sums.
    """
    heads = maps.mean(dim=2)
    identity = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    rollout = identity.expand(maps.shape[1], -1, -1)
    for weights in heads:
        rollout = (0.5 * weights + 0.5 * identity) @ rollout  # a later block looks at what an earlier one has mixed
    return rollout


def gaze(weights: Float[Tensor, "*axes n n"], pool: Literal["cls", "mean"] = "cls") -> Float[Tensor, "*axes patches"]:
    """Of attention weights or a rollout, what the token that the head reads takes from each patch.

    Args:
        weights: (..., query, key) with the class token first: some of `attention_maps`, or `attention_rollout`.
        pool: what the head reads, as `model.pool`: the class token's row, or the mean of the patches' rows.

    Returns:
        (..., n - 1), one number for each patch, row by row; scaled so that an even gaze is 1 everywhere. What is taken
        from the class token is left out.
    """
    rows = weights[..., :1, 1:] if pool == "cls" else weights[..., 1:, 1:]
    seen = rows.mean(dim=-2)
    return seen / seen.mean(dim=-1, keepdim=True).clamp_min(torch.finfo(seen.dtype).tiny)  # 0 if it looks at no patch
