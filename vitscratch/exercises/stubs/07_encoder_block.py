"""Exercise 7: the encoder block.

Tokens look at each other, then each is changed by itself; both times the result is added to the token. The norm comes
first, inside the branch; what is added to is not normalised (Eq. 2 and 3 of arXiv 2010.11929):

    z' = MSA(LN(z)) + z
    z  = MLP(LN(z')) + z'

There are two LayerNorms, each with parameters of its own. Their eps is 1e-6.

Shapes:      (b, n, d) -> (b, n, d)
Minutes:     20
Difficulty:  2 of 3
Tutorial:    tutorials/04_encoder_block.ipynb
Check:       vitscratch check 07_encoder_block.py

You may use your own attention and MLP: import them from your files of the earlier exercises, in place of the import
below, as in: from mlp import MLP.
"""

from torch import Tensor, nn

from vitscratch import MLP, MultiHeadSelfAttention  # noqa: F401


class EncoderBlock(nn.Module):
    """(b, n, d) -> (b, n, d)."""

    def __init__(self, embed_dim: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        raise NotImplementedError("write EncoderBlock: make two norms, the attention and the MLP")

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError("write forward: Eq. 2, then Eq. 3")
