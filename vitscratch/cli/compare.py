"""`vitscratch compare`: several models on the same pictures, one after another, and one table at the end."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vitscratch.cli.common import Common, Device, check_writable, environment, pick_device, write_json
from vitscratch.cli.data import file_progress
from vitscratch.cli.progress import say
from vitscratch.cli.recipe import checked, differences, for_each_recipe, recipe_name, recipe_to_json, shortened
from vitscratch.cli.run_folder import (
    CONFIG,
    HISTORY,
    LOCK,
    MODEL,
    SPLITS,
    RunFolder,
    only_writer,
    read_run,
    start_run,
    under_torchrun,
)
from vitscratch.cli.train import Training, check_same_pictures, warn_of
from vitscratch.recipes import COMPARISONS, Candidate, Comparison

if TYPE_CHECKING:
    from vitscratch.data import Splits
    from vitscratch.recipes.experiment import Experiment
    from vitscratch.recipes.judge import Finished, Sets

TABLE, NUMBERS = "comparison.md", "comparison.json"


@dataclass(kw_only=True)
class Part(Training):
    """The run of one model: `Training` on pictures that have no test part."""

    splits: Any
    command: str

    def prepared(self, run: RunFolder, device: str) -> "Experiment":
        """The pictures are there already."""
        from vitscratch.recipes.experiment import prepare

        return prepare(run.recipe, device, splits=self.splits)

    def tell(self, run: RunFolder, metrics: dict[str, Any]) -> None:
        """All that may be told before the test."""
        say(
            f"epoch {metrics['kept_epoch']} of {metrics['epochs']} kept: validation loss "
            f"{metrics['validation_loss']:.4f}, accuracy {metrics['validation_accuracy']:.2%} ({run.path})"
        )

    def go_on(self, folder: Path) -> str:
        """The whole comparison."""
        return self.command


@dataclass(kw_only=True)
class Compare(Common):
    """Compare several models on the same pictures."""

    recipe: Comparison

    device: Device = "auto"
    """Where to train the networks; models of pixels are fitted on the CPU."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Folder of the comparison; by default runs/compare-RECIPE. The same command goes on with one that was
    interrupted."""

    quick: bool = False
    """A short version that ends within two minutes on two cores: shows that everything runs. It sets the number of
    epochs and of pictures, unless you do."""

    robust: bool = False
    """Also measure every model on damaged test pictures: saved as JPEG, shrunk, blurred, noisy."""

    robust_pictures: int = 2000
    """For --robust: at most so many test pictures, drawn by --split-seed."""

    doctor: bool = True
    """Examine each ViT before its first step (a few seconds), and stop if something is broken."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write comparison.json there."""

    def run(self) -> int:
        check_writable(self.json)
        if under_torchrun():
            raise ValueError("compare runs in one process; start it without torchrun")
        if self.robust_pictures < 1:
            raise ValueError(f"--robust-pictures {self.robust_pictures}: expected at least 1")
        comparison = checked(self.recipe).absolute()
        comparison = comparison.quick() if self.quick else comparison
        candidates = available(comparison)
        name = recipe_name(comparison)
        out = self.out if self.out is not None else Path("runs") / f"compare-{name}"
        command = self._command(out)
        try:
            with only_writer(out), _begun(out, comparison, self.device):
                if _done(out, self.robust_pictures * self.robust):
                    say(f"{out} is finished:\n\n{(out / TABLE).read_text()}")
                else:
                    say(f"{name} in {out}{shortened(comparison) * self.quick}: loading ...")
                    if code := self._carry_out(out, comparison, candidates, command):
                        return code
                if self.json is not None:
                    write_json(_read(out / NUMBERS), self.json)
        except KeyboardInterrupt:  # while a network is trained, it stops after a step and says so itself
            say(f"\nStopped by Ctrl-C. To go on: {command}")
            return 130
        return 0

    def _carry_out(self, out: Path, comparison: Comparison, candidates: dict[str, Candidate], command: str) -> int:
        """Train every model, then judge all of them."""
        from vitscratch.baselines import LeftOut
        from vitscratch.recipes.judge import Sets

        device, sets = pick_device(self.device), Sets()
        models: dict[str, Finished] = {}
        left_out = {name: one.missing for name, one in candidates.items() if one.missing}
        wanted = {name: one for name, one in candidates.items() if not one.missing}
        for candidate in wanted.values():
            if not candidate.pixels:  # what is wrong with weights or sizes should not end a night's work
                candidate.recipe.create(num_classes=2)
        splits = _pictures(sets, next(iter(wanted.values())))
        check_same_pictures(out, splits)
        _introduce(comparison, splits, left_out)
        for number, (name, candidate) in enumerate(wanted.items(), start=1):
            say(f"\n{number}/{len(wanted)}  {name}: {candidate.title}")
            done = (
                self._fitted(candidate, sets)
                if candidate.pixels
                else self._trained(out / name, candidate, sets, device, command)
            )
            if isinstance(done, int):
                return done
            if isinstance(done, LeftOut):
                say(f"left out: {done.reason}")
                left_out[name] = done.reason
            else:
                models[name] = done
        if not models:
            raise ValueError("every model was left out: " + "; ".join(f"{k}: {v}" for k, v in left_out.items()))
        self._judge(out, comparison, models, splits, left_out, device)
        return 0

    def _judge(
        self,
        out: Path,
        comparison: Comparison,
        models: dict[str, "Finished"],
        splits: "Splits",
        left_out: dict[str, str],
        device: str,
    ) -> None:
        """Read the test part, and write what comes of it."""
        from vitscratch.cli.compare_report import report
        from vitscratch.data import CORRUPTIONS
        from vitscratch.recipes.judge import judge

        say("\nAll models are done: now the test part.")
        robust = self.robust_pictures * self.robust
        pictures = _held_out(comparison, splits)
        pictures += min(robust, pictures) * len(CORRUPTIONS)
        with file_progress("pictures") as loading, _measuring(pictures * len(models)) as on_batch:
            judged, part = judge(list(models.values()), robust=robust, progress=loading, on_batch=on_batch)
        numbers = report(
            out,
            comparison,
            dict(zip(models, zip(models.values(), judged, strict=True), strict=True)),
            part,
            splits,
            left_out,
            device,
            quick=self.quick,
            again=(out / NUMBERS).exists(),
        )
        write_json(numbers, out / NUMBERS)  # last: it says that the comparison is over

    def _fitted(self, candidate: Candidate, sets: "Sets") -> Any:
        from vitscratch.recipes.judge import Finished, fit_pixels

        found = fit_pixels(candidate, _pictures(sets, candidate))
        if isinstance(found, Finished):
            say(
                f"{found.kept}: validation loss {found.validation_loss:.4f}, accuracy {found.validation_accuracy:.2%}, "
                f"{found.seconds:.1f} s"
            )
            for note in found.notes[:-1]:
                say(f"Note: {note}")
        return found

    def _trained(self, folder: Path, candidate: Candidate, sets: "Sets", device: str, command: str) -> "Finished | int":
        """Train a network, go on with it, or find it finished; a number is the exit code of an interruption."""
        from vitscratch.recipes.judge import finished
        from vitscratch.training import read_history

        with only_writer(folder):
            there = (folder / CONFIG).exists()
            run = read_run(folder) if there else start_run(folder, candidate.recipe, self.device, self.doctor, command)
            if recipe_to_json(run.recipe) != recipe_to_json(candidate.recipe):
                changed = differences(run.config["recipe"], candidate.recipe)
                raise ValueError(f"{folder} has a run with other settings ({changed}) in it; name another --out")
            if run.metrics is None:
                part = Part(splits=_pictures(sets, candidate), command=command, doctor=self.doctor, debug=self.debug)
                if code := part.carry_out(run, self.device):
                    return code
            else:
                say(f"is finished ({folder})")
            metrics = run.metrics
            assert metrics is not None
        return finished(candidate, folder / MODEL, metrics, read_history(folder / HISTORY), device)

    def _command(self, out: Path) -> str:
        """What to type to go on."""
        words = ["vitscratch", "compare", recipe_name(self.recipe)]
        for field in fields(self.recipe):
            value = getattr(self.recipe, field.name)
            if value != field.default and field.default is not MISSING:
                option = f"--{field.name.replace('_', '-')}"
                words += (
                    [option] if value is True else [option, *map(str, value if isinstance(value, tuple) else [value])]
                )
        words += [f"--{name}" for name in ("quick", "robust") if getattr(self, name)]
        words += ["--no-doctor"] * (not self.doctor)
        if self.robust_pictures != Compare.robust_pictures:
            words += ["--robust-pictures", str(self.robust_pictures)]
        words += ["--device", self.device] if self.device != "auto" else []
        return shlex.join([*words, "--out", str(out)])


