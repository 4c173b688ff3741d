"""From pictures to tokens with a student's own projection: the right way and known mistakes (exercises 2 and 8)."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vitscratch.exercises.checks import cutting
from vitscratch.exercises.checks.naming import bank
from vitscratch.exercises.checks.roles import likeness
from vitscratch.exercises.exercise import Mistake, Problem

MISTAKES = {
    **{name: mistake for name, mistake in cutting.MISTAKES.items() if name != cutting.CHANNEL_LAST},
    "pe_reshape_not_transpose": replace(
        cutting.MISTAKES["pe_reshape_not_transpose"],
        what="You use a reshape where axes have to be permuted first: the shape is right, but a token is made of "
        "numbers of several places; it should be made of those of one.",
    ),
    **bank(
        Mistake(
            "pe_picture_transposed",
            "You swap height and width of the picture before you cut it; it should stay as it is.",
            "cut",
            ("Which patch does token 1 come from?", "PyTorch's pictures are (batch, channels, height, width)."),
        ),
        Mistake(
            "pe_no_stride",
            "Your convolution moves on by one pixel (stride 1), so that the patches overlap; it should move on "
            "by a whole patch.",
            "cut",
            (
                "How many tokens come out, and how many patches has the picture?",
                "A convolution visits each patch once if its stride is as long as its kernel.",
            ),
        ),
        Mistake(
            "tok_global_name",
            "You take a size from somewhere else (a global name, or a number such as 16 or 3); it should come "
            "from the arguments.",
            "cut",
            (
                "Build it for patches of another side than 16, in a file with no other names.",
                "forward should use what __init__ was given: keep it as self.patch_size, and so on.",
            ),
            section="From patch to token",
        ),
        Mistake(
            "pe_relu",
            "You put an activation behind the projection; there should be none: the patch embedding is linear "
            "(Eq. 1 has nothing but E).",
            "projection",
            (
                "Is the token of a picture's negative what a linear map makes of it?",
                "Eq. 1 multiplies each patch with a matrix and adds a bias; nothing else.",
            ),
        ),
        Mistake(
            "pe_norm",
            "You normalise the tokens (or the pictures) on the way; in Eq. 1 nothing is normalised.",
            "projection",
            (
                "Double a picture's contrast: do the tokens change?",
                "The first norm of a Vision Transformer is inside its first block.",
            ),
        ),
        Mistake(
            "pe_scaled",
            "You scale the tokens or the pictures (by a factor, or by (x - 0.5) / 0.5); Eq. 1 has nothing of that.",
            "projection",
            (
                "Compare with the patch times the matrix by hand: what is the ratio?",
                "No sqrt(D), no 255: the picture comes in as it is.",
            ),
        ),
        Mistake(
            "pe_no_bias",
            "Your projection has no bias, or does not add it; it should have one, as nn.Conv2d and nn.Linear "
            "have by default.",
            "parameters",
            (
                "What is the token of a black picture?",
                "Leave bias at its default, and let the layer itself compute.",
            ),
        ),
        Mistake(
            "pe_dropout",
            "You set some numbers to zero also in eval mode; there dropout should do nothing.",
            "projection",
            (
                "Call it twice with one picture.",
                "F.dropout needs training=self.training; nn.Dropout, made in __init__, knows it.",
            ),
        ),
    ),
}

OF_A_CONVOLUTION = (  # hints on the reshape of a grid of tokens
    "A reshape keeps the order in which numbers are read: which axis of the convolution's result varies fastest?",
    "The convolution gives (batch, embed_dim, rows, columns): flatten its grid, then look at the order of axes.",
    "The axis of channels has to go last: transpose it with that of the tokens.",
)


def hinted(problem: Problem, projection: "Projection") -> Problem:
    """With the hints for a convolution, if it is one."""
    of_grid = projection.channel_first and problem.mistake == "pe_reshape_not_transpose"
    return replace(problem, hints=OF_A_CONVOLUTION) if of_grid else problem


Project = Callable[[Tensor, int, Tensor, Tensor], Tensor]  # pictures, patch side, matrix (d, c p q), bias -> tokens


@dataclass(frozen=True)
class Projection:
    """Where a student keeps the projection.

    Args:
        weight, bias: names of the parameters; bias is "" if there is none.
        channel_first: whether the weight is a convolution's, whose pixels are (c p q) and nothing else.
    """

    weight: str
    bias: str
    channel_first: bool

    def numbers(self, parameters: Mapping[str, Tensor], embed_dim: int) -> tuple[Tensor, Tensor]:
        """The matrix, (d, pixels of a patch), and the bias, (d)."""
        weight = parameters[self.weight]
        matrix = weight.movedim(list(weight.shape).index(embed_dim), 0).flatten(1)
        return matrix, parameters[self.bias].flatten() if self.bias else torch.zeros_like(matrix[:, 0])


def find_projection(parameters: Mapping[str, Tensor], patch: int, channels: int, embed_dim: int) -> Projection | None:
    """The weight by its shape, and the bias beside it, or a vector further out whose name says so, or the nearest."""
    weights = fitting(parameters, patch, channels, embed_dim)
    if len(weights) != 1:
        return None
    weight = weights[0]
    beside = weight.removesuffix("weight") + "bias"
    vectors = [name for name, tensor in parameters.items() if tensor.numel() == embed_dim]
    if beside not in vectors:
        folder = weight.rpartition(".")[0]
        vectors = [name for name in vectors if not _something_else(name) and _is_near(name, folder, parameters[name])]
        vectors.sort(
            key=lambda name: (len(name.rpartition(".")[0]), _may_be_bias(name), likeness(name, weight)), reverse=True
        )
        beside = vectors[0] if vectors else ""
    conv = tuple(parameters[weight].shape) == (embed_dim, channels, patch, patch)
    return Projection(weight, beside, conv)


def fitting(parameters: Mapping[str, Tensor], patch: int, channels: int, embed_dim: int) -> list[str]:
    """The weights that could be the projection's by their shape."""
    size = embed_dim * channels * patch * patch
    return [name for name, tensor in parameters.items() if tensor.numel() == size and embed_dim in tensor.shape]


