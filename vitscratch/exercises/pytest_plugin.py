"""`pytest --vitscratch-exercises DIR`: check the exercises of a class, and print a table for each student.

Without the option it adds nothing. It imports no torch, and neither do the tests: each file has a process of its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vitscratch.exercises import Exercise
    from vitscratch.exercises.runner import Runner

OPTION = "--vitscratch-exercises"
_PROPERTY = "vitscratch_exercise"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.getgroup("vitscratch").addoption(
        OPTION,
        metavar="DIR",
        type=Path,
        help="check the vitscratch exercises in DIR: files, or one folder per student",
    )


def pytest_configure(config: pytest.Config) -> None:
    """With the option, collect the class instead of the tests that would be found here."""
    folder = config.getoption(OPTION)
    if folder is None:
        return
    if not folder.is_dir():
        raise pytest.UsageError(f"{OPTION} {folder}: no such folder; expected one with a folder per student")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = []
    config.pluginmanager.register(_Class(folder), "vitscratch-exercises-of-a-class")


class _Class:
    """The students of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table: dict[str, list[str]] = {}

    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add an item for each exercise of each student."""
        from vitscratch.exercises.runner import Runner

        runner = Runner()
        session.config.add_cleanup(runner.close)
        found = [(name, *each) for name, files in _students(self.folder) for each in files.items()]
        if not found:
            raise pytest.UsageError(f"{OPTION} {self.folder}: no exercise there, nor in a folder in it")
        for student, exercise, path in found:
            name = f"{student}: {exercise.file_name.removesuffix('.py')}"
            items.append(_Item.from_parent(session, name=name, path_=path, exercise=exercise, runner=runner))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Also called where several processes share the work (pytest-xdist), for all of them."""
        for name, value in report.user_properties:
            if name == _PROPERTY and report.when == "call" and isinstance(value, tuple | list):
                student, line = value
                self.table.setdefault(str(student), []).append(str(line))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the tables."""
        from vitscratch.exercises.files import overlooked

        more = {student: [*overlooked(files)] for student, files in _students(self.folder)}
        for student, lines in self.table.items():
            right = sum(line.endswith(" ok") for line in lines)
            terminalreporter.section(f"{student}: {right} of {len(lines)} right")
            for line in [*sorted(lines), *more.get(student, ())]:
                terminalreporter.write_line(line)


class _Wrong(Exception):
    """An exercise that is not right; its text is the report."""


class _Item(pytest.Item):
    """One exercise of one student."""

    def __init__(self, *, path_: Path, exercise: "Exercise", runner: "Runner", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.file, self.exercise, self.runner = path_, exercise, runner

    def runtest(self) -> None:
        """Check it."""
        from vitscratch.exercises.errors import shorten

        report = self.runner.check(self.file, self.exercise)
        student = self.name.rpartition(": ")[0]
        what = "" if report.problem is None or report.status != "wrong" else report.problem.what
        line = report.line() + (f": {shorten(what, 80)}" if what and not report.mistake else "")
        self.user_properties.append((_PROPERTY, (student, line)))
        if not report.ok:  # pytest's summary shows the beginning
            raise _Wrong(f"{report.mistake or what or report.status}\n{report.text()}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The report; the traceback would be the checker's."""
        return str(excinfo.value) if isinstance(excinfo.value, _Wrong) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it is."""
        return self.file, None, self.name


def _students(folder: Path) -> "Iterator[tuple[str, dict[Exercise, Path]]]":
    """Student, and the file of each exercise: of the folder itself, and of each in it."""
    from vitscratch.exercises.files import find_exercises

    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    for one in (folder, *inside):
        yield one.resolve().name, find_exercises(one)
