"""Judging a student's code in this process: files of source, and edits of a right one."""

from collections.abc import Callable, Iterator
from types import ModuleType

from vitscratch.exercises import Outcome, Passed, Problem

Check = Callable[[ModuleType], Iterator[Outcome]]


def written(source: str) -> ModuleType:
    """The module of a student's file."""
    module = ModuleType("student")
    exec(compile(source, "student.py", "exec"), module.__dict__)
    return module


def edited(source: str, *edits: tuple[str, str]) -> str:
    """The source with each text, which must be there, replaced."""
    for old, new in edits:
        assert old in source, f"the right file has no {old!r}; the edit has to follow it"
        source = source.replace(old, new)
    return source


def problem_in(check: Check, source: str) -> Problem | None:
    """The problem that the check finds, which must be the last that it says; None if all is right."""
    outcomes = list(check(written(source)))
    assert outcomes and all(isinstance(outcome, Passed) for outcome in outcomes[:-1])
    return outcomes[-1] if isinstance(outcomes[-1], Problem) else None
