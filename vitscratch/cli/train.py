"""`vitscratch train`: carry out a recipe, or go on with a run that was interrupted."""

import errno
import json
import math
import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vitscratch.cli.common import Common, Device, check_writable, pick_device, save_figure, with_interval, write_json
from vitscratch.cli.data import file_progress
from vitscratch.cli.doctor import diagnose
from vitscratch.cli.progress import Progress, say
from vitscratch.cli.recipe import checked, for_each_recipe, recipe_name, shortened
from vitscratch.cli.run_folder import (
    CONFIG,
    CURVES,
    HISTORY,
    METRICS,
    MODEL,
    SPLITS,
    RunFolder,
    forget_run,
    is_first_process,
    only_writer,
    read_run,
    start_run,
    under_torchrun,
)
from vitscratch.recipes import Recipe
from vitscratch.recipes.base import BUILT_IN

if TYPE_CHECKING:
    from vitscratch.data import Splits
    from vitscratch.recipes.experiment import Experiment
    from vitscratch.training import Checkpoints, EpochRecord, Run


@dataclass(kw_only=True)
class Training(Common):
    """What starting and resuming have in common."""

    doctor: bool = True
    """Examine model and data before the first step (a few seconds), and stop if something is broken."""

    tensorboard: bool = False
    """Also write the epochs for TensorBoard (pip install 'vitscratch[tensorboard]')."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write metrics.json there."""

    def carry_out(self, run: RunFolder, device_wish: Device) -> int:
        """Train, measure and save; the folder is there.

        Raises:
            ImportError: the package for --tensorboard is missing.
        """
        if self.tensorboard and find_spec("tensorboard") is None:
            raise ImportError("--tensorboard needs a package: pip install 'vitscratch[tensorboard]'")
        from vitscratch.training import (
            Checkpoints,
            Interrupted,
            distributed,
            explain_out_of_memory,
            is_out_of_memory,
        )

        with distributed.process_group(pick_device(device_wish)) as device:
            checkpoints = Checkpoints(run.path, run.recipe.monitor)
            try:
                self._train(run, device, checkpoints)
            except Interrupted as interruption:
                say(f"Stopped after a step, as asked, and saved. To go on: {self.go_on(run.path)}")
                return 128 + interruption.signal_number
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                share = -(-run.recipe.batch_size // distributed.processes())
                raise RuntimeError(explain_out_of_memory(error, share, device)) from error
            except OSError as error:
                if checkpoints.last_good is None:
                    raise
                remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "mend that"
                saved = f"last good checkpoint: {checkpoints.last_good}"
                raise OSError(f"{error}; {saved}; {remedy}, then: {self.go_on(run.path)}") from error
        return 0

    def _train(self, run: RunFolder, device: str, checkpoints: "Checkpoints") -> None:
        from vitscratch.training import distributed, save_history, stop_on_signals

        first = distributed.rank() == 0
        experiment = self.prepared(run, device)
        if first:
            check_same_pictures(run.path, experiment.splits)
        introduce(experiment)
        if checkpoints.find() is not None:
            for refusal in checkpoints.refused:
                say(f"Warning: {refusal}")
            say(f"Going on from {checkpoints.resumed_from}.")
        elif any(run.path.rglob("*.pt")):
            say("Going on from the first part of this run.")
        elif self.doctor and run.config.get("doctor", True) and first:  # also of a run that was killed this early
            examine(experiment)
        progress = Progress(run.recipe.all_epochs, len(experiment.batches("train")))
        started = time.perf_counter()
        with self._tensorboard(run.path) as write_event:

            def after_epoch(state: "Run") -> None:
                progress.after_epoch(state)
                if first:
                    save_history(state.history, run.path / HISTORY)
                    write_event(state.history[-1])

            try:
                with stop_on_signals() as checkpoints.stop:
                    history = experiment.fit(checkpoints, progress.after_step, after_epoch)
            finally:
                progress.close()
        metrics = measure(experiment, history, time.perf_counter() - started)
        if first:
            save(run.path, experiment, history, metrics)
            if self.json is not None:
                write_json(metrics, self.json)
            self.tell(run, metrics)

    def prepared(self, run: RunFolder, device: str) -> "Experiment":
        """The run's pictures and its model."""
        from vitscratch.recipes.experiment import prepare
        from vitscratch.training import distributed

        with file_progress("pictures") as loading:
            experiment = prepare(run.recipe, device, None if distributed.rank() else loading)
        warn_of(experiment.splits)
        return experiment

    def tell(self, run: RunFolder, metrics: dict[str, Any]) -> None:
        """What came out, and where it is."""
        say(f"{describe(metrics)}\n{run.path}: {', '.join((MODEL, METRICS, HISTORY, CURVES, CONFIG))}")
        if run.recipe.data not in BUILT_IN:
            say(f"Try: vitscratch predict {shlex.quote(str(run.path))} PICTURE")

    def go_on(self, folder: Path) -> str:
        """The command that goes on with the run."""
        return resume_command(folder)

    @contextmanager
    def _tensorboard(self, folder: Path) -> Iterator[Any]:
        if not self.tensorboard or not is_first_process():
            yield lambda record: None
            return
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(folder / "tensorboard") as writer:

            def write_event(record: "EpochRecord") -> None:
                for name, value in asdict(record).items():
                    if name not in ("epoch", "part") and value == value:
                        writer.add_scalar(re.sub("^(train|validation)_", r"\1/", name), value, record.epoch)

            yield write_event


@dataclass(kw_only=True)
class Start(Training):
    """Train a recipe."""

    recipe: Recipe

    device: Device = "auto"
    """Where to train."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Folder of the run; a new one. By default runs/RECIPE."""

    quick: bool = False
    """A short version that ends within two minutes on two cores: shows that everything runs. It sets the number of
    epochs and of pictures, unless you do."""

    def run(self) -> int:
        check_writable(self.json)
        recipe = checked(self.recipe).absolute()
        recipe = recipe.quick() if self.quick else recipe
        out = self.out if self.out is not None else Path("runs") / recipe_name(recipe)
        with only_writer(out):
            run = start_run(out, recipe, self.device, self.doctor)
            say(f"{recipe_name(recipe)} in {out}{shortened(recipe) * self.quick}: loading ...")
            try:
                return self.carry_out(run, self.device)
            except BaseException:  # refused, or stopped, before anything was learned: as if nothing had been there
                forget_run(out)
                raise


@dataclass(kw_only=True)
class Resume(Training):
    """Go on with a run that was interrupted, from its last checkpoint: `vitscratch train --resume RUN`."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""

    device: Device | None = None
    """Where to train; by default where the run began."""

    def run(self) -> int:
        check_writable(self.json)
        run = read_run(self.path)
        if (command := run.config.get("part_of")) is not None:
            raise ValueError(f"{run.path} is a part of a comparison; to go on with it: {command}")
        if run.metrics is not None:
            say(f"{run.path} is finished: {describe(run.metrics)}")
            if self.json is not None:
                write_json(run.metrics, self.json)
            return 0
        with only_writer(run.path):
            say(f"{run.config['recipe_name']} in {run.path}: loading ...")
            return self.carry_out(run, self.device or run.config["device"])


Train = for_each_recipe(Start) | Annotated[Resume, tyro.conf.subcommand("resume")]


def resume_command(folder: Path) -> str:
    """What to type to go on with a run."""
    start = "vitscratch"
    if under_torchrun():
        start = f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']} -m vitscratch"
    return f"{start} train --resume {shlex.quote(str(folder))}"


def check_same_pictures(folder: Path, splits: "Splits") -> None:
    """Write down how the pictures were divided; on a resume, see that they are still the same.

    Raises:
        ValueError: they are not.
    """
    path, summary = folder / SPLITS, splits.summary
    if not path.exists():
        write_json(summary, path)
    elif json.loads(path.read_text()).get("fingerprint") != summary.get("fingerprint"):
        raise ValueError(
            f"the pictures of {summary['data']} have changed since this run began ({path}); put them back, or "
            "start a new run"
        )


def warn_of(splits: "Splits") -> None:
    """Say what is wrong with the pictures."""
    if skipped := splits.summary.get("skipped"):
        files = splits.summary["files"]
        say(f"Skipped {len(skipped):,} of {files:,} files that cannot be decoded ({SPLITS} lists them).")
    for warning in warnings(splits):
        say(f"Warning: {warning}")


def warnings(splits: "Splits", most: int = 3) -> list[str]:
    """What is wrong with the pictures: of each kind so many, and how many more there are."""
    kinds: dict[str, list[str]] = {}
    for warning in splits.summary.get("warnings", []):
        kinds.setdefault(warning.partition(":")[0], []).append(warning)
    told = []
    for kind, found in kinds.items():
        told += found[:most]
        if len(found) > most:
            told.append(f"{kind}: {len(found) - most:,} more ({SPLITS} has them all)")
    return told


def introduce(experiment: "Experiment") -> None:
    """Say what is trained on what."""
    from vitscratch.training import choose_precision, distributed

    splits, recipe = experiment.splits, experiment.recipe
    parts = {name: getattr(splits, name) for name in ("train", "validation", "test")}
    counts = ", ".join(f"{len(part):,} for {name}" for name, part in parts.items() if part is not None)
    for note in experiment.provenance.get("notes", []):
        say(f"Weights: {note}")
    device = next(experiment.model.parameters()).device
    precision = str(choose_precision(recipe.precision, device)).removeprefix("torch.")
    processes = f", {distributed.processes()} processes" if distributed.is_running() else ""
    say(
        f"{experiment.parameters:,} parameters on {experiment.device}{processes}, "
        f"{precision}; "
        f"{len(splits.class_names)} classes; pictures: {counts}"
    )
    if experiment.config is not None and (learns := recipe.learns(experiment.config)):
        say(learns)


def examine(experiment: "Experiment") -> None:
    """Run the doctor before the first step.

    Raises:
        ValueError: something is broken.
    """
    if experiment.config is None:  # its checks are those of a ViT
        return
    started = time.perf_counter()
    diagnosis = diagnose(experiment)
    if not diagnosis.passed:
        say(diagnosis.table())
        failed = ", ".join(result.name for result in diagnosis.failures)
        raise ValueError(f"the doctor's checks failed: {failed} (see above); mend it, or train on with --no-doctor")
    checked = sum(result.status == "passed" for result in diagnosis.results)
    say(
        f"Doctor: {checked} of {len(diagnosis.results)} checks passed, none failed "
        f"({time.perf_counter() - started:.1f} s)."
    )


def measure(experiment: "Experiment", history: "list[EpochRecord]", seconds: float) -> dict[str, Any]:
    """The final numbers. The test part is read here, once."""
    from vitscratch.training import best_epoch

    recipe, splits = experiment.recipe, experiment.splits
    best = best_epoch(history, recipe.monitor)
    kept = best if recipe.patience is not None and best is not None else len(history)
    record = history[kept - 1]
    metrics: dict[str, Any] = {
        "epochs": len(history),
        "kept_epoch": kept,
        "train_loss": record.train_loss,
        "train_accuracy": record.train_accuracy,
        "parameters": experiment.parameters,
        "images_per_second": round(record.images_per_second, 1),
        "seconds": round(sum(record.seconds for record in history), 2),
        "seconds_since_last_start": round(seconds, 2),
    }
    if splits.validation is not None:
        metrics |= {"validation_loss": record.validation_loss, "validation_accuracy": record.validation_accuracy}
        metrics["validation_total"] = len(splits.validation)
    if splits.test is not None:
        test = experiment.measure("test")
        metrics |= {"test_loss": test.loss, "test_accuracy": test.accuracy, "test_total": test.total}
        metrics["test_correct"] = test.correct
        metrics["test_per_class"] = {
            name: {"correct": correct, "total": total}
            for name, (correct, total) in zip(splits.class_names, test.per_class, strict=True)
        }
    if experiment.notes:
        metrics["notes"] = experiment.notes
    infinite = [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]
    return metrics | dict.fromkeys(infinite)  # JSON has no nan


def describe(metrics: dict[str, Any]) -> str:
    """The final numbers in a line."""
    kept = f"epoch {metrics['kept_epoch']} of {metrics['epochs']} kept" if metrics["kept_epoch"] else "no epoch"
    parts = [f"{kept}, {metrics['seconds']:.0f} s"]
    if "validation_accuracy" in metrics:
        parts.append(f"validation accuracy {metrics['validation_accuracy']:.2%} of {metrics['validation_total']:,}")
    if "test_accuracy" in metrics:
        parts.append(f"test accuracy {with_interval(metrics['test_correct'], metrics['test_total'])}")
    return "\n".join(["; ".join(parts), *(f"Note: {note}" for note in metrics.get("notes", []))])


def save(folder: Path, experiment: "Experiment", history: "list[EpochRecord]", metrics: dict[str, Any]) -> None:
    """Write the model, the curves and the numbers; metrics.json last: it says that the run is over."""
    from vitscratch import plots
    from vitscratch.training import save_history

    save_history(history, folder / HISTORY)
    provenance: dict[str, Any] = {
        "recipe": recipe_name(experiment.recipe),
        "data": experiment.recipe.data,
        **experiment.provenance,
        **{key: metrics[key] for key in ("kept_epoch", "validation_accuracy", "test_accuracy") if key in metrics},
    }
    experiment.recipe.save(folder / MODEL, experiment, provenance)
    test_accuracy = metrics.get("test_accuracy")
    if (probe := experiment.probe) is not None:
        figure = plots.regularisation([row[:2] for row in probe.tried], probe.c, test_accuracy)
    else:
        figure = plots.curves(history, test_accuracy)
    save_figure(figure, folder / CURVES)
    write_json(metrics, folder / METRICS)
