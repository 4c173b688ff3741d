"""Exercise 8: the Vision Transformer.

Write VisionTransformer from the parts: patches to tokens (exercise 2), class token and positions (exercise 3), depth
encoder blocks one after the other (exercise 7), a final LayerNorm (eps 1e-6), and a linear head with a bias that reads
the class token:

    Eq. 1:  z_0 = [x_class; x_p^1 E; ...; x_p^N E] + E_pos
    Eq. 2 and 3, for l = 1 ... depth: z_l = block_l(z_{l-1})
    Eq. 4:  y = LN(z_depth^0), and the logits are the head's linear map of y. No softmax: the loss does that.

Shapes: images (b, in_channels, H, W) -> logits (b, num_classes). Any image_size that is a multiple of patch_size.

Use the parts below, or your own: write them into this file, or import them from your file of an earlier exercise, as
in: from encoder_block import EncoderBlock. Their signatures:
PatchEmbedding(image_size, patch_size, in_channels, embed_dim), EncoderBlock(embed_dim, num_heads, mlp_dim).
(Only the library's PatchEmbedding has num_patches; N is (H / p) (W / p).)

Minutes:     30
Difficulty:  3 of 3
Tutorial:    tutorials/05_vit_b_16.ipynb
Check:       vitscratch check 08_vision_transformer.py
"""

from torch import Tensor, nn

from vitscratch import EncoderBlock, PatchEmbedding  # noqa: F401


class VisionTransformer(nn.Module):
    """(b, c, H, W) -> (b, num_classes)."""

    def __init__(
        self, image_size: int, patch_size: int, in_channels: int, num_classes: int,
        embed_dim: int, depth: int, num_heads: int, mlp_dim: int,
    ) -> None:  # fmt: skip
        super().__init__()
        raise NotImplementedError("write VisionTransformer.__init__: patch embedding, class token, positions, ...")

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError("write VisionTransformer.forward: Eq. 1 to Eq. 4, from pictures to logits")
