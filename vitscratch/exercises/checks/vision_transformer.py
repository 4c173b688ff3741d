"""Exercise 8: VisionTransformer, from pictures to logits."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise, product
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vitscratch.exercises.checks import (
    assembling,
    encoder_block,
    failing,
    mlp,
    prepending,
    projecting,
    reference,
    tokens,
)
from vitscratch.exercises.checks.anatomy import Anatomy, Sizes, dissect, grid
from vitscratch.exercises.checks.assembling import Numbers
from vitscratch.exercises.checks.compare import difference, draw, same
from vitscratch.exercises.checks.naming import named, table
from vitscratch.exercises.checks.projecting import Projection
from vitscratch.exercises.checks.roles import RoleMap, UnmatchedError, awaken, block_maps, in_containers
from vitscratch.exercises.checks.student import (
    StudentError,
    WrongError,
    built,
    construct,
    counted,
    differs,
    drawn,
    in_place,
    noted,
    pick_tensor,
    place_of,
    raised,
    run,
    shape_of,
    students_code,
)
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem

PATCHES, CLASS_TOKEN, POSITION = "patch embedding", "class token", "position embedding"
BLOCKS, NORM, POOLING, HEAD = "encoder blocks", "final norm", "pooling", "head"
NUDGES = {
    "parameters": "Print the names and shapes of `named_parameters()`, and compare with the list in the stub.",
    BLOCKS: "Print the sum of x before and after every block: which blocks run, in which order, on what?",
    NORM: "What happens to a token between the last block and the head? Eq. 4 has one LN.",
    POOLING: "Which tokens does the head read? Eq. 4 has the index 0.",
    HEAD: "Set the head's weight to zero: the logits are its bias then, for every picture. Are yours?",
}
_OWN = table(
    """
    vit_plain_list | parameters | You keep the blocks in a plain Python list, so that PyTorch does not know them: they do not learn, are not saved and not moved; use nn.ModuleList. | nn.ModuleList or nn.Sequential registers what it holds.
    enc_blocks_unused | encoder blocks | You wrote an encoder block in this file and built the model of another one; it should use yours. | Which class do you call where the blocks are made?
    vit_depth_minus_one | encoder blocks | You use one block too few: the last (or the first) is never run, or what it gives is not used; all of them should be. | Count the passes of the loop; range and slices leave out their end.
    vit_depth_ignored | encoder blocks | You make another number of blocks; it should be depth. | Make one block for each i in range(depth).
    vit_blocks_shared | encoder blocks | You use one block with one set of weights again and again; each of the depth blocks should have its own. | [block] * depth repeats the same object: call the class once for every block.
    vit_blocks_unused | encoder blocks | You do not use what the blocks compute; it should go on to the norm and the head. | Does x become what a block returns?
    vit_block_order | encoder blocks | You run the blocks in another order; it should be that in which they are kept. | blocks[0] is the first to see the tokens.
    vit_residual_stream_dropped | encoder blocks | You give the embedding to every block; each should get what the block before it returned. | In the loop, what goes in and what comes out must have the same name.
    vit_norm_every_block | encoder blocks | You apply the final norm at every block; it should come once, after the last. | Look at what is inside the loop.
    vit_long_residual | encoder blocks | You add the embedding once more after the blocks; nothing should be added there. | The residuals are inside the blocks; nothing bridges all of them.
    vit_norm_before_blocks | final norm | You apply the final norm before the blocks; it should come once, after the last. | Each block has norms of its own; the model's own comes at the end.
    vit_no_final_norm | final norm | Your final norm is missing; Eq. 4 normalises the class token before the head reads it. | nn.LayerNorm(embed_dim, eps=1e-6) after the last block.
    vit_final_norm_twice | final norm | You apply the final norm twice; once is right. | Count the calls.
    vit_final_norm_added | final norm | You add the final norm to the tokens; it should replace them. | No residual here.
    vit_final_norm_other | final norm | Your final norm is another function; it should be LayerNorm over the width, with a weight and a bias. | nn.LayerNorm(embed_dim, eps=1e-6), with its defaults otherwise.
    vit_mean_with_cls | pooling | Your head reads the mean over all tokens, class token included; it should read the class token alone. | Index 0 of the axis of tokens, no mean.
    vit_mean_pool | pooling | Your head reads the mean of the patches' tokens; in this exercise, as in the paper, it should read the class token alone. | Index 0 of the axis of tokens, no mean.
    vit_max_pool | pooling | Your head reads the largest numbers over the tokens; it should read the class token alone. | Index 0 of the axis of tokens, no maximum.
    vit_sum_pool | pooling | Your head reads a sum of tokens; it should read the class token alone. | Index 0 of the axis of tokens, no sum.
    vit_other_token | pooling | Your head reads another token; it should read the class token, which is token 0. | Index 0 of the axis of tokens.
    vit_first_picture | pooling | You give every picture the logits of the first; each should get its own. | x[:, 0] is token 0 of every picture; x[0] is the first picture.
    vit_head_all_tokens | head | Your head reads all tokens side by side; it should read the class token alone. | Its weight is (num_classes, embed_dim).
    vit_head_no_bias | head | Your head has no bias, or does not add it; it should. | nn.Linear has one by default.
    vit_head_activation | head | You put an activation behind the head; there should be none: logits may be negative. | Nothing comes after the head.
    vit_activation_before_head | head | You put an activation before the head; it should read the normalised class token as it is. | Nothing stands between the final norm and the head.
    vit_head_norm | head | You normalise the logits; they should stay as the head gives them. | Nothing comes after the head.
    vit_head_scaled | head | You scale the logits; they should stay as the head gives them. | Nothing comes after the head.
    vit_softmax | head | You put softmax (or sigmoid) into the model; it should return logits, since the loss (cross_entropy) does softmax itself. | Return what the head gives.
    vit_dropout | head | You leave dropout on in eval mode, so that two calls differ; there it should do nothing. | nn.Dropout knows of eval mode; F.dropout has to be told, training=self.training.
    vit_frozen | parameters | You cut the gradient off from some of your parameters, so that they never learn; all should get one. | No detach, no .data, no torch.no_grad between the pictures and the logits.
    """,  # noqa: E501 - a table
    NUDGES,
)
MISTAKES: dict[str, Mistake] = {
    **{name: replace(mistake, step=BLOCKS) for name, mistake in encoder_block.MISTAKES.items()},
    **{name: replace(mistake, step=PATCHES) for name, mistake in projecting.MISTAKES.items()},
    **prepending.MISTAKES,
    **_OWN,
}
SIZES: list[Sizes] = [
    dict(image_size=24, patch_size=8, in_channels=2, num_classes=11, embed_dim=14, depth=3, num_heads=2, mlp_dim=23),
    dict(image_size=20, patch_size=5, in_channels=3, num_classes=7, embed_dim=22, depth=4, num_heads=2, mlp_dim=13),
    dict(
        image_size=(14, 21), patch_size=7, in_channels=1, num_classes=3, embed_dim=35, depth=2, num_heads=5, mlp_dim=17
    ),
]
SIXTEEN: Sizes = {**SIZES[0], "image_size": 48, "patch_size": 16, "in_channels": 3}
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

    def code(self, number: int = 1, model: str = "") -> str:
        """How a student computes the logits of pictures `number`."""
        with torch.no_grad():
            result = self.model(self.images[number].clone())
        code = _code(self.sizes, self.images[number], model)
        return code + place_of(result, pick_tensor(result, self.logits[number].shape))

    def evidence(self) -> str:
        """Numbers that the student can reproduce: where the logits differ most from what they should be."""
        if self.anatomy.table.rows == patches_of(self):  # the class token has no position: no logits are right
            return _a_row_short(self)
        for number, logits in ((1, self.logits[1]), *enumerate(self.logits)):
            if self.anatomy.absent:  # no logits are right
                break
            right = self.right(number, project=self.project)
            if not same(logits, right):
                return difference(logits, right, self.code(number))
        return counted(_built(self.sizes), self.model, count(self.sizes))

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
        assert parts.projection is not None
        blocks = [
            {name: tensor.detach().clone() for name, tensor in maps[min(which, len(maps) - 1)].read(block).items()}
            for maps, block in zip(self.maps, parts.blocks, strict=True)
        ]
        (weight, bias), head = parts.norm, named_[parts.head[0]]
        ones, none = torch.ones(width, dtype=torch.float64), torch.zeros(self.sizes["num_classes"], dtype=torch.float64)
        return Numbers(
            *parts.projection.numbers(named_, width),
            *parts.table.numbers(named_, width),
            blocks,
            (named_.get(weight, ones), named_.get(bias, 0 * ones)),
            (head if head.shape[1] == width else head.mT, named_.get(parts.head[1], none)),
        )

    def right(self, number: int, way: int | None = None, project: int = 0) -> Tensor:
        """The logits that pictures `number` should get."""
        numbers = self.numbers(way)
        x = self.start(project, number, numbers)
        return assembling.tail(assembling.encoded(x, numbers, self.sizes["num_heads"]), numbers)

    def start(self, project: int = 0, number: int = 1, numbers: Numbers | None = None) -> Tensor:
        """What the first block should get for pictures `number`."""
        assert self.anatomy.projection is not None
        projected = projecting.rights(self.anatomy.projection)[project]
        numbers, patch = numbers or self.numbers(), self.sizes["patch_size"]
        return assembling.embedded(self.images[number], patch, numbers, projected, prepending.right)

    def is_right(self) -> bool:
        """Whether all logits are right under one reading of the parameters, which is kept."""
        if self.anatomy.table.rows == patches_of(self) or self.anatomy.absent:  # parameters are missing
            return False
        assert self.anatomy.projection is not None
        orders = range(len(projecting.rights(self.anatomy.projection)))
        for way in range(max(len(maps) for maps in self.maps)):
            for project in orders:
                if all(same(logits, self.right(i, way, project)) for i, logits in enumerate(self.logits)):
                    self.way, self.project = way, project
                    return True
        return False

    def run(self, images: Tensor) -> Tensor:
        """The student's logits."""
        return call(self.model, images, self.sizes)


