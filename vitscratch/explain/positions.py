"""What a model has learned about where patches are."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vitscratch.vit import VisionTransformer


def position_similarity(model: VisionTransformer) -> Float[Tensor, "rows columns rows columns"]:
    """Cosine similarity of every patch's position embedding with every other's (the paper's Figure 7, centre).

    Returns:
        `similarity[i, j]` is a picture of the grid: how alike each position is to the one in row i, column j;
        values in [-1, 1].
    """
    rows, _ = model.patch_embed.grid_size
    directions = F.normalize(model.pos_embed[0, 1:].detach(), dim=-1)  # row 0 is the class token's
    return rearrange(directions @ directions.mT, "(i j) (k l) -> i j k l", i=rows, k=rows)
