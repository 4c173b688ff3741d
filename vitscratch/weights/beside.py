"""What lies beside weights: config.json and preprocessor_config.json; and what to assume where nothing does."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vitscratch.config import PRESETS
from vitscratch.data.preprocessing import Preprocessing
from vitscratch.patches import pair
from vitscratch.weights.undrawn import undrawn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


@dataclass(frozen=True)
class Beside:
    """What the files beside weights say, as far as they do; nothing is taken over that does not fit the tensors."""

    num_heads: int | None = None
    image_size: int | tuple[int, int] | None = None
    pool: str | None = None
    class_names: tuple[str, ...] | None = None
    preprocessing: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def read_beside(folder: Path, ecosystem: str, embed_dim: int, config: dict[str, Any] | None = None) -> Beside:
    """Read the files of a folder, if they are of this ecosystem and of a model of this width.

    Raises:
        ValueError: they cannot be read, or say that the model computes something that ours does not.
    """
    config = _json(folder / "config.json") if config is None else config
    try:
        return _of(ecosystem, config, folder, embed_dim)
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"{folder / 'config.json'} (or what lies beside it) is not understood: {error}") from error


def _of(ecosystem: str, config: dict[str, Any], folder: Path, embed_dim: int) -> Beside:
    if ecosystem == "huggingface" and "hidden_size" in config:
        if config["hidden_size"] != embed_dim:
            return Beside(notes=(f"config.json is of another model (hidden_size {config['hidden_size']}): not used",))
        return _huggingface(config, _json(folder / "preprocessor_config.json"), folder)
    if ecosystem == "timm" and ("architecture" in config or "pretrained_cfg" in config):
        if config.get("num_features", embed_dim) != embed_dim:
            return Beside(notes=(f"config.json is of another model (num_features {config['num_features']}): not used",))
        return _timm(config, embed_dim)
    return Beside(pool="cls" if ecosystem in ("torchvision", "huggingface") else None)  # they have nothing else


def assumed_preprocessing(
    ecosystem: str, kind: str, image_size: tuple[int, int], channels: int
) -> tuple[dict[str, Any] | None, str]:
    """What pictures of this ecosystem's models usually go through, and the note that says so."""
    if channels not in (1, 3):
        return None, ""
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    resize, interpolation, fraction = "crop", "bicubic", 0.875
    if ecosystem == "torchvision" and image_size == (224, 224):
        interpolation = "bilinear"
    elif ecosystem == "torchvision":  # SWAG's, fine-tuned end to end at 384, 512 or 518 pixels
        fraction = 1.0
    elif ecosystem == "timm" and kind != "torch":
        mean = std = _HALF
        fraction = 0.9
    elif ecosystem != "timm":
        mean = std = _HALF
        resize, interpolation, fraction = "squash", "bilinear", 1.0
    described = _checked(
        image_size=image_size, channels=channels, mean=mean, std=std, resize=resize, interpolation=interpolation,
        fraction=fraction,
    )  # fmt: skip
    whose = "DeiT's, DINO's and MAE's" if (ecosystem, kind) == ("timm", "torch") else f"usual for {ecosystem}"
    if ecosystem == "timm" and kind != "torch":
        whose = "AugReg's; DeiT, DINO and MAE want ImageNet's mean"
    return described, f"preprocessing assumed ({whose}): {resize}, {interpolation}, mean {described['mean'][0]:g} ..."


def imagenet_names() -> tuple[str, ...]:
    """The 1,000 classes of ImageNet-1k, in the order that everybody's logits have."""
    from torchvision.models import ViT_B_16_Weights

    return tuple(ViT_B_16_Weights.IMAGENET1K_V1.meta["categories"])


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {str(error).splitlines()[0]}") from error
    return content if isinstance(content, dict) else {}


def _huggingface(config: dict[str, Any], processor: dict[str, Any], folder: Path) -> Beside:
    for name, wanted in (("hidden_act", "gelu"), ("pooler_act", "tanh")):
        if config.get(name, wanted) != wanted:
            raise ValueError(
                f"{folder / 'config.json'}: {name} is {config[name]!r}; our models compute {wanted!r} only"
            )
    notes = []
    if (eps := config.get("layer_norm_eps", 1e-12)) != 1e-6:
        notes.append(f"layer_norm_eps {eps:g}: our norms compute with 1e-6, as the original does; last digits differ")
    names = config.get("id2label") or {}
    labels = (
        tuple(str(names[key]) for key in sorted(names, key=int)) if all(str(key).isdigit() for key in names) else ()
    )
    if all(label == f"LABEL_{i}" for i, label in enumerate(labels)):
        labels = ()  # transformers' way to say that nobody named them
    image_size = _size(config.get("image_size"))
    preprocessing = None
    if processor:
        preprocessing, note = _from_processor(processor, config.get("num_channels", 3))
        notes += [note] if note else []
    return Beside(config.get("num_attention_heads"), image_size, "cls", labels or None, preprocessing, tuple(notes))


