"""From entries of the bank to what a student is told."""

from collections.abc import Iterable, Sequence

from vitscratch.exercises.exercise import Mistake, Problem


def bank(*mistakes: Mistake) -> dict[str, Mistake]:
    """By name."""
    return {mistake.name: mistake for mistake in mistakes}


def problem(mistakes: Mistake | Sequence[Mistake], evidence: str) -> Problem:
    """What to say of one mistake, or of several at once.

    Args:
        mistakes: one with an empty name stands for whatever nobody foresaw in its step: no name is told.
        evidence: numbers that the student can reproduce.
    """
    together = [mistakes] if isinstance(mistakes, Mistake) else list(mistakes)
    first = together[0]
    return Problem(
        what="; and ".join(mistake.what for mistake in together),
        evidence=evidence,
        step=first.step,
        hints=tuple(hint for mistake in together for hint in mistake.hints),
        mistake=" + ".join(mistake.name for mistake in together) or None,
        section=first.section,
    )


def numbers(values: Iterable[float], digits: int = 4) -> str:
    """A few numbers as a student would print them: "[0.1234, -1.0000]"."""
    return "[" + ", ".join(f"{value:.{digits}f}" for value in values) + "]"
