"""The MLP of an encoder block."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class MLP(nn.Module):
    """Two linear layers with a GELU between them, applied to every token by itself (section 3.1).

    GELU is the exact x * Phi(x), not its tanh approximation (they differ by up to 5e-4).

    Args:
        embed_dim: width of a token (D).
        mlp_dim: width of the hidden layer, 4 * D in the paper.
        dropout: probability in [0, 1] of zeroing a number after the GELU and after the second layer, in training.

    Shape:
        (b, n, d) -> (b, n, d).
    """

    def __init__(self, embed_dim: int, mlp_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, mlp_dim)
        self.fc2 = nn.Linear(mlp_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        hidden = self.dropout(F.gelu(self.fc1(x)))
        return self.dropout(self.fc2(hidden))
