"""Read a file of weights, whoever wrote it: recognise the names, convert them, and work out the architecture."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitscratch.config import PRESETS, Size, ViTConfig
from vitscratch.patches import pair
from vitscratch.vit import VisionTransformer
from vitscratch.weights.beside import Beside, assumed_preprocessing, imagenet_names, read_beside
from vitscratch.weights.contents import Weights
from vitscratch.weights.files import TensorFile, read_tensors
from vitscratch.weights.google import GOOGLE
from vitscratch.weights.heads import with_head_of
from vitscratch.weights.huggingface import HUGGINGFACE
from vitscratch.weights.saved import DESCRIPTION, FORMAT, read_header
from vitscratch.weights.table import Ecosystem, check_tensors, known, to_ours
from vitscratch.weights.timm import TIMM
from vitscratch.weights.torchvision import TORCHVISION
from vitscratch.weights.undrawn import undrawn

ECOSYSTEMS = {ecosystem.name: ecosystem for ecosystem in (TORCHVISION, TIMM, HUGGINGFACE, GOOGLE)}
# What a folder of Hugging Face's or timm's holds, best first.
_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.safetensors")
POOL_ASSUMED = "the file does not say what the head reads: the class token is assumed"
_OTHER_MODELS = (
    ("*layer1.0.conv1.weight", "a ResNet"),
    ("*layers.0.blocks.0.att*", "a Swin Transformer"),
    ("*visual.conv1.weight", "CLIP in OpenAI's names"),
    ("*features.0.0.weight", "a convolutional network, or torchvision's Swin"),
    ("*features.0.weight", "a convolutional network"),
)


def read_weights(source: Path, *, image_size: Size | None = None, num_heads: int | None = None) -> Weights:
    """Read weights of torchvision, timm, Hugging Face, Google or our own from a file.

    Args:
        source: a file, or a folder of Hugging Face's (model.safetensors or pytorch_model.bin, and config.json).
        image_size: of the pictures, where they were not square and no config.json says so. It counts only if the
            positions form no square: as many patches in another shape are no sign that it was trained on that shape.
        num_heads: needed only for an unusual width. Google's tensors tell it, and a config.json beside the others;
            where neither does, this counts, then the preset of the same width.

    Returns:
        Tensors by our names, in their precision. `num_classes` of the config is 0 if there is no head.

    Raises:
        ValueError: nothing that we know, or damaged, or tensors whose shapes do not fit each other, in one line.
    """
    path = file_in(source)
    file = read_tensors(path)
    if file.metadata.get("vitscratch") == FORMAT:
        return _read_ours(path, file)
    try:
        ecosystem, prefix = recognise(file.tensors)
        return _convert(path, file, ecosystem, prefix, image_size, num_heads)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def recognise(names: Iterable[str]) -> tuple[Ecosystem, str]:
    """Whose names these are, and what stands before them.

    Raises:
        ValueError: nobody's that we know, another model's, or several models in one file.
    """
    names = list(names)
    for pattern, what in _OTHER_MODELS:
        if any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"this is {what}, not a plain ViT, so our models cannot take its weights")
    for ecosystem in ECOSYSTEMS.values():
        prefixes = ecosystem.prefixes_in(names)
        if len(prefixes) > 1:
            listed = ", ".join(map(repr, prefixes))
            raise ValueError(f"it holds {len(prefixes)} models of {ecosystem.name}, under {listed}; save one of them")
        if prefixes:
            return ecosystem, prefixes[0]
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "no tensors"
    raise ValueError(f"no weights of a ViT that we know ({', '.join(ECOSYSTEMS)}); it has {shown}")


def from_timm(name: str, tensors: Mapping[str, Tensor], config: dict[str, Any]) -> Weights:
    """Convert a model of timm's that is in memory.

    Args:
        name: what it is called. tensors: its `state_dict()`. config: what its config.json would say.

    Raises:
        ValueError: it is no plain ViT.
    """
    try:
        _, prefix = recognise(tensors)
        return _convert(Path(name), TensorFile(dict(tensors), "torch"), TIMM, prefix, None, None, config)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _convert(
    path: Path,
    file: TensorFile,
    ecosystem: Ecosystem,
    prefix: str,
    image_size: Size | None,
    num_heads: int | None,
    config: dict[str, Any] | None = None,
) -> Weights:
    notes = list(file.notes)
    if prefix not in ecosystem.prefixes:
        notes.append(f"prefix {prefix!r} taken off")
    original = _originals(file.tensors, ecosystem, prefix)
    _refuse(ecosystem, original)
    theirs = {name: file.tensors[original[name]] for name in original}
    check_tensors({original[name]: theirs[name] for name in known(ecosystem, theirs)})
    tensors, unused = to_ours(ecosystem, theirs)
    beside, provenance = _in_header(file, _width(tensors, unused))
    beside = beside or read_beside(path.parent, ecosystem.name, _width(tensors, unused), config)
    if ecosystem.heads in theirs:
        num_heads = len(theirs[ecosystem.heads])
    described, more = _config(tensors, unused, beside, image_size, num_heads)
    notes += [*beside.notes, *more, *_meanings(ecosystem, unused), *_absences(tensors), *_not_finite(tensors)]
    dropped, more = _misfits(tensors, described)
    for name in dropped:
        unused += [_their_name(ecosystem, name)]
        del tensors[name]
    class_names, preprocessing, assumed = _described(ecosystem, file.kind, beside, described)
    return Weights(
        tensors,
        described,
        ecosystem.name,
        tuple(original.get(name, name) for name in unused),
        class_names,
        preprocessing,
        (*notes, *more, *assumed),
        {**provenance, "file": path.name, "ecosystem": ecosystem.name},
    )


def _in_header(file: TensorFile, width: int) -> tuple[Beside | None, dict[str, Any]]:
    """What `convert` says of a model in the header of another library's layout, and its provenance."""
    if file.metadata.get("vitscratch") != DESCRIPTION:
        return None, {}
    config, names, preprocessing, provenance = read_header(file.metadata)
    if config.embed_dim != width:
        return Beside(notes=(f"its header is of another model (embed_dim {config.embed_dim}): not used",)), {}
    return Beside(config.num_heads, config.image_size, config.pool, names or None, preprocessing or None), provenance


