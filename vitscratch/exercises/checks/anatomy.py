"""Where the parts of a student's Vision Transformer are: blocks, projection, class token, positions, norm and head."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vitscratch.exercises.checks.blocks import find_blocks
from vitscratch.exercises.checks.prepending import Table, find_table
from vitscratch.exercises.checks.projecting import Projection, find_projection
from vitscratch.exercises.checks.roles.registered import NORMS, is_norm, is_shift
from vitscratch.exercises.checks.stacked import Slice

Sizes = dict[str, Any]


@dataclass
class Anatomy:
    """The parts by name of the parameter; None or "" for what was not found."""

    projection: Projection | None
    table: Table
    blocks: list[nn.Module]
    hooked: bool
    """Whether the blocks are modules of the student's, so that one can listen to them."""
    guessed: bool
    """Whether it is a guess which parts belong to which block."""
    norm: tuple[str, str]
    head: tuple[str, str]
    surplus: list[str]
    absent: list[str] = field(default_factory=list)
    """Mistakes after the blocks that missing parameters tell."""


def grid(sizes: Sizes) -> tuple[int, int]:
    """Rows and columns of patches."""
    height, width = size if isinstance(size := sizes["image_size"], tuple) else (size, size)
    return height // sizes["patch_size"], width // sizes["patch_size"]


def dissect(model: nn.Module, sizes: Sizes) -> Anatomy:
    """Find the parts by shape, by kind of layer, and by name where shapes do not tell. Call it before awakening."""
    width, rows_columns = sizes["embed_dim"], grid(sizes)
    blocks = find_blocks(model, sizes)
    outside = outside_of(blocks.modules, model)
    head = _head(outside, sizes["num_classes"], width)
    rest = {name: tensor for name, tensor in outside.items() if name not in head}
    norms = _norms(model, rest, width)
    in_norms = {name for pair in norms for name in pair}
    others = {name: tensor for name, tensor in rest.items() if name not in in_norms}
    projection = find_projection(others, sizes["patch_size"], sizes["in_channels"], width)
    used = (projection.weight, projection.bias) if projection else ()
    rest = {name: tensor for name, tensor in rest.items() if name not in used}
    table = find_table(
        {name: tensor for name, tensor in rest.items() if name not in in_norms},
        rows_columns[0] * rows_columns[1],
        width,
    )
    early = [pair for pair in norms if re.search("pre|embed|patch|first", pair[0].lower())]
    last = (early + [pair for pair in norms if pair not in early])[-1] if norms else ("", "")
    known = {*last, *table.names}
    surplus = [name for name in rest if name not in known]
    return Anatomy(projection, table, blocks.modules, blocks.hooked, blocks.guessed, last, head, surplus)


def outside_of(blocks: list[nn.Module], model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters that are in none of its blocks."""
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    stacked = {name for block in blocks if isinstance(block, Slice) for name in block.whole()}
    return {
        name: tensor for name, tensor in model.named_parameters() if id(tensor) not in inside and name not in stacked
    }


def _head(outside: Mapping[str, Tensor], classes: int, width: int) -> tuple[str, str]:
    weights = [name for name, tensor in outside.items() if sorted(tensor.shape) == sorted((classes, width))]
    weight = weights[-1] if weights else ""
    biases = [name for name, tensor in outside.items() if tuple(tensor.shape) == (classes,)]
    return weight, biases[-1] if biases else ""


def _norms(model: nn.Module, rest: Mapping[str, Tensor], width: int) -> list[tuple[str, str]]:
    """(weight, bias) of every norm outside the blocks: modules with nothing but vectors of the width, ones first."""
    found = []
    for path, module in model.named_modules():
        own = [f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)]
        own = [name for name in own if name in rest]
        vectors = [name for name in own if tuple(rest[name].shape) == (width,)]
        if not path:  # parameters of the model itself: a norm written out, if they are called so
            vectors = [
                name for name in vectors if any(word in name.lower() for word in ("norm", "ln", "gamma", "beta"))
            ] or _by_values(rest, vectors)
        elif len(own) != len(vectors) or any(
            re.search("cls|class", name.rpartition(".")[2].lower()) for name in vectors
        ):
            continue
        if len(vectors) > 2:
            continue
        ones = [name for name in vectors if bool((rest[name] == 1).all())]
        if isinstance(module, NORMS):
            ones = [name for name in vectors if name.endswith("weight")]
        elif not ones and len(vectors) == 2 and is_norm(type(module).__name__):
            ones = sorted(vectors, key=is_shift)[:1]
        others = [name for name in vectors if name not in ones]
        if ones:
            found.append((ones[0], others[0] if others else ""))
    return found


def _by_values(rest: Mapping[str, Tensor], vectors: list[str]) -> list[str]:
    """A weight of ones at the model itself and the bias of zeros that stands next to it, whatever they are called."""
    tokens = [name for name in vectors if re.search("cls|class|tok|pos", name.lower())]
    ones = [name for name in vectors if name not in tokens and bool((rest[name] == 1).all())]
    zeros = [name for name in vectors if name not in tokens and not bool(rest[name].any())]
    place = list(rest).index
    return [ones[-1], *sorted(zeros, key=lambda name: abs(place(name) - place(ones[-1])))[:1]] if ones else []
