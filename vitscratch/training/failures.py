"""What to say when a run fails."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vitscratch.training import distributed
from vitscratch.training.checkpoint import Checkpoints
from vitscratch.training.nonfinite import first_nonfinite
from vitscratch.training.precision import autocast
from vitscratch.training.run import Run
from vitscratch.training.watch import NonFiniteLoss


@contextmanager
def explained(run: Run, precision: torch.dtype, accumulate: int, checkpoints: Checkpoints | None) -> Iterator[None]:
    """Say of a `NonFiniteLoss` when it came and which layer is the first to blame, and save its pictures."""
    try:
        yield
    except NonFiniteLoss as error:
        batch = run.batch + 1 - error.steps_ago * accumulate
        message = f"epoch {run.epoch + 1}, batch {batch}: {error}; first non-finite: {_where(run, error, precision)}"
        if checkpoints is not None:
            message += f"; the pictures are in {checkpoints.save_batch(error.images, error.labels)}"
        rate = max(group["lr"] for group in run.optimizer.param_groups)
        message += f". Look at them, or try a learning rate below {rate:.2g}, or a longer warm-up"
        raise NonFiniteLoss(error.images, error.labels, error.steps_ago, message) from error


def _where(run: Run, error: NonFiniteLoss, precision: torch.dtype) -> str:
    if distributed.is_sharded(run.model):
        return "unknown (a divided model cannot be looked through by one process)"
    with autocast(next(run.model.parameters()).device, precision):
        found = first_nonfinite(run.model, error.images, error.labels)
    return found or "not found again with these weights (mixed pictures, dropout, or another process's share)"
