"""Exercise 14, an answer. `vitscratch.transfer` has the library's, which can also be copied, compiled and undone."""

import torch
from torch import nn


def replace_head(model: nn.Module, num_classes: int) -> None:
    """Logits (b, classes) -> (b, num_classes)."""
    old = model.head
    assert isinstance(old, nn.Linear)
    model.head = nn.Linear(old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype)


def freeze(model: nn.Module) -> None:
    """Let model.head learn, and nothing else."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    model.head.requires_grad_(True)

    def train(mode: bool = True) -> nn.Module:
        type(model).train(model, mode)
        for child in model.children():
            if child is not model.head:
                child.eval()
        return model

    model.train = train  # type: ignore[method-assign]
    model.train(model.training)


def prepare(model: nn.Module, num_classes: int, learning_rate: float) -> torch.optim.Optimizer:
    """Replace the head, freeze the rest, and return the optimizer."""
    replace_head(model, num_classes)
    freeze(model)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(learning, lr=learning_rate)
