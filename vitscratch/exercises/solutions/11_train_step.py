"""Exercise 11, an answer. `vitscratch.training.train_one_epoch` has the library's, with much more around it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def train_step(
    model: nn.Module, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer, clip_norm: float = 1.0
) -> float:
    """(b, c, H, W), (b,) -> the loss, a number; the weights have taken one step."""
    model.train()
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.item()
