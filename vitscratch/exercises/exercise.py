"""What an exercise is, and what a check of somebody's solution says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Passed:
    """Something that is right."""

    what: str
    """A statement of fact: "every row of the weights sums to one"."""

    but: str = ""
    """What an exercise that uses this one will mind."""

    def __str__(self) -> str:
        """Both: "it runs; but late"."""
        return self.what + (f"; but {self.but}" if self.but else "")


@dataclass(frozen=True)
class Problem:
    """The first thing that is wrong, and the smallest evidence for it."""

    what: str
    """One sentence: "the weights do not sum to one over the keys"."""

    evidence: str
    """Numbers that the student can reproduce: what went in, what came out, what should have."""

    step: str
    """The step of the computation that is wrong, a name that the exercise's `steps` lists: "softmax"."""

    hints: tuple[str, ...]
    """From a nudge to nearly the answer; never the code."""

    mistake: str | None = None
    """Name in the bank (`Mistake.name`), if it is a known one. With two mistakes at once: "one + other"."""

    section: str = ""
    """The heading of the tutorial's section that explains it; "" for the exercise's own tutorial as a whole."""


Outcome: TypeAlias = Passed | Problem


@dataclass(frozen=True)
class Mistake:
    """A mistake that people really make."""

    name: str
    """As in the bank: "attn_scale_embed_dim"."""

    what: str
    """One sentence that says what was done, and what is right."""

    step: str
    """The step of the computation that it is in."""

    hints: tuple[str, ...]
    """From a nudge to nearly the answer; never the code."""

    section: str = "How this goes wrong"
    """Heading in the exercise's tutorial, unless `reading.py` knows a better place."""


@dataclass(frozen=True)
class Exercise:
    """One thing to build.

    `check` of the module `vitscratch.exercises.checks.NAME` takes the module of a student's file and yields what is
    right, in the order of the computation, until it yields one `Problem`, and ends there; if it yields none,
    the solution is right. It may let exceptions of the student's code pass: the runner turns them into a `Problem`.
    """

    number: int
    name: str
    """Of the file (NN_name.py) and of the check's module."""

    defines: tuple[str, ...]
    """Names that the student's file must define."""

    steps: tuple[str, ...]
    """The steps of the computation, in order, as `Problem.step` names them."""

    minutes: int
    difficulty: Literal[1, 2, 3]
    tutorial: str
    """File name in tutorials/ that leads to it."""

    @property
    def file_name(self) -> str:
        """Of the stub: "05_multi_head_self_attention.py"."""
        return f"{self.number:02}_{self.name}.py"

    @property
    def checker(self) -> str:
        """The dotted name of the module that checks it."""
        return f"vitscratch.exercises.checks.{self.name}"

    def load(self) -> ModuleType:
        """The module with `check`, and with `MISTAKES`: the bank's entries for this exercise, by name."""
        return import_module(self.checker)

    @property
    def check(self) -> Callable[[ModuleType], Iterator[Outcome]]:
        """See above."""
        return self.load().check
