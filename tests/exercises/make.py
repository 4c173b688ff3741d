"""Students' files, made of one right file and an edit, and what a check says of them."""

import linecache
from itertools import count
from types import ModuleType

from vitscratch.exercises import EXERCISES, Passed, Problem

_NUMBER = count()


def module_of(source: str) -> ModuleType:
    """The module that a file with this source would be; its source can be inspected."""
    name = f"student_{next(_NUMBER)}.py"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    module = ModuleType(name.removesuffix(".py"))
    exec(compile(source, name, "exec"), module.__dict__)
    return module


def edited(source: str, *edits: tuple[str, str]) -> str:
    """The source with each text, which stands there, replaced everywhere."""
    for old, new in edits:
        assert old in source, f"the right file has no {old!r}"
        source = source.replace(old, new)
    return source


def outcome_of(name: str, source: str) -> Problem | None:
    """The problem that the check of this exercise finds, or None; everything before it must have passed."""
    exercise = next(one for one in EXERCISES if one.name == name)
    *passed, last = exercise.check(module_of(source))
    assert all(isinstance(one, Passed) for one in passed)
    if isinstance(last, Passed):
        return None
    assert last.what and last.step in exercise.steps and len(last.hints) >= 2 and all(last.hints)
    return last
