"""Files that are old or new, never half."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Any], None], mode: str = "wb") -> None:
    """Write to a file beside `path`, force it onto the disk, and only then give it its name.

    Whenever the machine stops, `path` is the old file or the whole new one.

    Args:
        path: in a folder that exists. write: called with the open file. mode: "w" for text.

    Raises:
        OSError: the disk is full, say; what was at `path` is still there, and nothing else is left behind.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open(mode, newline="" if mode == "w" else None) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Force the names of a folder's files onto the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
