"""The folder of a run: who may write to it, what it says of itself."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitscratch.cli.common import environment, make_folder, write_json
from vitscratch.cli.recipe import recipe_from_json, recipe_name, recipe_to_json
from vitscratch.recipes import Recipe

CONFIG, METRICS, MODEL, HISTORY, CURVES = (
    "config.json",
    "metrics.json",
    "model.safetensors",
    "history.csv",
    "curves.png",
)


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
        return json.loads(path.read_text()) if path.exists() else None


def start_run(path: Path, recipe: Recipe, device: str) -> RunFolder:
    """Make the folder of a new run and write config.json.

    Raises:
        ValueError: there is a run in it already, or it cannot be written.
    """
    config = {
        "recipe_name": recipe_name(recipe),
        "recipe": recipe_to_json(recipe),
        "device": device,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        **environment(),
    }
    if not is_first_process():
        return RunFolder(path, recipe, config)
    make_folder(path)
    if (path / CONFIG).exists():
        raise ValueError(
            f"--out {path} has a run in it; `vitscratch train --resume {path}` goes on with it, another --out starts "
            "a new one"
        )
    write_json(config, path / CONFIG)
    return RunFolder(path, recipe, config)


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
        return RunFolder(path, recipe_from_json(config["recipe_name"], config["recipe"]), config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be used: {error}") from error


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keep every other run out of the folder meanwhile; the system drops the lock if this process is killed.

    Raises:
        ValueError: another run has the folder.
    """
    from filelock import FileLock, Timeout

    if not is_first_process():
        yield
        return
    lock = FileLock(path / ".lock")
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
    return os.environ.get("RANK", "0") == "0"
