"""Which modules of a student's Vision Transformer are its encoder blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import nn

from vitscratch.exercises.checks.stacked import slices


@dataclass
class Blocks:
    """The encoder blocks of a model, in order."""

    modules: list[nn.Module]
    hooked: bool = False
    """Whether they are modules of the student's, so that one can listen to them; else they are made of their parts."""
    guessed: bool = False
    """Whether it is a guess which parts belong to which block."""


def find_blocks(model: nn.Module, sizes: dict[str, Any]) -> Blocks:
    """The blocks: modules of their own, or made of parts in lists, or of slices of stacked parameters.

    A block is a module with the weights of attention and of an MLP; the outermost such modules are taken.
    """
    groups = [members for members in _lists(model) if all(any(True for _ in member.parameters()) for member in members)]
    whole = [members for members in groups if is_block(members[0], sizes) or _wide(members, sizes)]
    bags = nn.ParameterList | nn.ParameterDict
    alone = [module for name, module in model.named_modules() if name and is_block(module, sizes)]
    alone = [module for module in alone if not isinstance(module, bags)]
    alone = [
        module for module in alone if not any(other is not module and other in alone for other in module.modules())
    ]
    if whole and not (len(max(whole, key=len)) < len(alone) == sizes["depth"]):  # else some stand beside the list
        return Blocks(max(whole, key=len), hooked=True)
    depth = sizes["depth"]
    if len(alone) == depth:
        return Blocks(alone, hooked=True)
    beside, guessed = _side_by_side(groups, depth)
    turns = list(_in_turns(model, depth))
    together = [[(*one, *other) for one, other in zip(rows, beside, strict=True)] for rows in turns if beside]
    for rows in (beside, *together, *turns):
        blocks = [_joined(model, members) for members in rows]
        if blocks and is_block(blocks[0], sizes):
            return Blocks(blocks, guessed=guessed and rows not in turns)
    stacked = slices(model, depth)
    if stacked and is_block(stacked[0], sizes):
        return Blocks(list(stacked))
    return Blocks(alone, hooked=bool(alone))


def _side_by_side(groups: list[list[nn.Module]], depth: int) -> tuple[list[tuple[nn.Module, ...]], bool]:
    """One part of each list that has depth of them; two, which is a guess, where it has twice as many or one more."""
    parts: list[list[tuple[nn.Module, ...]]] = [
        [(member,) for member in members] for members in groups if len(members) == depth
    ]
    single = len(parts)
    parts += [
        list(zip(members[: 2 * depth : 2], members[1 : 2 * depth : 2], strict=True))
        for members in groups
        if len(members) in (2 * depth, 2 * depth + 1)
    ]
    return [tuple(chain(*row)) for row in zip(*parts, strict=True)], len(parts) > single


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


def _wide(members: list[nn.Module], sizes: dict[str, Any]) -> bool:
    """Whether these are blocks whose MLP has another width than was asked for: depth of them, more than attention."""
    weights = sum(tensor.numel() for tensor in members[0].parameters() if tensor.ndim > 1)
    norms = sum(tensor.ndim == 1 for tensor in members[0].parameters())
    return len(members) == sizes["depth"] and weights > 4 * sizes["embed_dim"] ** 2 and norms > 4


def is_block(module: nn.Module, sizes: dict[str, Any]) -> bool:
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