def file_in(source: Path) -> Path:
    """The file of weights in a folder; a file as it is.

    Raises:
        ValueError: there is none in it.
    """
    if not source.is_dir():
        return source
    for name in _IN_FOLDERS:
        if (source / name).is_file():
            return source / name
    raise ValueError(
        f"{source} has no weights; expected one of {', '.join(_IN_FOLDERS)} in it (a finished run has the first; "
        "`vitscratch train --resume` finishes one), or the path of a file"
    )


def _originals(tensors: Mapping[str, Tensor], ecosystem: Ecosystem, prefix: str) -> dict[str, str]:
    """The table's name of each tensor -> its name in the file."""
    original: dict[str, str] = {}
    for name in tensors:
        if name.startswith("opt/state/"):  # of the optimizer
            continue
        short = ecosystem.without_prefix(name, prefix)
        if short in original:
            raise ValueError(f"{original[short]} and {name} both mean {short}; expected one model")
        original[short] = name
    return original


def _refuse(ecosystem: Ecosystem, names: Iterable[str]) -> None:
    for name in names:
        for pattern, why in ecosystem.refused:
            if fnmatchcase(name, pattern):
                raise ValueError(f"{name} says that this is {why}; our models cannot take its weights")


def _meanings(ecosystem: Ecosystem, unused: Iterable[str]) -> list[str]:
    """One note for each kind of tensor that has no counterpart: the first name, how many, and what it is."""
    found: dict[str, list[str]] = {}
    for name in unused:
        meaning = next((what for pattern, what in ecosystem.meanings if fnmatchcase(name, pattern)), None)
        if meaning is not None:
            found.setdefault(meaning, []).append(name)
    more = {meaning: f" and {len(names) - 1} more" if len(names) > 1 else "" for meaning, names in found.items()}
    return [f"no counterpart: {names[0]}{more[meaning]}: {meaning}" for meaning, names in found.items()]


