"""Attention, written out to be read and fused to be fast, and multi-head self-attention (Appendix A)."""

import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, bfloat16, nn


def attention(
    q: Float[Tensor, "b h i k"],
    k: Float[Tensor, "b h j k"],
    v: Float[Tensor, "b h j k"],
    dropout: float = 0.0,
) -> tuple[Float[Tensor, "b h i k"], Float[Tensor, "b h i j"]]:
    """Every query takes a weighted mean of the values: A = softmax(q k^T / sqrt(D_h)), output A v (Eq. 6-7).

    Args:
        q, k, v: queries, keys and values, one slice per picture (b) and head (h).
        dropout: probability in [0, 1] with which a weight is set to zero. Active whenever it is not 0.

    Returns:
        The output, (b, h, i, k), and the weights A, (b, h, i, j): row i sums to one (before dropout)
        and says how much query i takes from each token j.
    """
    head_dim = q.shape[-1]
    scores = q @ k.mT / head_dim**0.5  # .mT swaps the last two axes
    weights = F.dropout(scores.softmax(dim=-1), dropout)  # Eq. 6
    return weights @ v, weights  # Eq. 7


class MultiHeadSelfAttention(nn.Module):
    """Attention of all tokens to all tokens, in several heads side by side (Eq. 5-8).

    Args:
        embed_dim: width of a token (D).
        num_heads: heads (the paper's k; in shapes, k is the width of one: D / num_heads).
        dropout: probability in [0, 1] of zeroing a number of the output, in training.
        attention_dropout: the same for an attention weight.
        fused: compute with `scaled_dot_product_attention` instead of `attention` above where that is faster.

    Shape:
        (b, n, d) -> (b, n, d), or (b, 1, d), the first token alone, with `one_query=True`.

    Raises:
        ValueError: embed_dim is not a multiple of num_heads, or attention_dropout no probability.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if not 0.0 <= attention_dropout <= 1.0:
            raise ValueError(f"attention_dropout {attention_dropout} is no probability; expected 0 to 1")
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            fitting = [heads for heads in range(1, embed_dim + 1) if embed_dim % heads == 0]
            nearest = min(fitting, key=lambda heads: abs(heads - num_heads), default="none, embed_dim is below 1")
            problem = f"embed_dim {embed_dim} does not split into {num_heads} heads of equal width"
            raise ValueError(f"{problem}; nearest: {nearest}")
        self.num_heads, self.attention_dropout, self.fused = num_heads, attention_dropout, fused
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)  # U_qkv of Eq. 5: rows q, then k, then v, each (h k)
        self.proj = nn.Linear(embed_dim, embed_dim)  # U_msa of Eq. 8
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"], one_query: bool = False) -> Float[Tensor, "b i d"]:
        if one_query:
            return self._one_query(x)
        q, k, v = self.queries_keys_values(x)
        dropout = self.attention_dropout if self.training else 0.0
        if self.fused and not (q.is_cpu and q.dtype == bfloat16):  # there two products are faster (docs/speed.md)
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        else:
            out, _ = attention(q, k, v, dropout)
        return self.dropout(self.proj(rearrange(out, "b h n k -> b n (h k)")))  # Eq. 8

    def queries_keys_values(
        self, x: Float[Tensor, "b n d"]
    ) -> tuple[Float[Tensor, "b h n k"], Float[Tensor, "b h n k"], Float[Tensor, "b h n k"]]:
        """Eq. 5: one linear layer makes q, k and v of all heads; each is (b, h, n, k)."""
        q, k, v = rearrange(self.qkv(x), "b n (three h k) -> three b h n k", three=3, h=self.num_heads)
        return q, k, v

    def _one_query(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b 1 d"]:
        """The first row of `forward` with no key and no value made: the products of Eq. 5 to 7 in another order.

        q (x W_k)^T = (q W_k^T) x^T and A (x W_v) = (A x) W_v: the right sides are far shorter for one query. The
        keys' bias adds the same to all its scores, which softmax does not see.
        """
        if type(self.qkv) is not nn.Linear or self.qkv.bias is None or (self.training and self.attention_dropout):
            return self.forward(x)[:, :1]  # a layer put in its place; weights that do not sum to one, as b_v needs
        w_q, w_k, w_v = rearrange(self.qkv.weight, "(three h k) d -> three h k d", three=3, h=self.num_heads)
        b_q, _, b_v = rearrange(self.qkv.bias, "(three h k) -> three h k", three=3, h=self.num_heads)
        q = einsum(x[:, 0], w_q, "b d, h k d -> b h k") + b_q
        scores = einsum(q, w_k, "b h k, h k d -> b h d") @ x.mT / q.shape[-1] ** 0.5
        seen = scores.softmax(dim=-1) @ x  # (b, h, d): what each head takes from the tokens themselves
        out = einsum(seen, w_v, "b h d, h k d -> b h k") + b_v
        return self.dropout(self.proj(rearrange(out, "b h k -> b 1 (h k)")))

    def weights(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n n"]:
        """The attention weights A for this input, without dropout (`vitscratch.explain` collects a model's)."""
        return attention(*self.queries_keys_values(x))[1]
