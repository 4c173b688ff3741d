"""What the checks share: run a student's code, compare, and find the mistakes that explain a difference."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, combinations
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vitscratch.exercises.checks.reference import Flags, mistake_name
from vitscratch.exercises.exercise import Mistake, Problem

# Relative to the largest number. Right solutions may keep a constant in float32 (6e-8); the smallest known mistake,
# eps 1e-5 on ordinary tokens, differs by 5e-6, and by far more on the tiny ones that the checks use, too.
TOLERANCE = 1e-6


MANY = 10_000  # pairs of mistakes: about a second


class WrongError(Exception):
    """Ends a check: carries its problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64: `torch.randn(shape, dtype=torch.float64, generator=...)` with this seed."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def same(seen: Tensor, expected: Tensor) -> bool:
    """Equal up to rounding (see TOLERANCE)."""
    if seen.shape != expected.shape:
        return False
    seen, expected = seen.detach().double(), expected.detach().double()
    return bool((seen - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1e-12))


def difference(seen: Tensor, expected: Tensor, name: str = "output") -> str:
    """Where two tensors differ most: "output[0, 1, 4] is 0.12; it should be 0.56"."""
    gap = (seen.detach().double() - expected.detach()).abs().nan_to_num(nan=float("inf"))
    place = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
    at = f"{name}[{', '.join(map(str, place))}]"
    return f"{at} is {number(seen[place])}; it should be {number(expected[place])}"


def number(value: Tensor | float) -> str:
    """Short, but with the digits that tell close numbers apart: 0.8413447."""
    return f"{float(value):.7g}"


def numbers(values: Iterable[Tensor | float]) -> str:
    """A few numbers with three digits: "0.71, 1.32"."""
    return ", ".join(f"{float(value):.3g}" for value in values)


# ------------------------------------------------------------------------------------------------ the student's code


def construct(student: ModuleType, name: str, sizes: Mapping[str, Any]) -> nn.Module:
    """`name(embed_dim=35, ...)` of the student's file.

    Raises:
        WrongError: it does not take these arguments, or it is no module.
    """
    cls = getattr(student, name)
    call = f"{name}({', '.join(f'{key}={value}' for key, value in sizes.items())})"
    try:
        inspect.signature(cls).bind(**sizes)
    except TypeError as error:
        takes = str(inspect.signature(cls))
        raise WrongError(
            Problem(
                f"{name} does not take the arguments that the exercise asks for",
                f"{call} gives: {error}; yours takes {takes}",
                "parameters",
                (
                    "Compare the line `def __init__` with the one in the stub.",
                    f"After self, the arguments are {', '.join(sizes)}; more may follow if they have defaults.",
                ),
                "signature",
            )
        ) from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = cls(**sizes)
    if not isinstance(module, nn.Module):
        raise WrongError(
            Problem(
                f"{name} is no nn.Module",
                f"isinstance({call}, nn.Module) is False",
                "parameters",
                ("What must a class inherit from, so that PyTorch finds its parameters?", "class ...(nn.Module):"),
                "no_module",
            )
        )
    return module


def pick_tensor(result: Any, shape: Sequence[int]) -> Tensor | None:
    """The result, or the first tensor in it that has the shape: a student may return more than the output."""
    things = result if isinstance(result, tuple | list) else result.values() if isinstance(result, dict) else (result,)
    return next((thing for thing in things if isinstance(thing, Tensor) and list(thing.shape) == list(shape)), None)


def shape_of(result: Any) -> str:
    """For a message: "(2, 7, 35)", "a tuple of (2, 7, 35) and (2, 5, 7, 7)", "None"."""
    if isinstance(result, Tensor):
        return str(tuple(result.shape))
    if isinstance(result, tuple | list):
        return f"a {type(result).__name__} of {' and '.join(shape_of(one) for one in result) or 'nothing'}"
    return "None (is there a return?)" if result is None else f"a {type(result).__name__}"


def run(function: Callable[..., Any], *inputs: Tensor, step: str) -> Any:
    """Call the student's code in float64.

    Raises:
        WrongError: it works in float32 alone: it makes a tensor without the dtype (and device) of its input.
    """
    try:
        return function(*inputs)
    except RuntimeError as error:
        if "dtype" not in str(error) and "scalar type" not in str(error):
            raise
        message = str(error).splitlines()[0]
    raise WrongError(
        Problem(
            "a tensor is made in forward with a dtype of its own, not that of the input",
            f"with float64 input and weights: {message}. On a GPU the device will be wrong in the same way",
            step,
            (
                "Which tensor of your forward is neither the input, nor made of it, nor a parameter or buffer?",
                "Make it with `dtype=x.dtype, device=x.device`, or `x.new_zeros(...)`, or register it as a buffer; "
                "do not call .float().",
            ),
            "fixed_dtype",
        )
    )


@contextmanager
def noted(note: str) -> Iterator[None]:
    """Errors of the student's code get a note that says what it was called with."""
    try:
        yield
    except WrongError:
        raise
    except Exception as error:
        error.add_note(note)
        raise


# ---------------------------------------------------------------------------------------------- explaining a difference


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
        hypotheses = chain(hypotheses, (two for rare in kinds for count, two in variants if count == rare))
    for flags in hypotheses:
        try:
            if all(same(output, reference(i, frozenset(flags))) for i, output in enumerate(seen)):
                return flags
        except (RuntimeError, ValueError):  # shapes that do not fit: not this mistake
            continue
    return None


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
    first = ordered[0]
    return Problem(
        " And: ".join(mistake.what for mistake in ordered),
        evidence(first.step),
        first.step,
        tuple(hint for mistake in ordered for hint in mistake.hints),
        " + ".join(mistake.name for mistake in ordered),
        first.section,
    )


def bank(rows: str, nudges: Mapping[str, str], section: str = "How this goes wrong") -> dict[str, Mistake]:
    """Mistakes from a table, one line each: name | step | what was done and what is right | the direct hint.

    The first hint is the nudge of the step.
    """
    found = {}
    for row in filter(None, map(str.strip, rows.splitlines())):
        name, step, what, hint = (cell.strip() for cell in row.split("|"))
        found[name] = Mistake(name, what, step, (nudges[step], hint), section)
    return found