def swapped_bias(parameters: Mapping[str, Tensor], projection: Projection, embed_dim: int) -> int:
    """How many numbers the bias has of a layer whose sizes, in and out, are swapped; 0 if they are not."""
    bias = parameters.get(projection.weight.removesuffix("weight") + "bias")
    swapped = bias is not None and (bias.numel(), embed_dim) == tuple(parameters[projection.weight].shape[:2])
    return bias.numel() if swapped and bias is not None else 0


def made_for(
    parameters: Mapping[str, Tensor], patch: int, channels: int, embed_dim: int
) -> tuple[str, str, tuple[str, ...]] | None:
    """A weight that fits the usual sizes, not those asked for: its name, what it was made for, and hints."""
    for name, tensor in parameters.items():
        if tensor.numel() == embed_dim * channels * 16 * 16:
            return name, "patches of 16 x 16 px", MISTAKES["tok_global_name"].hints
        if tensor.numel() == embed_dim * 3 * patch * patch:
            return (
                name,
                "3 channels",
                (
                    "Build it for pictures that have another number of channels than 3: grey ones have 1.",
                    "The number of channels is an argument: in_channels.",
                ),
            )
    return None


def _something_else(name: str) -> bool:
    """Whether its name says that it is no bias of a linear map, but the class token or part of a norm."""
    return re.search("cls|class|tok|pos|norm|^ln|gamma|beta|scale", name.rpartition(".")[2].lower()) is not None


def _may_be_bias(name: str) -> bool:
    last = name.rpartition(".")[2].lower()
    return re.search("bias|offset|^b_|_b$|^b$", last) is not None


def _is_near(name: str, folder: str, tensor: Tensor) -> bool:
    """Whether a parameter lies in this module, or in one around it and looks like a bias by its name or shape."""
    where = name.rpartition(".")[0]
    if where == folder:
        return True
    around = f"{folder}.".startswith(f"{where}." if where else "")
    as_bias = bool(where) and (tensor.ndim == 1 or tensor.shape[-1] == 1)  # (d) or (d, 1, 1); a token is (1, 1, d)
    return around and (_may_be_bias(name) or as_bias)


def rights(projection: Projection) -> list[Project]:
    """What is right with this weight: for a linear layer both orders of pixels, ours and the paper's, are."""
    cuts = [cutting.right] if projection.channel_first else [cutting.right, cutting.channel_last]
    return [_project(cut) for cut in cuts]


