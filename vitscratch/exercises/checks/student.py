"""Running a student's code, and saying what came back."""

import inspect
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from traceback import StackSummary, extract_stack, extract_tb, walk_tb
from types import ModuleType
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from vitscratch.exercises.checks import failing
from vitscratch.exercises.checks.compare import number, same
from vitscratch.exercises.errors import is_a_librarys, message_of
from vitscratch.exercises.exercise import Problem


class WrongError(Exception):
    """Ends a check: carries its problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


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
    except (WrongError, ByChanceError):
        raise
    except Exception as error:
        raise StudentError(error) from error


@contextmanager
def noted(note: str, again: Callable[[], Any] | None = None, place: failing.Place | None = None) -> Iterator[None]:
    """Errors of the student's code get a note that says what it was called with, and the step that they happen in.

    Args:
        note: for the evidence.
        again: the same call, once more.
        place: the exercise's steps; without both no step is said.
    """
    try:
        yield
    except (WrongError, ByChanceError):
        raise
    except Exception as error:
        error.add_note(note)
        if again and place:
            failing.locate(error, again, place)
        raise


@contextmanager
def not_kept(made: str, drawings: tuple[str, str], step: str, new: Callable[[], Any]) -> Iterator[None]:
    """For a call that is not a module's first: an error that a new module does not end in is about what is kept.

    Args:
        made: how a student builds the module.
        drawings: how the inputs of its first call and of this one are drawn.
        step: of the problem, where `noted` has not told the error's.
        new: the same call of a new module.

    Raises:
        WrongError: a new module takes the same input.
    """
    try:
        yield
    except (WrongError, ByChanceError):
        raise
    except Exception as error:
        before, now = drawings
        if before == now:
            raise
        try:
            new()
        except Exception:
            raise error from None
        code = f"m = awaken({made}); _ = m({before}); m({now})"
        raise WrongError(
            Problem(
                "You keep something of an earlier call that does not fit the next one; every call should stand alone.",
                f"{raised(code, error)}{line_of(error)}",
                getattr(error, "step", step),
                (
                    "Build it anew and make the second call first: it works. What is left over from the first?",
                    "Look for self.something = ... in forward: what depends on the input belongs into a variable.",
                ),
                "kept_from_a_call",
            )
        ) from None


def construct(student: ModuleType, name: str, sizes: Mapping[str, Any]) -> nn.Module:
    """`name(embed_dim=35, ...)` of the student's file.

    Raises:
        WrongError: it does not take these arguments, or it is no module.
    """
    cls, call = getattr(student, name), built(name, sizes)
    try:
        inspect.signature(cls).bind(**sizes)
    except TypeError as error:
        takes = str(inspect.signature(cls))
        first = next(iter(inspect.signature(cls.__init__).parameters), "self")
        if first in sizes:
            raise WrongError(_no_self(name, f"{call} ends in TypeError: {error}", first)) from None
        raise WrongError(
            Problem(
                f"Your {name} does not take the arguments that the exercise asks for; it should take all of them.",
                f"{call} ends in TypeError: {error}; yours takes {takes}",
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
                f"Your {name} is no nn.Module; it should be one.",
                f"isinstance({call}, nn.Module) is False; it should be True",
                "parameters",
                ("What must a class inherit from, so that PyTorch finds its parameters?", "class ...(nn.Module):"),
                "no_module",
            )
        )
    return module


def _no_self(name: str, evidence: str, first: str) -> Problem:
    return Problem(
        f"The __init__ of your {name} has no self; it should come first, before {first}.",
        f"{evidence}; Python gives the new object to the first argument, which is {first}",
        "parameters",
        (
            "What does Python hand to a method first, whatever it is called with?",
            f"def __init__(self, {first}, ...): self comes first in every `def` of a class.",
        ),
        "signature",
    )


def fill_lazy(module: nn.Module, *inputs: Tensor) -> None:
    """Lazy layers get their parameters in a first call: call it once, in float32, as it was built.

    Raises:
        WrongError: a lazy layer is not called.
    """
    if any(is_lazy(parameter) for parameter in module.parameters()):
        with torch.no_grad():
            module(*(tensor.float() for tensor in inputs))
    if unused := [name for name, parameter in module.named_parameters() if is_lazy(parameter)]:
        raise WrongError(
            Problem(
                "You make a layer that forward never calls; every layer should be used.",
                f"after a call, {', '.join(unused)} still {'has' if len(unused) == 1 else 'have'} no shape",
                "parameters",
                (
                    "Which layers does __init__ make, and which of them does forward call?",
                    "A lazy layer gets its shape in its first call; one that has none was not called.",
                ),
            )
        )


def run(function: Callable[..., Any], *inputs: Tensor, step: str, code: str) -> Any:
    """Call the student's code in float64; `code` is how a student writes this call.

    Raises:
        WrongError: it works in float32 alone: it makes a tensor without the dtype (and device) of its input.
        ByChanceError: it draws random numbers, in training mode.
    """
    before = torch.get_rng_state(), random.getstate()
    try:
        result = function(*inputs)
        if is_training() and (not torch.equal(before[0], torch.get_rng_state()) or before[1] != random.getstate()):
            raise ByChanceError
        return result
    except RuntimeError as error:
        if not re.search("dtype|scalar type|Input type", str(error)):  # the last of a convolution
            raise
        message, line = str(error).splitlines()[0], _made_single(function, inputs) or line_of(error)
    raise WrongError(
        Problem(
            "You make a tensor in forward with a dtype of its own; it should have that of the input (and its device).",
            f"{code} ends in RuntimeError: {message}{line}",
            step,
            (
                "Which tensor is neither the input, nor made of it, nor a parameter or buffer? Look at what this line "
                "uses, and at the functions that forward calls, imported ones, too.",
                "Make it with `dtype=x.dtype, device=x.device`, or `x.new_zeros(...)`, or register it as a buffer; "
                "do not call .float().",
            ),
            "fixed_dtype",
        )
    )


class _Single(TorchFunctionMode):
    """Notes the student's line that makes the first tensor in float32, where all that goes in is in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.line = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.line and isinstance(result, Tensor) and result.dtype == torch.float32 and result.ndim:
            self.line = _line(extract_stack())  # not of a single number, which fits every dtype
        return result


