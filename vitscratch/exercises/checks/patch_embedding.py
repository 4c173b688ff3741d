"""Exercise 2: PatchEmbedding."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vitscratch.exercises.checks import failing, projecting
from vitscratch.exercises.checks.compare import difference, draw, same
from vitscratch.exercises.checks.modes import in_both_modes
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.checks.projecting import Projection, find_projection
from vitscratch.exercises.checks.roles import awaken, hidden_in_containers
from vitscratch.exercises.checks.student import (
    StudentError,
    WrongError,
    another,
    built,
    construct,
    describe,
    differs,
    drawn,
    fill_lazy,
    going_back,
    is_about_a_size,
    line_of,
    low_precision,
    noted,
    run,
    shape_of,
    students_code,
    tensor_in,
    unregistered,
)
from vitscratch.exercises.errors import message_of
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem

MISTAKES: dict[str, Mistake] = {
    **{
        name: replace(mistake, step="cut" if mistake.step.startswith("order") else mistake.step)
        for name, mistake in projecting.MISTAKES.items()
    },
    "pe_frozen": Mistake(
        "pe_frozen",
        "No gradient reaches your projection, so that it never learns; it should get one.",
        "projection",
        (
            "After a backward pass, what is in .grad of each parameter?",
            "No .detach(), no .data and no torch.no_grad() on the way from the parameter to the tokens.",
        ),
    ),
}
SIZES: list[dict[str, Any]] = [
    dict(image_size=15, patch_size=5, in_channels=2, embed_dim=7),
    dict(image_size=32, patch_size=8, in_channels=3, embed_dim=11),
    dict(image_size=(21, 35), patch_size=7, in_channels=2, embed_dim=13),
]
SIXTEEN: dict[str, Any] = dict(image_size=48, patch_size=16, in_channels=3, embed_dim=13)
BATCHES = (1, 3, 5)


@dataclass
class Case:
    """The student's layer, awake, what it made of a picture, and what is right."""

    sizes: dict[str, Any]
    layer: nn.Module
    projection: Projection
    images: Tensor
    tokens: Tensor

    @property
    def numbers(self) -> tuple[Tensor, int, Tensor, Tensor]:
        """What a projection is computed from."""
        matrix, bias = self.projection.numbers(dict(self.layer.named_parameters()), self.sizes["embed_dim"])
        return self.images, self.sizes["patch_size"], matrix.detach(), bias.detach()


def check(student: ModuleType) -> Iterator[Outcome]:
    """Built at several sizes, awake, in float64: parameters, one patch one token, and the values."""
    try:
        yield from in_both_modes(_check, student)
    except WrongError as error:
        yield error.problem


def _check(student: ModuleType) -> Iterator[Outcome]:
    cases: list[Case] = []
    for sizes in SIZES:
        try:
            with students_code(), noted(f"called as in {_built(sizes)}"):
                layer = construct(student, "PatchEmbedding", sizes)
            with (
                students_code(),
                noted(f"called as in {_built(sizes)}({drawn(_pictures(1, sizes).shape, seed=1)}.float())"),
            ):
                fill_lazy(layer, _pictures(1, sizes))
            if problem := parameters_problem(awaken(layer), sizes):
                yield problem
                return
            for batch in BATCHES:
                cases.append(_case(layer, sizes, batch))
                if problem := _shape_problem(cases[-1]):
                    yield ignores_its_arguments(student.PatchEmbedding) or problem
                    return
        except StudentError as failed:
            if sizes["image_size"] != SIZES[-1]["image_size"]:
                if problem := ignores_its_arguments(student.PatchEmbedding, failed.error):
                    yield problem
                    return
                raise failed.error from None
            if not isinstance(failed.error, TypeError | ValueError | AssertionError):  # they say: square pictures only
                raise failed.error from None
    yield Passed("one weight and one bias are registered, of the right sizes")
    yield Passed("tokens come as (batch, patches, embed_dim), for batches of 1, 3 and 5")
    yield from _values(cases)


