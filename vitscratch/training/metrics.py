"""Counts, from which loss and accuracy follow."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class Metrics:
    """Sums over pictures, so that the size of a batch, and a ragged last one, change nothing.

    A mean of batch means counts a picture in a small batch more than one in a large batch.
    The sums stay on the device until they are read, so that a GPU need not wait for them.
    """

    def __init__(self) -> None:
        self.total = 0
        self._loss_sum: Tensor | float = 0.0
        self._correct: Tensor | int = 0

    @torch.no_grad()
    def update(self, logits: Float[Tensor, "b classes"], labels: Int[Tensor, " b"]) -> None:
        """Count a batch. The loss is plain cross-entropy, in nats."""
        self.total += len(labels)
        self._loss_sum = self._loss_sum + F.cross_entropy(logits.float(), labels, reduction="sum")
        self._correct = self._correct + (logits.argmax(dim=1) == labels).sum()

    @property
    def correct(self) -> int:
        """Pictures whose largest logit is their label's."""
        return int(self._correct)

    @property
    def loss(self) -> float:
        """Mean cross-entropy per picture, in nats; nan if nothing was counted."""
        return float(self._loss_sum) / self.total if self.total else float("nan")

    @property
    def accuracy(self) -> float:
        """Correct pictures as a fraction in [0, 1]; nan if nothing was counted."""
        return self.correct / self.total if self.total else float("nan")
