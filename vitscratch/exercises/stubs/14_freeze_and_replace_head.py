"""Exercise 14: a pretrained body, a new head.

    logits = W y + b        model.head, an nn.Linear, reads y (b, d), which everything before it, the body, makes

Write three functions that change a model in place:

replace_head  model.head becomes a new nn.Linear, itself and with a bias, with as many inputs as the old one and
              num_classes outputs. It lives on the device and in the dtype of the old one, and it learns.
freeze        only model.head learns. The body gets no gradients any more (requires_grad), forgets those it has (an
              optimizer would still use them), and stays in eval mode, also after model.train(), which every training
              step calls: else dropout goes on, and BatchNorm's statistics move with every picture.
              The weights stay as they are, and the model can be called as before; model.train() returns it, and sets
              model.training, as before.
prepare       both, and then an optimizer of what learns and nothing else, with this learning rate. Mind the order: an
              optimizer holds the parameters that were there when it was made.

Minutes:     20
Difficulty:  2 of 3
Tutorial:    tutorials/08_transfer.ipynb
Check:       vitscratch check 14_freeze_and_replace_head.py
"""

import torch
from torch import nn


def replace_head(model: nn.Module, num_classes: int) -> None:
    """Logits (b, classes) -> (b, num_classes)."""
    raise NotImplementedError("write replace_head: begin with model.head.in_features")


def freeze(model: nn.Module) -> None:
    """Let model.head learn, and nothing else."""
    raise NotImplementedError("write freeze: begin with requires_grad of every parameter that is not the head's")


def prepare(model: nn.Module, num_classes: int, learning_rate: float) -> torch.optim.Optimizer:
    """Replace the head, freeze the rest, and return the optimizer."""
    raise NotImplementedError("write prepare: replace_head and freeze, then the optimizer")
