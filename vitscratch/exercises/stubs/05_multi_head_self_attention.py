"""Exercise 5: multi-head self-attention.

Queries, keys and values are linear functions of the tokens (with bias). Each is cut into heads: head 0 has the first
D_h = D / num_heads numbers of a token, head 1 the next, and so on. Each head attends by itself; the heads' outputs
are put side by side again, and a last linear layer (with bias) projects them (Eq. 5 to 8 of arXiv 2010.11929):

    [q, k, v] = z U_qkv        A = softmax(q k^T / sqrt(D_h))        SA(z) = A v
    MSA(z) = [SA_1(z); SA_2(z); ...; SA_h(z)] U_msa

q, k and v may be three layers or one. If it is one, its output is first q, then k, then v, each head after head.

Shapes:      (b, n, d) -> (b, n, d); between them (b, h, n, d_h), where h * d_h = d
Minutes:     30
Difficulty:  3 of 3
Tutorial:    tutorials/03_attention.ipynb
Check:       vitscratch check 05_multi_head_self_attention.py
"""

from torch import Tensor, nn


class MultiHeadSelfAttention(nn.Module):
    """(b, n, d) -> (b, n, d)."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        raise NotImplementedError("write MultiHeadSelfAttention: make the layers for queries, keys and values")

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError("write forward: make q, k and v and cut them into heads, each (b, h, n, d_h)")