def parameters_problem(layer: nn.Module, sizes: dict[str, Any]) -> Problem | None:
    """What is registered, if it is not one weight and one bias of the right sizes."""
    patch, channels, width = sizes["patch_size"], sizes["in_channels"], sizes["embed_dim"]
    parameters = dict(layer.named_parameters())
    has = f"{_built(sizes)} has the parameters: {describe(layer)}"
    convolutions = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
    if [set(one.stride) for one in convolutions] == [{1}] and set(convolutions[0].kernel_size) == {patch}:
        return named(
            MISTAKES, "pe_no_stride", f"{has}; the convolution's stride is (1, 1), its kernel {patch} x {patch}"
        )
    projection = find_projection(parameters, patch, channels, width)
    if projection is None:
        if fixed := projecting.made_for(parameters, patch, channels, width):
            name, size, hints = fixed
            return replace(named(MISTAKES, "tok_global_name", f"{has}; {name} is made for {size}"), hints=hints)
        if path := hidden_in_containers(layer):
            return unregistered(path, has)
        if several := projecting.fitting(parameters, patch, channels, width):
            for_each = len({re.sub(r"\d+", "", name) for name in several}) == 1
            return Problem(
                "You have several weights of the projection's size; there should be one, the same for every patch.",
                f"{has}; {', '.join(several[:3])}{', ...' if len(several) > 3 else ''}: each could be it",
                "parameters",
                (
                    "Does a patch's place in the picture change how it becomes a token? It does not, in Eq. 1."
                    if for_each
                    else "Which of these layers does forward use, and what is the other one for?",
                    "One nn.Linear runs over all patches at once: it works on the last axis, whatever stands before.",
                ),
            )
        return Problem(
            "No parameter has the size of the projection.",
            f"{has}; expected one weight of {width} x {channels * patch * patch} numbers, and a bias of {width}",
            "parameters",
            (
                "The projection is one matrix: embed_dim rows, and a column for every number of a patch."
                if parameters
                else "Where do you make the layer: in __init__, or in forward, where it is a new one in every call?",
                "Layers are registered when they are attributes of the module, made in __init__; those in a plain "
                "list are not.",
            ),
        )
    return _bias_problem(parameters, projection, width, has) or _surplus(layer, projection, has)


def _bias_problem(parameters: Mapping[str, Tensor], projection: Projection, width: int, has: str) -> Problem | None:
    """A table in place of the bias, a layer the wrong way round, or no bias."""
    others = {name: tensor for name, tensor in parameters.items() if name != projection.weight}
    tables = [name for name, tensor in others.items() if tensor.numel() > width == tensor.shape[-1]]
    if not projection.bias and len(others) == len(tables) == 1:
        return Problem(
            "You learn more than one row of numbers to add; there should be one bias, the same for every patch.",
            f"{has}; {tables[0]} has {parameters[tables[0]].numel() // width} rows of {width}",
            "projection",
            (
                "How many numbers has the bias of nn.Linear(..., embed_dim)?",
                "What tells the places of the patches apart comes in exercise 3; here all patches are treated alike.",
            ),
        )
    if found := projecting.swapped_bias(parameters, projection, width):
        return Problem(
            "You swap the two sizes of your layer; it should map the c * p * p numbers of a patch to embed_dim.",
            f"{has}; expected a bias of {width} numbers, not of {found}",
            "parameters",
            (
                "How many numbers come into the layer, and how many should come out?",
                "What comes in is the first argument of nn.Linear and nn.Conv2d, what comes out the second.",
            ),
        )
    if not projection.bias:
        return named(MISTAKES, "pe_no_bias", f"{has}; expected a bias of {width} numbers, too")
    return None


def _surplus(layer: nn.Module, projection: Projection, has: str) -> Problem | None:
    """What the patch embedding does not need."""
    if surplus := [name for name, _ in layer.named_parameters() if name not in (projection.weight, projection.bias)]:
        owners = [layer.get_submodule(name.rpartition(".")[0]) for name in surplus]
        if all("Norm" in type(owner).__name__ for owner in owners):
            return named(MISTAKES, "pe_norm", f"{has}; {', '.join(surplus)} belong to a norm")
        return Problem(
            "There are more parameters than the projection's weight and bias.",
            f"{has}; not expected: {', '.join(surplus)}",
            "parameters",
            (
                "What does the patch embedding have to learn? One matrix and one bias.",
                "Class token and positions belong to the next exercise; a norm to the encoder block.",
            ),
        )
    return None


def ignores_its_arguments(build: Any, error: Exception | None = None) -> Problem | None:
    """Whether it fails because it reads a size from elsewhere: a name that is nowhere, or 16 whatever is asked for."""
    if is_about_a_size(error):
        evidence = f"NameError: {error}; it is no argument, and no attribute of self{line_of(error)}"
        return named(MISTAKES, "tok_global_name", evidence)
    try:
        layer = awaken(build(**SIXTEEN))
        found = tensor_in(layer(draw(7, 3, 48, 48)), (7, 9, 13))  # 7: no batch that a student has in mind
    except Exception:
        return None
    if shape_of(found) != "(7, 9, 13)":
        return None
    others = f"end in {type(error).__name__}: {message_of(error, 160)}" if error else "do not"
    evidence = f"patches of 16 px work, others {others}"
    return named(MISTAKES, "tok_global_name", evidence)


def _built(sizes: dict[str, Any]) -> str:
    return built("PatchEmbedding", sizes)


