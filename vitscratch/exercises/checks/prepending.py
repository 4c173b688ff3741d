"""Class token and positions: the right way and known mistakes, with a student's own parameters (exercises 3 and 8)."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitscratch.exercises.checks.compare import one_or_two, same
from vitscratch.exercises.checks.naming import bank
from vitscratch.exercises.exercise import Mistake, Problem

CLASS_TOKEN, POSITION = "class token", "position embedding"
MISTAKES = bank(
    Mistake(
        "vit_cls_batch_dim",
        "You make one class token for each slot of a batch; it should be one vector for all pictures, so that "
        "what a picture gets does not depend on its place in the batch.",
        CLASS_TOKEN,
        (
            "How many class tokens does the model learn? Count the parameter's numbers.",
            "The parameter has one row, (1, 1, embed_dim); the batch comes from the input: expand it in forward.",
        ),
    ),
    Mistake(
        "vit_pos_batch_dim",
        "You make one table of positions for each slot of a batch (and a single picture is silently broadcast "
        "to as many); it should be one table for all pictures.",
        POSITION,
        (
            "How many numbers does the position embedding learn? N + 1 rows of embed_dim would do.",
            "The parameter's first axis is 1: (1, N + 1, embed_dim); the addition broadcasts it over the batch.",
        ),
    ),
    Mistake(
        "vit_pos_not_on_cls",
        "You add positions to the patches only; the class token should get one, too: Eq. 1 adds N + 1 rows.",
        POSITION,
        (
            "How many rows has E_pos in Eq. 1?",
            "Put the class token in front first, then add N + 1 positions to all.",
        ),
    ),
    Mistake(
        "vit_pos_random_each_forward",
        "You draw the positions (or the class token) anew in every call; they should be parameters, made once "
        "when the module is built.",
        POSITION,
        (
            "Call it twice with the same input.",
            "What is learned is made in __init__ and wrapped in nn.Parameter.",
        ),
    ),
    Mistake(
        "vit_cls_added",
        "You add the class token to the patches; it should stand in front of them, as a token of its own.",
        CLASS_TOKEN,
        (
            "How many tokens come out for N patches?",
            "Eq. 1 has [x_class; x_1 E; ...]: a list of N + 1 tokens. Concatenate along the axis of tokens.",
        ),
    ),
    Mistake(
        "vit_cls_appended",
        "You put the class token at the end; it should be the first token, index 0.",
        CLASS_TOKEN,
        (
            "Which row of the result does not depend on the patches?",
            "Mind the order of what you concatenate.",
        ),
    ),
    Mistake(
        "tok_not_parameter",
        "Your class token or positions are no parameters, so that they never learn; they should be an nn.Parameter.",
        "parameters",
        (
            "What does dict(module.named_parameters()) list?",
            "A tensor becomes a parameter by nn.Parameter(...), assigned to an attribute in __init__.",
        ),
    ),
    Mistake(
        "tok_detached",
        "No gradient reaches your class token or positions, so that they never learn; they should get one.",
        "parameters",
        (
            "After a backward pass, what is in .grad of each parameter?",
            "Use the parameter itself: no .data, no .detach(), no torch.no_grad(), no new tensor of its values.",
        ),
    ),
    Mistake(
        "tok_no_position",
        "You add no positions; without them the model cannot know where a patch was.",
        POSITION,
        (
            "Swap two patches: do the outputs differ in more than their order?",
            "Eq. 1 ends in + E_pos.",
        ),
    ),
    Mistake(
        "tok_no_class_token",
        "You put no class token in front of the patches, or not the learned one; the first token should be the "
        "parameter.",
        CLASS_TOKEN,
        (
            "What stands in row 0 of the result?",
            "Row 0 is the learned class token plus the first position, for every picture the same.",
        ),
    ),
    Mistake(
        "tok_cls_first_picture",
        "You give the class token to the first picture of a batch only; every picture should get it.",
        CLASS_TOKEN,
        (
            "Compare row 0 of the first picture's tokens with row 0 of the second's.",
            "Every picture gets the same class token: expand or repeat it over the batch.",
        ),
    ),
    Mistake(
        "tok_pos_twice",
        "You add the positions more than once; once is right.",
        POSITION,
        (
            "Set the patches and the class token to zero: what comes out?",
            "One addition, after the class token is in place.",
        ),
    ),
    Mistake(
        "tok_pos_multiplied",
        "You multiply the tokens by their positions; Eq. 1 adds them.",
        POSITION,
        (
            "What comes out where the position is zero?",
            "Eq. 1 ends in + E_pos.",
        ),
    ),
    Mistake(
        "tok_pos_shifted",
        "You give tokens the position of another one (the table is shifted, flipped, or one row of it is used "
        "for all); token i should get row i.",
        POSITION,
        (
            "Set patches and class token to zero: the result is the table of positions, row by row.",
            "Row i of the table belongs to token i; the class token is token 0.",
        ),
    ),
    Mistake(
        "tok_scaled",
        "You multiply patches, class token or positions by a factor; Eq. 1 has none.",
        POSITION,
        (
            "Compare the result with a sum by hand: what is the ratio?",
            "The sqrt(D) of the text Transformer is not in the Vision Transformer.",
        ),
    ),
    Mistake(
        "tok_norm",
        "You normalise the tokens, or put an activation on them; Eq. 1 ends with the sum.",
        POSITION,
        (
            "Double the patches: what happens to the result?",
            "The first norm is inside the first block.",
        ),
    ),
    Mistake(
        "tok_dropout",
        "You set some numbers to zero also in eval mode; there dropout should do nothing.",
        POSITION,
        (
            "Call it twice with one input, in eval mode.",
            "F.dropout needs training=self.training; nn.Dropout, made in __init__, knows it.",
        ),
    ),
)

# "patches" (b, n, d), "cls" (d), "pos" (n + 1, d); where a mistake changes more: "joined", "times", "finish"
State = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Where a student keeps class token and positions, by name of the parameter; "" if there is none of that shape.

    `rows` is how many positions there are: N + 1, or N when the class token has none.
    """

    cls: str
    pos: str
    rows: int
    cls_pos: str = ""
    """The class token's position, if it is a parameter by itself."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that were found."""
        return tuple(name for name in (self.cls, self.pos, self.cls_pos) if name)

    def numbers(self, parameters: Mapping[str, Tensor], embed_dim: int) -> tuple[Tensor, Tensor]:
        """The class token, (d), and the positions, (rows, d)."""
        table = parameters[self.pos].squeeze()
        if table.shape[-1] != embed_dim:  # it lies there as (d, rows)
            table = table.mT
        first = [parameters[self.cls_pos].reshape(1, embed_dim)] if self.cls_pos else []
        return parameters[self.cls].reshape(embed_dim), torch.cat([*first, table.reshape(-1, embed_dim)])