def _from_processor(processor: dict[str, Any], channels: int) -> tuple[dict[str, Any] | None, str]:
    """preprocessor_config.json in our terms: ViTImageProcessor squashes, DeiT's also cuts out the centre."""
    size = _size(processor.get("size"))
    crop = _size(processor.get("crop_size")) if processor.get("do_center_crop") else None
    if size is None or channels not in (1, 3):
        return None, "preprocessor_config.json is not understood (no size)"
    normalise = processor.get("do_normalize", True)
    interpolation = _RESAMPLE.get(processor.get("resample", 2))
    sides, cut = pair(size), pair(crop or size)
    note = "" if interpolation else f"preprocessor_config.json: resample {processor.get('resample')}; bicubic is used"
    if crop is not None and sides != cut and "shortest_edge" not in (processor.get("size") or {}):
        note = f"preprocessor_config.json squashes to {sides} px before it cuts; ours keeps the proportions"
    return _checked(
        image_size=cut,
        channels=channels,
        mean=processor.get("image_mean", _HALF) if normalise else (0.0,),
        std=processor.get("image_std", _HALF) if normalise else (1.0,),
        resize="crop" if crop is not None else "squash",
        interpolation=interpolation or "bicubic",
        fraction=min(1.0, cut[0] / sides[0]) if crop is not None else 1.0,
    ), note  # fmt: skip


def _timm(config: dict[str, Any], embed_dim: int) -> Beside:
    trained = config.get("pretrained_cfg") or {}
    arguments = config.get("model_args") or {}
    channels, *sides = trained.get("input_size", (3, 224, 224))
    pool = {"token": "cls", "avg": "mean"}.get(config.get("global_pool") or "token")
    notes = () if pool else (f"config.json: global_pool {config['global_pool']!r} is unknown to our models",)
    interpolation = trained.get("interpolation", "bicubic")
    preprocessing = _checked(
        image_size=tuple(sides),
        channels=channels,
        mean=trained.get("mean", _HALF),
        std=trained.get("std", _HALF),
        resize="squash" if trained.get("crop_mode") == "squash" else "crop",
        interpolation=interpolation if interpolation in _RESAMPLE.values() else "bicubic",
        fraction=trained.get("crop_pct", 0.9),
    ) if trained and channels in (1, 3) else None  # fmt: skip
    labels = config.get("label_names") or trained.get("label_names")
    return Beside(
        arguments.get("num_heads") or _timms_heads(config.get("architecture"), embed_dim),
        tuple(sides),
        pool,
        tuple(map(str, labels)) if labels else None,
        preprocessing,
        notes,
    )


def _timms_heads(architecture: Any, embed_dim: int) -> int | None:
    """The heads of a model of an unusual width, from timm itself, if it is installed and knows the name."""
    if any(preset.embed_dim == embed_dim for preset in PRESETS.values()) or find_spec("timm") is None:
        return None
    import timm

    if not isinstance(architecture, str) or not timm.is_model(architecture):
        return None
    model: Any = undrawn(lambda: timm.create_model(architecture))
    plain = getattr(model, "num_features", None) == embed_dim and hasattr(model, "blocks")
    return getattr(getattr(model.blocks[0], "attn", None), "num_heads", None) if plain else None


def _checked(mean: Sequence[float], std: Sequence[float], channels: int, **fields: Any) -> dict[str, Any]:
    if channels == 1:
        mean, std = tuple(mean)[:1], tuple(std)[:1]
    return Preprocessing(channels=channels, mean=tuple(mean), std=tuple(std), **fields).to_dict()


def _size(value: Any) -> int | tuple[int, int] | None:
    if isinstance(value, dict):
        value = value.get("shortest_edge", (value.get("height"), value.get("width")))
    if isinstance(value, list | tuple):
        return (int(value[0]), int(value[1])) if len(value) == 2 and None not in value else None
    return int(value) if isinstance(value, int) else None
