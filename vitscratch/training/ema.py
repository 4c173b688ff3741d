"""Exponential moving average of a model's weights."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class MovingAverage:
    """A copy of a model whose floating-point weights follow the original's slowly.

    After each step: average = decay x average + (1 - decay) x weights. The noise of single steps cancels in it, so it
    usually validates better than the weights themselves, above all while the learning rate is still high.

    torch has `swa_utils.AveragedModel`; its counter lives on the CPU and makes a GPU wait at every step.

    Args:
        model: copied; its device is kept. The first update takes the weights as they are.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.updates = deepcopy(model).eval().requires_grad_(False), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step towards the weights of model; buffers, such as counters, are copied."""
        decay = self.decay if self.updates else 0.0
        averages: list[Tensor] = list(self.model.parameters())
        weights: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)  # one kernel for all, not one for each
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
        self.updates += 1
