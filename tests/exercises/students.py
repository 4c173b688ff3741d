"""Students' files, as text, and what the checks say of them; in this process, without the runner."""

import linecache
import math
import re
from itertools import count
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from vitscratch.exercises import EXERCISES, Exercise, Outcome, Passed, Problem, awaken, draw, pixels
from vitscratch.exercises.checks.student import shape_of
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
    assert last.what.endswith((".", ".)")) and last.step in exercise(name).steps
    assert len(set(last.hints)) == len(last.hints) >= 2 and all(last.hints)
    if 4 <= exercise(name).number <= 8:
        assert last.what.startswith("You"), last.what
    if 4 <= exercise(name).number <= 8 or "pixels(" in last.evidence.partition(" is ")[0]:
        assert_reproduced(last, text)
    return last


def assert_reproduced(problem: Problem, text: str) -> None:
    """What the first line of the evidence says is what a student gets who pastes it.

    "CODE is 1.5; it should be 2", "CODE is 1.5 the first time and 2 the second", "CODE returns (3, 5); ...",
    "CODE ends in NameError: ..."; or it is about a line of the file.
    """
    first, *more = problem.evidence.splitlines()
    assert len(more) <= 2, problem.evidence
    if re.match(r"line \d+: ", first):
        return
    found = re.match(r"(?P<code>.+?\)?) (?P<verb>is|returns|ends in|has) (?P<said>.+)$", first)
    assert found is not None, first
    names = {**module(text).__dict__, "awaken": awaken, "draw": draw, "pixels": pixels, "nn": nn, "torch": torch}
    *statements, last = found["code"].split("; ")
    for statement in statements:
        exec(statement, names)
    if found["verb"] == "ends in":
        kinds = {kind.__name__: kind for kind in (NameError, TypeError, RuntimeError, ValueError, AttributeError)}
        with pytest.raises(kinds[found["said"].partition(":")[0]]):
            eval(last, names)
        return
    value = eval(last, names)
    _compare(value, found["verb"], found["said"])


def _compare(value: Any, verb: str, said: str) -> None:
    """What an expression gives, and what is said of it."""
    if verb == "returns":
        assert said.startswith(f"{shape_of(value)}; it should return "), (said, shape_of(value))
        return
    assert verb == "is", said
    seen, twice, second = said.partition(" the first time and ")
    if twice:
        first, again = float(seen), float(second.split()[0])
        assert math.isfinite(first) and math.isfinite(again) and first != again, said
        assert first != float(value.detach())
        return
    seen, should, right = said.partition("; it should be ")
    right = right.split(";")[0].split(",")[0] if "(" not in right else right
    assert should and seen != right, said
    if isinstance(value, torch.Tensor):
        assert abs(float(value.detach()) - float(seen)) <= 1e-6 * max(1.0, abs(float(seen))), (said, value)
    else:
        assert str(value) == seen, (said, value)


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
    assert problem.what[0].isupper() and problem.what.endswith(".") and problem.evidence and problem.hints
    return problem