def check(student: ModuleType) -> Iterator[Outcome]:
    """Built at several sizes, awake, in float64: parameters, then the logits, then what explains a difference."""
    try:
        yield from _check(student)
    except WrongError as error:
        yield error.problem


def count(sizes: Sizes) -> int:
    """How many numbers a right one learns."""
    (rows, columns), width, classes = grid(sizes), sizes["embed_dim"], sizes["num_classes"]
    embedding = width * (sizes["in_channels"] * sizes["patch_size"] ** 2 + rows * columns + 3)
    return embedding + sizes["depth"] * encoder_block.count(sizes) + 2 * width + classes * (width + 1)


def _built(sizes: Sizes) -> str:
    return built("VisionTransformer", sizes)


def _code(sizes: Sizes, images: Tensor, model: str = "") -> str:
    """How a student calls the model."""
    return f"{model or f'awaken({_built(sizes)})'}({drawn(images.shape, seed=len(images))})"


def _check(student: ModuleType) -> Iterator[Outcome]:
    trials = []
    for sizes in SIZES:
        try:
            trials.append(_trial(student, sizes))
        except StudentError as failed:
            square_only = isinstance(failed.error, TypeError | ValueError | AssertionError)
            if isinstance(sizes["image_size"], tuple) and square_only:
                continue
            if problem := _ignores_its_arguments(student, sizes, failed.error):
                raise WrongError(problem) from None
            raise failed.error from None
    if trials[0].anatomy.table.rows > patches_of(trials[0]) and not trials[0].anatomy.absent:
        yield Passed("all parts are registered: patch embedding, class token, positions, blocks, norm and head")
    yield Passed("logits come as (batch, num_classes), for batches of 1, 3 and 5 and several sizes")
    if wrong := [trial for trial in trials if not trial.is_right()]:
        raise WrongError(_diagnose(student, trials, wrong))
    if problem := _tiny_problem(trials[0]):
        raise WrongError(problem)
    for trial in trials:
        if trial.anatomy.surplus:
            raise WrongError(_surplus(trial))
    yield Passed("a picture's logits do not depend on the other pictures of the batch, and two calls agree")
    yield Passed("swapping two patches changes the logits: every token has its position")
    heard = trace(trials[0], 1) if trials[0].anatomy.hooked else []
    if heard and all(one.alone for one in heard) and (problem := _block_problem(student)):
        raise WrongError(problem)
    yield Passed("every block is used once, in order; Eq. 1 to Eq. 4 give the same logits with your parameters, awake")
    _gradients(trials[0])
    yield Passed("a gradient reaches every parameter")


def _gradients(trial: Trial) -> None:
    """Raises WrongError if a parameter gets no gradient."""
    weights = draw(*trial.logits[1].shape)
    logits = pick_tensor(trial.model(trial.images[1]), trial.logits[1].shape)
    assert logits is not None
    if not logits.requires_grad:
        code = f"{trial.code()}.requires_grad is False; it should be True"
        raise WrongError(named(MISTAKES, "vit_frozen", code))
    loss = f"m = awaken({_built(trial.sizes)}); ({trial.code(model='m')} * {drawn(weights.shape)}).sum().backward()"
    try:
        (logits * weights).sum().backward()
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        raise WrongError(in_place(raised(loss, error), BLOCKS)) from None
    without = [name for name, parameter in trial.model.named_parameters() if parameter.grad is None]
    if without:
        evidence = f"{loss}; m.get_parameter({without[0]!r}).grad is None; it should be a tensor"
        evidence += f"\nthe same for {', '.join(without[1:6])}" if without[1:] else ""
        raise WrongError(named(MISTAKES, "vit_frozen", evidence))


# ------------------------------------------------------------------------------------------------ building and running


def _trial(student: ModuleType, sizes: Sizes) -> Trial:
    with students_code():
        model = construct(student, "VisionTransformer", sizes)
    parts = _parts(student, model, sizes)
    maps = _maps(student, model, parts, sizes)
    awaken(model)
    rows, columns = (side * sizes["patch_size"] for side in grid(sizes))
    images = [draw(batch, sizes["in_channels"], rows, columns, seed=batch) for batch in BATCHES]
    with (
        students_code(),
        noted(f"called as in {_code(sizes, images[0])}", lambda: model(images[0]), failing.in_model(sizes["depth"])),
    ):
        logits = _logits(model, parts, images, sizes)
    return Trial(sizes, model, parts, maps, images, logits)


