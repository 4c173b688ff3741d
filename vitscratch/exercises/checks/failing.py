"""In which step of the computation a student's code ends with an exception: told by what torch had done before."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# What a function does, by its name; all others are "other".
_KINDS = {
    "linear": "linear conv1d conv2d addmm",
    "product": "matmul __matmul__ __rmatmul__ bmm einsum baddbmm",
    "softmax": "softmax log_softmax",
    "exp": "exp",
    "attention": "scaled_dot_product_attention multi_head_attention_forward",
    "norm": "layer_norm rms_norm batch_norm group_norm",
    "sum": "add __add__ __radd__ __iadd__ add_",
    "factor": "mul __mul__ __rmul__ div __truediv__ true_divide sqrt",
    "join": "cat concat hstack stack expand repeat tile",
    "shape": "view reshape permute transpose movedim chunk split unflatten flatten unbind rearrange swapaxes unsqueeze",
}
_KIND = {name: kind for kind, names in _KINDS.items() for name in names.split()}
MANY = 4  # tensors: of more, each shape is told once
Place = Callable[[Sequence[str], str], str]  # kinds of what was done, and of what failed -> step


class _Recorder(TorchFunctionMode):
    """Notes what is called, and what of it fails, with the shapes that it got."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.failed, self.shapes = "", list[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        given = (*args, *(kwargs or {}).values())
        listed = (one for thing in given for one in (thing if isinstance(thing, list | tuple) else (thing,)))  # of cat
        tensors = [one for one in listed if isinstance(one, Tensor)]
        try:
            result = func(*args, **(kwargs or {}))
        except Exception:
            self.failed = name.strip("_")
            self.shapes = [str(tuple(tensor.shape)) for tensor in tensors]
            self.done.append(_kind(name, tensors))
            raise
        self.done.append(_kind(name, tensors))
        return result


def _kind(name: str, tensors: Sequence[Tensor]) -> str:
    kind = _KIND.get(name, "other")
    matrix = any(isinstance(tensor, nn.Parameter) and tensor.ndim == 2 for tensor in tensors)
    return "linear" if kind == "product" and matrix else kind


class _Found(BaseException):  # no student's `except Exception` may catch it
    """A tensor of low precision goes into a function."""


class _OfPrecision(_Recorder):
    """Ends at the first function that computes with a tensor in float16 or bfloat16."""

    dtype: torch.dtype | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        low = [one.dtype for one in args if isinstance(one, Tensor) and one.dtype in (torch.float16, torch.bfloat16)]
        name = getattr(func, "__name__", "")
        if low and name not in ("__get__", "half", "bfloat16", "dim", "size"):
            self.dtype = low[0]
            self.done.append(_kind(name, [one for one in args if isinstance(one, Tensor)]))
            raise _Found
        return super().__torch_function__(func, types, args, kwargs)


def in_low_precision(call: Callable[[], Any], place: Place) -> tuple[str, str]:
    """Whether code computes in float16 or bfloat16: the dtype, and the step where it begins; ("", "") if not.

    Args:
        call: of the student's code.
        place: the exercise's steps.
    """
    recorder = _OfPrecision()
    with suppress(_Found), recorder:
        call()
    return (str(recorder.dtype), place(recorder.done[:-1], recorder.done[-1])) if recorder.dtype else ("", "")


def locate(error: Exception, again: Callable[[], Any], place: Place) -> None:
    """Call it once more, and note at the exception the step that it happens in, and the shapes that did not fit.

    Args:
        error: that a call of the student's code raised.
        again: the same call.
        place: the exercise's steps.
    """
    recorder = _Recorder()
    try:
        with recorder:
            again()
    except Exception as same:
        if type(same) is not type(error):
            return
        if type(error).__name__ == "EinopsError":
            recorder.done.append("shape")
        elif not recorder.failed:
            return
        error.step = place(recorder.done[:-1], recorder.done[-1])  # type: ignore[attr-defined]
        if recorder.shapes:
            many = len(recorder.shapes) > MANY
            shapes = list(dict.fromkeys(recorder.shapes)) if many else recorder.shapes
            error.add_note(f"{recorder.failed} of {'some ' * many}{' and '.join(shapes)}")


def in_patch_embedding(done: Sequence[str], failed: str) -> str:
    """Of exercise 2, whose layer has the right sizes: what does not fit it was cut wrongly."""
    return "projection" if "linear" in done and failed in ("sum", "factor", "product", "norm") else "cut"


def in_tokens(done: Sequence[str], failed: str) -> str:
    """Of exercise 3."""
    first = failed in ("join", "shape") or (failed == "other" and "join" not in done)
    return "class token" if first else "position embedding"


def in_attention(done: Sequence[str], failed: str) -> str:
    """Of exercise 4."""
    if failed == "factor" and "exp" in done and "product" not in done[done.index("exp") :]:  # to be divided by its sum
        return "softmax"
    if {"softmax", "exp", "attention"} & {*done}:
        return "weighted mean"
    if failed in ("softmax", "exp"):
        return "softmax"
    if "product" in done:
        return "weighted mean" if failed == "product" else "scale"
    return "scores"


def in_heads(done: Sequence[str], failed: str) -> str:
    """Of exercise 5."""
    weighted = [i for i, kind in enumerate(done) if kind in ("softmax", "exp")]
    mixed = "attention" in done or (weighted and "product" in done[weighted[0] :])
    if mixed:
        return "output projection" if failed == "linear" else "merging heads"
    if failed in ("product", "softmax", "exp", "attention") or "product" in done:
        return in_attention(done, failed)
    return "heads" if failed in ("shape", "other") and "linear" in done else "queries, keys and values"


def in_mlp(done: Sequence[str], failed: str) -> str:
    """Of exercise 6."""
    count = done.count("linear")
    return "first layer" if not count else "second layer" if count > 1 or failed == "linear" else "activation"


def _since_the_norm(done: Sequence[str]) -> Sequence[str]:
    return done[len(done) - done[::-1].index("norm") :]


def in_block(done: Sequence[str], failed: str) -> str:
    """Of exercise 7."""
    norms = done.count("norm")
    if failed == "norm" or not norms:
        return "norms"
    half = _since_the_norm(done)
    added = failed == "sum" and ("linear" in half or "attention" in half)
    if norms == 1:
        return "first residual" if added else "attention"
    return "second residual" if added else "MLP"


def in_model(depth: int) -> Place:
    """Of exercise 8, for a model with this many blocks."""

    def place(done: Sequence[str], failed: str) -> str:
        norms = done.count("norm")
        if norms > 2 * depth or (norms == 2 * depth and "sum" in _since_the_norm(done)):
            return {"norm": "final norm", "linear": "head"}.get(failed, "pooling")
        if norms or failed == "norm":
            return "encoder blocks"
        if failed == "join" or (failed == "other" and "linear" in done and "join" not in done):
            return "class token"
        return "position embedding" if failed == "sum" else "encoder blocks" if "join" in done else "patch embedding"

    return place