def _pictures(batch: int, sizes: dict[str, Any]) -> Tensor:
    height, width = size if isinstance(size := sizes["image_size"], tuple) else (size, size)
    return draw(batch, sizes["in_channels"], height, width, seed=batch)


def _case(layer: nn.Module, sizes: dict[str, Any], batch: int) -> Case:
    patch, width = sizes["patch_size"], sizes["embed_dim"]
    images = _pictures(batch, sizes)
    height, columns = images.shape[2:]
    projection = find_projection(dict(layer.named_parameters()), patch, sizes["in_channels"], width)
    assert projection is not None
    shape = (batch, (height // patch) * (columns // patch), width)
    with torch.no_grad(), students_code():
        tokens = _call(layer, sizes, images)
    return Case(sizes, layer, projection, images, tensor_in(tokens, shape))


def _call(layer: nn.Module, sizes: dict[str, Any], images: Tensor) -> Any:
    """What the student's layer makes of these pictures."""
    code = f"awaken({_built(sizes)})({drawn(images.shape, seed=len(images))})"
    with noted(f"called as in {code}", lambda: layer(images.clone()), failing.in_patch_embedding):
        return run(layer, images.clone(), step="cut", code=code)


def _shape_problem(case: Case) -> Problem | None:
    batch, _, height, width = case.images.shape
    patch = case.sizes["patch_size"]
    shape = (batch, (height // patch) * (width // patch), case.sizes["embed_dim"])
    if shape_of(case.tokens) == str(shape):
        return None
    evidence = f"{_code(case)} returns {shape_of(case.tokens)}; it should return {shape}"
    if (
        isinstance(case.tokens, Tensor)
        and case.tokens.numel() == batch * (height - patch + 1) * (width - patch + 1) * shape[2]
    ):
        return named(MISTAKES, "pe_no_stride", evidence)
    return Problem(
        "The result has another shape than (batch, patches, embed_dim).",
        evidence,
        "cut",
        (
            "One token for each patch: (H / p) * (W / p) of them, each embed_dim long.",
            "A convolution returns (batch, embed_dim, rows, columns): flatten the grid and put the width last.",
        ),
    )


def _values(cases: list[Case]) -> Iterator[Outcome]:
    for case in cases:
        with torch.no_grad():
            again = another(partial(_again, case), case.tokens)
        if again is not None:
            yield named(MISTAKES, "pe_dropout", differs(_code(case), case.tokens, again))
            return
    yield Passed("two calls in eval mode agree")
    changed = _one_patch_one_token(cases[0])
    if not changed:
        yield Passed("changing one patch changes its own token and no other")
    right = [_rights(case) for case in cases]
    ways = range(len(right[0]))  # of ordering pixels
    for way in ways:
        if all(same(case.tokens, tokens[way]) for case, tokens in zip(cases, right, strict=True)):
            yield Passed("each token is its patch times the weight plus the bias, patches row by row")
            yield from _gradients(cases[0])
            return
    gaps = [[float((case.tokens - one).abs().mean()) for one in each] for case, each in zip(cases, right, strict=True)]
    apart = [sum(each[way] for each in gaps) for way in ways]
    order = apart.index(min(apart))  # of pixels: the one that is meant is the nearest
    wrong, expected = next(
        (case, tokens[order]) for case, tokens in zip(cases, right, strict=True) if not same(case.tokens, tokens[order])
    )
    evidence = changed or (difference(wrong.tokens, expected, _code(wrong)))
    for names, project in projecting.wrongs(cases[0].projection):
        if all(same(case.tokens, project(*case.numbers)) for case in cases):
            yield projecting.hinted(named(MISTAKES, names, evidence), cases[0].projection)
            return
    if mixed := _of_other_pictures(cases[1]):
        yield mixed
        return
    if problem := low_precision(lambda: wrong.layer(wrong.images.clone()), failing.in_patch_embedding, evidence):
        yield problem
        return
    if _has_lost_contrast(wrong):
        yield named(MISTAKES, "pe_norm", evidence)
        return
    problem = _unknown(evidence, bool(changed) or _pixels_moved(cases[0]))
    convolutions = [one for one in cases[0].layer.modules() if isinstance(one, nn.Conv2d)]
    if any(one.padding not in ((0, 0), "valid") for one in convolutions) and problem.step == "cut":
        what = "Your convolution pads the picture, so that its windows are no patches; there should be no padding."
        hints = ("Where does the first window begin, and where the last?", "padding is 0 unless it is asked for.")
        problem = replace(problem, what=what, hints=hints)
    yield problem


def _again(case: Case) -> Tensor:
    """The same call once more."""
    return tensor_in(_call(case.layer, case.sizes, case.images), case.tokens.shape)


def _code(case: Case) -> str:
    """How a student computes the tokens."""
    return f"awaken({_built(case.sizes)})({drawn(case.images.shape, seed=len(case.images))})"


def _rights(case: Case) -> list[Tensor]:
    return [project(*case.numbers) for project in projecting.rights(case.projection)]


def _one_patch_one_token(case: Case) -> str:
    """Change patch 2, the third of the first row, and see which tokens change; "" if it is token 2 alone.

    There are 3 x 3 patches: this corner moves when the picture is flipped or transposed.
    """
    patch = case.sizes["patch_size"]
    images = case.images.clone()
    images[:, :, :patch, 2 * patch : 3 * patch] += draw(patch, patch, seed=9)
    with torch.no_grad():
        tokens = tensor_in(case.layer(images), case.tokens.shape)
    changed = ((tokens - case.tokens).abs() > 1e-9).any(dim=-1)[0].nonzero().flatten().tolist()
    if changed == [2]:
        return ""
    return (
        f"{_built(case.sizes)}: changing the pixels of the third patch of the first row changes "
        f"tokens {changed}; expected token 2 alone"
    )


def _of_other_pictures(case: Case) -> Problem | None:
    """Take another first picture of a batch, and see whose tokens change."""
    images = case.images.clone()
    images[0] = draw(*images.shape[1:])
    with torch.no_grad():
        tokens = tensor_in(case.layer(images), case.tokens.shape)
    changed = ((tokens - case.tokens).abs() > 1e-9).flatten(1).any(1).tolist()
    if not any(changed[1:]):
        return None
    right = [number == 0 for number in range(len(changed))]
    start = f"m = awaken({_built(case.sizes)}); x = {drawn(images.shape, seed=len(images))}; y = m(x)"
    other = f"x[0] = {drawn(images.shape[1:])}"
    return Problem(
        "You make tokens of another picture of the batch; a token should be made of a patch of its own picture.",
        f"{start}; {other}; ((m(x) - y).abs() > 1e-9).flatten(1).any(1).tolist() is {changed}; it should be {right}",
        "cut",
        (
            "Change one picture of a batch, as the evidence does: whose tokens should change?",
            "The batch is axis 0: a flip, a roll, a mean or a reshape that reaches it mixes pictures.",
        ),
    )


def _has_lost_contrast(case: Case) -> bool:
    """Whether a picture of twice the contrast, and brighter, gets the same tokens: something normalises it."""
    with torch.no_grad():
        brighter = tensor_in(case.layer(2 * case.images + 0.5), case.tokens.shape)
        other = tensor_in(case.layer(draw(*case.images.shape, seed=20)), case.tokens.shape)
    return same(brighter, case.tokens, 1e-3) and not same(other, case.tokens, 1e-3)


def _pixels_moved(case: Case) -> bool:
    """Whether the tokens are right as soon as all pixels have the same weight: then pixels are in a wrong order."""
    weight = dict(case.layer.named_parameters())[case.projection.weight]
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(0.1)
        tokens = tensor_in(case.layer(case.images.clone()), case.tokens.shape)
        right = any(same(tokens, expected) for expected in _rights(case))
        weight.copy_(kept)
    return right


def _gradients(case: Case) -> Iterator[Outcome]:
    tokens = tensor_in(_call(case.layer, case.sizes, case.images), case.tokens.shape)
    if tokens.requires_grad:
        with going_back(f"{_code(case)}.square().sum().backward()", "projection"):
            tokens.square().sum().backward()
    without = [name for name, parameter in case.layer.named_parameters() if parameter.grad is None]
    if not tokens.requires_grad:
        yield named(MISTAKES, "pe_frozen", f"{_code(case)}.requires_grad is False; it should be True")
    elif without:
        start = f"m = awaken({_built(case.sizes)}); {_code(case).replace(f'awaken({_built(case.sizes)})', 'm')}"
        grad = f"m.get_parameter({without[0]!r}).grad is None; it should be a tensor"
        yield named(MISTAKES, "pe_frozen", f"{start}.square().sum().backward(); {grad}")
    else:
        yield Passed("a gradient reaches weight and bias")


def _unknown(evidence: str, cut_is_wrong: bool) -> Problem:
    if cut_is_wrong:
        return Problem(
            "A token is not made of its own patch, pixel by pixel.",
            evidence,
            "cut",
            (
                "Change one patch, or one pixel, of the picture and see which tokens change.",
                "Cut first (exercise 1), then map each patch for itself; or let a convolution step over the patches.",
            ),
        )
    return Problem(
        "The tokens are not patch times weight plus bias.",
        evidence,
        "projection",
        (
            "Take one patch, flatten it, multiply it with your own weight by hand and compare.",
            "One linear map, the same for every patch, and nothing after it.",
        ),
    )
