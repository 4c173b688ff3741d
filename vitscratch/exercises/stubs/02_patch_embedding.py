"""Exercise 2: map every patch to a token.

Write PatchEmbedding. One and the same linear map, with a bias, turns every patch into a token of embed_dim numbers:

    Eq. 1:  x_p^1 E; x_p^2 E; ...; x_p^N E

Either cut (exercise 1) and use nn.Linear, or use nn.Conv2d: a convolution that steps over the picture patch by patch.

Shapes: images (b, in_channels, H, W) -> tokens (b, n, embed_dim), row by row, n = (H / p) * (W / p), p = patch_size.
image_size is the side of a picture in pixels; supporting (height, width) as well is welcome. No class token and no
positions yet: those are exercise 3.

Minutes:     15
Difficulty:  1 of 3
Tutorial:    tutorials/01_patches.ipynb
Check:       vitscratch check 02_patch_embedding.py
"""

from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """(b, c, H, W) -> (b, n, embed_dim)."""

    def __init__(self, image_size: int, patch_size: int, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        raise NotImplementedError("write PatchEmbedding.__init__: make the layer that projects a patch")

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError("write PatchEmbedding.forward: one token for each patch, row by row")
