"""What happened in each epoch, and what follows from it: which one was best, and whether to go on."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TextIO

from vitscratch.files import write_atomically

Monitor = Literal["validation_loss", "validation_accuracy"]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: the learning rate of its last step, per-picture means (loss in nats, accuracy in [0, 1]), seconds.

    Validation is nan when there is no validation set. Training numbers are measured on the augmented
    pictures while the model learns, so they may lie below the validation's. `images_per_second` counts training alone;
    `data_wait` is the share in [0, 1] of that time in which the loop had no batch yet. `part` says what learned in a
    run of several parts; "" in others.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    images_per_second: float
    data_wait: float
    part: str = ""


def best_epoch(history: Sequence[EpochRecord], monitor: Monitor) -> int | None:
    """The epoch (1, 2, ...) with the lowest validation loss or the highest accuracy, the first of equals.

    None if no epoch was validated. A nan is never best.
    """
    sign = 1 if monitor == "validation_loss" else -1
    scored = [(sign * getattr(record, monitor), record.epoch) for record in history]
    valid = [pair for pair in scored if pair[0] == pair[0]]
    return min(valid)[1] if valid else None


def is_over(history: Sequence[EpochRecord], monitor: Monitor, patience: int | None) -> bool:
    """Early stopping: whether the last `patience` epochs brought nothing better than the best before them."""
    if patience is None or not history:
        return False
    return history[-1].epoch - (best_epoch(history, monitor) or 0) >= patience


def read_history(path: Path) -> list[EpochRecord]:
    """What `save_history` wrote."""
    kinds: dict[str, Any] = {field.name: field.type for field in fields(EpochRecord)}
    with path.open(newline="") as file:
        return [
            EpochRecord(**{name: kinds[name](value) for name, value in row.items()}) for row in csv.DictReader(file)
        ]


def save_history(history: Sequence[EpochRecord], path: Path) -> None:
    """Write the records as CSV, one row for each epoch; a column says the part where there are several."""
    parts = any(record.part for record in history)
    names = [field.name for field in fields(EpochRecord) if parts or field.name != "part"]

    def write(file: TextIO) -> None:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(asdict(record) for record in history)

    write_atomically(path, write, "w")
