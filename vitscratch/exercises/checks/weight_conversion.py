"""Exercise 10: weights of torchvision's VisionTransformer under our names."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import permutations
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vitscratch.exercises.checks.compare import same, say
from vitscratch.exercises.checks.naming import bank, named
from vitscratch.exercises.checks.student import line_of, noted, shape_of
from vitscratch.exercises.errors import message_of
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem
from vitscratch.vit import VisionTransformer
from vitscratch.weights.table import to_ours
from vitscratch.weights.torchvision import TORCHVISION

SIZES = dict(image_size=14, patch_size=7, num_heads=3, mlp_dim=29, num_classes=11)
WIDTH = 15
DEPTHS = (2, 13)  # two digits, so that no name is the beginning of another; one more than ViT-B has

MISTAKES: dict[str, Mistake] = bank(
    Mistake(
        "cv_strict_false",
        "You return torchvision's names, or none at all; all should be ours. "
        "load_state_dict(strict=False) would pass over that in silence and leave the weights at random.",
        "names",
        (
            "Load the result with strict=True: PyTorch lists what is missing and what is unexpected.",
            "Compare with VisionTransformer(...).state_dict().keys(), name by name.",
        ),
    ),
    Mistake(
        "cv_prefix",
        'You do not take away the prefix "module." of a checkpoint that was saved from DataParallel; it should go.',
        "names",
        (
            'Try a dict in which every name begins with "module.".',
            'name.removeprefix("module.") changes nothing where there is none.',
        ),
    ),
    Mistake(
        "cv_prefix_always",
        'You cut the beginning off every name, as if "module." stood before each; only that prefix should go, where it '
        "is there.",
        "names",
        (
            "Print a name before and after you take the prefix away.",
            'name.removeprefix("module.") changes nothing where there is none.',
        ),
    ),
    Mistake(
        "cv_lstrip",
        'You take single letters away from the beginning of names, as lstrip does; only the prefix "module." '
        "should go, as a whole.",
        "names",
        (
            "Print the names after you have taken the prefix away.",
            'lstrip("module.") takes away every m, o, d, u, l, e and dot at the beginning; removeprefix a prefix.',
        ),
    ),
    Mistake(
        "cv_block_number",
        "You get numbers of two digits wrong: encoder_layer_1 is also the beginning of encoder_layer_10; the "
        "whole number should be read.",
        "names",
        (
            "Try a model of more than ten blocks.",
            "Take the number as all the digits up to the dot, or replace names with the dot at their end.",
        ),
    ),
    Mistake(
        "cv_input_changed",
        "You change the given dict; it should stay as it is, for somebody else may still need it.",
        "names",
        (
            "Compare the dict's names before and after the call.",
            "Fill a new dict; no pop, no del, nothing in place.",
        ),
    ),
    Mistake(
        "cv_kernel_layout",
        "You permute the axes of the convolution's kernel; they should stay: both libraries keep it as (d, c, "
        "row, column).",
        "values",
        ("Compare with conv_proj.weight number by number.", "Nothing has to be permuted between PyTorch models."),
    ),
    Mistake(
        "cv_transposed",
        "You transpose a matrix; it should stay: nn.Linear and torchvision both keep (out, in).",
        "values",
        (
            "A square matrix hides it: compare the numbers, not the shape.",
            "Nothing has to be transposed between PyTorch models (it has from Flax).",
        ),
    ),
    Mistake(
        "cv_norms_swapped",
        "You give a norm of a block the values of the other one; ln_1 should become norm1, the one before attention, "
        "and ln_2 norm2.",
        "values",
        ("Which norm does torchvision's EncoderBlock apply first?", "ln_1 is norm1, ln_2 is norm2."),
    ),
    Mistake(
        "cv_mlp_swapped",
        "You give a layer of the MLP the values of the other one; mlp.0 should become fc1, and mlp.3 fc2.",
        "values",
        ("Which of the two is (mlp_dim, embed_dim)?", "mlp.0 is fc1; 1 is the GELU, 2 a dropout; mlp.3 is fc2."),
    ),
    Mistake(
        "cv_qkv_order",
        "You put queries, keys and values into another order; in_proj_weight holds q, then k, then v, as our "
        "qkv should.",
        "values",
        ("Cut both into thirds and compare.", "in_proj_weight needs a new name and nothing else."),
    ),
    Mistake(
        "cv_block_order",
        "You put the blocks' weights into other blocks; encoder_layer_i should become blocks.i.",
        "values",
        ("Which block do the weights of blocks.0 come from?", "encoder_layer_i becomes blocks.i."),
    ),
    Mistake(
        "cv_wrong_source",
        "You take some weights from another layer of torchvision's model; each should come from its own.",
        "values",
        ("Go through the table of names once more.", "Compare every tensor with the one it was made of."),
    ),
)


def check(student: ModuleType) -> Iterator[Outcome]:
    """Two small torchvision models, awake: names, shapes, values, and logits."""
    results = []
    for depth in DEPTHS:
        theirs = torchvision_weights(depth)
        given = {name: tensor.clone() for name, tensor in theirs.items()}
        with noted(f"in a model of {depth} blocks: from {__name__} import {_WEIGHTS}; {_call(depth)}"):
            try:
                found = student.convert_torchvision(given)
            except KeyError as error:
                if problem := _of_other_depth(error, depth):
                    yield problem
                    return
                raise
        if list(given) != list(theirs) or any(not torch.equal(given[name], theirs[name]) for name in theirs):
            lost = [name for name in theirs if name not in given or not torch.equal(given[name], theirs[name])]
            lost = lost or [name for name in given if name not in theirs] or ["the order of its names"]
            evidence = f"after the call the given dict differs in {_list(lost)}"
            changed = named(MISTAKES, "cv_input_changed", evidence)
            typed = f"given = {_WEIGHTS}({depth}); _ = convert_torchvision(given); {_changed(given, theirs, depth)}"
            yield _with_call(changed, typed)
            return
        results.append((depth, theirs, found))
    for depth, theirs, found in results:
        if problem := names_problem(depth, theirs, found):
            if isinstance(found, Mapping) and not prefix_problem(student, _prefixed(theirs), _expected(theirs)):
                problem = named(MISTAKES, "cv_prefix_always", problem.evidence)
            yield _with_call(problem, f"{'list' if isinstance(found, Mapping) else 'type'}({_call(depth)})")
            return
    yield Passed("the names are those of our VisionTransformer, all of them, for 2 and for 13 blocks")
    for depth, theirs, found in results:
        if found_wrong := values_problem(_expected(theirs), found, depth):
            name, problem = found_wrong
            shape = isinstance(found[name], Tensor) and found[name].shape != _expected(theirs)[name].shape
            yield _with_call(problem, f"{_call(depth)}[{name!r}]{'.shape' * shape}")
            return
    yield Passed("every tensor has the values of the one it was made of")
    yield from _loaded(*results[0])
    if evidence := prefix_problem(student, _prefixed(results[0][1]), results[0][2]):
        code = f'{{"module." + name: tensor for name, tensor in {_WEIGHTS}({DEPTHS[0]}).items()}}'
        yield _with_call(named(MISTAKES, "cv_prefix", evidence), f"list(convert_torchvision({code}))")
        return
    yield Passed('the prefix "module." is taken away')


def _prefixed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As a checkpoint has them that was saved from DataParallel."""
    return {f"module.{name}": tensor for name, tensor in weights.items()}