def _logits(model: nn.Module, parts: Anatomy, images: list[Tensor], sizes: Sizes) -> list[Tensor]:
    """Of each batch; a row for each position, where the table's shape explains it, is told as the table's mistake."""
    try:
        return [call(model, pictures, sizes) for pictures in images]
    except WrongError as error:
        told, known = error.problem, dict(model.named_parameters())
        problem = tokens.taken_for_the_batch(parts.table, known, told.evidence)
        if told.mistake != "vit_first_picture" or problem is None:
            raise
    raise WrongError(problem)


def call(model: nn.Module, images: Tensor, sizes: Sizes) -> Tensor:
    """The student's logits for these pictures."""
    shape = (len(images), sizes["num_classes"])
    with torch.no_grad():
        result = run(model, images.clone(), step=HEAD, code=_code(sizes, images))
    logits = pick_tensor(result, shape)
    if logits is None:
        raise WrongError(_wrong_shape(_code(sizes, images), result, shape))
    return logits


def _wrong_shape(code: str, result: Any, shape: tuple[int, int]) -> Problem:
    evidence = f"{code} returns {shape_of(result)}; it should return {shape}"
    if isinstance(result, Tensor) and result.ndim == 2 and result.shape[1] == shape[1]:
        return named(MISTAKES, "vit_first_picture", evidence)
    tokens_left = isinstance(result, Tensor) and result.ndim > 2
    return Problem(
        "You return another shape; it should be (batch, num_classes), also for one picture.",
        evidence,
        POOLING if tokens_left else HEAD,
        (NUDGES[POOLING], "One row of logits for each picture, also for one picture alone: no squeeze."),
    )


def _ignores_its_arguments(student: ModuleType, sizes: Sizes, error: Exception) -> Problem | None:
    rows, columns = (side * sizes["patch_size"] for side in grid(sizes))
    code = raised(_code(sizes, torch.empty(1, sizes["in_channels"], rows, columns)), error)
    name = re.search("name '(.*?)' is not defined", str(error)) if isinstance(error, NameError) else None
    if name and re.search("size|dim|patch|chan|depth|heads|classes|batch|num_|width|height", name[1].lower()):
        evidence = f"{code}; it is no argument, and no attribute of self"
        return named(MISTAKES, "tok_global_name", evidence)
    try:
        model = awaken(student.VisionTransformer(**SIXTEEN))
        call(model, draw(2, 3, 48, 48), SIXTEEN)
    except Exception:
        return None
    return named(MISTAKES, "tok_global_name", f"{code}; patches of 16 px work")


# ------------------------------------------------------------------------------------------------------- parameters


def _parts(student: ModuleType, model: nn.Module, sizes: Sizes) -> Anatomy:
    """The parts of the model; WrongError for the first that is missing."""
    has = counted(_built(sizes), model, count(sizes))
    if path := _plain_list(model):
        raise WrongError(named(MISTAKES, "vit_plain_list", f"{has}\nself.{path} is a plain list or dict"))
    parts = dissect(model, sizes)
    if unused := _unused_block_class(student, model):
        evidence = f"any(isinstance(m, {unused}) for m in {_built(sizes)}.modules()) is False; it should be True"
        raise WrongError(named(MISTAKES, "enc_blocks_unused", evidence))
    for problem in (
        _patches_problem(model, parts, sizes, has),
        _tokens_problem(model, parts, sizes, has),
        _blocks_problem(parts, sizes, has),
        _ends_problem(model, parts, sizes, has),
    ):
        if problem:
            raise WrongError(problem)
    return parts


def _outside(model: nn.Module, parts: Anatomy) -> str:
    """What is registered beside the blocks, for a message."""
    inside = {id(parameter) for block in parts.blocks for parameter in block.parameters()}
    names = [f"{name} {tuple(tensor.shape)}" for name, tensor in model.named_parameters() if id(tensor) not in inside]
    more = ["..."] * (len(names) > 9)
    return f"beside {len(parts.blocks)} blocks it has {', '.join(names[:9] + more) or 'no parameters'}"


