"""The encoder block: Eq. 2 and Eq. 3."""

from jaxtyping import Float
from torch import Tensor, nn

from vitscratch.attention import MultiHeadSelfAttention
from vitscratch.mlp import MLP


class EncoderBlock(nn.Module):
    """Tokens look at each other, then each thinks by itself; both times the result is added to the token.

    The norm comes first (pre-norm): the sum x + ... is never normalised, so a token, and its gradient,
    has a straight way through all blocks. The original Transformer normalised the sum.

    Args:
        embed_dim, num_heads: width of a token and number of heads, for `MultiHeadSelfAttention`.
        mlp_dim: hidden width, for `MLP`.
        dropout, attention_dropout: probabilities in [0, 1], passed on to both.

    Shape:
        (b, n, d) -> (b, n, d), or (b, 1, d), the first token alone, with `one_query=True`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = MultiHeadSelfAttention(embed_dim, num_heads, dropout, attention_dropout)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = MLP(embed_dim, mlp_dim, dropout)

    def forward(self, x: Float[Tensor, "b n d"], one_query: bool = False) -> Float[Tensor, "b i d"]:
        if one_query:
            return self._one_query(x)
        x = x + self.attn(self.norm1(x))  # Eq. 2
        return x + self.mlp(self.norm2(x))  # Eq. 3

    def _one_query(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b 1 d"]:
        x = x[:, :1] + self.attn(self.norm1(x), one_query=True)  # it still looks at all tokens
        return x + self.mlp(self.norm2(x))
