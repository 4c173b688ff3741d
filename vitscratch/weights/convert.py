"""Write a model as another library wants it, and prove that nothing was lost before the file gets its name."""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from vitscratch.data import Preprocessing
from vitscratch.files import sync_folder, write_atomically
from vitscratch.weights.files import write_tensors
from vitscratch.weights.heads import NormedHead, PreLogitsHead
from vitscratch.weights.onnx import TOLERANCE, export_onnx, onnx_difference
from vitscratch.weights.reading import read_weights
from vitscratch.weights.saved import DESCRIPTION, SavedModel, header, save_model
from vitscratch.weights.writing import to_ecosystem

Target = Literal["vitscratch", "timm", "torchvision", "hf", "npz", "onnx"]

# How a file of each kind may end; "" is a folder.
ENDINGS: dict[str, tuple[str, ...]] = {
    "vitscratch": (".safetensors",),
    "timm": (".safetensors", ".pth"),
    "torchvision": (".safetensors", ".pth"),
    "hf": ("",),
    "npz": (".npz",),
    "onnx": (".onnx",),
}
_ECOSYSTEMS = {"hf": "huggingface", "npz": "google"}  # the others are called as their target is
_WEIGHTS, _CONFIG, _PREPROCESSING = "model.safetensors", "config.json", "preprocessor_config.json"
_RESAMPLE = {"bilinear": 2, "bicubic": 3}  # as PIL counts; its nearest pixel is another one than ours


@dataclass(frozen=True)
class Converted:
    """What `convert` wrote.

    Args:
        path: a file, or for "hf" a folder.
        tensors: how many, as the other library counts them; 0 for "onnx", which is a program.
        difference: from the model's logits, as a part of the largest (`onnx_difference`); 0.0 for all but "onnx", whose
            tensors were read back and are equal bit for bit.
        left_out: what the format has no place for, and the model knows.
        in_header: what stands in the header of .safetensors, where vitscratch finds it and the other library does not
            look.
    """

    path: Path
    tensors: int
    difference: float
    left_out: tuple[str, ...]
    in_header: tuple[str, ...] = ()


def convert(saved: SavedModel, out: Path, to: Target, overwrite: bool = False) -> Converted:
    """Write a model for another library, read it back, and compare; only then does it get its name.

    Args:
        saved: from `build_from`, say.
        out: a file that ends as `ENDINGS` says, or for "hf" a folder, which is made.
        to: "vitscratch" (`save_model`), "timm" or "torchvision" (a state_dict), "hf" (transformers'
            ViTForImageClassification with its preprocessing), "npz" (Google's layout) or "onnx" (`export_onnx`).
        overwrite: whether `out` may be there; of a folder, only what "hf" writes is replaced.

    Raises:
        ValueError: `out` is there, or is called otherwise; the model has what the format cannot hold. Then nothing is
            written. ImportError: the extra "onnx" is missing. RuntimeError: what was read back differs.
        OSError: it cannot be written.
    """
    check_out(out, to, overwrite)
    if problem := _unfit(saved, to):
        raise ValueError(f"{to} cannot hold this model: {problem}")
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".vitscratch-") as folder:
        part = Path(folder) / out.name
        tensors = _WRITERS[to](saved, part)
        difference = onnx_difference(part, saved) if to == "onnx" else 0.0
        if to == "onnx" and not difference <= TOLERANCE:
            raise RuntimeError(
                f"onnxruntime's logits differ from the model's by {difference:.1e} of the largest; expected at most "
                f"{TOLERANCE:.0e}, so {out} was not written"
            )
        if to != "onnx" and (wrong := _changed(part, saved)):
            raise RuntimeError(f"{', '.join(wrong[:4])} came back otherwise than written, so {out} was not written")
        if part.is_dir() and out.exists():
            out.rename(Path(folder) / "old")
        part.replace(out)
        sync_folder(out.absolute().parent)
    unsaid = _unsaid(saved, to)
    with_header = to != "hf" and out.suffix == ".safetensors"
    return Converted(out, tensors, difference, () if with_header else unsaid, unsaid if with_header else ())


def check_out(out: Path, to: Target, overwrite: bool) -> None:
    """Refuse a place for the result, before any work.

    Raises:
        ValueError: it is there already, is called otherwise than `ENDINGS` says, or its folder is not there.
    """
    if to not in get_args(Target):
        raise ValueError(f"--to {to} is unknown; expected one of {', '.join(get_args(Target))}")
    if to == "hf" and out.suffix in {ending for endings in ENDINGS.values() for ending in endings if ending} | {".bin"}:
        raise ValueError(f"{out}: --to hf makes a folder; expected a name without {out.suffix}, such as {out.stem}")
    if to != "hf" and out.suffix not in ENDINGS[to]:
        raise ValueError(f"{out}: expected a file whose name ends in {' or '.join(ENDINGS[to])} for --to {to}")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"{out}: the folder {out.absolute().parent} does not exist; make it first")
    if not os.access(out.absolute().parent, os.W_OK):
        raise ValueError(f"{out}: the folder {out.absolute().parent} is not writable; name another one")
    if not out.exists():
        return
    if out.is_dir() != (to == "hf"):
        raise ValueError(f"{out} is a {'folder' if out.is_dir() else 'file'}; --to {to} makes the other")
    if out.is_dir() and (others := {path.name for path in out.iterdir()} - {_WEIGHTS, _CONFIG, _PREPROCESSING}):
        raise ValueError(f"{out} has {', '.join(sorted(others)[:3])} of something else in it; name another folder")
    if not overwrite and (out.is_file() or any(out.iterdir())):
        raise ValueError(f"{out} exists; --overwrite replaces it")


