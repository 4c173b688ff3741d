"""Weights of classes in the loss."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def balanced_weights(labels: Int[Tensor, " n"], num_classes: int) -> Float[Tensor, " classes"]:
    """n / (classes x pictures of the class): every class counts the same, and the mean weight of a picture is 1.

    Args:
        labels: of the training pictures, each class at least once.
        num_classes: length of the logits.

    Raises:
        ValueError: a class without a picture.
    """
    counts = torch.bincount(labels.cpu(), minlength=num_classes)
    if missing := (counts == 0).nonzero().flatten().tolist():
        raise ValueError(f"classes {missing} have no training picture; no weight can balance that")
    return len(labels) / (num_classes * counts.float())