def _absences(tensors: Mapping[str, Tensor]) -> list[str]:
    """A note on what other plain ViTs do without."""
    if "blocks.0.attn.qkv.weight" not in tensors or "blocks.0.attn.qkv.bias" in tensors:
        return []
    return ["no blocks.{i}.attn.qkv.bias: queries, keys and values without bias; ours has one"]


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """A note on values that are no numbers. Training that diverged leaves them everywhere, so vectors and the head
    are enough: the matrices stay on disk until they are used."""
    small = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 1 or name.startswith("head.")}
    wrong = [name for name, tensor in small.items() if not torch.isfinite(tensor.float()).all()]
    return [f"not finite (nan or inf), so the logits will not be, either: {', '.join(wrong[:5])}"] if wrong else []


def _width(tensors: Mapping[str, Tensor], unused: list[str]) -> int:
    for name in ("norm.bias", "blocks.0.norm1.bias", "patch_embed.proj.bias"):
        if name in tensors:
            return len(tensors[name])
    raise ValueError(_too_little("norm.bias", unused))


def _too_little(missing: str, unused: list[str]) -> str:
    strange = f"; not known: {', '.join(unused[:5])}" + (", ..." if len(unused) > 5 else "") if unused else ""
    return f"{missing} is missing, so the architecture cannot be told{strange}"


def _config(
    tensors: Mapping[str, Tensor], unused: list[str], beside: Beside, image_size: Size | None, num_heads: int | None
) -> tuple[ViTConfig, list[str]]:
    """The architecture: sizes from vectors, which nobody can transpose; heads and pooling from elsewhere."""
    blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")}
    if gaps := sorted(set(range(len(blocks))) - blocks):
        raise ValueError(f"block {gaps[0]} is missing of {max(blocks) + 1}")
    for name in ("patch_embed.proj.weight", "blocks.0.mlp.fc1.bias"):
        if name not in tensors:
            raise ValueError(_too_little(name, unused))
    projection = tensors["patch_embed.proj.weight"]
    if projection.ndim != 4:
        raise ValueError(f"the patch projection is {tuple(projection.shape)}; expected (width, channels, p, p)")
    width = _width(tensors, unused)
    heads, notes = _heads(width, beside.num_heads or num_heads)
    pool = beside.pool
    if pool is None:
        pool = "mean" if "head.norm.bias" in tensors else "cls"
        notes += [POOL_ASSUMED] if pool == "cls" else []
    patch, classes = (projection.shape[2], projection.shape[3]), _logits(tensors)
    size, more = _image_size(tensors.get("pos_embed"), patch, beside.image_size, image_size)
    notes += more
    config = ViTConfig(
        image_size=_short(size),
        patch_size=_short(patch),
        in_channels=projection.shape[1],
        num_classes=classes,
        embed_dim=width,
        depth=len(blocks),
        num_heads=heads,
        mlp_dim=len(tensors["blocks.0.mlp.fc1.bias"]),
        pool="mean" if pool == "mean" else "cls",
    )
    return config, notes


def _logits(tensors: Mapping[str, Tensor]) -> int:
    for name in ("head.bias", "head.linear.bias", "head.weight", "head.linear.weight"):
        if name in tensors:
            return len(tensors[name])
    return 0


def _heads(width: int, known: int | None) -> tuple[int, list[str]]:
    if known is not None:
        return known, []
    for preset, config in PRESETS.items():
        if config.embed_dim == width:
            return config.num_heads, [f"num_heads {config.num_heads} assumed, as {preset} of the same width has"]
    raise ValueError(
        f"no tensor tells how many heads a width of {width} has; config.json beside it says so, or num_heads=... "
        "(--num-heads)"
    )


def _image_size(
    positions: Tensor | None, patch: tuple[int, int], said: Size | None, wanted: Size | None
) -> tuple[tuple[int, int], list[str]]:
    """The size of the pictures that the positions are of, and a note where that is doubtful.

    What config.json says counts, if it fits; else a square, since pictures are, and libraries resize squares; else the
    size of the model that the weights are for. Where nothing fits, what is known, or 224.
    """
    rows = positions.shape[-2] if positions is not None and positions.ndim >= 2 else 0
    known, hint = _fitting(rows, patch, said), _fitting(rows, patch, wanted)
    side = isqrt(max(rows - 1, 0))
    square = (side * patch[0], side * patch[1]) if side and side * side == rows - 1 else None
    if not known and square and hint and hint != square:
        other = f"{hint[0] // patch[0]} x {hint[1] // patch[1]}, config.json beside the file has to say their size"
        return square, [f"{rows - 1} positions assumed to be {side} x {side}; if the pictures had {other}"]
    if found := known or square or hint:
        return found, []
    for others in (0, 2):  # no class token, or a second one for distillation
        side = isqrt(max(rows - others, 0))
        if side and rows - side * side == others:
            return (side * patch[0], side * patch[1]), []
    if (size := said or wanted) or not rows:
        return pair(size or 224), []
    expected = "expected 1 + rows x columns of patches; say image_size if the pictures were not square"
    raise ValueError(f"the position embedding has {rows} rows; {expected}")


