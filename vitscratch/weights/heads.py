"""The head of the first release's pretraining: a hidden layer before the logits."""

from jaxtyping import Float
from torch import Tensor, nn


class PreLogitsHead(nn.Module):
    """A hidden layer with tanh, then the logits (arXiv 2010.11929, section 3.1: the head at pre-training time).

    Put it in place of `VisionTransformer.head`; torchvision calls its width `representation_size`.

    Args:
        embed_dim: width of what it reads. representation_size: width of the hidden layer.
        num_classes: length of the logits.

    Shape:
        (b, embed_dim) -> (b, num_classes).
    """

    def __init__(self, embed_dim: int, representation_size: int, num_classes: int) -> None:
        super().__init__()
        self.pre_logits = nn.Linear(embed_dim, representation_size)
        self.linear = nn.Linear(representation_size, num_classes)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b classes"]:
        return self.linear(self.pre_logits(x).tanh())
