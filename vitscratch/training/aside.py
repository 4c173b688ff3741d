"""Try something with a model, and leave no trace."""

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_HOOKS_AND_REGISTERED = frozenset(vars(nn.Module()))  # what every module has; the rest is its author's


def working_copy(model: nn.Module) -> nn.Module:
    """A deep copy without gradients, to be trained, woken and thrown away. A compiled model's copy is not compiled.

    Tensors that a forward pass left behind in the model, such as recorded attention, are copied without their graph.
    """
    model = getattr(model, "_orig_mod", model)
    left_behind = [value for _, value in held_values(model) if isinstance(value, Tensor) and not value.is_leaf]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _ in gradients:
            parameter.grad = None  # else they would be copied, too
        return copy.deepcopy(model, {id(value): value.detach().clone() for value in left_behind})
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


def set_gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Like `loss.backward()`, but for these parameters alone: what a copy shares with its model collects nothing."""
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.grad = gradient


def held_values(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """(name, value) of all that a model holds without having registered it: tensors and modules in plain attributes,
    lists, dicts, own objects and the closures of functions, each once."""
    registered = {id(thing) for thing in (*model.modules(), *model.parameters(), *model.buffers())}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for key, value in vars(module).items():
            if key not in _HOOKS_AND_REGISTERED:
                yield from _walk(f"{prefix}{key}", value, registered, depth=4)


def _walk(name: str, value: Any, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if id(value) in seen or depth < 0:
        return
    if isinstance(value, (Tensor, nn.Module)):
        seen.add(id(value))
        yield name, value
        return
    for suffix, child in _children(value):
        yield from _walk(name + suffix, child, seen, depth - 1)


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"[{i}]", child) for i, child in enumerate(value)]
    if isinstance(value, dict):
        return [(f"[{key!r}]", child) for key, child in value.items()]
    if isinstance(value, partial):
        return [("", child) for child in (value.func, *value.args, *value.keywords.values())]
    if isinstance(value, FunctionType):
        return [("", content) for cell in value.__closure__ or () if (content := _content(cell)) is not None]
    if isinstance(value, MethodType):
        return [("", value.__self__)]
    library = type(value).__module__.partition(".")[0] in ("builtins", "torch", "numpy")
    if hasattr(value, "__dict__") and not library and not isinstance(value, (type, ModuleType)):
        return [(f".{key}", child) for key, child in vars(value).items()]  # an object of the author's own class
    return []


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
