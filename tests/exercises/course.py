"""A course of one exercise, to test the checker with: `double`, which doubles a number. The runner's child imports
this file as the module of checks."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from vitscratch.exercises import Exercise, Mistake, Outcome, Passed, Problem
from vitscratch.exercises.report import Report
from vitscratch.exercises.runner import Limits, Runner

MISTAKES = {
    "squared": Mistake("squared", "it squares instead of doubling", "doubling", ("twice?", "not times itself"), "Twice")
}


class Course(Exercise):
    @property
    def checker(self) -> str:
        return "tests.exercises.course"


DOUBLE = Course(1, "double", ("double",), ("doubling",), 5, 1, "01_patches.ipynb")
TRIPLE = Course(2, "triple", ("triple",), ("doubling",), 5, 1, "01_patches.ipynb")
HALVE = Course(3, "halve", ("Halve",), ("doubling",), 5, 1, "02_tokens.ipynb")


def check(student: ModuleType) -> Iterator[Outcome]:
    if hasattr(student, "Halve"):
        assert student.Halve(side=3).double() is not None, "what a check does with a module"
        yield Passed("Halve can be built")
        return
    function, factor = (student.triple, 3) if hasattr(student, "triple") else (student.double, 2)
    if function(0) != 0:
        yield Problem("0 does not stay 0", f"double(0) is {function(0)!r}", "doubling", ("zero?", "nothing twice"))
        yield Passed("nobody reads on after a problem")
    yield Passed("0 stays 0")
    try:
        function(5)
    except ArithmeticError as error:
        error.add_note("it was called with 5")
        raise
    if function(3) == "fail":
        raise ZeroDivisionError("the check is wrong")
    if function(3) == 9 and factor == 2:
        yield Problem("3 becomes 9", "double(3) is 9, expected 6", "doubling", MISTAKES["squared"].hints, "squared")
        return
    if function(3) != factor * 3:
        yield Problem("3 is wrong", f"{function(3)!r}, not {factor * 3}", "doubling", ("three?", "add it to itself"))
        return
    yield Passed(f"3 becomes {factor * 3}")


@cache
def runner() -> Runner:
    """One for all tests: torch is imported once."""
    return Runner(Limits(1.0))


def run(folder: Path, code: str | bytes, exercise: Exercise = DOUBLE) -> Report:
    """Check a student's code."""
    path = folder / exercise.file_name
    path.write_bytes(code.encode() if isinstance(code, str) else code)
    return runner().check(path, exercise)


@pytest.fixture(scope="session", autouse=True)
def _end_runner() -> Iterator[None]:
    yield
    runner().close()
