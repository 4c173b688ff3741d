"""`vitscratch evaluate`: measure a finished run again, or on other pictures."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vitscratch.cli.common import Common, Device, check_writable, pick_device, write_json
from vitscratch.cli.data import file_progress
from vitscratch.cli.run_folder import MODEL, SPLITS, RunFolder, read_run
from vitscratch.recipes.base import BUILT_IN

if TYPE_CHECKING:
    from vitscratch.data import PictureFiles, Pictures, Splits


@dataclass(kw_only=True)
class Evaluate(Common):
    """Measure the model of a finished run: on a part of the pictures that it was made from, divided as they were for
    the training, or with --data on another folder of pictures."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""

    split: Literal["test", "validation", "train"] = "test"
    """Which part."""

    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Other pictures, FOLDER/class/*.jpg with the classes of the model, of which all count; or with folders train,
    val and test, of which `--split` counts."""

    skip_bad: bool = False
    """With --data: leave out files that cannot be decoded, instead of refusing the folder."""

    batch_size: int = 128
    """Pictures at a time; changes nothing but memory and time."""

    device: Device = "auto"
    """Where to compute."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the numbers as JSON."""

    def run(self) -> int:
        check_writable(self.json)
        run = read_run(self.path)
        device = pick_device(self.device)

        import torch

        from vitscratch.data import Preprocessing, make_batches
        from vitscratch.training import choose_precision, evaluate
        from vitscratch.weights import load_model

        saved = load_model(self.path / MODEL)
        preprocessing = Preprocessing.from_dict(saved.preprocessing)
        what, pictures, skipped = self._pictures(run, saved.class_names)
        batches = make_batches(pictures, preprocessing, self.batch_size, device=device, workers=run.recipe.workers)
        precision = choose_precision(run.recipe.precision, torch.device(device))
        metrics = evaluate(saved.model.to(device), batches, precision)
        width = max(len(name) for name in saved.class_names)
        per_class = list(zip(saved.class_names, metrics.per_class, strict=True))
        for name, (correct, total) in per_class:
            print(f"{name:<{width}}  {correct:>6,} of {total:>6,}" + (f"  {correct / total:7.2%}" if total else ""))
        print(
            f"{what}: accuracy {metrics.accuracy:.2%} ({metrics.correct:,} of {metrics.total:,}), "
            f"loss {metrics.loss:.4f}"
        )
        if self.json is not None:
            classes = {name: {"correct": correct, "total": total} for name, (correct, total) in per_class}
            numbers = {
                "accuracy": metrics.accuracy,
                "correct": metrics.correct,
                "total": metrics.total,
                "skipped": skipped,
            }
            write_json({"what": what, **numbers, "loss": metrics.loss, "per_class": classes}, self.json)
        return 0

    def _pictures(self, run: RunFolder, class_names: tuple[str, ...]) -> "tuple[str, Pictures | PictureFiles, int]":
        """What is measured, in words and as pictures, and how many files were skipped."""
        from vitscratch.recipes.experiment import load

        recipe, part = run.recipe, self.split
        what = f"{part} part of {self.data or recipe.data}"
        if self.data is not None:
            recipe = replace(recipe, data=str(self.data), skip_bad=self.skip_bad)
            if not (self.data / "train").is_dir():  # undivided: all of it counts
                recipe = replace(recipe, validation_fraction=0.0, test_fraction=0.0)
                part, what = "train", str(self.data)
        with file_progress("pictures") as loading:
            splits = load(recipe, loading)
        self._compare(run, splits, part)
        if splits.class_names != class_names:
            raise ValueError(
                f"{what} has the classes {', '.join(splits.class_names)}; the model knows {', '.join(class_names)}"
            )
        pictures: Pictures | PictureFiles | None = getattr(splits, part)
        if pictures is None:
            raise ValueError(f"{recipe.data} has no {part} part; name another --split")
        if self.data is not None:
            known = training_digests(run)
            if copies := sum(digest in known for digest in pictures.digests):
                print(
                    f"Warning: {copies:,} of {len(pictures):,} pictures are byte-identical to some that the model was "
                    "trained on, which flatters it"
                )
        if skipped := len(splits.summary["skipped"]):
            good = sum(sum(classes.values()) for classes in splits.summary["counts"].values())
            print(f"skipped {skipped:,} of {skipped + good:,} files that cannot be decoded")
        return what, pictures, skipped

    def _compare(self, run: RunFolder, splits: "Splits", part: str) -> None:
        """With the pictures of the training.

        Raises:
            ValueError: they should be the same, and are not.
        """
        trained_on = fingerprint(run.path)
        same = trained_on is not None and trained_on == splits.summary.get("fingerprint")
        if self.data is None:
            if trained_on is not None and not same:
                raise ValueError(
                    f"the pictures of {run.recipe.data} have changed since the training, so its {part} part may hold "
                    "pictures that were trained on; name other pictures with --data"
                )
        elif part == "train" and (same or self.data.resolve() == Path(run.recipe.data).resolve()):
            print(
                f"Warning: {self.data} holds the run's own pictures, so those that it was trained on are counted, too; "
                "without --data only its test part is measured"
            )


def training_digests(run: RunFolder) -> set[str]:
    """Of the files that a run was trained on; none if they are no files, no longer there, or no longer the same."""
    from vitscratch.recipes.experiment import load

    if run.recipe.data in BUILT_IN or not Path(run.recipe.data).exists():
        return set()
    try:
        with file_progress("pictures of the training") as loading:
            splits = load(run.recipe, loading)
    except (ValueError, OSError, RuntimeError):
        return set()
    return set(splits.train.digests) if fingerprint(run.path) == splits.summary["fingerprint"] else set()


def fingerprint(folder: Path) -> str | None:
    """Of the pictures that a run was made from; None for built-in sets, which do not change.

    Raises:
        ValueError: splits.json makes no sense.
    """
    path = folder / SPLITS
    if not path.is_file():
        return None
    try:
        found: str | None = json.loads(path.read_text()).get("fingerprint")
        return found
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
