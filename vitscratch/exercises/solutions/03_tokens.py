"""What `VisionTransformer` of the library does before its first block."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Tokens(nn.Module):
    """Put the class token in front of the patches' tokens, and add the positions (Eq. 1)."""

    def __init__(self, num_patches: int, embed_dim: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + num_patches, embed_dim).normal_(std=0.02))

    def forward(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b _ d"]:
        cls_token = self.cls_token.expand(len(patches), -1, -1)
        return torch.cat([cls_token, patches], dim=1) + self.pos_embed