def _made_single(function: Callable[..., Any], inputs: Sequence[Tensor]) -> str:
    """Where a student's code makes a tensor in float32, "" if it makes none: a line for the evidence."""
    with _Single() as single, suppress(Exception):
        function(*inputs)
    return f"{single.line} makes a tensor in torch.float32" if single.line else ""


def line_of(error: Exception) -> str:
    """The innermost line outside this package and what is installed: the student's."""
    return _line(extract_tb(error.__traceback__))


def _line(stack: StackSummary) -> str:
    frames = [frame for frame in stack if not is_a_librarys(Path(frame.filename))]
    return f"\n{Path(frames[-1].filename).name}, line {frames[-1].lineno}: `{frames[-1].line}`" if frames else ""


def parts_of(result: Any) -> list[Any]:
    """The result, or what the tuple, list or dict holds: a student may return more than the output."""
    if isinstance(result, dict):
        return list(result.values())
    return list(result) if isinstance(result, tuple | list) else [result]


def tensors_of(result: Any, shape: Sequence[int]) -> list[Tensor]:
    """The parts of a result that are tensors of this shape."""
    return [part for part in parts_of(result) if isinstance(part, Tensor) and list(part.shape) == list(shape)]


def pick_tensor(result: Any, shape: Sequence[int]) -> Tensor | None:
    """The result, or the first tensor in it that has the shape."""
    return next(iter(tensors_of(result, shape)), None)


def tensor_in(result: Any, shape: Sequence[int]) -> Any:
    """The same, or, where none has the shape, the first part of the result, for a message."""
    tensor = pick_tensor(result, shape)
    return tensor if tensor is not None else next(iter(parts_of(result)), result)


def place_of(result: Any, tensor: Tensor | None) -> str:
    """How to get at a tensor that is part of a result: "[0]" or "['tokens']", "" if it is all of it."""
    parts = (
        enumerate(result) if isinstance(result, tuple | list) else result.items() if isinstance(result, dict) else ()
    )
    return next((f"[{key!r}]" for key, thing in parts if thing is tensor), "")


def shape_of(result: Any) -> str:
    """For a message: "(2, 7, 35)", "a tuple of (2, 7, 35) and (2, 5, 7, 7)", "None"."""
    if isinstance(result, Tensor):
        return str(tuple(result.shape))
    if isinstance(result, tuple | list):
        parts = [shape_of(one) for one in result[:3]] + [f"{len(result) - 3} more"] * (len(result) > 3)
        return f"a {type(result).__name__} of {' and '.join(parts) or 'nothing'}"
    kind = type(result).__name__
    article = "an" if kind.startswith((*"aeioAEIO", "nd")) else "a"
    return "None (is there a return?)" if result is None else f"{article} {kind}"


def describe(module: nn.Module) -> str:
    """The parameters of a module: "proj.weight (7, 2, 3, 3), proj.bias (7,)", of many the first twelve."""
    parts = [f"{name} {tuple(parameter.shape)}" for name, parameter in module.named_parameters()]
    return (", ".join(parts[:12]) + (f" and {len(parts) - 12} more" if len(parts) > 12 else "")) or "none"


def built(name: str, sizes: Mapping[str, Any]) -> str:
    """For evidence: how a student builds it, "MLP(embed_dim=13, mlp_dim=29)"."""
    return f"{name}({', '.join(f'{key}={value}' for key, value in sizes.items())})"


def drawn(shape: Sequence[int], seed: int = 0, factor: float = 1.0) -> str:
    """For evidence: how an input is drawn, "1.5 * draw(3, 2, 24, 24, seed=3)"."""
    numbers = ", ".join(map(str, shape)) + (f", seed={seed}" if seed else "")
    return (f"{factor:g} * " if factor != 1 else "") + f"draw({numbers})"


