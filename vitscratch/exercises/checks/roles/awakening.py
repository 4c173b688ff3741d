"""Random parameters, so that none is without effect."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vitscratch.exercises.checks.student import construct, is_training


def call_anew(student: ModuleType, name: str, sizes: Mapping[str, Any], x: Tensor) -> object:
    """The student's class built once more, awake, and called."""
    return awaken(construct(student, name, sizes))(x)


def _train_without_dropout(module: nn.Module) -> None:
    module.train()
    for layer in module.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
        elif isinstance(layer, nn.MultiheadAttention):
            layer.dropout = 0.0


def awaken(module: nn.Module, seed: int = 0, training: bool = False) -> nn.Module:
    """Draw every parameter at random, so that none is 0 or 1 and none is without effect; float64, eval. In place.

    With `training`, in training mode instead, with the p of every dropout at 0.

    Matrices have a standard deviation of about 1.3 / sqrt(width), so that softmax is neither flat nor one-hot;
    vectors that are all ones (norm weights) get 1 + 0.3 N, all other vectors 0.5 N.
    """
    module.double().eval()
    if training or is_training():
        _train_without_dropout(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if is_lazy(parameter) or not parameter.numel():
                continue
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            if sum(size != 1 for size in parameter.shape) > 1:
                parameter.copy_(1.3 * noise / parameter.numel() ** 0.25)
            elif (parameter == 1).all():
                parameter.copy_(1 + 0.3 * noise)
            else:
                parameter.copy_(0.5 * noise)
    return module
