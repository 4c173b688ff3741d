"""Exercises: stubs to fill in, and a checker that says which line of thought went wrong."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitscratch.exercises.catalog import EXERCISES
from vitscratch.exercises.exercise import Exercise, Mistake, Outcome, Passed, Problem

if TYPE_CHECKING:
    from vitscratch.exercises.checks.compare import draw, pixels
    from vitscratch.exercises.checks.roles import awaken
    from vitscratch.exercises.report import Report

__all__ = ["EXERCISES", "Exercise", "Mistake", "Outcome", "Passed", "Problem", "awaken", "check", "draw", "pixels"]


def __getattr__(name: str) -> Any:
    """`awaken`, `draw` and `pixels`, with which a student computes the numbers of a report again: they need torch."""
    if name == "awaken":
        from vitscratch.exercises.checks.roles import awaken

        return awaken
    if name in ("draw", "pixels"):
        from vitscratch.exercises.checks import compare

        return getattr(compare, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check(path: str | Path, *, seconds: float = 20.0) -> "Report":
    """Check a student's file in a process of its own, as `vitscratch check` does.

    Args:
        path: a file of an exercise: found by its name (NN_name.py or name.py), else by what it defines.
        seconds: of computing that it may take, above 0.

    Returns:
        `report.ok`, `report.problem`, `report.mistake`, `report.text(hints=0)`.

    Raises:
        ValueError: no such file, or it is about no exercise.
    """
    from vitscratch.exercises.runner import Limits, Runner

    with Runner(Limits(seconds)) as runner:
        return runner.check(Path(path))
