"""The way of each token through the blocks."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vitscratch.vit import VisionTransformer


class Trajectories(NamedTuple):
    """What `token_trajectories` gives. Stage 0 is what the first block gets, stage l what block l gives.

    Args:
        tokens: the residual stream, before the final norm; token 0 is the class token.
        norms: length of each token.
        kept: cosine of each token with itself at stage 0: how much of where it began is left, in [-1, 1].
        to_answer: cosine of each token with what the head reads at the end (before the final norm): the class token,
            or with `pool="mean"` the mean of the patches; in [-1, 1].
    """

    tokens: Float[Tensor, "stages b n d"]
    norms: Float[Tensor, "stages b n"]
    kept: Float[Tensor, "stages b n"]
    to_answer: Float[Tensor, "stages b n"]


@torch.no_grad()
def token_trajectories(model: VisionTransformer, images: Float[Tensor, "b c H W"]) -> Trajectories:
    """Each token before the first block and after every one.

    All tokens of the last block are computed, also those that the model leaves out because nobody reads them.
    `model.head(model.norm(tokens[stage, :, 0]))` is what the model would say if it ended there.

    Args:
        model: call `model.eval()` first.
        images: (b, c, H, W).

    Returns:
        `Trajectories`, of depth + 1 stages.
    """
    stages = [model.embed(images)]
    for block in model.blocks:
        stages.append(block(stages[-1]))
    tokens = torch.stack(stages)
    answer = tokens[-1, :, :1] if model.pool == "cls" else tokens[-1, :, 1:].mean(dim=1, keepdim=True)
    return Trajectories(
        tokens,
        tokens.norm(dim=-1),
        F.cosine_similarity(tokens, tokens[:1], dim=-1),
        F.cosine_similarity(tokens, answer, dim=-1),
    )
