"""Exercise 6: the MLP of an encoder block.

Two linear layers, both with bias, and a GELU between them; every token by itself (section 3.1 of arXiv 2010.11929):

    MLP(z) = W_2 gelu(W_1 z + b_1) + b_2        gelu(x) = x * Phi(x)

Phi is the distribution function of the normal distribution; no approximation.

Shapes:      (b, n, d) -> (b, n, d); between the layers (b, n, mlp_dim)
Minutes:     10
Difficulty:  1 of 3
Tutorial:    tutorials/04_encoder_block.ipynb
Check:       vitscratch check 06_mlp.py
"""

from torch import Tensor, nn


class MLP(nn.Module):
    """(b, n, d) -> (b, n, d)."""

    def __init__(self, embed_dim: int, mlp_dim: int) -> None:
        super().__init__()
        raise NotImplementedError("write MLP: make the two linear layers")

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError("write forward: first layer, GELU, second layer")