def is_a_row_short(error: Any, rows: int) -> bool:
    """Whether torch says that so many rows do not fit one more."""
    sizes = {int(size) for size in re.findall(r"\((\d+)\)", str(error))}
    return isinstance(error, RuntimeError) and "The size of tensor" in str(error) and sizes == {rows, rows + 1}


def a_row_short(evidence: str) -> Problem:
    """A table for the patches alone, which cannot be added to N + 1 tokens."""
    return Problem(
        "You make a position for each patch, and none for the class token; there should be N + 1.",
        evidence,
        POSITION,
        (
            "How many tokens are there once the class token stands in front of N patches?",
            "Eq. 1: E_pos has N + 1 rows.",
        ),
    )


def _is_on_grid(tensor: Tensor, rows: int, embed_dim: int) -> bool:
    shape = tensor.squeeze().shape
    return len(shape) == 3 and shape[0] * shape[1] == rows and shape[2] == embed_dim


def find_table(parameters: Mapping[str, Tensor], num_patches: int, embed_dim: int) -> Table:
    """By shape; among several vectors of one width, the one that is named as a class token.

    A table is (rows, d), or (d, rows); that of the patches alone may lie on their grid, (grid rows, grid columns, d).
    """
    vectors = [name for name, tensor in parameters.items() if tensor.numel() == embed_dim]
    likely = [name for name in vectors if "cls" in name.lower() or "class" in name.lower()]
    for rows in (num_patches + 1, num_patches):
        tables = [
            name
            for name, tensor in parameters.items()
            if sorted(tensor.squeeze().shape) == sorted((rows, embed_dim))
            or (rows == num_patches and _is_on_grid(tensor, rows, embed_dim))
        ]
        if tables:
            break
    else:
        tables, rows = [], 0
    tables = sorted(tables, key=lambda name: "pos" not in name.lower())
    others = [name for name in vectors if "pos" not in name.rpartition(".")[2].lower()]
    cls, pos, cls_pos = (likely or others or vectors or [""])[0], (tables or [""])[0], ""
    if rows == num_patches and len(vectors) == 2:  # the class token and its position, side by side or apart
        cls, cls_pos = sorted(vectors, key=lambda name: ("pos" in name.lower(), name != cls))
        rows += 1
    return Table(cls, pos, rows, cls_pos)