_WEIGHTS = "torchvision_weights"


def _call(depth: int) -> str:
    """What a student types to get the same dict, once `torchvision_weights` is imported."""
    return f"convert_torchvision({_WEIGHTS}({depth}))"


def _changed(given: Mapping[str, Tensor], theirs: Mapping[str, Tensor], depth: int) -> str:
    """What shows that a dict is not what it was: the names that differ, or a tensor that does."""
    if given.keys() != theirs.keys():
        return f"set(given) ^ set({_WEIGHTS}({depth}))"
    for name, tensor in theirs.items():
        if not torch.equal(given[name], tensor):
            return f"given[{name!r}].equal({_WEIGHTS}({depth})[{name!r}])"
    return "list(given)"


def _with_call(problem: Problem, typed: str) -> Problem:
    """With statements the last of which is an expression, which a prompt prints."""
    return replace(problem, evidence=f"{problem.evidence}. Try it: from {__name__} import {_WEIGHTS}; {typed}")


def torchvision_weights(depth: int) -> dict[str, Tensor]:
    """The state_dict of a small torchvision model, every number drawn at random."""
    model = _torchvision(depth)
    generator = torch.Generator().manual_seed(depth)
    return {name: torch.randn(tensor.shape, generator=generator) * 0.3 for name, tensor in model.state_dict().items()}


