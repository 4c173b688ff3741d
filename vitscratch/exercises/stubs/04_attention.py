"""Exercise 4: attention.

Every query looks at all keys and takes a weighted mean of their values (Eq. 6 and 7 of arXiv 2010.11929):

    A = softmax(q k^T / sqrt(D_h))        output = A v

q, k and v come for each picture (b) and each head (h); each query, key or value is d_h = D_h numbers wide.
Row i of A says how much query i takes from each key: it is positive and sums to one.

Shapes:      q: (b, h, queries, d_h); k and v: (b, h, keys, d_h), with as many keys as queries, or more, or fewer
             -> output: (b, h, queries, d_h), weights A: (b, h, queries, keys)
Minutes:     15
Difficulty:  1 of 3
Tutorial:    tutorials/03_attention.ipynb
Check:       vitscratch check 04_attention.py
"""

from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return (output, weights)."""
    raise NotImplementedError("write attention: multiply every query with every key to get the scores")