def counted(code: str, module: nn.Module, right: int) -> str:
    """For evidence: how many numbers a module that `code` builds has, and how many it should have."""
    count = sum(parameter.numel() for parameter in module.parameters())
    if count == right:
        return f"{code} has {describe(module)}"
    return f"sum(p.numel() for p in {code}.parameters()) is {count}; it should be {right}"


_TRAINING = ContextVar("_TRAINING", default=False)


@contextmanager
def training_mode() -> Iterator[None]:
    """In here `awaken` puts modules into training mode, with the p of every dropout at 0."""
    token = _TRAINING.set(True)
    try:
        yield
    finally:
        _TRAINING.reset(token)


def is_training() -> bool:
    """Whether the check runs in training mode."""
    return _TRAINING.get()


class ByChanceError(Exception):
    """Two calls differ, in training mode, where they may."""


def another(call: Callable[[], Tensor], seen: Tensor, times: int = 30) -> Tensor | None:
    """What one of several calls gives that is not what the first one gave; None if they agree.

    Thirty miss what is skipped once in ten calls in 1 of 26 series.
    """
    return next((found for found in (call() for _ in range(times)) if not same(found, seen)), None)


def differs(code: str, one: Tensor, other: Tensor) -> str:
    """For evidence: where two calls of the same code differ most.

    Raises:
        ByChanceError: in training mode.
    """
    if is_training():
        raise ByChanceError
    place = tuple(int(i) for i in torch.unravel_index((one - other).abs().argmax(), one.shape))
    at = f"{code}[{', '.join(map(str, place))}]"
    return f"{at} is {number(one[place])} the first time and {number(other[place])} the second; call it several times"


def is_about_a_size(error: Exception | None) -> TypeGuard[NameError]:
    """A NameError for what is called as a size, which should have been an argument: no slip, such as "patchs"."""
    name = (error.name or "") if isinstance(error, NameError) else ""
    sizes = (
        r"(num|n)_\w+|(\w+_)?(size|dim|channels|chans|heads|classes|depth|width|height)|(image|img|patch|hidden)size"
    )
    return re.fullmatch(sizes, name.lower()) is not None


def raised(code: str, error: Exception) -> str:
    """For evidence: what the code ends in, one line."""
    return f"{code} ends in {type(error).__name__}: {message_of(error, 160)}"


def unregistered(path: str, evidence: str) -> Problem:
    """Layers or parameters are kept in `path`, "layers" or "body.layers", where torch does not see them."""
    return Problem(
        "You keep layers where PyTorch does not see them, in a plain list or dict or as a bare tensor; they should "
        "be registered.",
        f"{evidence}\nself.{path} is not registered",
        "parameters",
        (
            "Print `[name for name, _ in module.named_parameters()]`: which of your layers is missing?",
            "nn.ModuleList, nn.ModuleDict and nn.Parameter register what they get; a list does not.",
        ),
        "layers_in_plain_list",
    )


@contextmanager
def going_back(code: str, step: str) -> Iterator[None]:
    """Errors of a backward pass are the student's, though no line of theirs runs in it; `code` is how they see it.

    Raises:
        WrongError: something was changed in place, or is otherwise such that autograd does not find its way back.
    """
    try:
        yield
    except RuntimeError as error:
        *_, (frame, _) = walk_tb(error.__traceback__)
        if not frame.f_globals.get("__name__", "").startswith("torch.autograd"):
            raise  # in a line of a student's own backward
        told = in_place(raised(code, error), step)
        if "inplace" not in str(error):
            told = Problem(
                "You compute something that autograd does not find its way back through; a gradient should pass.",
                told.evidence,
                step,
                (
                    "Which line of forward does more than call layers and functions of PyTorch?",
                    "No .data, no set_(), no resize_(): they change a tensor behind autograd's back.",
                ),
            )
        raise WrongError(told) from None


def low_precision(call: Callable[[], Any], place: failing.Place, evidence: str) -> Problem | None:
    """What to say of code that computes in float16 or bfloat16, where nothing else explains its numbers."""
    dtype, step = failing.in_low_precision(call, place)
    if not dtype:
        return None
    return Problem(
        f"You compute in {dtype}, which rounds to three digits; the dtype of what comes in should be kept.",
        evidence,
        step,
        (
            "Which line changes the dtype: .half(), .to(...), .bfloat16(), or a tensor made without dtype=x.dtype?",
            "Whether a model runs in less precision, its user decides, with autocast or .to, not its forward.",
        ),
        "low_precision",
    )


def in_place(evidence: str, step: str) -> Problem:
    """A tensor is changed that somebody else needs as it was."""
    return Problem(
        "You change a tensor in place that is somebody else's: the caller's, or one that autograd needs as it was; you "
        "should make a new one.",
        evidence,
        step,
        (
            "Which line of forward writes into a tensor that came in, or that a layer has read?",
            "`x = x + y` makes a new tensor, `x += y` changes the one that others have.",
        ),
        "input_changed",
    )
