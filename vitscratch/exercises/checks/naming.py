"""The bank of mistakes, and from its entries to what a student is told."""

from collections.abc import Callable, Mapping, Sequence

from vitscratch.exercises.checks.reference import mistake_name
from vitscratch.exercises.exercise import Mistake, Problem


def bank(*mistakes: Mistake) -> dict[str, Mistake]:
    """By name."""
    return {mistake.name: mistake for mistake in mistakes}


def table(rows: str, nudges: Mapping[str, str], section: str = "How this goes wrong") -> dict[str, Mistake]:
    """Mistakes from a table, one line each: name | step | what was done and what is right | the direct hint.

    The first hint is the fifth cell, if there is one, else the nudge of the step.
    """
    found = {}
    for row in filter(None, map(str.strip, rows.splitlines())):
        name, step, what, hint, *nudge = (cell.strip() for cell in row.split("|"))
        found[name] = Mistake(name, what, step, (*(nudge or [nudges[step]]), hint), section)
    return found


def problem(mistakes: Mistake | Sequence[Mistake], evidence: str) -> Problem:
    """What to say of one mistake, or of several at once.

    Args:
        mistakes: one with an empty name stands for whatever nobody foresaw in its step: no name is told.
        evidence: numbers that the student can reproduce.
    """
    together = [mistakes] if isinstance(mistakes, Mistake) else list(mistakes)
    first = together[0]
    return Problem(
        what=" And: ".join(mistake.what for mistake in together),
        evidence=evidence,
        step=first.step,
        hints=tuple(dict.fromkeys(hint for mistake in together for hint in mistake.hints)),
        mistake=" + ".join(mistake.name for mistake in together) or None,
        section=first.section,
    )


def named(mistakes: Mapping[str, Mistake], names: str | Sequence[str], evidence: str) -> Problem:
    """The problem that a known mistake, or several at once, make."""
    return problem([mistakes[name] for name in ([names] if isinstance(names, str) else names)], evidence)


def named_problem(
    flags: Sequence[str],
    bank: Mapping[str, Mistake],
    steps: Sequence[str],
    evidence: Callable[[str], str],
    special: Mapping[str, Mistake] | None = None,
) -> Problem:
    """The problem that one or two mistakes of the bank are: the one in the earlier step comes first.

    `evidence` gives the numbers for a step; `special` has the flags whose mistake differs from the bank's, in its step.
    """
    mistakes: dict[str, Mistake] = {}
    for flag in flags:  # two halves of one mistake are one
        mistakes.setdefault(mistake_name(flag), (special or {}).get(flag) or bank[mistake_name(flag)])
    ordered = sorted(mistakes.values(), key=lambda mistake: steps.index(mistake.step))
    return problem(ordered, evidence(ordered[0].step))
