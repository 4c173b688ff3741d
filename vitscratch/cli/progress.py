"""What a training run shows: a bar for each epoch on a terminal, a line for each epoch elsewhere."""

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from vitscratch.cli.run_folder import is_first_process

if TYPE_CHECKING:
    from vitscratch.training import EpochRecord, Run

REFRESH = 1.0  # seconds; reading the counts makes a GPU wait for what is queued, so not at every step


class Progress:
    """Give `after_step` and `after_epoch` to `fit`.

    Args:
        epochs: of the whole run. batches: of an epoch.
        every: a line for every so many epochs, and for the last one.
    """

    def __init__(self, epochs: int, batches: int, every: int = 1) -> None:
        self.epochs, self.batches, self.every = epochs, batches, every
        self.on_terminal = sys.stderr.isatty() and is_first_process()
        self.bar: Any = None
        self.read_at = 0.0

    def after_step(self, run: "Run") -> None:
        """Move the bar, and every second say how it goes."""
        if not self.on_terminal:
            return
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=self.batches, desc=f"epoch {run.epoch + 1}/{self.epochs}", unit="batch", leave=False)
        self.bar.update(run.batch - self.bar.n)
        if time.monotonic() - self.read_at > REFRESH:
            self.read_at = time.monotonic()
            speed, waiting = run.metrics.total / max(run.seconds, 1e-9), run.waited / max(run.seconds, 1e-9)
            self.bar.set_postfix_str(
                f"loss {run.metrics.loss:.3f}, accuracy {run.metrics.accuracy:.1%}, {speed:,.0f} images/s, "
                f"{waiting:.0%} waiting for data"
            )

    def after_epoch(self, run: "Run") -> None:
        """Print the epoch's line, if it is its turn."""
        self.close()
        if run.epoch % self.every == 0 or run.epoch == self.epochs:
            say(epoch_line(run.history[-1], self.epochs))

    def close(self) -> None:
        """Remove the bar, if there is one."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def epoch_line(record: "EpochRecord", epochs: int) -> str:
    """One epoch in a line."""
    validated = ""
    if record.validation_loss == record.validation_loss:  # not nan
        validated = f" | validation loss {record.validation_loss:.3f}, accuracy {record.validation_accuracy:.1%}"
    waiting = f", {record.data_wait:.0%} of it waiting for data" if record.data_wait > 0.05 else ""
    return (
        f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}: training loss {record.train_loss:.3f}, "
        f"accuracy {record.train_accuracy:.1%}{validated} | {record.seconds:.1f} s, "
        f"{record.images_per_second:,.0f} images/s{waiting}"
    )


def say(text: str) -> None:
    """Print, unless this is one of torchrun's other processes. If nobody reads any more, train on in silence."""
    if not is_first_process():
        return
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