def _plain_list(model: nn.Module) -> str:
    """The path of a list, tuple or dict of layers."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            things = list(in_containers(value))
            if not name.startswith("_") and any(isinstance(thing, nn.Module) for thing in things):
                registered = {id(part) for part in model.modules()}
                if not all(id(thing) in registered for thing in things if isinstance(thing, nn.Module)):
                    return f"{path}.{name}".lstrip(".")
    return ""


def _unused_block_class(student: ModuleType, model: nn.Module) -> str:
    """The name of a block class that the file defines and the model has no instance of, though it has others."""
    own = [
        thing
        for name, thing in vars(student).items()
        if isinstance(thing, type)
        and issubclass(thing, nn.Module)
        and thing.__module__ == student.__name__
        and re.search("block|encoder_?layer|transformer_?layer", name.lower())
    ]
    modules = list(model.modules())
    used = {layer for module in modules for layer in type(module).__mro__}
    foreign = [module for module in modules if re.search("Block|EncoderLayer", type(module).__name__)]
    foreign = [module for module in foreign if type(module).__module__ != student.__name__]
    return own[0].__name__ if own and foreign and not any(cls in used for cls in own) else ""


def _patches_problem(model: nn.Module, parts: Anatomy, sizes: Sizes, has: str) -> Problem | None:
    patch, channels, width = sizes["patch_size"], sizes["in_channels"], sizes["embed_dim"]
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and set(module.stride) == {1} and set(module.kernel_size) == {patch}:
            evidence = f"{_built(sizes)}.get_submodule({name!r}).stride is (1, 1); it should be {(patch, patch)}"
            return named(MISTAKES, "pe_no_stride", evidence)
    if parts.projection is None:
        if fixed := projecting.made_for(dict(model.named_parameters()), patch, channels, width):
            name, size, hints = fixed
            evidence = f"{has}\n{name} {tuple(model.get_parameter(name).shape)} is made for {size}"
            return replace(named(MISTAKES, "tok_global_name", evidence), hints=hints)
        what = "You have no weight that makes tokens of patches, or several; there should be one."
        expected = f"{has}\n{width} x {channels * patch * patch} numbers should map a patch to a token; "
        expected += _outside(model, parts)
        return Problem(what, expected, PATCHES, (NUDGES["parameters"], "Exercise 2 makes it."))
    if not parts.projection.bias:
        return named(MISTAKES, "pe_no_bias", f"{has}\n{_no_bias(model, parts.projection.weight)}")
    return None


def _tokens_problem(model: nn.Module, parts: Anatomy, sizes: Sizes, has: str) -> Problem | None:
    rows, columns = grid(sizes)
    patches, width = rows * columns, sizes["embed_dim"]
    parameters = dict(model.named_parameters())
    for name, parameter, copies in prepending.batch_copies(parameters, patches, width):
        surplus = (copies - 1) * parameters[parameter].numel() // copies
        evidence = f"{has}\n{parameter} holds {copies} copies, {copies - 1} of them surplus ({surplus:,} numbers)"
        return named(MISTAKES, name, evidence)
    if parts.table.cls and parts.table.pos:
        return None
    for name, tensor in parameters.items():
        if "pos" in name.lower() and tensor.ndim > 1 and tensor.shape[-1] == width and not parts.table.pos:
            return _wrong_rows(model, name, sizes)
    model.eval()
    images = draw(2, sizes["in_channels"], rows * sizes["patch_size"], columns * sizes["patch_size"]).float()

    def attempt() -> Any:
        try:
            with torch.no_grad():
                return pick_tensor(model(images), (2, sizes["num_classes"]))
        except Exception as error:
            return error

    head = dict(model.named_parameters()).get(parts.head[0])
    if head is not None:  # a head of zeros would hide what it reads
        with torch.no_grad():
            head.copy_(draw(*head.shape).float())
    return tokens.missing(model, parts.table, patches, width, has, _code(sizes, images), attempt)


def _wrong_rows(model: nn.Module, name: str, sizes: Sizes) -> Problem:
    """A table of neither N nor N + 1 positions: a number from elsewhere, or a wrong one of the arguments."""
    shape = tuple(model.get_parameter(name).shape)
    told = _rows_told(sizes, name, shape)
    other = next(each for each in SIZES if each["image_size"] != sizes["image_size"])
    try:
        rows_of_other = type(model)(**other).get_parameter(name).numel() // other["embed_dim"]
    except Exception:  # it cannot be built: no word on where the number comes from
        rows_of_other = 0
    if rows_of_other == math.prod(shape[:-1]):
        evidence = f"{told}; as many rows with image_size={other['image_size']}, patch_size={other['patch_size']}"
        hints = (
            "Which arguments does the number of patches depend on? Build it with others, look at the table's shape.",
            "N + 1 is computed in __init__, from image_size and patch_size.",
        )
        return replace(named(MISTAKES, "tok_global_name", evidence), step=POSITION, hints=hints)
    rows, columns = grid(sizes)
    return Problem(
        "You make another number of positions; it should be N + 1, where N = (H / p) (W / p) is how many patches "
        "there are.",
        f"{told}: {rows} rows of {columns} patches, and the class token",
        POSITION,
        (
            f"Draw a picture of {rows * sizes['patch_size']} x {columns * sizes['patch_size']} px and cut it into "
            f"patches of {sizes['patch_size']} x {sizes['patch_size']} px: how many are there?",
            "Patches lie side by side in both directions: H / p rows, W / p in each; the class token is one more.",
        ),
    )


def _blocks_problem(parts: Anatomy, sizes: Sizes, has: str) -> Problem | None:
    found, depth = len(parts.blocks), sizes["depth"]
    evidence = f"{has}\n{found} block{'s' * (found != 1)} with parameters for depth={depth}"
    if len({id(block) for block in parts.blocks}) < found or (found == 1 and depth > 1):
        return named(MISTAKES, "vit_blocks_shared", evidence)
    if found == depth - 1:
        return named(MISTAKES, "vit_depth_minus_one", evidence)
    if found and found != depth:
        return named(MISTAKES, "vit_depth_ignored", evidence)
    if not found:
        return Problem(
            "You have no encoder blocks among the modules; there should be depth of them.",
            has,
            BLOCKS,
            (NUDGES["parameters"], "depth blocks, in an nn.ModuleList or nn.Sequential, each made by its own call."),
        )
    return None


def _ends_problem(model: nn.Module, parts: Anatomy, sizes: Sizes, has: str) -> Problem | None:
    rows, columns = grid(sizes)
    width, classes = sizes["embed_dim"], sizes["num_classes"]
    if not parts.norm[0]:
        inside = {id(module) for block in parts.blocks for module in block.modules()}
        norms = [m for m in model.modules() if "Norm" in type(m).__name__ and id(m) not in inside]
        if norms:
            return named(MISTAKES, "vit_final_norm_other", f"{has}\nafter the blocks: {norms}")
        parts.absent.append("vit_no_final_norm")
    path = parts.norm[0].rpartition(".")[0]
    owner = type(model.get_submodule(path)).__name__
    if "BatchNorm" in owner or "InstanceNorm" in owner:
        evidence = f"type({_built(sizes)}.get_submodule({path!r})).__name__ is {owner}; it should be LayerNorm"
        return named(MISTAKES, "vit_final_norm_other", evidence)
    if parts.norm[0] and not parts.norm[1]:
        return named(MISTAKES, "vit_final_norm_other", f"{has}\n{_no_bias(model, parts.norm[0])}")
    if not parts.head[0]:
        sizes_ = {classes * width * count for count in (rows * columns, rows * columns + 1)}
        if any(tensor.numel() in sizes_ for tensor in model.parameters()):
            return named(MISTAKES, "vit_head_all_tokens", f"{has}\n{_outside(model, parts)}")
        what = f"You have no weight of ({classes}, {width}) for the head; there should be one."
        hints = (NUDGES["parameters"], "The head is one nn.Linear(embed_dim, num_classes).")
        return Problem(what, f"{has}\n{_outside(model, parts)}", HEAD, hints)
    parts.absent += [] if parts.head[1] else ["vit_head_no_bias"]
    told = f"{has}\n{_told_absent(model, parts)}"
    return named(MISTAKES, parts.absent, told) if parts.absent and not parts.hooked else None


def _told_absent(model: nn.Module, parts: Anatomy) -> str:
    """For evidence: what is there in place of the parameters after the blocks."""
    told = []
    if "vit_no_final_norm" in parts.absent:
        told.append(f"there is no norm: {_outside(model, parts)}")
    if "vit_head_no_bias" in parts.absent:
        told.append(_no_bias(model, parts.head[0]))
    return "; ".join(told)


def _no_bias(model: nn.Module, weight: str) -> str:
    return f"{weight} {tuple(model.get_parameter(weight).shape)} has no bias beside it"


def _maps(student: ModuleType, model: nn.Module, parts: Anatomy, sizes: Sizes) -> list[list[RoleMap]]:
    """How to read the parameters of every block; WrongError if they are not those of a block."""
    of_block = {name: sizes[name] for name in ("embed_dim", "num_heads", "mlp_dim")}
    has = counted(_built(sizes), model, count(sizes))
    try:
        shapes = [[(name, tensor.shape) for name, tensor in block.named_parameters()] for block in parts.blocks]
        first = block_maps(parts.blocks[0], **of_block)  # blocks that look the same are read the same way
        rest = zip(parts.blocks[1:], shapes[1:], strict=True)
        maps = [first, *(first if own == shapes[0] else block_maps(block, **of_block) for block, own in rest)]
    except UnmatchedError as error:
        problem = (_block_problem(student) if parts.hooked else None) or _widths_problem(parts, of_block, has)
        hints = (NUDGES[BLOCKS], "Check the block by itself: exercise 7.")
        raise WrongError(problem or Problem(_NO_BLOCK, f"{has}\n{error}", BLOCKS, hints)) from None
    unfit = parts.hooked and any(one[0].missing or one[0].surplus for one in maps)
    if unfit and (problem := _block_problem(student)):
        raise WrongError(problem)
    if problem := _incomplete(maps, has):
        raise WrongError(problem)
    return maps


_NO_BLOCK = "Your blocks have other parameters; they should have those of an encoder block: two norms, attention, MLP."


def _widths_problem(parts: Anatomy, sizes: Sizes, has: str) -> Problem | None:
    """An MLP of another width than was asked for, in blocks that cannot be taken alone."""
    try:
        mlp.check_widths(parts.blocks[0], sizes)
    except WrongError as error:
        return replace(error.problem, step=BLOCKS, evidence=f"{has}\nno layer of a block is {sizes['mlp_dim']} wide")
    return None


def _incomplete(maps: list[list[RoleMap]], has: str) -> Problem | None:
    """Parameters that every block should have and these have not, or have and should not."""
    first = maps[0][0]
    absent = [
        name
        for name in first.missing
        if name in encoder_block.PART.missing and name.replace("bias", "weight") not in {*first.missing} - {name}
    ]
    if absent:
        known = dict.fromkeys(reference.mistake_name(encoder_block.PART.missing[name]) for name in absent)
        return named(MISTAKES, list(known), f"{has}\nmissing in a block: {', '.join(absent)}")
    if first.surplus:
        names = ", ".join(first.surplus)
        hints = ("Which of your layers does no equation ask for?", f"Look at {names}.")
        what = "Your blocks have parameters that Eq. 2 and 3 have not; there should be none."
        return Problem(what, f"{has}\ntoo many: {names}", BLOCKS, hints, "surplus_parameters")
    return None


def _surplus(trial: Trial) -> Problem:
    names = ", ".join(trial.anatomy.surplus[:6])
    return Problem(
        "You have parameters that the logits do not depend on; there should be none.",
        f"{counted(_built(trial.sizes), trial.model, count(trial.sizes))}; not needed: {names}",
        "parameters",
        ("Which of your layers does forward never call?", f"Use it where an equation needs it, or delete it: {names}."),
    )


# --------------------------------------------------------------------------------------------------------- diagnosis


def _diagnose(student: ModuleType, trials: list[Trial], wrong: list[Trial]) -> Problem:
    """Why the logits differ: stage by stage where one can listen to the blocks, else by hypotheses of the whole."""
    if problem := _random(student, trials[0]):
        return problem
    traces = [trace(trial, 1) for trial in trials] if trials[0].anatomy.hooked else []
    if traces and all(traces):
        for stage in (_embedding_problem, _stream_problem, _tail_problem):
            like_exercise_7 = all(one.alone for one in traces[0])
            if stage is _tail_problem and like_exercise_7 and (problem := _block_problem(student)):
                return problem
            if problem := stage(trials, traces):
                return problem
    extra = _extra(wrong[0])
    if extra and extra.step != "parameters":
        return extra
    return _by_hypotheses(wrong) or _by_probes(student, wrong[0])


@dataclass
class Heard:
    """One call of a block: its number, what went in, and what came out."""

    number: int
    x: Tensor
    out: Tensor
    alone: bool
    """Whether it is called as exercise 7 calls one: with the tokens of a batch, (b, n, d), and nothing else."""


def trace(trial: Trial, number: int, model: nn.Module | None = None) -> list[Heard]:
    """Listen to the blocks while the model sees pictures `number`; empty if they are not called as modules."""
    heard: list[Heard] = []
    batch = len(trial.images[number])

    def listen(place: int) -> Any:
        def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            x = next(thing for thing in (*args, *kwargs.values()) if isinstance(thing, Tensor))
            out = out[0] if isinstance(out, tuple) else out
            alone = len(x) == batch and sum(thing is not None for thing in (*args, *kwargs.values())) == 1
            came, left = (_batch_first(one, batch) for one in (given.pop(), out.detach().clone()))
            heard.append(Heard(place, came, left, alone))

        return hook

    def before(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.append(next(thing for thing in (*args, *kwargs.values()) if isinstance(thing, Tensor)).detach().clone())

    given: list[Tensor] = []  # as it was: a block may write into it
    hooks = [
        hook
        for place, block in enumerate(trial.anatomy.blocks)
        for hook in (
            block.register_forward_pre_hook(before, with_kwargs=True),
            block.register_forward_hook(listen(place), with_kwargs=True),
        )
    ]
    try:
        call(trial.model, trial.images[number], trial.sizes)
    finally:
        for hook in hooks:
            hook.remove()
    return heard


def _batch_first(x: Tensor, batch: int) -> Tensor:
    return x.transpose(0, 1) if x.ndim == 3 and x.shape[0] != batch and x.shape[1] == batch else x


def _random(student: ModuleType, trial: Trial) -> Problem | None:
    """Where two calls in eval mode part."""
    again = trial.run(trial.images[1])
    if same(again, trial.logits[1]):
        return None
    evidence = differs(trial.code(), trial.logits[1], again)
    first, second = (trace(trial, 1), trace(trial, 1)) if trial.anatomy.hooked else ([], [])
    if not first or len(first) != len(second):
        return named(MISTAKES, "vit_dropout", evidence)
    if not same(first[0].x, second[0].x):
        zeros = ((first[0].x == 0) != (second[0].x == 0)).any()
        return named(MISTAKES, "tok_dropout" if zeros else "vit_pos_random_each_forward", evidence)
    if not same(first[-1].out, second[-1].out) and (problem := _block_problem(student)):
        return problem
    return named(MISTAKES, "vit_dropout", evidence)


def _embedding_problem(trials: list[Trial], traces: list[list[Heard]]) -> Problem | None:
    """Whether the first block gets what Eq. 1 says."""
    expected, found = [_embedded(trial) for trial in trials], [heard[0].x for heard in traces]
    for way in range(len(expected[0])):
        if all(same(x, ways[way]) for x, ways in zip(found, expected, strict=True)):
            for trial in trials:
                trial.project = way
            return None
    trial, x, right = next((t, x, e[0]) for t, x, e in zip(trials, found, expected, strict=True) if not same(x, e[0]))
    if x.shape != right.shape:
        evidence = f"{trial.evidence()}\nthe first block gets {tuple(x.shape)}; it should get {tuple(right.shape)}"
        if x.shape[1:] == (right.shape[1] - 1, right.shape[2]):
            return named(MISTAKES, "vit_cls_added", evidence)
        hints = (NUDGES["parameters"], "N patches and one class token make N + 1 tokens.")
        what = "You give the blocks another number of tokens; it should be N + 1."
        return Problem(what, evidence, CLASS_TOKEN, hints)
    evidence = trial.evidence()
    short = ("vit_pos_not_on_cls",) if trial.anatomy.table.rows < right.shape[1] else ()
    if not short:
        evidence += f"\nof what the first block gets, {difference(x, right, 'tokens')}"
    if _all_same(trials, found, lambda t: assembling.final_norm(_embedded(t)[t.project], t.numbers())):
        return named(MISTAKES, "vit_norm_before_blocks", evidence)
    projection = trials[0].anatomy.projection
    assert projection is not None
    for names, project, prepend in assembling.wrong_embeddings(projection):
        if _all_same(trials, found, lambda t, f=(project, prepend): _with(t, *f)):
            if short:  # to a table that lacks a row, rows seem shifted
                names = (*short, *(name for name in names if name not in (*short, "tok_pos_shifted")))
            return projecting.hinted(named(MISTAKES, names, evidence), projection)
    if short:
        return named(MISTAKES, short, evidence)
    return _unknown_embedding(trial, x, right, evidence)


def _all_same(trials: list[Trial], found: list[Tensor], compute: Any) -> bool:
    """Whether a hypothesis gives what was found, for every trial; False where it cannot be computed."""
    try:
        return all(same(x, compute(trial)) for trial, x in zip(trials, found, strict=True))
    except (RuntimeError, ValueError):
        return False


def _with(trial: Trial, project: projecting.Project, prepend: assembling.Prepend) -> Tensor:
    """What the first block gets under a hypothesis."""
    return assembling.embedded(trial.images[1], trial.sizes["patch_size"], trial.numbers(), project, prepend)


def _embedded(trial: Trial) -> list[Tensor]:
    """What the first block should get, for each right order of pixels."""
    numbers, projection = trial.read(trial.way), trial.anatomy.projection
    assert projection is not None
    patch = trial.sizes["patch_size"]
    if len(numbers.pos) == patches_of(trial):  # a position short: the class token's
        numbers.pos = torch.cat([torch.zeros_like(numbers.pos[:1]), numbers.pos])
        numbers.pos[0] = float("nan")  # nothing equals it
    return [
        assembling.embedded(trial.images[1], patch, numbers, right, prepending.right)
        for right in projecting.rights(projection)
    ]


def _a_row_short(trial: Trial) -> str:
    """The table of positions has no row for the class token."""
    name = trial.anatomy.table.pos
    shape = tuple(trial.model.get_parameter(name).shape)
    return _rows_told(trial.sizes, name, shape) + ": one for each patch and one for the class token"


def _rows_told(sizes: Sizes, name: str, shape: tuple[int, ...]) -> str:
    """The shape of a table of positions, and the right one."""
    rows, columns = grid(sizes)
    before = shape[:-2] if math.prod(shape[:-2]) == 1 else (1,)
    right = (*before, rows * columns + 1, sizes["embed_dim"])
    return f"tuple({_built(sizes)}.get_parameter({name!r}).shape) is {shape}; it should be {right}"


def patches_of(trial: Trial) -> int:
    """How many patches its pictures have."""
    rows, columns = grid(trial.sizes)
    return rows * columns


def _unknown_embedding(trial: Trial, x: Tensor, right: Tensor, evidence: str) -> Problem:
    """Without class token and positions, the rows of the patches are the projection alone."""
    if surplus := trial.anatomy.surplus:
        owners = [type(trial.model.get_submodule(name.rpartition(".")[0])).__name__ for name in surplus]
        if all("Norm" in owner for owner in owners):
            return named(MISTAKES, "tok_norm", f"{evidence}\n{', '.join(surplus)} belong to a norm outside the blocks")
    parameters = dict(trial.model.named_parameters())
    table = trial.anatomy.table
    kept = {name: parameters[name].detach().clone() for name in table.names}
    with torch.no_grad():
        for name in kept:
            parameters[name].zero_()
        alone = trace(trial, 1)[0].x
        expected = _embedded(trial)
        for name, value in kept.items():
            parameters[name].copy_(value)
    if not any(same(alone[:, 1:], way[:, 1:]) for way in expected):
        return Problem(
            "You make the patches' tokens in another way; each should be its patch times the weight, plus the bias.",
            f"{evidence}; with class token and positions at 0 they differ, too",
            PATCHES,
            ("Check the patch embedding by itself: exercise 2.", "Change one patch: exactly one token may change."),
        )
    return tokens.unknown(x, right, evidence)


def _stream_problem(trials: list[Trial], traces: list[list[Heard]]) -> Problem | None:
    """Whether every block is called once, in order, with what the one before it returned."""
    trial, heard = trials[0], traces[0]
    order, depth = [one.number for one in heard], trial.sizes["depth"]
    numbers_say = next((one for one in trials if not one.is_right()), trial).evidence()
    evidence = f"{numbers_say}\nthe blocks are called in the order {order}"
    if order in (list(range(depth - 1)), list(range(1, depth))):
        return named(MISTAKES, "vit_depth_minus_one", evidence)
    if order == list(range(len(order))) and len(order) < depth:
        return named(MISTAKES, "vit_depth_ignored", evidence)
    if len(set(order)) == 1:
        return named(MISTAKES, "vit_blocks_shared", evidence)
    if order != list(range(depth)):
        return named(MISTAKES, "vit_block_order", evidence)
    numbers = trial.numbers()
    for before, after in pairwise(heard):
        if same(after.x, before.out):
            continue
        evidence = f"{numbers_say}\nblock {after.number} gets another input than block {before.number} returned: "
        evidence += difference(after.x, before.out, "input") if after.x.shape == before.out.shape else "another shape"
        for name, wrong in (
            ("vit_residual_stream_dropped", heard[0].x),
            ("enc_double_residual", before.x + before.out),
            ("vit_long_residual", heard[0].x + before.out),
            ("vit_norm_every_block", assembling.final_norm(before.out, numbers)),
            ("vit_blocks_unused", before.x),
        ):
            if same(after.x, wrong) and not (name == "vit_residual_stream_dropped" and _skipped(trial, after.x)):
                return named(MISTAKES, name, evidence)
        hints = (NUDGES[BLOCKS], "In the loop there is nothing but x = block(x).")
        what = "You do something between the blocks; each should get what the one before it returned."
        return Problem(what, evidence, BLOCKS, hints)
    return None


def _skipped(trial: Trial, x: Tensor) -> bool:
    """Whether the logits are those of the tokens before any block."""
    return same(trial.logits[1], assembling.tail(x, trial.numbers()))


def _block_problem(student: ModuleType) -> Problem | None:
    """What exercise 7 says of the model's block, taken alone."""

    def build(embed_dim: int, num_heads: int, mlp_dim: int) -> nn.Module:
        sizes = {**SIZES[0], "embed_dim": embed_dim, "num_heads": num_heads, "mlp_dim": mlp_dim}
        block = dissect(student.VisionTransformer(**sizes), sizes).blocks[0]
        return block

    alone = ModuleType(student.__name__)
    alone.__dict__.update(vars(student))
    alone.__dict__["EncoderBlock"] = build
    try:
        model = student.VisionTransformer(**SIZES[0])
        problem = next((outcome for outcome in encoder_block.check(alone) if isinstance(outcome, Problem)), None)
    except Exception:  # it needs the model around it
        return None
    if problem is None:
        return None
    return replace(problem, step=BLOCKS, evidence=_of_the_model(problem.evidence, model))


