"""Students' files, as text, and what the checks say of them; in this process, without the runner."""

import linecache
from itertools import count
from types import ModuleType

from vitscratch.exercises import EXERCISES, Exercise, Outcome, Passed, Problem
from vitscratch.exercises.files import SOLUTIONS

_NUMBER = count()


def exercise(name: str) -> Exercise:
    return next(each for each in EXERCISES if each.name == name)


def answer(name: str) -> str:
    """The text of the right answer."""
    return (SOLUTIONS / exercise(name).file_name).read_text()


def edited(text: str, *edits: tuple[str, str]) -> str:
    """With each text, which must be there, replaced everywhere."""
    for old, new in edits:
        assert old in text, f"the right file has no {old!r}"
        text = text.replace(old, new)
    return text


def changed(text: str, *pairs: str) -> str:
    """With each odd-numbered piece, which must be there once, replaced by the one after it."""
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        assert text.count(old) == 1, f"{text.count(old)} times: {old}"
        text = text.replace(old, new)
    return text


def module(text: str) -> ModuleType:
    """The module that a file with this text would be; its source can be inspected."""
    name = f"student_{next(_NUMBER)}.py"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    student = ModuleType(name.removesuffix(".py"))
    exec(compile(text, name, "exec"), student.__dict__)
    return student


def outcomes(name: str, text: str) -> list[Outcome]:
    return list(exercise(name).check(module(text)))


def outcome_of(name: str, text: str) -> Problem | None:
    """The problem that the check finds, or None; everything before it must have passed."""
    *passed, last = outcomes(name, text)
    assert all(isinstance(one, Passed) for one in passed)
    if isinstance(last, Passed):
        return None
    assert last.what and last.step in exercise(name).steps and len(last.hints) >= 2 and all(last.hints)
    return last


def assert_right(name: str, text: str) -> list[Outcome]:
    """No complaint, and something to say of every step."""
    found = outcomes(name, text)
    assert all(isinstance(outcome, Passed) for outcome in found), found[-1]
    assert len(found) >= len(exercise(name).steps) - 1
    return found


def assert_wrong(name: str, text: str, mistake: str | None, step: str | None = None) -> Problem:
    """What is right, and then this mistake, and nothing after it."""
    found = outcomes(name, text)
    assert found and isinstance(found[-1], Problem), f"accepted: {found}"
    problem = found[-1]
    assert all(isinstance(outcome, Passed) for outcome in found[:-1])
    assert problem.mistake == mistake, problem
    assert problem.step in exercise(name).steps
    assert step is None or problem.step == step, problem
    assert problem.what and problem.evidence and problem.hints
    return problem
