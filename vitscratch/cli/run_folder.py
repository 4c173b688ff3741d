"""The folder of a run: who may write to it, what it says of itself."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitscratch.cli.common import environment, make_folder, write_json
from vitscratch.cli.recipe import differences, recipe_from_json, recipe_name, recipe_to_json
from vitscratch.recipes import Recipe

CONFIG, SPLITS, METRICS, MODEL = "config.json", "splits.json", "metrics.json", "model.safetensors"
HISTORY, CURVES, LOCK = "history.csv", "curves.png", ".lock"
OURS = (CONFIG, SPLITS, METRICS, MODEL, HISTORY, CURVES)


@dataclass(frozen=True)
class RunFolder:
    """A folder with a run in it: what config.json says."""

    path: Path
    recipe: Recipe
    config: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The final numbers; None if the run is not over."""
        path = self.path / METRICS
        try:
            return json.loads(path.read_text()) if path.exists() else None
        except ValueError:  # written by a program that did not force it onto the disk, say: measure once more
            return None


def start_run(path: Path, recipe: Recipe, device: str, doctor: bool, part_of: str | None = None) -> RunFolder:
    """Write config.json of a new run.

    Args:
        doctor: whether it is to be examined before the first step, also if it is resumed before that.
        part_of: of a run that cannot be resumed alone, the command that goes on with the whole.

    Raises:
        ValueError: there is a run in the folder already.
    """
    config = {
        "recipe_name": recipe_name(recipe),
        "recipe": recipe_to_json(recipe),
        "device": device,
        "doctor": doctor,
        "processes": int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1,
        **({"part_of": part_of} if part_of is not None else {}),
        **environment(),
    }
    if not is_first_process():
        return RunFolder(path, recipe, config)
    if (path / CONFIG).exists():
        raise ValueError(
            f"--out {path} has a run in it{_of_another_kind(path, recipe)}; `vitscratch train --resume {path}` goes on "
            "with it, another --out starts a new one"
        )
    if taken := sorted(item.name for item in path.iterdir() if item.suffix == ".pt" or item.name in OURS):
        raise ValueError(f"--out {path} has {', '.join(taken)} of something else in it; name another folder")
    write_json(config, path / CONFIG)
    return RunFolder(path, recipe, config)


def _of_another_kind(path: Path, recipe: Recipe) -> str:
    """In which way a folder's run is not what was asked for; "" if it is."""
    try:
        there = json.loads((path / CONFIG).read_text())
        if there["recipe_name"] != recipe_name(recipe):
            return f" of the recipe {there['recipe_name']}"
        found = differences(there["recipe"], recipe)
    except (ValueError, KeyError, TypeError, AttributeError):  # it makes no sense, which a resume will say
        return ""
    return f" with other settings ({found})" * bool(found)


def forget_run(path: Path) -> None:
    """Take back what `start_run` wrote, if nothing has been trained there; the caller has the lock."""
    if is_first_process() and not any(path.rglob("*.pt")):
        for name in (CONFIG, SPLITS, LOCK):
            (path / name).unlink(missing_ok=True)
        if not any(path.iterdir()):
            path.rmdir()


def is_run(path: Path) -> bool:
    """Whether config.json of a folder is of a run; weights of other libraries have one, too."""
    file = path / CONFIG
    return file.is_file() and '"recipe_name"' in file.read_text(errors="replace")


def read_run(path: Path) -> RunFolder:
    """Read config.json of a run.

    Raises:
        ValueError: there is no run in that folder, or config.json makes no sense.
    """
    file = path / CONFIG
    if not file.is_file():
        raise ValueError(f"{path} has no {CONFIG}, so there is no run in it; `vitscratch train RECIPE` starts one")
    try:
        config = json.loads(file.read_text())
        if "comparison_name" in config:
            raise ValueError(
                f"it is of a comparison; `vitscratch compare {config['comparison_name']}` with the same options goes "
                "on with it, and its networks have folders of their own in there"
            )
        return RunFolder(path, recipe_from_json(config["recipe_name"], config["recipe"]), config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be used: {error}") from error


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Make the folder, and keep every other run out of it; the system drops the lock if this process is killed.

    Raises:
        ValueError: another run has the folder, or it cannot be made.
    """
    from filelock import FileLock, Timeout

    if not is_first_process():
        yield
        return
    lock = FileLock(make_folder(path) / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"another run is writing to {path}; wait for it, or choose another --out") from error
    try:
        yield
    finally:
        lock.release()


def is_first_process() -> bool:
    """Whether this is the process that writes and prints: the only one, or torchrun's number 0."""
    return under_torchrun() is False or os.environ["RANK"] == "0"


def under_torchrun() -> bool:
    """Whether torchrun started this process. (Other launchers set RANK too, but nobody joins the processes then.)"""
    return "TORCHELASTIC_RUN_ID" in os.environ