def _of_the_model(evidence: str, model: nn.Module) -> str:
    """The block that exercise 7 speaks of is one of a model."""
    block = dissect(model, SIZES[0]).blocks[0]
    path = next(name for name, module in model.named_modules() if module is block)

    def built_so(found: re.Match[str]) -> str:
        own = {name: int(size) for name, size in re.findall(r"(\w+)=(\d+)", found[1])}
        return f"{_built({**SIZES[0], **own})}.get_submodule({path!r})"

    return re.sub(r"EncoderBlock\((.*?)\)", built_so, evidence)


def _tail_problem(trials: list[Trial], traces: list[list[Heard]]) -> Problem | None:
    """Whether the logits are the head of the normalised class token."""
    last, found = [heard[-1].out for heard in traces], [trial.logits[1] for trial in trials]
    if trials[0].anatomy.absent:
        return _absent(trials, last, found)
    right = [assembling.tail(z, trial.numbers()) for z, trial in zip(last, trials, strict=True)]
    if all(same(logits, expected) for logits, expected in zip(found, right, strict=True)):
        return None
    trial, logits, expected = next(w for w in zip(trials, found, right, strict=True) if not same(w[1], w[2]))
    evidence = f"{difference(logits, expected, trial.code())}\nthe last block is right"
    inputs = {id(trial): (z, heard[0].x) for trial, z, heard in zip(trials, last, traces, strict=True)}
    for names, compute in assembling.wrong_tails():
        if _all_same(trials, found, lambda t, c=compute: c(inputs[id(t)][0], t.numbers())):
            return _of_the_norm(named(MISTAKES, _with_eps(trial, names, compute), evidence))
    if _all_same(trials, found, lambda t: assembling.tail(sum(inputs[id(t)]), t.numbers())):  # type: ignore[arg-type]
        return named(MISTAKES, "vit_long_residual", evidence)
    if _all_same(trials, found, lambda t: assembling.tail(inputs[id(t)][1], t.numbers())):
        return named(MISTAKES, "vit_blocks_unused", evidence)
    before = {id(trial): heard[-2].out for trial, heard in zip(trials, traces, strict=True)}
    if _all_same(trials, found, lambda t: assembling.tail(before[id(t)], t.numbers())):
        return named(MISTAKES, "vit_depth_minus_one", evidence)
    return _extra(trial) or _unknown_tail(trial, evidence)