def batch_copies(parameters: Mapping[str, Tensor], num_patches: int, embed_dim: int) -> list[tuple[str, str, int]]:
    """(mistake, parameter, copies) of class tokens and positions that have an axis for the batch."""
    found = []
    for name, tensor in parameters.items():
        shape = tuple(tensor.shape)
        if len(shape) == 3 and shape[0] > 1 and shape[2] == embed_dim:
            if shape[1] == 1 and shape[0] not in (num_patches, num_patches + 1):
                found.append(("vit_cls_batch_dim", name, shape[0]))
            if shape[1] in (num_patches, num_patches + 1):
                found.append(("vit_pos_batch_dim", name, shape[0]))
    return found


def right(patches: Tensor, cls: Tensor, pos: Tensor) -> Tensor:
    """Eq. 1 without the projection: the class token first, then the patches, plus the positions."""
    return torch.cat([cls.expand(len(patches), 1, -1), patches], dim=1) + pos


def not_in_front(tokens: Tensor, without: Tensor, cls: Tensor) -> str:
    """The mistake if there are no more tokens than patches; "" if it is neither of the two known ones.

    Args:
        tokens: (b, n, d).
        without: the same with the class token at 0: tells the added one from the one that is not used.
        cls: the class token, (d).
    """
    if torch.equal(tokens, without):
        return "tok_no_class_token"
    return "vit_cls_added" if same(tokens - without, cls.expand_as(tokens)) else ""


def too_few() -> Iterator[tuple[str, Callable[[Tensor, Tensor, Tensor], Tensor]]]:
    """Mistakes that leave as many tokens as there are patches, as functions of patches, class token and positions."""
    rows: list[Callable[[Tensor, int], Tensor]] = [
        lambda pos, n: pos[-n:],
        lambda pos, n: pos[:n],
        lambda pos, n: pos[-n:] + pos[:1],  # the class token's, with it
    ]
    for of in rows:
        yield "vit_cls_added", partial(_without_front, of, 1)
        yield "tok_no_class_token", partial(_without_front, of, 0)


def _without_front(
    rows: Callable[[Tensor, int], Tensor], factor: int, patches: Tensor, cls: Tensor, pos: Tensor
) -> Tensor:
    return patches + factor * cls + rows(pos, patches.shape[1])


Change = Callable[[State], State]
_FINISH: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("tok_norm", lambda x: F.layer_norm(x, x.shape[-1:], eps=1e-6)),
    ("tok_norm", lambda x: F.layer_norm(x, x.shape[-1:])),
    ("tok_norm", lambda x: F.normalize(x, dim=-1)),
    ("tok_norm", F.gelu),
    ("tok_norm", F.relu),
    ("tok_norm", torch.tanh),
    ("tok_scaled", lambda x: x * x.shape[-1] ** 0.5),
    ("tok_scaled", lambda x: x / x.shape[-1] ** 0.5),
]


def _with_cls(join: Callable[[Tensor, Tensor], Tensor]) -> Change:
    """Another way to put patches (b, n, d) and class token (b, 1, d) together."""
    return lambda state: {**state, "joined": join(state["patches"], state["cls"].expand(len(state["patches"]), 1, -1))}


def _with_pos(change: Callable[[Tensor], Tensor]) -> Change:
    return lambda state: {**state, "pos": change(state["pos"])}


def _scaled(parts: str, power: float) -> Change:
    return lambda state: {
        **state,
        **{part: state[part] * state["cls"].numel() ** power for part in parts.split()},
    }


def _only_first(patches: Tensor, cls: Tensor) -> Tensor:
    first = torch.cat([cls[:1], torch.zeros_like(cls[1:])])
    return torch.cat([first, patches], dim=1)


