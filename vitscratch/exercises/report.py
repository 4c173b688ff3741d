"""What the check of one file found, as text and as JSON."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitscratch.exercises.errors import shorten
from vitscratch.exercises.exercise import Exercise, Outcome, Passed, Problem
from vitscratch.exercises.reading import where_to_read

Status = Literal["ok", "wrong", "not begun", "not checked", "error"]
LINES = 8  # of what was printed
# Begins the failure of a check that was stopped by the clock in none of the student's lines.
BUSY = "the machine was busy or asleep, which is not your mistake: check again"
OURS = ("awaken", "draw", "pixels")  # functions that a student calls to get the numbers of the evidence
TUTORIALS = Path(__file__).parents[2] / "tutorials"  # beside the package, where it runs from its sources


@dataclass(frozen=True)
class Report:
    """What the check of one file found."""

    file: Path
    exercise: Exercise
    status: Status
    """"error": the checker itself failed, which says nothing about the file. "not checked": an earlier one is wrong."""

    outcomes: tuple[Outcome, ...] = ()
    """What is right, and then, unless all is, one problem."""

    mistakes: tuple[str, ...] = ()
    """A sentence on each mistake that the problem names."""

    printed: str = ""
    """The end of what the code printed."""

    printed_size: int = 0
    """Bytes that it printed in all."""

    failure: str = ""
    """How the checker failed."""

    @property
    def ok(self) -> bool:
        """Whether everything is right."""
        return self.status == "ok"

    @property
    def problem(self) -> Problem | None:
        """The first thing that is wrong."""
        last = self.outcomes[-1] if self.outcomes else None
        return last if isinstance(last, Problem) else None

    @property
    def mistake(self) -> str | None:
        """Name of the mistake, if it is a known one."""
        return self.problem.mistake if self.problem else None

    @property
    def tutorial(self) -> str:
        """What to read: "tutorials/03_attention.ipynb", with the section if there is one to name."""
        step = self.problem.step if self.problem else ""
        tutorial, section = where_to_read(self.mistake or "", self.exercise.name, step)
        section = section or (self.problem.section if self.problem else "")
        return f"tutorials/{tutorial or self.exercise.tutorial}" + (f', section "{section}"' if section else "")

    def line(self) -> str:
        """One line: number, name, and ok, wrong or not begun."""
        title = f"{self.exercise.number:02} {self.exercise.name:<26}"
        if self.status == "wrong":
            known = f": {self.mistake}" if self.mistake else ""
            return f"{title} wrong{known}"
        return f"{title} {'checker error' if self.status == 'error' else self.status}"

    def brief(self) -> str:
        """The same, and below it what is right, but has something to mind."""
        minded = [outcome for outcome in self.outcomes if isinstance(outcome, Passed) and outcome.but]
        return clean("\n".join([self.line(), *(f"  right   {outcome}" for outcome in minded)]))

    def text(self, hints: int = 0) -> str:
        """All of it, for a student.

        Args:
            hints: how many to show, from 0.
        """
        lines = [self.line() + f"  ({self.file})"]
        lines += [f"  right   {outcome}" for outcome in self.outcomes if isinstance(outcome, Passed)]
        if self.status == "not begun" and self.problem:
            line = self.problem.evidence.partition("\n")[0]  # the others say what it was called with
            lines += _indented("to do", [self.problem.what, f"{line} (delete this line when that is written)"])
            if hints:
                lines += _indented("hint", ["hints are about what is there: write something, and check it"])
            lines += self._read()
        elif self.problem:
            lines += self._about(self.problem, hints)
        elif self.status == "error":
            says = "the checker itself failed, which is not your mistake; please report this:"
            first = [] if self.failure.startswith(BUSY) else [says]
            lines += _indented("error", [*first, *self.failure.strip().splitlines()])
        if self.printed_size:
            shown = [shorten(line, 100) for line in self.printed.splitlines()[-LINES:]]
            lines += _indented("printed", [f"{self.printed_size:,} bytes; the end of it:", *shown])
        return clean("\n".join(lines))

    def _about(self, problem: Problem, hints: int) -> list[str]:
        evidence = problem.evidence.splitlines()
        if any(f"{name}(" in problem.evidence for name in OURS) or "Try it: " in problem.evidence:
            evidence += [f"(to see it yourself: vitscratch exercises try {shlex.quote(str(self.file))})"]
        lines = _indented("WRONG", [problem.what, *evidence, f"step: {problem.step}"])
        if problem.mistake:
            pair = " + " in problem.mistake  # of one, the problem has said what this file does
            said = [sentence for sentence in self.mistakes if pair and sentence not in problem.what]
            lines += _indented("mistake", [problem.mistake, *said])
        for i, hint in enumerate(problem.hints[:hints], 1):
            lines += _indented("hint", [f"{i} of {len(problem.hints)}: {hint}"])
        if hints > len(problem.hints):
            lines += _indented("hint", ["there are no more; --solution shows the library's code"])
        elif not hints:
            lines += _indented("hint", ["--hint gives one, and one more each time"])
        return lines + self._read()

    def _read(self) -> list[str]:
        there = (TUTORIALS / self.exercise.tutorial).is_file()
        where = [] if there else ["(pip does not install tutorials/: it is a folder of the project's sources)"]
        return _indented("read", [self.tutorial, *where])

    def to_json(self, hints: int = 0) -> dict[str, Any]:
        """The same for programs; hints only as many as were asked for."""
        problem = self.problem
        return {
            "file": clean(str(self.file)),
            "exercise": self.exercise.name,
            "number": self.exercise.number,
            "status": self.status,
            "right": [clean(str(outcome)) for outcome in self.outcomes if isinstance(outcome, Passed)],
            "problem": problem and {
                "what": clean(problem.what),
                "evidence": clean(problem.evidence),
                "step": problem.step,
                "mistake": problem.mistake,
                "about": list(self.mistakes),
                "hints": list(problem.hints[:hints]),
                "hints_there": len(problem.hints),
            },
            "read": self.tutorial,
            "printed": {"bytes": self.printed_size, "end": clean(self.printed)},
            "failure": clean(self.failure),
        }  # fmt: skip


def to_json(reports: Sequence[Report], hints: dict[Path, int]) -> dict[str, Any]:
    """Several reports, and whether all are right."""
    return {
        "passed": bool(reports) and all(report.ok for report in reports),
        "right": sum(report.ok for report in reports),
        "files": [report.to_json(hints.get(report.file, 0)) for report in reports],
    }


def clean(text: str) -> str:
    """Text that every terminal shows as it is: no control characters, nothing that UTF-8 cannot write."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _indented(label: str, lines: Sequence[str]) -> list[str]:
    first, *others = lines
    return [f"  {label:<7} {first}", *(f"{'':10}{line}" for line in others)]