def _absent(trials: list[Trial], last: list[Tensor], found: list[Tensor]) -> Problem:
    """Parameters are missing after the blocks: what is done wrong there besides."""
    trial, absent = trials[0], trials[0].anatomy.absent
    z = {id(one): tokens for one, tokens in zip(trials, last, strict=True)}
    evidence = counted(_built(trial.sizes), trial.model, count(trial.sizes))
    evidence += f"\n{_told_absent(trial.model, trial.anatomy)}"
    for names, compute in assembling.wrong_tails():
        fits = "vit_no_final_norm" in names or "vit_no_final_norm" not in absent
        if fits and _all_same(trials, found, lambda t, c=compute: c(z[id(t)], t.numbers())):
            every = {*absent, *_with_eps(trial, names, compute)}
            return named(MISTAKES, sorted(every, key=_place_in_the_tail), evidence)
    return named(MISTAKES, absent, evidence)


def _place_in_the_tail(name: str) -> int:
    return 0 if name.startswith("enc_eps") else (NORM, POOLING, HEAD).index(MISTAKES[name].step)


def _with_eps(trial: Trial, names: tuple[str, ...], tail: assembling.Tail) -> tuple[str, ...]:
    """The names of what is wrong after the blocks, and a wrong eps, which only tiny tokens show."""
    seen, start, numbers = _tiny(trial, ("attn.proj", "mlp.fc2"))
    if same(seen, tail(start, numbers)):
        return names
    for pair, compute in assembling.wrong_tails():
        if {*names} < {*pair} and pair[0].startswith("enc_eps") and same(seen, compute(start, numbers)):
            return pair
    return names


