"""`vitscratch bench transfer` and `bench transfer-digits`: what pretrained weights are worth on a few pictures."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vitscratch.cli.common import (
    Common,
    Device,
    check_png,
    check_writable,
    environment,
    pick_device,
    save_figure,
    write_json,
)
from vitscratch.cli.data import file_progress
from vitscratch.recipes.base import untouched

if TYPE_CHECKING:
    from vitscratch.recipes.transfer import Row


@dataclass(kw_only=True)
class _Few(Common):
    """Options of both."""

    per_class: tuple[int, ...] = (10, 50, 250)
    """Labelled pictures of each class to learn from."""

    seeds: int = 3
    """Trainings with each: other pictures, another head, another order."""

    device: Device = "auto"
    """Where to measure."""

    quick: bool = False
    """Shows that it runs: one seed and the smallest number of pictures, unless you say which."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the figures as JSON."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None
    """Also draw the accuracies."""

    def run(self) -> int:
        check_writable(self.json)
        check_png(self.out)
        if self.seeds < 1 or not self.per_class or min(self.per_class) < 1:
            raise ValueError(f"seeds {self.seeds}, per-class {self.per_class}: expected at least 1 of each")
        quick: dict[str, Any] = untouched(self, per_class=self.per_class[:1], seeds=1) if self.quick else {}
        numbers, seeds = quick.get("per_class", self.per_class), quick.get("seeds", self.seeds)
        device = pick_device(self.device)
        rows = self.rows(numbers, seeds, device)
        summary = _summary(rows)
        _print(summary, numbers)
        if self.out is not None:
            from vitscratch import plots

            title = f"{self.title}: test accuracy, mean and range of {seeds} seeds"
            curves = {way: list(cells.values()) for way, cells in summary.items()}
            save_figure(plots.few_labels(curves, numbers, title), self.out)
            print(f"{self.out}: the same as curves")
        if self.json is not None:
            about = {"what": type(self).__name__, "quick": self.quick, "device": device, **environment()}
            write_json({**about, "rows": [asdict(row) for row in rows]}, self.json)
        return 0

    @property
    def title(self) -> str:
        """What is transferred to what."""
        raise NotImplementedError

    def rows(self, per_class: Sequence[int], seeds: int, device: str) -> "list[Row]":
        """Measure."""
        raise NotImplementedError


@dataclass(kw_only=True)
class Transfer(_Few):
    """Fine-tune pretrained weights, train a new head on them frozen, and train from scratch, from a few labelled
    pictures of each class."""

    weights: str = "cifar10"
    """The pretrained weights: a name, a file, timm:NAME or hf:ORG/NAME."""

    data: Annotated[str, tyro.conf.arg(metavar="PATH")]
    """The pictures: a folder with one folder for each class, say."""

    @property
    def title(self) -> str:
        """Names of the weights and of the pictures."""
        return f"{Path(self.weights).name} to {Path(self.data).name}"

    def rows(self, per_class: Sequence[int], seeds: int, device: str) -> "list[Row]":
        """Measure on the pictures of `data`."""
        from vitscratch.recipes import FineTune
        from vitscratch.recipes.experiment import load
        from vitscratch.recipes.transfer import measure

        epochs = 1 if self.quick else 8
        recipe = FineTune(weights=self.weights, data=self.data, epochs=epochs, learning_rate=2e-3, layer_decay=0.9)
        with file_progress("pictures") as loading:
            splits = load(recipe, loading)
        steps = 20 if self.quick else 200
        return measure(recipe, splits, per_class, seeds, scratch_rate=5e-4, steps=steps, device=device, on_row=_say)


@dataclass(kw_only=True)
class TransferDigits(_Few):
    """Pretrain on the digits 0 to 4, transfer to 5 to 9 from a few labels each, beside training from scratch."""

    per_class: tuple[int, ...] = (5, 10, 30)

    @property
    def title(self) -> str:
        """Which digits."""
        return "digits 0 to 4, to 5 to 9"

    def rows(self, per_class: Sequence[int], seeds: int, device: str) -> "list[Row]":
        """Pretrain, and measure."""
        from vitscratch.recipes.transfer import transfer_digits

        epochs = 5 if self.quick else 30
        return transfer_digits(per_class, seeds, pretraining_epochs=epochs, device=device, on_row=_say)


def _say(row: "Row") -> None:
    print(
        f"{row.per_class:>5} of each  seed {row.seed}  {row.way:<24} {row.accuracy:>7.2%}  {row.seconds:6.1f} s",
        flush=True,
    )


def _summary(rows: "Sequence[Row]") -> dict[str, dict[int, tuple[float, float, float]]]:
    """For each way and number of pictures: lowest, mean and highest accuracy."""
    cells: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        cells.setdefault(row.way, {}).setdefault(row.per_class, []).append(row.accuracy)
    return {
        way: {number: (min(found), statistics.fmean(found), max(found)) for number, found in numbers.items()}
        for way, numbers in cells.items()
    }


def _print(summary: dict[str, dict[int, tuple[float, float, float]]], numbers: Sequence[int]) -> None:
    print(f"\n| {'pictures of each class':<24} | " + " | ".join(f"{number:<24}" for number in numbers) + " |")
    print(f"|{'-' * 26}|" + "|".join("-" * 26 for _ in numbers) + "|")
    for way, cells in summary.items():
        told = [f"{mean:.1%} ({low:.1%} to {high:.1%})" for low, mean, high in cells.values()]
        print(f"| {way:<24} | " + " | ".join(f"{text:<24}" for text in told) + " |")
