"""`vitscratch evaluate`: measure a finished run again, or any weights on pictures with labels."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vitscratch.cli.common import Common, Device, check_writable, pick_device, with_interval, write_json
from vitscratch.cli.data import file_progress
from vitscratch.cli.run_folder import MODEL, SPLITS, RunFolder, is_run, read_run
from vitscratch.recipes import FineTune, Recipe
from vitscratch.recipes.base import BUILT_IN

if TYPE_CHECKING:
    from torch import Tensor

    from vitscratch.data import PictureFiles, Pictures, Splits
    from vitscratch.weights import SavedModel


@dataclass(kw_only=True)
class Evaluate(Common):
    """Measure the model of a finished run on a part of the pictures that it was made from, divided as they were for the
    training; or, with --data, any model on other pictures."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Folder of a run; with --data also weights, as `vitscratch predict` takes them: a file, "timm:NAME",
    "hf:ORG/NAME", or the name of weights that come with the package."""

    split: Literal["test", "validation", "train"] = "test"
    """Which part."""

    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Other pictures, FOLDER/class/*.jpg with classes of the model, of which all count; or a set that comes divided
    (folders train, val and test; an .npz; a built-in set), of which `--split` counts."""

    skip_bad: bool = False
    """With --data: leave out files that cannot be decoded, instead of refusing the folder."""

    num_heads: int | None = None
    """Of weights that do not say so, as for `vitscratch predict`."""

    pool: Literal["cls", "mean"] | None = None
    """Of weights that do not say so, as for `vitscratch predict`."""

    batch_size: int = 128
    """Pictures at a time; changes nothing but memory and time."""

    device: Device = "auto"
    """Where to compute."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the numbers as JSON."""

    def run(self) -> int:
        check_writable(self.json)
        run = self._run()
        if run is not None and (self.num_heads, self.pool) != (None, None):
            raise ValueError(f"{self.model} is a run, which knows its architecture; leave out --num-heads and --pool")
        device = pick_device(self.device)

        import torch

        from vitscratch.data import Preprocessing, make_batches
        from vitscratch.training import choose_precision, evaluate
        from vitscratch.weights import load_model

        recipe: Recipe
        if run is None:
            saved, recipe = self._weights(), FineTune(weights=self.model)
        else:
            saved, recipe = load_model(run.path / MODEL), run.recipe
        preprocessing = Preprocessing.from_dict(saved.preprocessing)
        what, pictures, skipped = self._pictures(run, recipe, saved)
        batches = make_batches(pictures, preprocessing, self.batch_size, device=device, workers=recipe.workers)
        precision = choose_precision(recipe.precision, torch.device(device))
        dtype = str(precision).removeprefix("torch.")
        metrics = evaluate(saved.model.to(device), batches, precision)
        numbers = pictures.labels.unique().tolist()  # not the 998 others of ImageNet's
        per_class = [(saved.class_names[number], metrics.per_class[number]) for number in numbers]
        width = max(len(name) for name, _ in per_class)
        for name, (correct, total) in per_class:
            print(f"{name:<{width}}  {correct:>6,} of {total:>6,}" + (f"  {correct / total:7.2%}" if total else ""))
        print(f"{what}: accuracy {with_interval(metrics.correct, metrics.total)}, loss {metrics.loss:.4f}, in {dtype}")
        if self.json is not None:
            classes = {name: {"correct": correct, "total": total} for name, (correct, total) in per_class}
            numbers = {
                "accuracy": metrics.accuracy,
                "correct": metrics.correct,
                "total": metrics.total,
                "skipped": skipped,
            }
            write_json(
                {"what": what, **numbers, "loss": metrics.loss, "precision": dtype, "per_class": classes}, self.json
            )
        return 0

    def _run(self) -> RunFolder | None:
        """The run that is measured; None for weights that are no run's. What is shipped goes first, as everywhere.

        Raises:
            ValueError: weights, and no pictures.
        """
        from vitscratch.weights import shipped_names

        path = Path(self.model)
        if self.model not in shipped_names() and is_run(path):
            return read_run(path)
        if self.data is not None:
            return None
        if is_run(path):
            raise ValueError(
                f"{self.model!r} means the weights that come with vitscratch; name pictures with --data, or the run "
                f"as ./{self.model}"
            )
        raise ValueError(f"{self.model} is no folder of a run, which knows its pictures; name pictures with --data")

    def _weights(self) -> "SavedModel":
        """The model of weights that are no run's.

        Raises:
            ValueError: they do not say how pictures are prepared.
        """
        from vitscratch.weights import build_from
        from vitscratch.weights.loading import surprises

        saved = build_from(self.model, num_heads=self.num_heads, pool=self.pool)
        for note in surprises(saved.provenance["notes"]):
            print(f"vitscratch: {self.model}: {note}", file=sys.stderr)
        if not saved.preprocessing:
            raise ValueError(
                f"{self.model} does not say how its pictures are prepared; convert it with vitscratch first"
            )
        return saved

    def _recipe(self, recipe: Recipe) -> Recipe:
        """Of the pictures: the run's; or for --data one of all of them, where they do not come divided."""
        if self.data is None:
            return recipe
        fractions = 0.0, 0.0  # what is not divided counts whole
        if str(self.data) == "fake-digits":  # comes divided, but into such parts as one asks for
            fractions = recipe.validation_fraction, recipe.test_fraction
        return FineTune(
            data=str(self.data),
            data_dir=recipe.data_dir,
            skip_bad=self.skip_bad,
            split_seed=recipe.split_seed,
            validation_fraction=fractions[0],
            test_fraction=fractions[1],
        )

    def _pictures(
        self, run: RunFolder | None, recipe: Recipe, saved: "SavedModel"
    ) -> "tuple[str, Pictures | PictureFiles, int]":
        """What is measured, in words and as pictures with the model's labels, and how many files were skipped."""
        from vitscratch.data import Preprocessing
        from vitscratch.recipes.experiment import load

        part, recipe = self.split, self._recipe(recipe)
        what = f"{part} part of {recipe.data}"
        with file_progress("pictures") as loading:
            splits = load(recipe, loading, preprocessing=Preprocessing.from_dict(saved.preprocessing))
        if self.data is not None and not splits.summary["given"]:
            part, what = "train", str(self.data)
        if run is not None:
            self._compare(run, splits, part)
        pictures: Pictures | PictureFiles | None = getattr(splits, part)
        if pictures is None:
            raise ValueError(f"{recipe.data} has no {part} part; name another --split")
        known = saved.class_names
        if len(known) == len(splits.class_names) and known == tuple(f"class {i}" for i in range(len(known))):
            known = splits.class_names
            print(f"{self.model} does not name its classes: taken to be, in this order, {_few(known)}", file=sys.stderr)
        numbers = class_numbers(splits.class_names, known, what)
        pictures = replace(pictures, labels=numbers[pictures.labels.long()])
        if run is not None and self.data is not None:
            trained_on = training_digests(run)
            if copies := sum(digest in trained_on for digest in pictures.digests):
                print(
                    f"Warning: {copies:,} of {len(pictures):,} pictures are byte-identical to some that the model was "
                    "trained on, which flatters it"
                )
        if skipped := len(splits.summary["skipped"]):
            print(f"skipped {skipped:,} of {splits.summary['files']:,} files that cannot be decoded")
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


def class_numbers(found: Sequence[str], known: Sequence[str], what: str) -> "Tensor":
    """The model's number of each class of some pictures, which may be fewer than the model knows, in another order.

    Raises:
        ValueError: a class that the model does not know, or knows twice.
    """
    import torch

    if wrong := [name for name in found if list(known).count(name) != 1]:
        raise ValueError(
            f"{what} has the classes {_few(found)}; the model knows {_few(known)}: {_few(wrong)} cannot be counted, so "
            "call the folders as the model calls its classes"
        )
    return torch.tensor([list(known).index(name) for name in found])


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


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