def _tiny(trial: Trial, silent: tuple[str, ...]) -> tuple[Tensor, Tensor, Numbers]:
    """The logits if tokens have deviation 1e-3 and layers of the blocks are silent; the blocks' input; the numbers."""
    parameters = dict(trial.model.named_parameters())
    kept = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    parts = trial.anatomy
    assert parts.projection is not None
    with torch.no_grad():
        for name in (parts.projection.weight, parts.projection.bias, *parts.table.names):
            parameters[name].copy_(1e-3 * kept[name])
        _silence(trial, silent)
        seen, numbers = trial.run(trial.images[1]), trial.read(trial.way)
        start = replace(trial, known={}).start(trial.project)
        for name, tensor in parameters.items():
            tensor.copy_(kept[name])
    return seen, start, numbers


def _tiny_problem(trial: Trial) -> Problem | None:
    """Tokens of deviation 1e-3 show every eps: with the blocks as they are, without attention, without all of it."""
    heads = trial.sizes["num_heads"]
    silent: tuple[str, ...] = ()
    for layer in ("", "attn.proj", "mlp.fc2"):
        silent = (*silent, layer)
        seen, start, numbers = _tiny(trial, silent)
        right = assembling.tail(assembling.encoded(start, numbers, heads), numbers)
        if same(seen, right):
            continue
        evidence = _tiny_evidence(trial, numbers, layer, difference(seen, right, "logits"))
        for flag in () if layer == "mlp.fc2" else (*reference.NORMALISED, *reference.NORM1, *reference.NORM2):
            z = assembling.encoded(start, numbers, heads, frozenset({flag}))
            if same(seen, assembling.tail(z, numbers)):
                return named(MISTAKES, reference.mistake_name(flag), evidence)
        for names, tail in assembling.wrong_tails() if layer == "mlp.fc2" else ():
            if same(seen, tail(start, numbers)):
                return _of_the_norm(named(MISTAKES, names, evidence))
        step = NORM if layer == "mlp.fc2" else BLOCKS
        what = "Your norm gives other numbers where tokens are small; it should be LayerNorm with eps 1e-6."
        return Problem(what, evidence, step, (NUDGES[step], "eps is 1e-6."))
    return None


def _tiny_evidence(trial: Trial, numbers: Numbers, layer: str, told: str) -> str:
    """What the final norm, if it is that and a module, makes of a tiny token; else what the logits were."""
    path = trial.anatomy.norm[0].rpartition(".")[0]
    x = 1e-3 * draw(2, trial.sizes["embed_dim"])
    if layer == "mlp.fc2" and path:
        with torch.no_grad():
            seen, right = trial.model.get_submodule(path)(x), assembling.final_norm(x, numbers)
        if not same(seen, right):
            code = f"awaken({_built(trial.sizes)}).get_submodule({path!r})({drawn(x.shape, factor=1e-3)})"
            return difference(seen, right, code)
    return f"{trial.code()} with projection, class token and positions times 1e-3, so that eps matters: {told}"


def _silence(trial: Trial, layers: tuple[str, ...]) -> None:
    """Weight and bias of these layers of every block at 0."""
    for maps, block in zip(trial.maps, trial.anatomy.blocks, strict=True):
        role = maps[min(trial.way, len(maps) - 1)]
        numbers = role.read(block)
        role.write(block, {name: 0 * value for name, value in numbers.items() if name.rpartition(".")[0] in layers})


def _of_the_norm(problem: Problem) -> Problem:
    """eps is a mistake of the blocks' norms, too; here it is the final norm's."""
    return replace(problem, step=NORM) if str(problem.mistake).startswith("enc_eps") else problem


def _extra(trial: Trial) -> Problem | None:
    """Parameters that no equation has, in the step whose module they are in."""
    parts = trial.anatomy
    if not parts.surplus:
        return None
    names = ", ".join(parts.surplus[:6])
    hints = ("Which of your layers does no equation ask for?", f"Look at {names}.")
    assert parts.projection is not None
    folders = {_folder(name) for name in parts.surplus}
    beside = [(HEAD, parts.head[0]), (PATCHES, parts.projection.weight)]
    step = next((step for step, weight in beside if _folder(weight) and _folder(weight) in folders), "parameters")
    what = "You have parameters that Eq. 1 to Eq. 4 have not; there should be none."
    evidence = counted(_built(trial.sizes), trial.model, count(trial.sizes))
    return Problem(what, f"{evidence}\ntoo many: {names}", step, hints)


