"""What a check has to say about a file or a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["bad", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Args:
        severity: "bad": cannot be decoded or is unsafe, so training refuses it or skips it; "warning": works, but what
            comes of it may be worthless; "note": works, but you should know.
        kind: a few words that are the same for all findings of this kind, such as "truncated".
        where: the file or folder, relative to what was checked; or the property of files that tells the class.
        message: what is the matter with this one.
    """

    severity: Severity
    kind: str
    where: str
    message: str


def readable(path: object) -> str:
    """A path that can be printed: bytes that are no text, and line breaks, are escaped."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def layout_line(root: Path, errors: Sequence[Finding]) -> str:
    """What is wrong with a set's layout, in a line: each empty or unreadable folder by name, the first of the rest."""
    empty = [root / item.where for item in errors if item.kind == "empty class"]
    lines = [f"{root / item.where}: {item.message}" for item in errors if item.kind == "unreadable folder"]
    if empty:
        what = "this class folder; fill it, or move it" if len(empty) == 1 else "these; fill them, or move them"
        lines.append(f"{', '.join(map(str, empty))}: no pictures in {what} out of the way")
    rest = [item.message for item in errors if item.kind not in ("empty class", "unreadable folder")]
    if rest:
        lines.append(f"{root}: {rest[0]}" + f" (and {len(rest) - 1} more such errors)" * (len(rest) > 1))
    return "; ".join(lines)
