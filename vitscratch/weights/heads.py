"""Heads that are more than one linear layer, and how their names tell them.

A tensor called "head.norm.*" belongs to a `NormedHead`, "head.pre_logits.*" to a `PreLogitsHead`; in both, what makes
the logits is "head.linear".
"""

from collections.abc import Iterable, Mapping

from jaxtyping import Float
from torch import Tensor, nn

from vitscratch.vit import VisionTransformer

_NORM, _PRE_LOGITS = "head.norm.bias", "head.pre_logits.bias"  # vectors: nobody can transpose them


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


class NormedHead(nn.Module):
    """A norm, then the logits: what timm and MAE call `fc_norm`, for models whose patches are averaged before the norm.

    Put it in place of `VisionTransformer.head`, and `nn.Identity()` in place of `norm`. Then `tokens` and `features`
    of that model give tokens, and their mean, that no norm has seen; `vitscratch.transfer.extract_features` gives what
    the linear layer reads. Source: `timm/models/vision_transformer.py`, `forward_head`.

    Args:
        embed_dim: width of what it reads. num_classes: length of the logits.

    Shape:
        (b, embed_dim) -> (b, num_classes).
    """

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.linear = nn.Linear(embed_dim, num_classes)
        nn.init.zeros_(self.linear.weight)  # as `init_weights` has it
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b classes"]:
        return self.linear(self.norm(x))


def with_head_of(model: VisionTransformer, tensors: Mapping[str, Tensor]) -> VisionTransformer:
    """Change a model as it was built so that it has the kind of head that tensors, by our names, are of.

    Args:
        model: changed in place, and returned.
        tensors: of a whole model, or some of them.
    """
    width, classes = model.head.in_features, model.head.out_features
    if _NORM in tensors:
        model.norm = nn.Identity()  # type: ignore[assignment]
        model.head = NormedHead(width, classes)  # type: ignore[assignment]
    elif _PRE_LOGITS in tensors:
        model.head = PreLogitsHead(width, len(tensors[_PRE_LOGITS]), classes)  # type: ignore[assignment]
    return model


def of_head(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that belong to a head; the norm of a `NormedHead` does not: a new head reads what it gives."""
    return tuple(name for name in names if name.startswith("head.") and not name.startswith("head.norm."))