_CHANGES: list[tuple[str, Change]] = [
    ("vit_pos_not_on_cls", _with_pos(lambda pos: torch.cat([torch.zeros_like(pos[:1]), pos[1:]]))),
    ("vit_cls_appended", _with_cls(lambda patches, cls: torch.cat([patches, cls], dim=1))),
    ("vit_cls_added", _with_cls(lambda patches, cls: torch.cat([cls, patches + cls], dim=1))),
    ("vit_cls_added", _with_cls(lambda patches, cls: torch.cat([patches[:, :1], patches], dim=1) + cls)),
    ("tok_no_class_token", _with_cls(lambda patches, cls: torch.cat([0 * cls, patches], dim=1))),
    ("tok_no_class_token", _with_cls(lambda patches, cls: torch.cat([patches.mean(1, keepdim=True), patches], dim=1))),
    ("tok_no_class_token", _with_cls(lambda patches, cls: torch.cat([0 * cls + 1, patches], dim=1))),
    ("tok_cls_first_picture", _with_cls(_only_first)),
    ("tok_no_position", _with_pos(lambda pos: 0 * pos)),
    ("tok_pos_twice", _with_pos(lambda pos: 2 * pos)),
    ("tok_pos_twice", _with_pos(lambda pos: torch.cat([pos[:1], 2 * pos[1:]]))),
    ("tok_pos_twice", _with_pos(lambda pos: torch.cat([2 * pos[:1], pos[1:]]))),
    ("tok_pos_multiplied", lambda state: {**state, "times": state["pos"], "pos": 0 * state["pos"]}),
    ("tok_pos_shifted", _with_pos(lambda pos: pos.roll(1, 0))),
    ("tok_pos_shifted", _with_pos(lambda pos: pos.roll(-1, 0))),
    ("tok_pos_shifted", _with_pos(lambda pos: pos.flip(0))),
    ("tok_pos_shifted", _with_pos(lambda pos: pos[:1].expand_as(pos))),
    ("tok_pos_shifted", _with_pos(lambda pos: pos.mean(0, keepdim=True).expand_as(pos))),
    ("tok_pos_shifted", _with_pos(lambda pos: torch.cat([torch.zeros_like(pos[:1]), pos[:-1]]))),
    ("tok_pos_shifted", _with_pos(lambda pos: torch.cat([pos[-1:], pos[:-1]]))),
    ("tok_pos_shifted", _with_pos(lambda pos: torch.cat([pos[:1], pos[:-1]]))),  # the patches begin at row 0, too
    *(
        ("tok_scaled", _scaled(part, power))
        for part in ("patches", "cls", "pos", "patches cls")
        for power in (0.5, -0.5)
    ),
    ("tok_scaled", _with_pos(lambda pos: 0.02 * pos)),  # that of their initial values
    *(("tok_norm", lambda state, f=finish: {**state, "patches": f(state["patches"])}) for name, finish in _FINISH[:6]),
]


def wrongs() -> Iterator[tuple[tuple[str, ...], Callable[[Tensor, Tensor, Tensor], Tensor]]]:
    """Known mistakes, one and then two, as functions of patches (b, n, d), class token (d) and positions (n + 1, d)."""
    finished = [(name, _finishing(finish)) for name, finish in _FINISH]
    for names, changes in one_or_two([*_CHANGES, *finished]):
        yield names, partial(_computed, changes)


def _finishing(finish: Callable[[Tensor], Tensor]) -> Change:
    return lambda state: {**state, "finish": finish}


def _computed(changes: tuple[Change, ...], patches: Tensor, cls: Tensor, pos: Tensor) -> Tensor:
    if len(pos) == patches.shape[1]:  # a table of N rows is added to the patches before the class token comes
        pos = torch.cat([torch.zeros_like(pos[:1]), pos])
    state: State = {"patches": patches, "cls": cls, "pos": pos}
    for change in changes:
        state = change(state)
    joined = state.get("joined")
    if joined is None:
        joined = torch.cat([state["cls"].expand(len(patches), 1, -1), state["patches"]], dim=1)
    tokens = joined * state.get("times", torch.ones_like(pos)) + state["pos"]
    return state["finish"](tokens) if "finish" in state else tokens
