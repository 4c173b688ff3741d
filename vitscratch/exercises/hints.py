"""How many hints a student has seen of a problem, remembered in a file beside the exercises."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitscratch.exercises.report import Report
from vitscratch.files import write_atomically

FILE = ".vitscratch.json"


def next_hint(report: Report, asked: bool) -> int:
    """How many hints to show: none unless asked for, then one more than the last time.

    Another problem in the same file starts again at the first hint. One more than there are says that there are no
    more. A folder that cannot be written to forgets: it is always the first one.

    Args:
        report: of a check just made; a file that is right is forgotten.
        asked: whether a hint is wanted.
    """
    path, name = report.file.parent / FILE, report.file.name
    seen = _read(path)
    before = seen.get(name, {})
    problem = report.problem
    if problem is None:
        if seen.pop(name, None):
            _write(path, seen)
        return 0
    key = problem.mistake or f"{problem.step}: {problem.what}"
    shown = before.get("shown", 0) if before.get("problem") == key else 0
    if asked:
        shown = min(shown + 1, len(problem.hints) + 1)
    entry = {"problem": key, "shown": shown}
    if entry != before and (asked or before):
        _write(path, {**seen, name: entry})
    return shown if asked else 0


def is_remembered(report: Report, shown: int) -> bool:
    """Whether the next hint will be another one: the folder can be written to, or none was shown."""
    return not shown or _read(report.file.parent / FILE).get(report.file.name, {}).get("shown") == shown


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        seen = json.loads(path.read_text())
        if isinstance(seen, dict):
            return {name: entry for name, entry in seen.items() if isinstance(entry, dict)}
    return {}


def _write(path: Path, seen: dict[str, Any]) -> None:
    with suppress(OSError):
        write_atomically(path, lambda file: file.write(json.dumps(seen, indent=2)), "w")
