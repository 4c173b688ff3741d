"""Stop at the step whose loss is not finite, without making a GPU wait for the answer."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vitscratch.training.checkpoint import Checkpoints
from vitscratch.training.nonfinite import first_nonfinite
from vitscratch.training.precision import autocast
from vitscratch.training.run import Run


class NonFiniteLoss(FloatingPointError):
    """The loss of a step is nan or infinite. `images` and `labels` are its batch."""

    def __init__(self, images: Tensor, labels: Tensor, message: str = "the loss is nan or infinite") -> None:
        super().__init__(message)
        self.images, self.labels = images, labels


@contextmanager
def explained(run: Run, precision: torch.dtype, checkpoints: Checkpoints | None) -> Iterator[None]:
    """Say of a `NonFiniteLoss` when it came and which layer is the first to blame, and save its batch."""
    try:
        yield
    except NonFiniteLoss as error:
        device = next(run.model.parameters()).device
        with autocast(device, precision):
            where = first_nonfinite(run.model, error.images, error.labels)
        where = where or "not found again with these weights (mixed pictures, dropout, or another process's share)"
        message = f"epoch {run.epoch + 1}, batch {run.batch + 1}: {error}; first non-finite: {where}"
        if checkpoints is not None:
            message += f"; the batch is in {checkpoints.save_batch(error.images, error.labels)}"
        rate = max(group["lr"] for group in run.optimizer.param_groups)
        message += f". Look at these pictures, or try a learning rate below {rate:.2g}, or a longer warm-up"
        raise NonFiniteLoss(error.images, error.labels, message) from error


class LossWatch:
    """Called with each loss before its backward pass; raises `NonFiniteLoss` before a bad one can touch the weights.

    On a CPU the loss is simply read. Reading it on a GPU would make the program wait for all work queued there, so the
    verdict is copied in the background and looked at when it has arrived, some steps later. Until then fused
    optimizers leave the weights alone: `found_inf` is how torch's GradScaler tells them that a step is void.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.bad: Tensor | None = None  # on the GPU: 1 from the first bad loss on
        self.on_the_way: deque[tuple[Any, Tensor, Tensor, Tensor]] = deque()

    def __call__(self, loss: Tensor, images: Tensor, labels: Tensor) -> None:
        """Look at one loss, a scalar.

        Raises:
            NonFiniteLoss: this loss, or on a GPU one of the last few, is not finite.
        """
        loss = loss.detach()
        if loss.is_meta:
            return
        if not loss.is_cuda:
            if not bool(loss.isfinite()):
                raise NonFiniteLoss(images, labels)
            return
        bad = 1 - loss.isfinite().float()
        self.bad = bad if self.bad is None else torch.maximum(self.bad, bad)
        self.optimizer.found_inf = self.bad  # type: ignore[attr-defined]
        verdict = torch.empty((), pin_memory=True).copy_(self.bad, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self.on_the_way.append((arrived, verdict, images, labels))
        while self.on_the_way and self.on_the_way[0][0].query():
            self._read()

    def finish(self) -> None:
        """Wait for the verdicts that are still on the way: before weights are saved or validated."""
        while self.on_the_way:
            self.on_the_way[0][0].synchronize()
            self._read()
        vars(self.optimizer).pop("found_inf", None)

    def _read(self) -> None:
        _, verdict, images, labels = self.on_the_way.popleft()
        if bool(verdict):
            raise NonFiniteLoss(images, labels)
