"""What happened in each epoch."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: the learning rate of its last step, per-picture means (loss in nats, accuracy in [0, 1]), seconds.

    Validation is nan when there is no validation set. Training numbers are measured on the augmented
    pictures while the model learns, so they may lie below the validation's.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


def save_history(history: Sequence[EpochRecord], path: Path) -> None:
    """Write the records as CSV, one row for each epoch."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(EpochRecord)])
        writer.writeheader()
        writer.writerows(asdict(record) for record in history)
