"""A model of the student's, awake, with the logits that it gives and those that it should give."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vitscratch.exercises.checks import assembling, failing, prepending, projecting, tokens
from vitscratch.exercises.checks.anatomy import Anatomy, Sizes, grid
from vitscratch.exercises.checks.assembling import Numbers
from vitscratch.exercises.checks.compare import difference, draw, same
from vitscratch.exercises.checks.model.bank import CLASS_TOKEN, MISTAKES
from vitscratch.exercises.checks.model.parameters import find_parts, read_blocks
from vitscratch.exercises.checks.model.running import SIXTEEN, call, call_code, count, model_code, table_told
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.checks.projecting import Projection
from vitscratch.exercises.checks.roles import RoleMap, awaken, call_anew
from vitscratch.exercises.checks.student import (
    WrongError,
    construct,
    counted,
    drawn,
    fill_lazy,
    is_about_a_size,
    line_of,
    not_kept,
    noted,
    pick_tensor,
    place_of,
    raised,
    students_code,
)
from vitscratch.exercises.exercise import Problem

BATCHES = (1, 3, 5)


@dataclass
class Trial:
    """A model of the student's, awake, and what it made of some pictures."""

    sizes: Sizes
    model: nn.Module
    anatomy: Anatomy
    maps: list[list[RoleMap]]
    images: list[Tensor]
    logits: list[Tensor]
    way: int = 0
    """Which of the readings of the blocks' parameters."""
    project: int = 0
    """Which of the right orders of pixels."""
    known: dict[int, Numbers] = field(default_factory=dict)
    """What `numbers` has read."""

    @property
    def projection(self) -> Projection:
        """The parameters that make tokens of patches; without them there is no trial."""
        assert self.anatomy.projection is not None
        return self.anatomy.projection

    @property
    def orders(self) -> range:
        """Numbers of the right orders of pixels."""
        return range(len(projecting.rights(self.projection)))

    @property
    def patches(self) -> int:
        """How many patches its pictures have."""
        rows, columns = grid(self.sizes)
        return rows * columns

    def code(self, number: int = 1, model: str = "") -> str:
        """How a student computes the logits of pictures `number`."""
        with torch.no_grad():
            result = self.model(self.images[number].clone())
        code = call_code(self.sizes, self.images[number], model)
        return code + place_of(result, pick_tensor(result, self.logits[number].shape))

    def evidence(self) -> str:
        """Numbers that the student can reproduce: where the logits differ most from what they should be."""
        if self.anatomy.table.rows == self.patches:  # the class token has no position: no logits are right
            return _a_row_short(self)
        for number, logits in ((1, self.logits[1]), *enumerate(self.logits)):
            if self.anatomy.absent:  # no logits are right
                break
            right = self.right(number, project=self.project)
            if not same(logits, right):
                return difference(logits, right, self.code(number))
        return self.counted()

    def counted(self) -> str:
        """For evidence: how many numbers the model has, and how many it should have."""
        return counted(model_code(self.sizes), self.model, count(self.sizes))

    def numbers(self, way: int | None = None) -> Numbers:
        """The student's parameters in the library's shapes, read once."""
        which = self.way if way is None else way
        if which not in self.known:
            self.known[which] = self.read(which)
        return self.known[which]

    def read(self, which: int) -> Numbers:
        """The same as they are now."""
        parts, width = self.anatomy, self.sizes["embed_dim"]
        named_ = {name: tensor.detach().clone() for name, tensor in self.model.named_parameters(remove_duplicate=False)}
        blocks = [
            {name: tensor.detach().clone() for name, tensor in maps[min(which, len(maps) - 1)].read(block).items()}
            for maps, block in zip(self.maps, parts.blocks, strict=True)
        ]
        (weight, bias), head = parts.norm, named_[parts.head[0]]
        ones, none = torch.ones(width, dtype=torch.float64), torch.zeros(self.sizes["num_classes"], dtype=torch.float64)
        return Numbers(
            *self.projection.numbers(named_, width),
            *parts.table.numbers(named_, width),
            blocks,
            (named_.get(weight, ones), named_.get(bias, 0 * ones)),
            (head if head.shape[1] == width else head.mT, named_.get(parts.head[1], none)),
        )

    def right(self, number: int, way: int | None = None, project: int = 0) -> Tensor:
        """The logits that pictures `number` should get."""
        numbers = self.numbers(way)
        return self.logits_of(self.start(project, number, numbers), numbers)

    def logits_of(self, x: Tensor, numbers: Numbers) -> Tensor:
        """The logits that these tokens should give, if they are what the first block gets."""
        return assembling.tail(assembling.encoded(x, numbers, self.sizes["num_heads"]), numbers)

    def start(self, project: int = 0, number: int = 1, numbers: Numbers | None = None) -> Tensor:
        """What the first block should get for pictures `number`."""
        numbers, patch = numbers or self.numbers(), self.sizes["patch_size"]
        projected = projecting.rights(self.projection)[project]
        return assembling.embedded(self.images[number], patch, numbers, projected, prepending.right)

    def is_right(self) -> bool:
        """Whether all logits are right under one reading of the parameters, which is kept."""
        if self.anatomy.table.rows == self.patches or self.anatomy.absent:  # parameters are missing
            return False
        for way in range(max(len(maps) for maps in self.maps)):
            for project in self.orders:
                if all(same(logits, self.right(i, way, project)) for i, logits in enumerate(self.logits)):
                    self.way, self.project = way, project
                    return True
        return False

    def run(self, images: Tensor) -> Tensor:
        """The student's logits."""
        return call(self.model, images, self.sizes)

    def silence(self, layers: tuple[str, ...]) -> None:
        """Set weight and bias of these layers of every block to 0."""
        for maps, block in zip(self.maps, self.anatomy.blocks, strict=True):
            role = maps[min(self.way, len(maps) - 1)]
            numbers = role.read(block)
            role.write(block, {name: 0 * value for name, value in numbers.items() if name.rpartition(".")[0] in layers})


