"""Checks run in eval mode; where a student's code asks for the mode, they run in training mode, too."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import CodeType, FunctionType, ModuleType

from vitscratch.exercises.checks.student import ByChanceError, WrongError, training_mode
from vitscratch.exercises.exercise import Outcome, Problem

HINT = (
    "What does self.training decide in your code? Nothing but dropout may depend on it, and that is off here (p = 0)."
)


def in_both_modes(check: Callable[[ModuleType], Iterator[Outcome]], student: ModuleType) -> Iterator[Outcome]:
    """What a check says; if all is right, what it says of training mode with dropout off, where that matters.

    Code that draws at random in training mode, as dropout does, is not compared there.
    """
    for outcome in check(student):
        yield outcome
        if isinstance(outcome, Problem):
            return
    if not any(map(_asks_for_mode, _codes(student))):
        return
    with training_mode():
        try:
            problem = next((outcome for outcome in check(student) if isinstance(outcome, Problem)), None)
        except WrongError as error:
            problem = error.problem
        except ByChanceError:
            return
    if problem:
        what = f"{problem.what} (That is so in training mode; in eval mode all is right.)"
        yield replace(problem, what=what, evidence=_trained(problem.evidence), hints=(HINT, *problem.hints))


def _trained(evidence: str) -> str:
    """With the module in training mode: awaken(MLP(...), training=True)(...)."""
    return re.sub(r"(awaken\(\w+\((?:[^()]|\([^()]*\))*\))\)", r"\1, training=True)", evidence)


def _asks_for_mode(code: CodeType) -> bool:
    """Whether a function, or one inside it, says `.training`."""
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    return "training" in (*code.co_names, *code.co_consts) or any(map(_asks_for_mode, inner))


def _codes(student: ModuleType) -> Iterator[CodeType]:
    """Of the functions and methods of a student's file, and of the classes that it imports, but for libraries'."""
    for thing in list(vars(student).values()):
        if isinstance(thing, FunctionType):
            yield thing.__code__
        elif isinstance(thing, type):
            for cls in thing.__mro__:
                if cls.__module__.partition(".")[0] not in ("torch", "vitscratch", "builtins"):
                    yield from (one.__code__ for one in vars(cls).values() if isinstance(one, FunctionType))
