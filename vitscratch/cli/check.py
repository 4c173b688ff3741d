"""`vitscratch check`: is a student's exercise right, and if not, which line of thought went wrong?"""

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import tyro

from vitscratch.cli.common import Common, check_writable, write_json

if TYPE_CHECKING:
    from vitscratch.exercises import Exercise
    from vitscratch.exercises.report import Report
    from vitscratch.exercises.runner import Runner

Stamp: TypeAlias = tuple[int, int]
PAUSE = 0.5  # seconds between two looks at the files
AWAY = 2  # looks at which a file may be missing: editors take files away for a moment


@dataclass(kw_only=True)
class Check(Common):
    """Check exercises that `vitscratch exercises new` began: what is right, the first thing that is wrong, and the
    numbers that show it. Exit code 0 if all is right, 1 if not."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR|FILE")]
    """A folder: its exercises in order, up to the first that is wrong; one that is not begun stops nothing. A file:
    that one."""

    watch: bool = False
    """Check again whenever a file of the folder is saved, and go on to the next exercise when one is right or not
    begun; Ctrl-C ends it."""

    hint: bool = False
    """Give a hint; asked again about the same problem, one more."""

    solution: bool = False
    """Show the library's code for the first exercise that is wrong, or else not begun, or for FILE."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the reports as JSON."""

    def run(self) -> int:
        check_writable(self.json)
        files = _files(self.path, self.watch)
        if isinstance(sys.stdout, TextIOWrapper):  # a student's characters may be none of the terminal's
            sys.stdout.reconfigure(errors="backslashreplace")

        from vitscratch.exercises.runner import Runner

        with Runner() as runner:
            return self._watch(runner) if self.watch else self._once(runner, files, {})

    def _once(self, runner: "Runner", files: "dict[Exercise, Path]", done: "dict[Path, Report]") -> int:
        """Check up to the first that is not right, and print; `done` need not be checked again."""
        from vitscratch.exercises.files import overlooked, solution
        from vitscratch.exercises.hints import is_remembered, next_hint
        from vitscratch.exercises.report import to_json

        reports, hints = [], {}
        if self.path.is_dir() or len(files) > 1:  # one file that was asked for has no rivals
            for line in overlooked(files):
                print(line)
        for report in _check(runner, files, done):
            reports.append(report)
            if report.status == "not checked" or (report.status == "not begun" and not report.outcomes):
                print(report.line())
                continue
            hints[report.file] = next_hint(report, self.hint)
            quiet = report.ok and len(files) > 1 and not report.printed_size
            print(report.brief() if quiet else report.text(hints[report.file]), flush=True)
            if not is_remembered(report, hints[report.file]):
                print(f"{'':10}({report.file.parent} cannot be written to, so the next hint will be this one again)")
        right = sum(report.ok for report in reports)
        if len(files) > 1:
            print(f"\n{right} of {len(files)} right")
        unfinished = [one for one in reports if not one.ok]
        unfinished.sort(key=lambda one: (one.status == "not begun", not one.outcomes))  # what is wrong, or else to do
        shown = next(iter(unfinished), reports[0] if len(files) == 1 else None)
        if self.solution and shown is not None:
            print(f"\n{solution(shown.exercise)}", end="")
        if self.json is not None:
            write_json(to_json(reports, hints), self.json)
        return 0 if right == len(files) else 1

    def _watch(self, runner: "Runner") -> int:
        done: dict[Path, Report] = {}
        before = _stamps(self.path)
        while True:
            files: dict[Exercise, Path] = {}
            try:
                files = _files(self.path, True)
                if self._once(runner, files, done) == 0:
                    return 0
            except (ValueError, OSError) as error:  # deleted, or renamed: it may come back
                print(error)
            print("\nwaiting for a file to be saved; Ctrl-C ends", flush=True)
            now = _wait(self.path, before)
            for path in _touched(list(files.values()), before, now):
                done.pop(path, None)
            before = now
            print(flush=True)


def _files(path: Path, onwards: bool) -> "dict[Exercise, Path]":
    """What to check; with `onwards` also the exercises of a file's folder that come after it.

    Raises:
        ValueError: no such path, or no exercise there.
    """
    from vitscratch.exercises.files import exercise_of, find_exercises, nearby

    if path.is_dir():
        files = find_exercises(path)
        if not files:
            new = f"vitscratch exercises new {shlex.quote(str(path))}"
            raise ValueError(f"{path}: no exercise in this folder; {_below(path) or f'`{new}` writes them'}")
        return files
    if not path.exists():
        near = nearby(path)
        there = "`vitscratch exercises new DIR` makes one"
        if near is not None:
            there = f"did you mean `vitscratch check {shlex.quote(str(near))}`?"
        raise ValueError(f"{path}: no such file or folder; {there}")
    exercise = exercise_of(path)
    later = find_exercises(path.parent) if onwards else {}
    return {exercise: path, **{one: file for one, file in later.items() if one.number > exercise.number}}


def _below(folder: Path) -> str:
    """What to type if files of exercises lie one folder further down, as in my-vit; "" if none do."""
    from vitscratch.exercises.files import exercise_of_name

    for path in sorted(folder.glob("*/*.py")):
        if path.is_file() and exercise_of_name(path) is not None:
            return f"did you mean `vitscratch check {shlex.quote(str(path.parent))}`?"
    return ""


def _check(runner: "Runner", files: "dict[Exercise, Path]", done: "dict[Path, Report]") -> "Iterator[Report]":
    """Reports in order; after the first that is wrong, the others are only looked at.

    An exercise that is not begun stops nothing; of several, only that of the earliest tutorial is run, for what is to
    do.
    """
    from vitscratch.exercises.files import is_stub
    from vitscratch.exercises.report import Report

    untouched = [exercise for exercise, path in files.items() if is_stub(path, exercise)]
    following = min(untouched, key=lambda exercise: (exercise.tutorial, exercise.number), default=None)
    stopped = False
    for exercise, path in files.items():
        if stopped or (exercise in untouched and exercise is not following):
            yield Report(path, exercise, "not begun" if exercise in untouched else "not checked")
            continue
        report = done.get(path) or runner.check(path, exercise)
        if report.ok:
            done[path] = report
        stopped = not report.ok and report.status != "not begun"
        yield report


def _stamps(path: Path) -> dict[Path, Stamp]:
    """Time and size of each file in a folder, or of a file and of those beside it, which it may import."""
    found = {}
    for one in [*(path if path.is_dir() else path.parent).glob("*.py"), path]:
        with suppress(OSError):
            if not one.is_dir():
                found[one] = (one.stat().st_mtime_ns, one.stat().st_size)
    return found


def _wait(path: Path, before: Mapping[Path, Stamp]) -> dict[Path, Stamp]:
    """Wait until a file is another than before, is new, or stays away."""
    away = 0
    while (now := _stamps(path)) == before or 0 < (away := away + 1 if before.keys() - now.keys() else 0) <= AWAY:
        time.sleep(PAUSE)
    return now


def _touched(paths: Sequence[Path], before: Mapping[Path, Stamp], now: Mapping[Path, Stamp]) -> Sequence[Path]:
    """What to check again: an exercise may import earlier ones, and any may import a file that is none."""
    changed = {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}
    if not changed <= set(paths):
        return paths
    return paths[min(map(paths.index, changed)) :]
