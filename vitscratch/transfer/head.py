"""The last layer of a classifier: find it, and put another in its place."""

import torch
from torch import nn

# Where classifiers keep the layer that makes logits: ours and timm's ViTs, ours with a norm or a pre-logits layer,
# torchvision's ViTs, ResNets, others of timm's.
_PLACES = ("head", "head.linear", "heads.head", "fc", "classifier", "head.fc")


def head_name(model: nn.Module) -> str:
    """The name of the linear layer that makes the logits, such as "head" or "heads.head".

    Raises:
        ValueError: it is in none of the places that we know.
    """
    for name in _PLACES:
        layer = _layer(model, name)
        if isinstance(layer, nn.Linear):
            return name
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    last = f"; its last linear layer is {linear[-1]!r}" if linear else ""
    raise ValueError(f"{type(model).__name__} has no linear head in any of {', '.join(_PLACES)}{last}")


def replace_head(model: nn.Module, num_classes: int) -> nn.Linear:
    """Give a classifier a new last layer for other classes: weights and bias 0, so every class starts at 1 / classes.

    Args:
        model: changed in place: one of ours, torchvision's ViTs and ResNets, timm's.
        num_classes: at least 1.

    Returns:
        The new layer, on the device and in the precision of the old one.

    Raises:
        ValueError: fewer than 1 class, or a model whose head cannot be found.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes {num_classes}: expected at least 1")
    if isinstance(getattr(model, "head_dist", None), nn.Linear):
        raise ValueError(
            f"{type(model).__name__} is a distilled DeiT with a second head, head_dist; expected one head: take the "
            "variant that is not distilled"
        )
    name = head_name(model)
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype)
    with torch.no_grad():
        nn.init.zeros_(new.weight)
        nn.init.zeros_(new.bias)
    model.set_submodule(name, new)
    if hasattr(model, "num_classes"):  # timm's say how many they have
        model.num_classes = num_classes  # type: ignore[assignment]
    return new


def _layer(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None