def _torchvision(depth: int) -> Any:
    from torchvision.models.vision_transformer import VisionTransformer as Theirs

    return Theirs(num_layers=depth, hidden_dim=WIDTH, **SIZES)


def _expected(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return to_ours(TORCHVISION, theirs)[0]


def _list(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f", ... ({len(names)} in all)" if len(names) > 4 else "")


def names_problem(depth: int, theirs: Mapping[str, Tensor], found: Any) -> Problem | None:
    """What is missing and what is unexpected."""
    if not isinstance(found, Mapping):
        return Problem(
            "The result is no dict.",
            f"it is {shape_of(found)}; expected a dict of names and tensors",
            "names",
            ("Return a dict, our names to tensors.", "Build a new dict and return it at the end."),
        )
    expected = _expected(theirs)
    missing = [name for name in expected if name not in found]
    surplus = [str(name) for name in found if name not in expected]
    if not missing and not surplus:
        return None
    evidence = (
        f"for a model of {depth} blocks, missing: {_list(missing) or 'none'}; unexpected: {_list(surplus) or 'none'}"
    )
    stripped = {name.lstrip("module."): name for name in theirs if name.lstrip("module.") != name}
    if cut := [name for name in surplus if name in stripped]:
        return named(MISTAKES, "cv_lstrip", f"{stripped[cut[0]]} has become {cut[0]}; {evidence}")
    if surplus and all(name.startswith("module.") for name in surplus):
        return named(MISTAKES, "cv_prefix", evidence)
    numbers, late = {_number(name) for name in missing + surplus} - {None}, {*range(10, depth)}
    if late and late <= numbers <= {0, 1, *late}:  # all that have two digits, and what was taken for the first of them
        return named(MISTAKES, "cv_block_number", evidence)
    if not found or set(found) == set(theirs):
        return named(MISTAKES, "cv_strict_false", evidence)
    return Problem(
        "Some of the names that you return are not ours, or some of ours are missing.",
        evidence,
        "names",
        (
            "Compare with VisionTransformer(...).state_dict().keys(), name by name.",
            "Which rule of yours makes them, and does the loop come to all of them: no return inside it?",
        ),
    )


def _number(name: str) -> int | None:
    digits = [part for part in name.replace("_", ".").split(".") if part.isdigit()]
    return int(digits[0]) if digits else None


def _of_other_depth(error: KeyError, depth: int) -> Problem | None:
    """Whether a block was asked for that the model does not have."""
    number = re.search(r"(?:encoder_layer_|blocks\.)(\d+)", str(error))
    if number is None or int(number[1]) < depth:
        return None
    return Problem(
        "You convert a number of blocks of your own; it should be as many as the given dict has.",
        f"from {__name__} import {_WEIGHTS}; {_call(depth)} ends in KeyError: {error}\n"
        f"the blocks of this model are 0 to {depth - 1}{line_of(error)}",
        "names",
        (
            "What tells how many blocks there are, when all that you get is the dict?",
            "Go through the names that are there, `for name, tensor in state_dict.items()`, instead of counting.",
        ),
    )


def values_problem(expected: Mapping[str, Tensor], found: Mapping[str, Any], depth: int) -> tuple[str, Problem] | None:
    """The name of the first tensor that is not the one it should be, and where it comes from."""
    for name, tensor in expected.items():
        value = found[name]
        if isinstance(value, Tensor) and value.shape == tensor.shape and torch.equal(value.to(tensor.dtype), tensor):
            continue
        if not isinstance(value, Tensor):
            evidence = f"{name} is {shape_of(value)}; expected a tensor"
        elif value.shape != tensor.shape:
            evidence = f"{name} is {shape_of(value)}; expected {shape_of(tensor)}"
        else:
            evidence = f"{name} begins {say(value)}; expected {say(tensor)}"
        mistake, why = _origin(name, value, expected) if isinstance(value, Tensor) else (None, "")
        evidence = f"in a model of {depth} blocks, {evidence}{why}"
        if mistake:
            return name, named(MISTAKES, mistake, evidence)
        step = "values" if isinstance(value, Tensor) and value.shape == tensor.shape else "shapes"
        hints = ("Compare it with the tensor that it is made of.", "Weights are renamed here; no number changes.")
        if step == "values" and same(value, tensor, 1e-2):
            what = f"{name} is torchvision's but for rounding; the numbers should be the very same."
            return name, Problem(what, evidence, step, ("Which line changes the dtype?", hints[1]))
        return name, Problem(f"{name} is not torchvision's.", evidence, step, hints)
    return None


def _origin(name: str, value: Tensor, expected: Mapping[str, Tensor]) -> tuple[str | None, str]:
    """Where wrong values come from: (mistake, what to add to the evidence)."""
    right = expected[name]
    for other, tensor in expected.items():
        if other != name and value.shape == tensor.shape and torch.equal(value.to(tensor.dtype), tensor):
            return _swapped(name, other), f"; these are the values that belong to {other}"
    orders = [order for order in permutations(range(right.ndim)) if list(order) != sorted(order)]
    for order in orders:
        permuted = right.permute(order)
        if value.shape == permuted.shape and torch.equal(value.to(right.dtype), permuted):
            mistake = "cv_kernel_layout" if right.ndim == 4 else "cv_transposed"
            return mistake, f"; the axes are in the order {order}"
    if "qkv" in name and value.shape == right.shape:
        thirds = dict(zip("qkv", right.chunk(3), strict=True))
        for letters in permutations("qkv"):
            if torch.equal(value.to(right.dtype), torch.cat([thirds[letter] for letter in letters])):
                return "cv_qkv_order", f"; its thirds are {', '.join(letters)}"
        if torch.equal(value.flatten().sort().values, right.flatten().sort().values):
            return "cv_qkv_order", "; the numbers are the right ones, in another order"
    return None, ""


def _swapped(name: str, other: str) -> str:
    layer, wrong = name.split("."), other.split(".")
    if "blocks" in layer and "blocks" in wrong:
        if layer[2:] == wrong[2:]:
            return "cv_block_order"
        if {layer[2], wrong[2]} == {"norm1", "norm2"}:
            return "cv_norms_swapped"
        if {layer[3], wrong[3]} == {"fc1", "fc2"}:
            return "cv_mlp_swapped"
    return "cv_wrong_source"


def _loaded(depth: int, theirs: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterator[Passed]:
    """The proof: both models compute the same logits in float64."""
    reference = _torchvision(depth)
    reference.load_state_dict(theirs)
    sizes: dict[str, Any] = {**SIZES, "in_channels": 3, "embed_dim": WIDTH, "depth": depth}
    ours = VisionTransformer(**sizes)
    ours.load_state_dict(dict(found), strict=True)
    images = torch.randn(2, 3, 14, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        apart = float((reference.double().eval()(images) - ours.double().eval()(images)).abs().max())
    assert apart < 1e-9, apart  # equal tensors make equal models: the library's own tests say so
    yield Passed(f"loaded with strict=True, the logits of both models differ by {apart:.0e} at most")


def prefix_problem(student: ModuleType, prefixed: dict[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What goes wrong when every name begins with "module."; "" if nothing does."""
    try:
        found = student.convert_torchvision(prefixed)
    except Exception as error:
        return f'with "module." before every name: {type(error).__name__}: {message_of(error, 160)}'
    missing = [name for name in expected if name not in found]
    surplus = [str(name) for name in found if name not in expected]
    if not missing and not surplus:
        return ""
    return f'with "module." before every name, missing: {_list(missing)}; unexpected: {_list(surplus) or "none"}'
