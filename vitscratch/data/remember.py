"""What was found out about files, kept in the user's cache folder: the next start, or process, need not decode them."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any


def default_data_dir() -> Path:
    """Where downloaded sets are kept: vitscratch in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitscratch" / "data"


def file_state(path: Path) -> list[int]:
    """Size and times of a file, in bytes and nanoseconds: others once it has been written to. [] if there is none."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def versions() -> dict[str, str]:
    """Of what turns files into pixels, this folder included: others may find something else."""
    import PIL
    import torchvision

    code = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py")))
    return {"pillow": PIL.__version__, "torchvision": torchvision.__version__, "code": _digest(code)}


@contextmanager
def remembered(about: str, version: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A dictionary, for JSON, that lasts: what is in it at the end is what it begins with the next time.

    It begins empty where what was kept is damaged or of another version. Another process that wants the same waits,
    and then finds what this one has. A cache folder that cannot be used costs the time, and is no error.

    Args:
        about: what it is about; there is one file for each.
        version: kept only as long as this is the same.
    """
    from filelock import FileLock

    path = default_data_dir() / "checked" / f"{_digest(about)}.json"
    with ExitStack() as stack:
        with suppress(OSError, NotImplementedError):  # the latter from file systems without locks
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        before = _read(path, version)
        notes = json.loads(before)
        yield notes
        if (after := json.dumps(notes)) != before:
            _write(path, version, after)


def _read(path: Path, version: dict[str, Any]) -> str:
    """The body of a file whose first line is right, or that of an empty one."""
    with suppress(OSError, ValueError):  # the latter: bytes that are no text
        first, _, body = path.read_text().partition("\n")
        if first == _first_line(version, body):
            return body
    return "{}"


def _write(path: Path, version: dict[str, Any], body: str) -> None:
    part = path.with_suffix(".part")
    with suppress(OSError):
        try:
            part.write_text(f"{_first_line(version, body)}\n{body}")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _first_line(version: dict[str, Any], body: str) -> str:
    return json.dumps({**version, "digest": _digest(body)})


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
