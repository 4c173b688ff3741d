"""What the checks share: drawing numbers, comparing them, and saying them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vitscratch.exercises.checks.compare import WrongError
from vitscratch.exercises.exercise import Mistake, Problem

Variant = TypeVar("Variant")
TOOLS = "(awaken and draw: vitscratch.exercises.checks.roles and .compare)"  # for evidence that uses them


class StudentError(Exception):
    """Carries an exception of the student's own code, so that none of the checker's is taken for one."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def students_code() -> Iterator[None]:
    """Exceptions that are raised here are the student's."""
    try:
        yield
    except WrongError:
        raise
    except Exception as error:
        raise StudentError(error) from error


def same(found: Any, expected: Tensor) -> bool:
    """Whether two results agree to rounding in float64 (and nan agrees with nothing)."""
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    return bool(torch.allclose(found.to(expected.dtype), expected, rtol=1e-9, atol=1e-9))


def say(numbers: Tensor, count: int = 4) -> str:
    """The first few numbers: "0.71, -1.3, 12"."""
    flat = numbers.detach().flatten()
    return ", ".join(f"{float(number):.4g}" for number in flat[:count]) + (", ..." if len(flat) > count else "")


def drawn(pictures: Tensor) -> str:
    """For evidence: how the pictures of a batch are drawn, "draw(3, 2, 24, 24, seed=3)"; the seed is the batch size."""
    return f"draw({', '.join(map(str, pictures.shape))}, seed={len(pictures)})"


def size_of(pictures: Tensor) -> str:
    """For evidence: "pictures of 21 x 35 px and 2 channels, batch of 3"."""
    batch, channels, height, width = pictures.shape
    return f"pictures of {height} x {width} px and {channels} channels, batch of {batch}"


def tensor_in(found: Any, shape: Sequence[int]) -> Any:
    """The tensor that was asked for: what was returned, or the first of a tuple's with its shape."""
    if isinstance(found, tuple | list):
        fitting = (part for part in found if isinstance(part, Tensor) and part.shape == torch.Size(shape))
        return next(fitting, found[0] if found else found)
    return found


def first_difference(found: Tensor, expected: Tensor) -> str:
    """Where two tensors of one shape first differ, and by what: "[0, 3, 1] is 0.71, expected 1.2"."""
    apart = ((found - expected).abs() > 1e-9 + 1e-9 * expected.abs()) | found.isnan()
    place = apart.nonzero()[0].tolist()
    return f"{place} is {float(found[tuple(place)]):.6g}, expected {float(expected[tuple(place)]):.6g}"


def named(mistakes: Mapping[str, Mistake], names: str | Sequence[str], evidence: str) -> Problem:
    """The problem that a known mistake, or several at once, make."""
    found = [mistakes[name] for name in ([names] if isinstance(names, str) else names)]
    first = found[0]
    return Problem(
        " And: ".join(mistake.what for mistake in found),
        evidence,
        first.step,
        tuple(hint for mistake in found for hint in mistake.hints),
        " + ".join(mistake.name for mistake in found),
        first.section,
    )


def one_or_two(variants: Sequence[tuple[str, Variant]]) -> Iterable[tuple[tuple[str, ...], tuple[Variant, ...]]]:
    """Hypotheses in the order of trying: each mistake alone, then every two of different names."""
    for name, variant in variants:
        yield (name,), (variant,)
    for (name, variant), (other, second) in combinations(variants, 2):
        if name != other:
            yield (name, other), (variant, second)


def describe(module: nn.Module) -> str:
    """The parameters of a module: "proj.weight (7, 2, 3, 3), proj.bias (7,)"."""
    parts = [f"{name} {tuple(parameter.shape)}" for name, parameter in module.named_parameters()]
    return ", ".join(parts[:12]) + (", ..." if len(parts) > 12 else "") if parts else "none"
