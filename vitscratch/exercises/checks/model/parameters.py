"""The step "parameters": whether every part of the model is registered, with the right shapes, and where."""

import re
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vitscratch.exercises.checks import encoder_block, mlp, prepending, projecting, reference, tokens
from vitscratch.exercises.checks.anatomy import Anatomy, Sizes, dissect, grid, outside_of
from vitscratch.exercises.checks.compare import draw
from vitscratch.exercises.checks.model.bank import BLOCKS, HEAD, MISTAKES, NUDGES, PATCHES, POSITION
from vitscratch.exercises.checks.model.block import block_problem, in_model
from vitscratch.exercises.checks.model.running import call_code, count, model_code, table_told
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.checks.roles import RoleMap, UnmatchedError, block_maps, in_containers
from vitscratch.exercises.checks.stacked import Slice
from vitscratch.exercises.checks.student import WrongError, counted, pick_tensor
from vitscratch.exercises.exercise import Problem


def find_parts(student: ModuleType, model: nn.Module, sizes: Sizes) -> Anatomy:
    """The parts of the model; WrongError for the first that is missing."""
    has = counted(model_code(sizes), model, count(sizes))
    if path := _plain_list(model):
        raise WrongError(named(MISTAKES, "vit_plain_list", f"{has}\nself.{path} is a plain list or dict"))
    parts = dissect(model, sizes)
    if unused := _unused_block_class(student, model):
        evidence = f"any(isinstance(m, {unused}) for m in {model_code(sizes)}.modules()) is False; it should be True"
        raise WrongError(named(MISTAKES, "enc_blocks_unused", evidence))
    for problem in (
        _patches_problem(model, parts, sizes, has),
        _tokens_problem(model, parts, sizes, has),
        _blocks_problem(model, parts, sizes, has),
        _ends_problem(model, parts, sizes, has),
    ):
        if problem:
            raise WrongError(problem)
    return parts


def _outside(model: nn.Module, parts: Anatomy) -> str:
    """What is registered beside the blocks, for a message."""
    names = [f"{name} {tuple(tensor.shape)}" for name, tensor in outside_of(parts.blocks, model).items()]
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
            evidence = f"{model_code(sizes)}.get_submodule({name!r}).stride is (1, 1); it should be {(patch, patch)}"
            return named(MISTAKES, "pe_no_stride", evidence)
    if parts.projection is None:
        if fixed := projecting.made_for(dict(model.named_parameters()), patch, channels, width):
            name, size, hints = fixed
            evidence = f"{has}\n{name} {tuple(model.get_parameter(name).shape)} is made for {size}"
            return replace(named(MISTAKES, "tok_global_name", evidence), hints=hints)
        several = projecting.fitting(dict(model.named_parameters()), patch, channels, width)
        many = "several weights that make" if several else "no weight that makes"
        what = f"You have {many} tokens of patches; there should be one."
        expected = f"{has}\n{width} x {channels * patch * patch} numbers should map a patch to a token; "
        expected += _outside(model, parts)
        return Problem(what, expected, PATCHES, (NUDGES["parameters"], _ORDER))
    if found := projecting.swapped_bias(dict(model.named_parameters()), parts.projection, width):
        weight = parts.projection.weight
        shape = tuple(model.get_parameter(weight).shape)
        what = (
            "You swap in_channels and embed_dim where the patch embedding is made; the first should become the second."
        )
        expected = f"{has}\n{weight} is {shape}; its bias has {found} numbers, and should have {width}"
        return Problem(what, expected, PATCHES, (NUDGES["parameters"], _ORDER))
    if not parts.projection.bias:
        return named(MISTAKES, "pe_no_bias", f"{has}\n{_no_bias(model, parts.projection.weight)}")
    return None


_ORDER = (
    "Exercise 2 makes it. Look at the order of the sizes where you make yours; the library's is "
    "PatchEmbedding(image_size, patch_size, in_channels, embed_dim)."
)


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
    has = f"{has}\n{_outside(model, parts)}"
    return tokens.missing(model, parts.table, patches, width, has, call_code(sizes, images), attempt)


def _rows(model: nn.Module, name: str, sizes: Sizes, image_size: int, patch_size: int) -> int:
    """How many positions a model of another size has."""
    made = type(model)(**{**sizes, "image_size": image_size, "patch_size": patch_size})
    return made.get_parameter(name).shape[:-1].numel()