def wrongs(projection: Projection) -> Iterator[tuple[tuple[str, ...], Project]]:
    """Known mistakes, alone and then two at once, each as names and a function."""
    orders = list(_orders(projection))
    yield from orders
    yield from _factors(projection)
    for names, project in orders:
        if "pe_split_reversed" not in names:
            for name, after in _AFTER:
                yield (*names, name), _after(project, after=after)
            for name, before in _BEFORE:
                yield (*names, name), _after(project, before=before)


def likely_wrongs(projection: Projection) -> Iterator[tuple[tuple[str, ...], Project]]:
    """Few of them: what somebody may do wrong beside another mistake."""
    yield from _reordered_tokens(projection)
    yield from _factors(projection)


def _factors(projection: Projection) -> Iterator[tuple[tuple[str, ...], Project]]:
    for right in rights(projection):
        for name, before in _BEFORE:
            yield (name,), _after(right, before=before)
        for name, after in _AFTER:
            yield (name,), _after(right, after=after)
        yield ("pe_no_bias",), _without_bias(right)


def _project(cut: cutting.Cut) -> Project:
    return lambda images, patch, matrix, bias: F.linear(cut(images, patch), matrix, bias)


def _reordered_tokens(projection: Projection) -> Iterator[tuple[tuple[str, ...], Project]]:
    for right in rights(projection):
        for name, reorder in _REORDERS:
            yield (name,), _reordered(right, reorder)
    yield ("pe_picture_transposed",), lambda images, patch, *rest: _project(cutting.right)(images.mT, patch, *rest)


def _orders(projection: Projection) -> Iterator[tuple[tuple[str, ...], Project]]:
    """Wrong orders of patches or pixels; a convolution cuts by itself, so that only the order of its tokens is left."""
    yield from _reordered_tokens(projection)
    if projection.channel_first:
        return
    for names, cut in cutting.wrong_cuts():
        left = tuple(name for name in names if name != cutting.CHANNEL_LAST)
        if left:
            yield left, _project(cut)


def _without_bias(project: Project) -> Project:
    return lambda images, patch, matrix, bias: project(images, patch, matrix, 0 * bias)


def _reordered(project: Project, reorder: Callable[[Tensor, int], Tensor]) -> Project:
    def reordered(images: Tensor, patch: int, matrix: Tensor, bias: Tensor) -> Tensor:
        return reorder(project(images, patch, matrix, bias), images.shape[2] // patch)

    return reordered


def _after(
    project: Project,
    before: Callable[[Tensor], Tensor] = lambda images: images,
    after: Callable[[Tensor], Tensor] = lambda tokens: tokens,
) -> Project:
    return lambda images, patch, matrix, bias: after(project(before(images), patch, matrix, bias))


_REORDERS: list[tuple[str, Callable[[Tensor, int], Tensor]]] = [
    ("pe_reshape_not_transpose", lambda tokens, rows: tokens.mT.reshape(tokens.shape)),
    ("pe_column_major", lambda tokens, rows: rearrange(tokens, "b (r c) d -> b (c r) d", r=rows)),
]
_BEFORE: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("pe_scaled", lambda images: images / 255),
    ("pe_scaled", lambda images: images * 255),
    ("pe_scaled", lambda images: 2 * images - 1),
    ("pe_scaled", lambda images: (images - 0.5) / 0.5),
    ("pe_norm", lambda images: (images - images.mean()) / images.std()),
]
_AFTER: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    *(
        ("pe_relu", activation)
        for activation in (
            F.relu,
            F.gelu,
            lambda x: F.gelu(x, approximate="tanh"),
            F.silu,
            F.leaky_relu,
            F.elu,
            torch.tanh,
            torch.sigmoid,
            lambda x: x.softmax(dim=-1),
        )
    ),
    ("pe_norm", lambda x: F.layer_norm(x, x.shape[-1:], eps=1e-6)),
    ("pe_norm", lambda x: F.layer_norm(x, x.shape[-1:])),
    ("pe_norm", lambda x: F.normalize(x, dim=-1)),
    ("pe_scaled", lambda x: x * x.shape[-1] ** 0.5),
    ("pe_scaled", lambda x: x / x.shape[-1] ** 0.5),
]