CompareCommand = for_each_recipe(Compare, COMPARISONS)


def available(comparison: Comparison) -> dict[str, Candidate]:
    """The models to compare; those that cannot be had are left out, unless they were asked for by name.

    Raises:
        ValueError: no pictures are named, or a model that was asked for is not to be had.
    """
    if not comparison.data:
        raise ValueError("this comparison needs pictures of yours: --data FOLDER, with one folder for each class in it")
    candidates = comparison.chosen()
    for name in comparison.models:
        if candidates[name].missing:
            raise ValueError(f"--models {name}: {candidates[name].missing}")
    return candidates


@contextmanager
def _begun(out: Path, comparison: Comparison, device: str) -> Iterator[None]:
    """Write what is compared into the folder, or see that it is the same; if nothing is learned, take it back.

    Raises:
        ValueError: another comparison, or something else, is in the folder.
    """
    name, path = recipe_name(comparison), out / CONFIG
    new = not path.exists()
    if not new:
        there = _read(path)
        if there.get("comparison_name") != name:
            raise ValueError(f"--out {out} has a run of something else in it; name another folder")
        if changed := differences(there.get("comparison", {}), comparison):
            raise ValueError(f"--out {out} has a run with other settings ({changed}) in it; name another folder")
    elif taken := sorted(item.name for item in out.iterdir() if item.name != LOCK):
        raise ValueError(f"--out {out} has {', '.join(taken[:3])} in it; name a new folder")
    else:
        said = {"comparison_name": name, "comparison": recipe_to_json(comparison)}
        write_json({**said, "device": device, **environment()}, path)
    try:
        yield
    except BaseException:
        if new and not any(out.rglob("*.pt")):
            for name in (CONFIG, SPLITS, LOCK):
                for file in out.rglob(name):
                    file.unlink(missing_ok=True)
            for folder in (*(item for item in out.iterdir() if item.is_dir()), out):
                if not any(folder.iterdir()):
                    folder.rmdir()
        raise