def _fitting(rows: int, patch: tuple[int, int], size: Size | None) -> tuple[int, int] | None:
    """A size, if it has as many patches as there are positions beside the class token's."""
    if size is None:
        return None
    height, width = pair(size)
    return (height, width) if rows == 1 + (height // patch[0]) * (width // patch[1]) else None


def _misfits(tensors: Mapping[str, Tensor], config: ViTConfig) -> tuple[list[str], list[str]]:
    """Position embeddings that are not ours, to be left out with a note.

    Raises:
        ValueError: any other tensor of another shape than the rest asks for, by name.
    """
    model = undrawn(lambda: with_head_of(VisionTransformer.from_config(_with_head(config)), tensors))
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    wrong = {name: tensor.shape for name, tensor in tensors.items() if name in shapes and tensor.shape != shapes[name]}
    positions = wrong.pop("pos_embed", None)
    if wrong:
        listed = "; ".join(
            f"{name} is {tuple(shape)}, expected {tuple(shapes[name])}" + _transposed(shape, shapes[name])
            for name, shape in list(wrong.items())[:5]
        )
        raise ValueError(f"shapes that do not fit the rest: {listed}")
    if positions is None:
        return [], []
    short = tuple(positions[1:]) == (config.num_patches, config.embed_dim)
    what = "the row of the class token is missing" if short else "rows of tokens that ours has not"
    expected = tuple(shapes["pos_embed"])
    why = f"{what}, or the pictures were not square (then say image_size)"
    return ["pos_embed"], [f"pos_embed left out: it is {tuple(positions)}, expected {expected}: {why}"]


def _transposed(found: Iterable[int], expected: Iterable[int]) -> str:
    return " (transposed)" if sorted(found) == sorted(expected) else ""


def _described(
    ecosystem: Ecosystem, kind: str, beside: Beside, config: ViTConfig
) -> tuple[tuple[str, ...] | None, dict[str, Any] | None, list[str]]:
    """Class names and preprocessing: said beside the file, or assumed with a note."""
    notes = []
    names, preprocessing = beside.class_names, beside.preprocessing
    if names is not None and len(names) != config.num_classes:
        if config.num_classes:
            notes.append(f"{len(names)} class names beside {config.num_classes} logits: not used")
        names = None
    if names is None and config.num_classes == 1000:
        names = imagenet_names()
        notes.append("class names of ImageNet-1k assumed: there are 1,000 logits")
    if preprocessing is None:
        preprocessing, note = assumed_preprocessing(ecosystem.name, kind, pair(config.image_size), config.in_channels)
        notes += [note] if note else []
    return names, preprocessing, notes


def _read_ours(path: Path, file: TensorFile) -> Weights:
    """A file of `save_model`."""
    try:
        config, names, preprocessing, provenance = read_header(file.metadata)
        check_tensors(file.tensors)
    except ValueError as error:
        raise ValueError(f"{path} is refused: {error}") from error
    notes = tuple(_not_finite(file.tensors))
    return Weights(file.tensors, config, "vitscratch", (), names or None, preprocessing or None, notes, provenance)


def _their_name(ecosystem: Ecosystem, ours: str) -> str:
    theirs = next(row.theirs for row in ecosystem.rows if row.ours == ours)
    return theirs if isinstance(theirs, str) else theirs[0]


def _with_head(config: ViTConfig) -> ViTConfig:
    return config if config.num_classes else replace(config, num_classes=1)


def _short(size: tuple[int, int]) -> Size:
    return size[0] if size[0] == size[1] else size
