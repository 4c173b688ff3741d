"""Checkpoints that survive a kill at any moment, and are never trusted blindly."""

import errno
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitscratch.training import distributed
from vitscratch.training.history import Monitor, best_epoch
from vitscratch.training.run import Run
from vitscratch.training.signals import Interrupted, StopRequest

FORMAT = "vitscratch checkpoint 1"
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write to a file beside `path`, force it onto the disk, and only then give it its name.

    Whenever the machine stops, `path` is the old file or the whole new one.

    Raises:
        OSError: the disk is full, say; what was at `path` is still there, and nothing else is left behind.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            try:
                torch.save({"format": FORMAT, **state}, file)
            except RuntimeError as error:  # torch's writer hides why a write failed
                file.flush()  # which fails for the same reason, and says so
                raise OSError(errno.EIO, str(error).splitlines()[0]) from error
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `write_checkpoint` wrote. Nothing in it is executed: tensors and plain values only.

    Raises:
        ValueError: the file is truncated, damaged or something else, in one line.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is truncated, or no checkpoint")
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"its part {damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes its readers raise
        reason = "it holds more than tensors and plain values" if "eights_only" in str(error) else str(error)
        raise ValueError(f"{path} is refused: {reason.splitlines()[0] if reason else type(error).__name__}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is refused: it is no checkpoint of this program's ({FORMAT!r})")
    return state


class Checkpoints:
    """The files of a run: `last.pt`, the one before it as `previous.pt`, and the weights of `best.pt`.

    Args:
        folder: exists.
        monitor: what says which epoch is best.
        seconds: least time between two checkpoints. overhead: largest share of the time that saving may take; they are
            kept so rare. An epoch's end brings one only if it is due; the end of the run always does.
        stop: looked at after each step: if a signal came, the run is saved and `Interrupted` raised.
    """

    def __init__(
        self,
        folder: Path,
        monitor: Monitor = "validation_loss",
        *,
        seconds: float = 2.0,
        overhead: float = 0.02,
        stop: StopRequest | None = None,
    ) -> None:
        self.folder, self.monitor, self.stop = folder, monitor, stop or StopRequest()
        self.least_seconds, self.overhead, self.interval = seconds, overhead, seconds
        self.saved_at = time.monotonic()
        self.resumed_from: Path | None = None
        self.last_good: Path | None = None  # that this run has read or written
        self.found: dict[str, Any] | None = None
        self.refused: list[str] = []  # one line for each checkpoint that was there and could not be used

    def find(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, for `resume`; None if there is none.

        Raises:
            ValueError: there are checkpoints but none can be used.
        """
        for path in (self.folder / LAST, self.folder / PREVIOUS):
            try:
                if self.found is None and path.exists():
                    self.found, self.resumed_from, self.last_good = read_checkpoint(path), path, path
            except ValueError as error:
                self.refused.append(str(error))
        if self.found is None and self.refused:
            raise ValueError(
                f"{self.refused[0]}; no other checkpoint is left in {self.folder}: "
                "remove the file to start this run from its beginning"
            )
        return self.found

    def resume(self, run: Run) -> None:
        """Go on from what `find` finds, if anything.

        Raises:
            ValueError: see `find`; or the checkpoint belongs to another model.
        """
        state, self.found = self.find(), None
        if state is None:
            return
        try:
            run.load_state_dict(state)
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{self.resumed_from} belongs to another model or optimizer: {reason}") from error
        distributed.barrier()  # nobody writes while another still reads

    def after_step(self, run: Run) -> None:
        """Save the run if it is time or a signal came.

        Raises:
            Interrupted: a signal came; the run is saved.
        """
        due = time.monotonic() - self.saved_at >= self.interval
        if distributed.any_process(due or self.stop.signal_number is not None):
            self.save(run)
            if number := max(int(n) for n in distributed.gather(torch.tensor(self.stop.signal_number or 0))):
                raise Interrupted(number)

    def after_epoch(self, run: Run) -> None:
        """Write best.pt if this epoch is the best so far, and save the run as after a step."""
        if best_epoch(run.history, self.monitor) == run.epoch and distributed.rank() == 0:
            write_checkpoint({"model": run.best, "epoch": run.epoch, "monitor": self.monitor}, self.folder / BEST)
        self.after_step(run)

    def save_batch(self, images: Tensor, labels: Tensor) -> Path:
        """Write a batch that broke the run to nonfinite.pt, for somebody to look at; another process adds its rank."""
        path = self.folder / f"nonfinite{distributed.rank() or ''}.pt"
        write_checkpoint({"images": images.detach().cpu(), "labels": labels.cpu()}, path)
        return path

    def save(self, run: Run) -> None:
        """Write last.pt; the one that was called so becomes previous.pt."""
        started = time.monotonic()
        state = run.state_dict()
        if distributed.rank() == 0:
            new = self.folder / f"{LAST}.new"
            try:
                write_checkpoint(state, new)
                if (last := self.folder / LAST).exists():
                    last.replace(self.folder / PREVIOUS)  # a kill here leaves no last.pt: previous.pt is it then
                new.replace(last)
                _sync_folder(self.folder)
            finally:
                new.unlink(missing_ok=True)
            self.last_good = last
        self.saved_at = time.monotonic()
        self.interval = max(self.least_seconds, (self.saved_at - started) / self.overhead)


def _sync_folder(folder: Path) -> None:
    """Force the names of a folder's files onto the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