def _folder(parameter: str) -> str:
    """Of the layer that has it: "classifier" for "classifier.0.weight"."""
    return parameter.rpartition(".")[0].rpartition(".")[0]


def _unknown_tail(trial: Trial, evidence: str) -> Problem:
    """With the head's weight at 0 the logits are its bias; with the norm's at 0 every token is the norm's bias."""
    parameters = dict(trial.model.named_parameters())
    numbers = trial.numbers()

    def with_zero(name: str) -> Tensor:
        kept = parameters[name].detach().clone()
        with torch.no_grad():
            parameters[name].zero_()
            logits = trial.run(trial.images[1])
            parameters[name].copy_(kept)
        return logits

    bias = with_zero(trial.anatomy.head[0])
    if not same(bias, numbers.head[1].expand_as(bias)):
        step, why = HEAD, "with the head's weight at 0 the logits should be its bias, "
        why += difference(bias, numbers.head[1].expand_as(bias), "logits")
    else:
        constant = with_zero(trial.anatomy.norm[0])
        right = assembling.classified(numbers.norm[1], numbers).expand_as(constant)
        step = POOLING if same(constant, right) else NORM
        why = "with the final norm's weight at 0 every token is its bias, and the logits are " + (
            "right: the wrong token is read, or none alone" if step == POOLING else "wrong all the same"
        )
    what = _NAMELESS[step]
    alone = trial.run(trial.images[1][-1:])
    if not same(alone, trial.logits[1][-1:]):
        what = _NEIGHBOURS
        why += f"; {difference(trial.logits[1][-1:], alone, 'logits of the last picture')} as when it is alone"
    return Problem(what, f"{evidence}\n{why}", step, (NUDGES[step], "Eq. 4: y = LN(z_L^0); then the head."))


_NEIGHBOURS = "You let a picture's logits depend on its neighbours in the batch; they should not."
_NAMELESS = {
    HEAD: "You do something more in the head; the logits should be one linear map of what it reads.",
    NORM: "You normalise the last tokens in another way; it should be LayerNorm over the width, with weight and bias.",
    POOLING: "Your head reads something else; it should read the class token, token 0, alone.",
}

# ------------------------------------------------------------------------- without blocks that one could listen to


def _by_hypotheses(wrong: list[Trial]) -> Problem | None:
    """The whole model with one mistake, anywhere."""
    found = [trial.logits[1] for trial in wrong]
    trial = wrong[0]
    projection = trial.anatomy.projection
    assert projection is not None
    evidence = trial.evidence()
    if trial.anatomy.table.rows == patches_of(trial):
        return named(MISTAKES, "vit_pos_not_on_cls", evidence)
    for names, in_tail, compute in _whole(projection):
        if _all_same(wrong, found, compute):
            problem = projecting.hinted(named(MISTAKES, names, evidence), projection)
            return _of_the_norm(problem) if in_tail else problem
    return None


def _whole(projection: Projection) -> Iterator[tuple[tuple[str, ...], bool, Any]]:
    """Names, whether the mistake comes after the blocks, and a function from a trial to its logits."""

    orders = range(len(projecting.rights(projection)))  # of pixels
    starts: dict[int, list[Tensor]] = {}
    ends: dict[tuple[int, int, reference.Flags], Tensor] = {}

    def start(t: Trial, order: int) -> Tensor:
        if id(t) not in starts:
            starts[id(t)] = _embedded(t)
        return starts[id(t)][order]

    def encoded(t: Trial, order: int, flags: reference.Flags = reference.RIGHT) -> Tensor:
        key = (id(t), order, flags)
        if key not in ends:
            ends[key] = assembling.encoded(start(t, order), t.numbers(), t.sizes["num_heads"], flags)
        return ends[key]

    def blocks(t: Trial, numbers: Numbers) -> list[assembling.Block]:
        heads = t.sizes["num_heads"]
        return [partial(reference.encoder_block, parameters=block, num_heads=heads) for block in numbers.blocks]

    def after(x: Tensor, t: Trial) -> Tensor:
        return assembling.tail(assembling.encoded(x, t.numbers(), t.sizes["num_heads"]), t.numbers())

    for names, project, prepend in assembling.wrong_embeddings(projection):
        if len(names) == 1:
            yield names, False, lambda t, f=(project, prepend): after(_with(t, *f), t)
    for (names, tail), i in product(assembling.wrong_tails(), orders):
        if len(names) == 1:
            yield names, True, lambda t, tail=tail, i=i: tail(encoded(t, i), t.numbers())
    for (name, loop), i in product(assembling.LOOPS, orders):
        yield (
            (name,),
            False,
            lambda t, loop=loop, i=i: assembling.tail(
                loop(start(t, i), blocks(t, t.numbers()), t.numbers()), t.numbers()
            ),
        )
    for flag, i in product((flag for stage in reference.BLOCK_STAGES for flag in stage), orders):
        yield (
            (reference.mistake_name(flag),),
            False,
            lambda t, flag=flag, i=i: assembling.tail(encoded(t, i, frozenset({flag})), t.numbers()),
        )


def _by_probes(student: ModuleType, trial: Trial) -> Problem:
    """No hypothesis fits: special parameters say which part is wrong."""
    alone = trial.run(trial.images[1][:1])
    if not same(alone, trial.logits[1][:1]):
        return Problem(
            _NEIGHBOURS,
            f"{difference(trial.logits[1][:1], alone, trial.code())}, as when the picture is alone",
            BLOCKS,
            (NUDGES[BLOCKS], "Which axis does attention run over? Give nn.MultiheadAttention batch_first=True."),
        )
    evidence = trial.evidence()
    if problem := _extra(trial):
        return problem
    silent = _silenced(trial)
    if not same(*silent):
        problem = _unknown_tail(trial, evidence)
        apart = difference(*silent, "logits")
        if problem.step != POOLING:
            return problem
        hints = ("With silent blocks the logits are head(LN(class token + first position)).", NUDGES[POOLING])
        return Problem(
            "You lose the class token on its way; with silent blocks the head should read it plus the first position.",
            f"{evidence}\nwith silent blocks {apart}",
            CLASS_TOKEN,
            hints,
        )
    what = "Your blocks add something else (all around them is right); they should compute Eq. 2 and Eq. 3."
    return Problem(
        what, evidence, BLOCKS, (NUDGES[BLOCKS], "Check the block by itself (exercise 7), and the patches (2).")
    )


def _silenced(trial: Trial) -> tuple[Tensor, Tensor]:
    """Logits with both last layers of every block at 0, and head(LN(class token + first position))."""
    kept = {name: tensor.detach().clone() for name, tensor in trial.model.named_parameters()}
    with torch.no_grad():
        _silence(trial, ("attn.proj", "mlp.fc2"))
    seen = trial.run(trial.images[1])
    with torch.no_grad():
        for name, tensor in trial.model.named_parameters():
            tensor.copy_(kept[name])
    n = trial.numbers()
    return seen, assembling.tail((n.cls + n.pos[0]).expand(len(seen), 1, -1), n)