def _done(out: Path, robust: int) -> bool:
    """Whether a comparison is over, with so many damaged pictures."""
    if not (out / NUMBERS).exists():
        return False
    found = _read(out / NUMBERS)
    return not robust or bool(found.get("robust_total") == min(robust, found["test_total"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error


def _pictures(sets: "Sets", candidate: Candidate) -> "Splits":
    with file_progress("pictures") as loading:
        return sets.splits(candidate.recipe, loading)


def _introduce(comparison: Comparison, splits: "Splits", left_out: dict[str, str]) -> None:
    warn_of(splits)
    assert splits.validation is not None
    say(
        f"{' against '.join(splits.class_names)}: {len(splits.train):,} pictures to learn from, "
        f"{len(splits.validation):,} to choose by, {_held_out(comparison, splits):,} for the end "
        f"({splits.summary['how']})"
    )
    for name, reason in left_out.items():
        say(f"Left out: {name}: {reason}")


def _held_out(comparison: Comparison, splits: "Splits") -> int:
    """How many test pictures there are, without a look at them."""
    number: int = sum(splits.summary["counts"]["test"].values())
    return min(number, comparison.max_pictures or number)


@contextmanager
def _measuring(pictures: int) -> Iterator[Callable[["Finished", str, int], None]]:
    """On a terminal, a bar over all pictures of all models, and which model is measured on what."""
    from tqdm import tqdm

    with tqdm(total=pictures, unit="picture", leave=False, disable=not sys.stderr.isatty()) as bar:

        def on_batch(model: "Finished", what: str, number: int) -> None:
            bar.set_description_str(f"{model.title}: {what}", refresh=False)
            bar.update(number)

        yield on_batch
