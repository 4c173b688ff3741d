"""Counts, from which loss and accuracy follow."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vitscratch.training import distributed


class Metrics:
    """Sums over pictures, so that the size of a batch, and a ragged last one, change nothing.

    A mean of batch means counts a picture in a small batch more than one in a large batch.
    The sums stay on the device until they are read, so that a GPU need not wait for them.
    """

    def __init__(self) -> None:
        self.total = 0
        self._loss_sum: Tensor | None = None  # nats
        self._counts: Tensor | None = None  # (2, classes): pictures of each class, and those that were recognised

    @torch.no_grad()
    def update(self, logits: Float[Tensor, "b classes"], labels: Int[Tensor, " b"]) -> None:
        """Count a batch. The loss is plain cross-entropy, in nats."""
        if self._loss_sum is None or self._counts is None:
            precise = torch.float32 if logits.device.type == "mps" else torch.float64  # Apple's GPU has no float64
            self._loss_sum = torch.zeros((), dtype=precise, device=logits.device)
            self._counts = torch.zeros(2, logits.shape[1], dtype=torch.long, device=logits.device)
        self.total += len(labels)
        self._loss_sum += F.cross_entropy(logits.float(), labels, reduction="sum")
        self._counts[0].index_add_(0, labels.long(), torch.ones_like(labels, dtype=torch.long))
        self._counts[1].index_add_(0, labels.long(), (logits.argmax(dim=1) == labels).long())

    @property
    def correct(self) -> int:
        """Pictures whose largest logit is their label's."""
        return int(self._counts[1].sum()) if self._counts is not None else 0

    @property
    def loss(self) -> float:
        """Mean cross-entropy per picture, in nats; nan if nothing was counted."""
        return float(self._loss_sum) / self.total if self._loss_sum is not None and self.total else float("nan")

    @property
    def accuracy(self) -> float:
        """Correct pictures as a fraction in [0, 1]; nan if nothing was counted."""
        return self.correct / self.total if self.total else float("nan")

    @property
    def per_class(self) -> list[tuple[int, int]]:
        """(correct, total) of each class, in the order of the logits; empty if nothing was counted."""
        if self._counts is None:
            return []
        totals, correct = self._counts.tolist()
        return list(zip(correct, totals, strict=True))

    def over_processes(self) -> "Metrics":
        """The counts of all processes of a distributed run together; these counts themselves if there is one."""
        if not distributed.is_running():
            return self
        together = Metrics()
        sizes = distributed.gather(torch.tensor(self._counts.shape[1] if self._counts is not None else 0))
        if classes := max(int(size) for size in sizes):  # a process without a picture has seen no logits
            row = torch.zeros(2 + 2 * classes, dtype=torch.float64)
            if self._loss_sum is not None and self._counts is not None:
                row = torch.cat(
                    [torch.stack([torch.tensor(self.total), self._loss_sum.cpu()]), self._counts.cpu().flatten()]
                )
            row = torch.stack(distributed.gather(row.double())).sum(dim=0)
            together.load_state_dict(
                {"total": int(row[0]), "loss_sum": row[1], "counts": row[2:].reshape(2, -1).long()}
            )
        return together

    def state_dict(self) -> dict[str, Any]:
        """The sums, for a checkpoint."""
        return {"total": self.total, "loss_sum": self._loss_sum, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | None = None) -> None:
        """Go on from sums that `state_dict` gave."""
        self.total = state["total"]
        self._loss_sum = state["loss_sum"].to(device) if state["loss_sum"] is not None else None
        self._counts = state["counts"].to(device) if state["counts"] is not None else None
