"""Checks run in eval mode; where a student's code asks for the mode, they run in training mode, too."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from vitscratch.exercises.checks.student import ByChanceError, WrongError, training_mode
from vitscratch.exercises.errors import PACKAGE, is_a_librarys
from vitscratch.exercises.exercise import Outcome, Problem

LIBRARIES = ("torch", "vitscratch", "builtins")
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
        except Exception as error:
            error.__notes__ = [_trained(note) for note in getattr(error, "__notes__", [])]
            error.add_note("in training mode; in eval mode all is right")
            raise
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
    own = [one for one in vars(student).values() if isinstance(one, ModuleType) and not is_a_librarys(_file(one))]
    for thing in [thing for module in (student, *own) for thing in vars(module).values()]:
        things = [thing]
        if isinstance(thing, type):
            classes = [one for one in thing.__mro__ if one.__module__.partition(".")[0] not in LIBRARIES]
            things = [one for cls in classes for one in vars(cls).values()]
        yield from (one.__code__ for one in map(_plain, things) if isinstance(one, FunctionType))


def _file(module: ModuleType) -> Path:
    return Path(getattr(module, "__file__", None) or PACKAGE)  # those without a file are Python's own


def _plain(thing: object) -> object:
    """The function in a property, a static method, a class method or a decorator's wrapper."""
    if isinstance(thing, property):
        return thing.fget
    thing = getattr(thing, "__func__", thing) if isinstance(thing, staticmethod | classmethod) else thing
    return inspect.unwrap(thing) if isinstance(thing, FunctionType) else thing