def _wrong_rows(model: nn.Module, name: str, sizes: Sizes) -> Problem:
    """A table of neither N nor N + 1 positions: a number from elsewhere, or a wrong one of the arguments."""
    shape = tuple(model.get_parameter(name).shape)
    told = table_told(sizes, name, shape)
    try:
        of_any, of_16 = (
            [_rows(model, name, sizes, *sides) for sides in each] for each in (((96, 8), (48, 4)), ((96, 16), (48, 16)))
        )
    except Exception:  # it cannot be built: no word on where the number comes from
        of_any, of_16 = [], []
    if (always := of_any and {*of_any, *of_16} == {of_any[0]}) or of_16 == [37, 10]:
        evidence = f"{told}; " + ("it is the same for other sizes" if always else "it is right with patch_size=16")
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


def _blocks_problem(model: nn.Module, parts: Anatomy, sizes: Sizes, has: str) -> Problem | None:
    found, depth = len(parts.blocks), sizes["depth"]
    evidence = f"{has}\n{found} block{'s' * (found != 1)} with parameters for depth={depth}"
    own = len({id(block) for block in parts.blocks})
    if own < found:
        same = f"the same block {found} times" if own == 1 else f"{own} different blocks in {found} places"
        return named(MISTAKES, "vit_blocks_shared", f"{has}\n{same}")
    if found == 1 and depth > 1:
        return named(MISTAKES, "vit_blocks_shared", evidence)
    if found == depth - 1:
        return named(MISTAKES, "vit_depth_minus_one", evidence)
    if found and found != depth:
        return named(MISTAKES, "vit_depth_ignored", evidence)
    if not found and _are_enough(model, parts, sizes):
        return unknown_layout(model, parts, sizes)
    if not found:
        return Problem(
            "You have no encoder blocks among the modules; there should be depth of them.",
            has,
            BLOCKS,
            (NUDGES["parameters"], "depth blocks, in an nn.ModuleList or nn.Sequential, each made by its own call."),
        )
    return None


def unknown_layout(model: nn.Module, parts: Anatomy, sizes: Sizes) -> Problem:
    """What to say where it is not known which parameter belongs to which block."""
    known = {*parts.head, *parts.norm, *parts.table.names}
    known |= {parts.projection.weight, parts.projection.bias} if parts.projection else set()
    names = {name for name, _ in model.named_parameters()} - known
    matrices, has = _shapes(model, names), counted(model_code(sizes), model, count(sizes))
    return Problem(
        "You keep the parameters of the blocks in a layout that the checker does not know, so that nothing could "
        "be compared (your model may well be right); each block should have a module of its own for them.",
        f"{has}\nno block was found in {', '.join(matrices[:4])}{', ...' if len(matrices) > 4 else ''}",
        "parameters",
        (
            "Does one tensor hold something of every block, or one module all of them, side by side?",
            "Make the parameters of one block in a class of its own, and depth of these in an nn.ModuleList.",
        ),
    )


def _shapes(model: nn.Module, names: set[str]) -> list[str]:
    return [f"{name} {tuple(tensor.shape)}" for name, tensor in model.named_parameters() if name in names]


def _are_enough(model: nn.Module, parts: Anatomy, sizes: Sizes) -> bool:
    """Whether the matrices that have no other role are enough for all blocks."""
    depth, width, hidden = sizes["depth"], sizes["embed_dim"], sizes["mlp_dim"]
    least = min(width * width, width * hidden) // sizes["num_heads"]
    matrices = (tensor for name, tensor in model.named_parameters() if name in parts.surplus and tensor.ndim > 1)
    large = [tensor.numel() for tensor in matrices if tensor.numel() >= least]
    return sum(large) >= depth * width * (3 * width + 2 * hidden)


