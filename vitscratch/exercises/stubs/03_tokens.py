"""Exercise 3: class token and positions.

Write Tokens. It puts one learned vector, the class token, in front of the patches' tokens, and adds a learned table of
positions, one row for each of the N + 1 tokens:

    Eq. 1:  z_0 = [x_class; x_p^1 E; ...; x_p^N E] + E_pos

Both are parameters, shared by all pictures, and start at zero or are drawn at random once, when the module is built.

Shapes: patches (b, n, embed_dim) -> tokens (b, 1 + n, embed_dim), the class token first. n = num_patches; any b.

Minutes:     15
Difficulty:  1 of 3
Tutorial:    tutorials/02_tokens.ipynb
Check:       vitscratch check 03_tokens.py
"""

from torch import Tensor, nn


class Tokens(nn.Module):
    """(b, n, embed_dim) -> (b, 1 + n, embed_dim)."""

    def __init__(self, num_patches: int, embed_dim: int) -> None:
        super().__init__()
        raise NotImplementedError("write Tokens.__init__: make the class token and the table of positions")

    def forward(self, patches: Tensor) -> Tensor:
        raise NotImplementedError("write Tokens.forward: the class token in front, then add the positions")
