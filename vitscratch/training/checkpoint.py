"""Checkpoints that survive a kill at any moment, and are never trusted blindly."""

import errno
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from vitscratch.files import sync_folder, write_atomically
from vitscratch.training import distributed
from vitscratch.training.history import EpochRecord, Monitor, best_epoch
from vitscratch.training.run import Run
from vitscratch.training.signals import Interrupted, StopRequest

FORMAT = "vitscratch checkpoint 1"
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values so that `path` is always the old file or the whole new one.

    Raises:
        OSError: the disk is full, say; what was at `path` is still there.
    """

    def write(file: BinaryIO) -> None:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:  # torch's writer hides why a write failed
            file.flush()  # which fails for the same reason, and says so
            raise OSError(errno.EIO, str(error).splitlines()[0]) from error

    write_atomically(path, write)


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
        folder: made if it is not there.
        monitor: what says which epoch is best.
        seconds: least time between two checkpoints. overhead: largest share of the time that saving may take; they are
            kept so rare. An epoch's end brings one only if it is due; the end of the run always does.
        stop: looked at after each step: if a signal came, the run is saved and `Interrupted` raised.
    """

    def __init__(
        self,
        folder: Path | str,
        monitor: Monitor = "validation_loss",
        *,
        seconds: float = 2.0,
        overhead: float = 0.02,
        stop: StopRequest | None = None,
    ) -> None:
        self.folder, self.monitor, self.stop = Path(folder), monitor, stop or StopRequest()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.least_seconds, self.overhead, self.interval = seconds, overhead, seconds
        self.saved_at = time.monotonic()
        self.resumed_from: Path | None = None
        self.last_good: Path | None = None  # that this run has read or written
        self.found: dict[str, Any] | None = None
        self.spoilt: Path | None = None  # last.pt, if it could not be used
        self.refused: list[str] = []  # one line for each checkpoint that was there and could not be used
        self.earlier: list[EpochRecord] = []  # epochs of a part that went before

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
                self.spoilt = path if path.name == LAST else self.spoilt
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
            reason = " ".join(str(error).split())[:300]
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
        whole = [*self.earlier, *(replace(one, epoch=one.epoch + len(self.earlier)) for one in run.history)]
        if best_epoch(whole, self.monitor) == len(whole) and distributed.rank() == 0:
            write_checkpoint({"model": run.best, "epoch": len(whole), "monitor": self.monitor}, self.folder / BEST)
        self.after_step(run)

    def go_on_after(self, part: Path, history: list[EpochRecord]) -> None:
        """Let the run be the next part of one that left its records and, in a folder, its best.pt: as long as no epoch
        of this part is better, best.pt is that one."""
        self.earlier = history
        if distributed.rank() == 0 and (part / BEST).exists() and not (self.folder / BEST).exists():
            write_checkpoint(read_checkpoint(part / BEST), self.folder / BEST)

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
                last = self.folder / LAST
                if last.exists() and last != self.spoilt:  # which must not push out the good one
                    last.replace(self.folder / PREVIOUS)  # a kill here leaves no last.pt: previous.pt is it then
                new.replace(last)
                sync_folder(self.folder)
            finally:
                new.unlink(missing_ok=True)
            self.last_good, self.spoilt = last, None
        self.saved_at = time.monotonic()
        self.interval = max(self.least_seconds, (self.saved_at - started) / self.overhead)
