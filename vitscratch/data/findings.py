"""What a check has to say about a file or a folder."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["bad", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Args:
        severity: "bad": cannot be decoded or is unsafe, so training refuses it or skips it; "note": works, but you
            should know.
        kind: a few words that are the same for all findings of this kind, such as "truncated".
        where: the file or folder, relative to what was checked.
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
