"""Students' files, as text, and what the checks say of them; in this process, without the runner."""

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

import vitscratch.exercises
from vitscratch.exercises import EXERCISES, Exercise, Mistake, Outcome, Passed, Problem

FOLDER = Path(vitscratch.exercises.__file__).parent


def exercise(name: str) -> Exercise:
    return next(each for each in EXERCISES if each.name == name)


def answer(name: str) -> str:
    """The text of the right answer."""
    return (FOLDER / "solutions" / exercise(name).file_name).read_text()


def changed(text: str, *pairs: str) -> str:
    """With each odd-numbered piece, which must be there once, replaced by the one after it."""
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        assert text.count(old) == 1, f"{text.count(old)} times: {old}"
        text = text.replace(old, new)
    return text


def module(text: str) -> ModuleType:
    student = ModuleType("student")
    exec(compile(text, "student.py", "exec"), student.__dict__)
    return student


def outcomes(name: str, text: str) -> list[Outcome]:
    return list(exercise(name).check(module(text)))


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


def assert_hints(name: str, mistakes: Iterable[Mistake]) -> None:
    """At least two, from a nudge on, for everything that can be said; in a step of the exercise."""
    for mistake in mistakes:
        assert len(set(mistake.hints)) == len(mistake.hints) >= 2, mistake
        assert mistake.step in exercise(name).steps, mistake


def assert_stub(name: str) -> None:
    """The stub fails with its first instruction; `test_catalog.py` tests what else is said of all stubs."""
    this = exercise(name)
    text = (FOLDER / "stubs" / this.file_name).read_text()
    stub = module(text)
    assert all(hasattr(stub, each) for each in this.defines)
    with pytest.raises(NotImplementedError, match=f"write {this.defines[0]}: "):
        list(this.check(stub))