def _ends_problem(model: nn.Module, parts: Anatomy, sizes: Sizes, has: str) -> Problem | None:
    rows, columns = grid(sizes)
    width, classes = sizes["embed_dim"], sizes["num_classes"]
    if not parts.norm[0]:
        inside = {id(module) for block in parts.blocks for module in block.modules()}
        norms = [m for m in model.modules() if "Norm" in type(m).__name__ and id(m) not in inside]
        if norms and any(isinstance(norm, nn.LayerNorm) and not norm.elementwise_affine for norm in norms):
            problem = named(MISTAKES, "vit_final_norm_other", f"{has}\nafter the blocks: {norms}")
            what = "Your final norm has no weight and no bias; LayerNorm should have both."
            return replace(problem, what=what, hints=(problem.hints[0], "elementwise_affine is True unless it is set."))
        if norms:
            return named(MISTAKES, "vit_final_norm_other", f"{has}\nafter the blocks: {norms}")
        parts.absent.append("vit_no_final_norm")
    path = parts.norm[0].rpartition(".")[0]
    owner = type(model.get_submodule(path)).__name__
    if "BatchNorm" in owner or "InstanceNorm" in owner:
        evidence = f"type({model_code(sizes)}.get_submodule({path!r})).__name__ is {owner}; it should be LayerNorm"
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
    told = f"{has}\n{told_absent(model, parts)}"
    return named(MISTAKES, parts.absent, told) if parts.absent and not parts.hooked else None


def told_absent(model: nn.Module, parts: Anatomy) -> str:
    """For evidence: what is there in place of the parameters after the blocks."""
    told = []
    if "vit_no_final_norm" in parts.absent:
        told.append(f"there is no norm: {_outside(model, parts)}")
    if "vit_head_no_bias" in parts.absent:
        told.append(_no_bias(model, parts.head[0]))
    return "; ".join(told)


def _no_bias(model: nn.Module, weight: str) -> str:
    return f"{weight} {tuple(model.get_parameter(weight).shape)} has no bias beside it"


def read_blocks(student: ModuleType, model: nn.Module, parts: Anatomy, sizes: Sizes) -> list[list[RoleMap]]:
    """How to read the parameters of every block; WrongError if they are not those of a block."""
    of_block = {name: sizes[name] for name in ("embed_dim", "num_heads", "mlp_dim")}
    has = counted(model_code(sizes), model, count(sizes))
    try:
        shapes = [[(name, tensor.shape) for name, tensor in block.named_parameters()] for block in parts.blocks]
        first = block_maps(parts.blocks[0], **of_block)  # blocks that look the same are read the same way
        rest = zip(parts.blocks[1:], shapes[1:], strict=True)
        maps = [first, *(first if own == shapes[0] else block_maps(block, **of_block) for block, own in rest)]
    except UnmatchedError as error:
        if isinstance(parts.blocks[0], Slice):
            raise WrongError(unknown_layout(model, parts, sizes)) from None
        problem = (block_problem(student) if parts.hooked else None) or _widths_problem(parts, of_block, has)
        hints = (NUDGES[BLOCKS], "Check the block by itself: exercise 7.")
        raise WrongError(problem or Problem(_NO_BLOCK, f"{has}\n{error}", BLOCKS, hints)) from None
    beside = {*parts.surplus, *maps[0][0].surplus}
    if not parts.hooked and maps[0][0].missing and beside:  # what is missing may be in these
        raise WrongError(unknown_layout(model, parts, sizes))
    unfit = parts.hooked and any(one[0].missing or one[0].surplus for one in maps)
    if unfit and (problem := block_problem(student)):
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
        return in_model(error.problem, f"{has}\nno layer of a block is {sizes['mlp_dim']} wide")
    return None


def _incomplete(maps: list[list[RoleMap]], has: str) -> Problem | None:
    """Parameters that every block should have and these have not, or have and should not."""
    first = maps[0][0]
    absent = [
        name
        for name in first.missing
        if name in encoder_block.PART.missing and name.replace("bias", "weight") not in {*first.missing} - {name}
    ]
    if "attn.qkv.weight" in absent:  # which, and what stands in for it, only the block by itself tells
        return Problem(
            "You have no layer for one of queries, keys and values; there should be three, or one for all of them.",
            f"{has}\nmissing in a block: a layer for one of queries, keys and values",
            BLOCKS,
            (NUDGES[BLOCKS], "Check the attention by itself: exercise 5."),
        )
    if absent:
        known = dict.fromkeys(reference.mistake_name(encoder_block.PART.missing[name]) for name in absent)
        return named(MISTAKES, list(known), f"{has}\nmissing in a block: {', '.join(absent)}")
    if first.surplus:
        names = ", ".join(first.surplus)
        hints = ("Which of your layers does no equation ask for?", f"Look at {names}.")
        what = "Your blocks have parameters that Eq. 2 and 3 have not; there should be none."
        return Problem(what, f"{has}\ntoo many: {names}", BLOCKS, hints, "surplus_parameters")
    return None