def _unfit(saved: SavedModel, to: Target) -> str | None:
    """What the format has no place for, though the model is nothing without it."""
    model = saved.model
    image, patch, grid = model.patch_embed.image_size, model.patch_embed.patch_size, model.patch_embed.grid_size
    if to != "onnx" and not isinstance(model.head, nn.Linear | NormedHead | PreLogitsHead):
        return f"its head is a {type(model.head).__name__}; expected a linear layer, NormedHead or PreLogitsHead"
    if to in ("timm", "hf") and isinstance(model.head, PreLogitsHead):
        return "its head has a pre-logits layer; torchvision and npz have a place for that"
    if to in ("torchvision", "hf", "npz") and isinstance(model.head, NormedHead):
        return "its head norms the mean of the patch tokens; timm and onnx have a place for that"
    if to in ("torchvision", "hf", "npz") and model.pool != "cls":
        return f"its head reads the {model.pool} of the patch tokens; timm and onnx have a place for that"
    if to == "torchvision" and (image[0] != image[1] or patch[0] != patch[1]):
        return f"pictures of {image[0]} x {image[1]} px in patches of {patch[0]} x {patch[1]} px; expected squares"
    if to == "torchvision" and model.patch_embed.in_channels != 3:
        return f"pictures of {model.patch_embed.in_channels} channels; expected 3"
    if to == "npz" and grid[0] != grid[1]:
        return f"its {grid[0]} x {grid[1]} patches; the file says only how many there are, so expected a square"
    return None


def _unsaid(saved: SavedModel, to: Target) -> tuple[str, ...]:
    """What a prediction needs and the other library does not find in what is written for it."""
    if to in ("vitscratch", "onnx"):
        return ()
    if to == "hf":
        return () if _processor(saved) else ("preprocessing (transformers has none like it)",)
    heads = () if to == "npz" else (f"that there are {saved.config.num_heads} heads",)
    mean = f"that the head reads the mean (timm: global_pool='avg', fc_norm={isinstance(saved.model.head, NormedHead)})"
    pool = (mean,) if saved.config.pool != "cls" else ()
    return (*heads, *pool, "class names", "preprocessing")


def _changed(path: Path, saved: SavedModel) -> list[str]:
    """Our names of tensors that differ in any bit from the model's when they are read back, or are not in both."""
    read = read_weights(path, image_size=saved.model.patch_embed.image_size, num_heads=saved.config.num_heads)
    found, expected = read.tensors, saved.model.state_dict()
    differ = [name for name in expected if name in found and _bits(found[name]) != _bits(expected[name])]
    return differ + sorted(found.keys() ^ expected.keys())


def _bits(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.shape, tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _as_vitscratch(saved: SavedModel, path: Path) -> int:
    save_model(path, saved.model, saved.config, saved.class_names, saved.preprocessing, saved.provenance)
    return len(saved.model.state_dict())


def _as_onnx(saved: SavedModel, path: Path) -> int:
    export_onnx(path, saved)
    return 0


def _as_tensors(to: Target) -> Callable[[SavedModel, Path], int]:
    def write(saved: SavedModel, path: Path) -> int:
        tensors = {name: tensor.detach().cpu() for name, tensor in saved.model.state_dict().items()}
        theirs = to_ecosystem(tensors, saved.config, _ECOSYSTEMS.get(to, to))
        described = header(saved.config, saved.class_names, saved.preprocessing, saved.provenance)
        beside = to == "hf"  # there config.json says it, which may be edited
        write_tensors(path, theirs, None if beside else {"vitscratch": DESCRIPTION, **described})
        return len(theirs)

    return write


def _as_huggingface(saved: SavedModel, folder: Path) -> int:
    folder.mkdir()
    files = {_CONFIG: _huggingface_config(saved), _PREPROCESSING: _processor(saved)}
    for name, content in files.items():
        if content:
            _write_text(folder / name, json.dumps(content, indent=2) + "\n")
    return _as_tensors("hf")(saved, folder / _WEIGHTS)


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text), "w")


def _huggingface_config(saved: SavedModel) -> dict[str, Any]:
    """config.json of transformers' ViTForImageClassification."""
    config, names = saved.config, dict(enumerate(saved.class_names))
    return {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.in_channels,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_dim,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
    }


def _processor(saved: SavedModel) -> dict[str, Any] | None:
    """preprocessor_config.json of transformers' ViTImageProcessor; None if it cannot do what the model needs."""
    try:
        known = Preprocessing.from_dict(saved.preprocessing)
    except ValueError:  # not of pictures
        return None
    (height, width), resample = known.image_size, _RESAMPLE.get(known.interpolation)
    if (known.resize != "none" and resample is None) or (known.resize == "crop" and height != width):
        return None
    size: dict[str, int] = {"height": height, "width": width}
    crop = {"do_center_crop": True, "crop_size": size} if known.resize == "crop" else {}
    if known.resize == "crop":
        size = {"shortest_edge": int(height / known.fraction)}
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": known.resize != "none",
        "size": size,
        "resample": resample or 2,
        **crop,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": known.mean,
        "image_std": known.std,
    }


_WRITERS: dict[Target, Callable[[SavedModel, Path], int]] = {
    "vitscratch": _as_vitscratch,
    "timm": _as_tensors("timm"),
    "torchvision": _as_tensors("torchvision"),
    "hf": _as_huggingface,
    "npz": _as_tensors("npz"),
    "onnx": _as_onnx,
}
