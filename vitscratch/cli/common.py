"""What several commands share: options, devices and files."""

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Literal

from vitscratch.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(kw_only=True)
class Common:
    """Options of every command."""

    debug: bool = False
    """Show the traceback of an error."""


def pick_device(device: Device) -> str:
    """The device to use: for "auto" a GPU if there is one.

    Raises:
        ValueError: a device that this machine, or this build of torch, does not have.
    """
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[device]:
        there = ", ".join(name for name, found in available.items() if found)
        raise ValueError(f"--device {device} is not available to torch here; there is: {there}")
    return device


def make_folder(path: Path, argument: str = "--out") -> Path:
    """Create a folder for results, before any work, so that a bad path costs nothing."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"{argument} {path} is a file; expected a folder (a new one is made)")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{argument} {path} cannot be made ({error.strerror}); name another folder") from error
    if not os.access(path, os.W_OK):
        raise ValueError(f"{argument} {path} is not writable; name another folder")
    return path


def check_writable(path: Path | None, option: str = "--json") -> None:
    """Refuse a path for a result that cannot be written, before any work."""
    if path is None:
        return
    try:
        with TemporaryFile(dir=path.absolute().parent):  # as root, os.access says yes of /proc, too
            written = not path.is_dir()
    except OSError:
        written = False
    if not written:
        raise ValueError(f"{option} {path}: expected a file in a folder that exists and is writable")


def check_png(path: Path | None, option: str = "--out") -> None:
    """Refuse a path for a figure that is no .png or cannot be written, before any work."""
    if path is not None and path.suffix.lower() != ".png":
        raise ValueError(f"{option} {path}: expected a file whose name ends in .png")
    check_writable(path, option)


def write_json(data: Any, path: Path) -> None:
    """Write JSON; a reader sees the old file or the whole new one."""
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text), "w")


def save_figure(figure: "Figure", path: Path) -> None:
    """Draw a figure into a PNG; whoever looks sees the old one or the whole new one."""
    write_atomically(path, lambda file: figure.savefig(file, dpi=110, format="png"))


def with_interval(correct: int, total: int) -> str:
    """An accuracy as it should be told: with the number of pictures and the 95 % interval."""
    from vitscratch.training import wilson_interval

    low, high = wilson_interval(correct, total)
    return f"{correct / total:.2%} ({correct:,} of {total:,}; 95 % interval {low:.2%} to {high:.2%})"


def environment() -> dict[str, Any]:
    """Versions and revision: what else a result depends on."""
    from importlib.metadata import version

    from vitscratch import __version__

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", "common.py")  # else: installed inside somebody else's repository
        revision = git("rev-parse", "HEAD").strip()
    except (OSError, subprocess.CalledProcessError):
        revision = None
    return {
        "vitscratch": __version__,
        "git_revision": revision,
        **{name: version(name) for name in ("torch", "torchvision", "numpy")},  # without loading them
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