@contextmanager
def restored(model: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """The parameters, to be changed in here: afterwards they are as before."""
    parameters = dict(model.named_parameters())
    kept = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    with torch.no_grad():
        try:
            yield parameters
        finally:
            for name, value in kept.items():
                parameters[name].copy_(value)


def build_trial(student: ModuleType, sizes: Sizes) -> Trial:
    """Build the student's model, find its parts, awaken it and give it pictures.

    Raises:
        WrongError: a part is missing, or what comes out has another shape.
        StudentError: the student's code ends with an exception.
    """
    rows, columns = (side * sizes["patch_size"] for side in grid(sizes))
    images = [draw(batch, sizes["in_channels"], rows, columns, seed=batch) for batch in BATCHES]
    with students_code():
        model = construct(student, "VisionTransformer", sizes)
        with _noted(model, images[0], sizes, torch.float32):
            fill_lazy(model, images[0])
    parts = find_parts(student, model, sizes)
    maps = read_blocks(student, model, parts, sizes)
    awaken(model)
    with students_code():
        logits = _logits(student, model, parts, images, sizes)
        _prefer_used(model, parts, images[0], sizes)
    return Trial(sizes, model, parts, maps, images, logits)


def _prefer_used(model: nn.Module, parts: Anatomy, images: Tensor, sizes: Sizes) -> None:
    """Where the class token or the table found is one that forward never reads, take one of its size that it does."""
    parameters = dict(model.named_parameters())
    rivals = [name for name in parts.surplus if not _is_a_layers(model, name)]
    for role in ("cls", "pos"):
        name = getattr(parts.table, role)
        others = [other for other in rivals if parameters[other].numel() == parameters[name].numel()]
        if not others or _reads(model, name, images, sizes):
            continue
        if used := next((other for other in others if _reads(model, other, images, sizes)), ""):
            parts.table = replace(parts.table, cls=used) if role == "cls" else replace(parts.table, pos=used)
            parts.surplus = [name if other == used else other for other in parts.surplus]


def _is_a_layers(model: nn.Module, name: str) -> bool:
    return re.search("Norm|Linear|Conv", type(model.get_submodule(name.rpartition(".")[0])).__name__) is not None


def _reads(model: nn.Module, name: str, images: Tensor, sizes: Sizes) -> bool:
    """Whether the logits depend on this parameter."""
    before = call(model, images.clone(), sizes)
    with restored(model) as parameters:
        parameters[name].add_(draw(*parameters[name].shape))
        return not same(call(model, images.clone(), sizes), before)


@contextmanager
def _noted(model: nn.Module, images: Tensor, sizes: Sizes, dtype: torch.dtype = torch.float64) -> Iterator[None]:
    """Errors get a note with the call that they are of, and the step."""
    place = failing.in_model(sizes["depth"])
    with noted(f"called as in {call_code(sizes, images)}", lambda: model(images.to(dtype)), place):
        yield


def _logits(student: ModuleType, model: nn.Module, parts: Anatomy, images: list[Tensor], sizes: Sizes) -> list[Tensor]:
    """Of each batch; a row for each position, where the table's shape explains it, is told as the table's mistake."""
    try:
        logits = []
        for pictures in images:
            drawings = drawn(images[0].shape, len(images[0])), drawn(pictures.shape, len(pictures))
            new = partial(call_anew, student, "VisionTransformer", sizes, pictures)
            with not_kept(model_code(sizes), drawings, CLASS_TOKEN, new), _noted(model, pictures, sizes):
                logits.append(call(model, pictures, sizes))
        return logits
    except RuntimeError as error:
        name, patches = parts.table.pos, math.prod(grid(sizes))
        if parts.table.rows != patches or not prepending.is_a_row_short(error, patches):
            raise
        told = table_told(sizes, name, tuple(model.get_parameter(name).shape))
        raise WrongError(prepending.a_row_short(f"{told}{line_of(error)}")) from None
    except WrongError as error:
        told, known = error.problem.evidence, dict(model.named_parameters())
        problem = tokens.taken_for_the_batch(parts.table, known, told)
        if error.problem.mistake != "vit_first_picture" or problem is None:
            raise
        raise WrongError(problem) from None


def ignores_its_arguments(student: ModuleType, sizes: Sizes, error: Exception) -> Problem | None:
    """Whether these sizes end in an exception since the model is made for others."""
    rows, columns = (side * sizes["patch_size"] for side in grid(sizes))
    code = raised(call_code(sizes, torch.empty(1, sizes["in_channels"], rows, columns)), error)
    if is_about_a_size(error):
        evidence = f"{code}; it is no argument, and no attribute of self{line_of(error)}"
        return named(MISTAKES, "tok_global_name", evidence)
    try:
        model = awaken(student.VisionTransformer(**SIXTEEN))
        call(model, draw(7, 3, 48, 48), SIXTEEN)  # no batch that a student has in mind
    except Exception:
        return None
    return named(MISTAKES, "tok_global_name", f"{code}; patches of 16 px work")


def _a_row_short(trial: Trial) -> str:
    """The table of positions has no row for the class token."""
    name = trial.anatomy.table.pos
    shape = tuple(trial.model.get_parameter(name).shape)
    return table_told(trial.sizes, name, shape) + ": one for each patch and one for the class token"


def all_same(trials: list[Trial], found: list[Tensor], compute: Any) -> bool:
    """Whether a hypothesis gives what was found, for every trial; False where it cannot be computed."""
    try:
        return all(same(x, compute(trial)) for trial, x in zip(trials, found, strict=True))
    except (RuntimeError, ValueError):
        return False
