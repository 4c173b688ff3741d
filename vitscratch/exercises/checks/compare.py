"""Comparing what a student's code gives with what it should give, and finding what explains a difference."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, combinations
from typing import TypeVar

import torch
from torch import Tensor

from vitscratch.exercises.checks.reference import COPIED, Flags

# Relative to the largest number. Right solutions may keep a constant in float32 (6e-8); the smallest known mistake,
# eps 1e-5 on ordinary tokens, differs by 5e-6, and by far more on the tiny ones that the checks use, too.
TOLERANCE = 1e-6
MANY = 10_000  # pairs of mistakes: about a second
Variant = TypeVar("Variant")


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64: `torch.randn(shape, dtype=torch.float64, generator=...)` with this seed."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pixels(batch: int, channels: int, height: int, width: int) -> Tensor:
    """Pictures whose pixel values say where they are: 1000000 batch + 10000 channel + 100 row + column."""
    axes = (torch.arange(size, dtype=torch.float64) for size in (batch, channels, height, width))
    b, c, y, x = torch.meshgrid(*axes, indexing="ij")
    return 1_000_000 * b + 10_000 * c + 100 * y + x


def same(seen: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Equal up to rounding, relative to the largest number."""
    if seen.shape != expected.shape:
        return False
    seen, expected = seen.detach().double(), expected.detach().double()
    if bool((nowhere := seen.isnan() & expected.isnan()).any()):  # two calls that give nan agree
        seen, expected = seen.masked_fill(nowhere, 0), expected.masked_fill(nowhere, 0)
    return bool((seen - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-12))


def difference(seen: Tensor, expected: Tensor, name: str = "output") -> str:
    """Where two tensors differ most: "output[0, 1, 4] is 0.12; it should be 0.56"."""
    place = worst(seen, expected)
    at = f"{name}[{', '.join(map(str, place))}]"
    return f"{at} is {number(seen[place])}; it should be {number(expected[place])}"


def worst(seen: Tensor, expected: Tensor) -> tuple[int, ...]:
    """The place where two tensors differ most."""
    gap = (seen.detach().double() - expected.detach()).abs().nan_to_num(nan=float("inf"))
    return tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))


def number(value: Tensor | float) -> str:
    """Short, but with the digits that tell close numbers apart: 0.8413447."""
    return f"{float(value):.7g}"


def say(numbers: Tensor, count: int = 4) -> str:
    """The first few numbers: "0.71, -1.3, 12"."""
    flat = numbers.detach().flatten()
    return ", ".join(f"{float(number):.4g}" for number in flat[:count]) + (", ..." if len(flat) > count else "")


def one_or_two(variants: Sequence[tuple[str, Variant]]) -> Iterable[tuple[tuple[str, ...], tuple[Variant, ...]]]:
    """Hypotheses in the order of trying: each mistake alone, then every two of different names."""
    for name, variant in variants:
        yield (name,), (variant,)
    for (name, variant), (other, second) in combinations(variants, 2):
        if name != other:
            yield (name, other), (variant, second)


def explain(
    seen: Sequence[Tensor], reference: Callable[[int, Flags], Tensor], stages: Sequence[Sequence[str]], pairs: bool
) -> tuple[str, ...] | None:
    """The flag, or with `pairs` the two of different stages, under which the reference gives all that was seen.

    Args:
        seen: the student's outputs.
        reference: number of an output and flags -> what it is with these mistakes.
        stages: flags, by the stage of the computation that they change.
        pairs: whether to try two at once.
    """
    hypotheses: Iterable[tuple[str, ...]] = ((flag,) for stage in stages for flag in stage)
    if pairs:
        twos = [(a, b) for one, other in combinations(stages, 2) for a in one for b in other]
        variants = [(sum(":" in flag for flag in two), two) for two in twos]
        # Rare ways (with a colon) come last, and not in pairs of two; where there are very many pairs, not at all.
        kinds = (0, 1) if len(twos) < MANY else (0,)
        copied = [two for two in COPIED if {*two} <= {*chain(*stages)}]
        hypotheses = chain(hypotheses, copied, (two for rare in kinds for count, two in variants if count == rare))
    for flags in hypotheses:
        try:
            if all(same(output, reference(i, frozenset(flags))) for i, output in enumerate(seen)):
                return flags
        except (RuntimeError, ValueError):  # shapes that do not fit: not this mistake
            continue
    return None
