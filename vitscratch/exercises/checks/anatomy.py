"""Where the parts of a student's Vision Transformer are: blocks, projection, class token, positions, norm and head."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vitscratch.exercises.checks.prepending import Table, find_table
from vitscratch.exercises.checks.projecting import Projection, find_projection
from vitscratch.exercises.checks.stacked import Slice, slices

Sizes = dict[str, Any]


@dataclass
class Anatomy:
    """The parts by name of the parameter; None or "" for what was not found."""

    projection: Projection | None
    table: Table
    blocks: list[nn.Module]
    hooked: bool
    """Whether the blocks are modules of the student's, so that one can listen to them."""
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
    blocks, hooked = find_blocks(model, sizes)
    outside = outside_of(blocks, model)
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
    return Anatomy(projection, table, blocks, hooked, last, head, [name for name in rest if name not in known])


def outside_of(blocks: list[nn.Module], model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters that are in none of its blocks."""
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    stacked = {name for block in blocks if isinstance(block, Slice) for name in block.whole()}
    return {
        name: tensor for name, tensor in model.named_parameters() if id(tensor) not in inside and name not in stacked
    }


def find_blocks(model: nn.Module, sizes: Sizes) -> tuple[list[nn.Module], bool]:
    """The blocks, in order, and whether they are modules of their own; else made of their parts, or of stacked ones.

    A block is a module with the weights of attention and of an MLP; the outermost such modules are taken.
    """
    groups = [members for members in _lists(model) if all(any(True for _ in member.parameters()) for member in members)]
    whole = [members for members in groups if is_block(members[0], sizes) or _wide(members, sizes)]
    alone = [module for name, module in model.named_modules() if name and is_block(module, sizes)]
    alone = [
        module for module in alone if not any(other is not module and other in alone for other in module.modules())
    ]
    if whole and not (len(max(whole, key=len)) < len(alone) == sizes["depth"]):  # else some stand beside the list
        return max(whole, key=len), True
    depth = sizes["depth"]
    if len(alone) == depth:
        return alone, True
    parts = [members for members in groups if len(members) == depth]
    for rows in (list(zip(*parts, strict=True)), *_in_turns(model, depth)):
        blocks = [_joined(model, members) for members in rows]
        if blocks and is_block(blocks[0], sizes):
            return blocks, False
    if alone:
        return alone, True
    stacked = slices(model, depth)
    return (list(stacked), False) if stacked and is_block(stacked[0], sizes) else ([], False)


def _in_turns(model: nn.Module, depth: int) -> Iterator[list[tuple[nn.Module, ...]]]:
    """Parts that take turns among the children of one module: attention, MLP, attention, MLP, ..., depth times."""
    for module in model.modules():
        children = [
            child for child in module._modules.values() if child is not None and any(True for _ in child.parameters())
        ]
        looks = [_signature(child) for child in children]
        for period in range(2, len(children) // depth + 1):
            for start in range(len(children) - period * depth + 1):
                if looks[start : start + period * depth] == looks[start : start + period] * depth:
                    firsts = range(start, start + period * depth, period)
                    yield [tuple(children[first : first + period]) for first in firsts]


def _joined(model: nn.Module, members: Sequence[nn.Module]) -> nn.Module:
    """One block made of its parts."""
    block = nn.Module()
    for place, member in enumerate(members):
        block.add_module(f"{_path(model, member)}_{place}", member)
    return block


def _wide(members: list[nn.Module], sizes: Sizes) -> bool:
    """Whether these are blocks whose MLP has another width than was asked for: depth of them, more than attention."""
    weights = sum(tensor.numel() for tensor in members[0].parameters() if tensor.ndim > 1)
    norms = sum(tensor.ndim == 1 for tensor in members[0].parameters())
    return len(members) == sizes["depth"] and weights > 4 * sizes["embed_dim"] ** 2 and norms > 4


def is_block(module: nn.Module, sizes: Sizes) -> bool:
    """Whether it holds what attention needs (q, k and v, at least) and, besides, an MLP, and nothing of a model."""
    width, hidden = sizes["embed_dim"], sizes["mlp_dim"]
    parameters = list(module.parameters())
    of_mlp = [tensor for tensor in parameters if tensor.ndim > 1 and hidden in tensor.shape and width in tensor.shape]
    squares = sum(tensor.numel() for tensor in parameters if tensor.ndim > 1) - sum(t.numel() for t in of_mlp)
    least = {2: 2, 0: 5}.get(len(of_mlp))  # an MLP of another width than was asked for is two squares, too
    return least is not None and least * width * width <= squares < 9 * width * width


def _lists(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Every run of at least two children, one after the other, whose parameters are called and shaped the same."""
    for module in model.modules():
        run: list[nn.Module] = []
        for child in module._modules.values():  # not children(), which leaves out what is there twice
            if child is None:
                continue
            if run and _signature(child) != _signature(run[-1]):
                if len(run) > 1:
                    yield run
                run = []
            run.append(child)
        if len(run) > 1:
            yield run


def _signature(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(tensor.shape)) for name, tensor in module.named_parameters()]


def _path(model: nn.Module, member: nn.Module) -> str:
    """The name of the list that a member is in: "attentions"."""
    path = next(name for name, module in model.named_modules() if module is member)
    return path.rpartition(".")[0].replace(".", "_") or path


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
        ones = [name for name in vectors if bool((rest[name] == 1).all())]
        others = [name for name in vectors if name not in ones]
        if ones and (len(vectors) <= 2):
            found.append((ones[0], others[0] if others else ""))
    return found


def _by_values(rest: Mapping[str, Tensor], vectors: list[str]) -> list[str]:
    """A weight of ones at the model itself and the bias of zeros that stands next to it, whatever they are called."""
    tokens = [name for name in vectors if re.search("cls|class|tok|pos", name.lower())]
    ones = [name for name in vectors if name not in tokens and bool((rest[name] == 1).all())]
    zeros = [name for name in vectors if name not in tokens and not bool(rest[name].any())]
    place = list(rest).index
    return [ones[-1], *sorted(zeros, key=lambda name: abs(place(name) - place(ones[-1])))[:1]] if ones else []
