"""What the builders of `vitscratch.vit` do with `weights=`."""

from enum import Enum
from pathlib import Path
from typing import Any

from vitscratch.vit import VisionTransformer, build
from vitscratch.weights.loading import assemble
from vitscratch.weights.shipped import shipped_names
from vitscratch.weights.sources import HUB, TIMM, Source, read_weights


def pretrained(preset: str, weights: Any, progress: bool, overrides: dict[str, Any]) -> VisionTransformer:
    """Build a preset with pretrained weights; their pictures' size and number of classes are its defaults.

    Args:
        preset: such as "vit_b_16".
        weights: as torchvision's builders take it, a member of `ViT_B_16_Weights` or its name; or a `Source`.
        progress: a bar while they are downloaded.
        overrides: fields of `ViTConfig`. Another `image_size` resizes the positions, other `in_channels` fit the
            patch embedding; the number of classes is the weights' own.

    Returns:
        In training mode, as torchvision's builders.

    Raises:
        As `vitscratch.weights.load`. ValueError: also weights of another architecture.
    """
    source = _source(preset, weights)
    read = read_weights(source, num_heads=overrides.get("num_heads"), progress=progress)
    classes = read.config.num_classes
    if overrides.get("num_classes", classes) != classes:
        wanted = overrides["num_classes"]
        raise ValueError(
            f"num_classes={wanted}: the head of {source} has {classes:,} classes; leave it out, and "
            f"vitscratch.transfer.replace_head(model, {wanted}) gives the model a new one"
        )
    settings = {"image_size": read.config.image_size, "num_classes": classes, "pool": read.config.pool, **overrides}
    return assemble(read, source, lambda: build(preset, **settings), any_pool="pool" in overrides)[0]


def _source(preset: str, weights: Any) -> Source:
    """A name such as "DEFAULT" as the member of torchvision's weights for this preset; other sources as they are."""
    if isinstance(weights, Enum | Path):
        return weights
    if weights in shipped_names() or weights.startswith((TIMM, HUB)) or Path(weights).exists():
        return weights
    from torchvision.models import get_model_weights

    try:
        members: Any = get_model_weights(preset)
    except ValueError:  # torchvision has no such model
        members = None
    name = weights.removeprefix(f"{getattr(members, '__name__', '')}.")
    if name not in getattr(members, "__members__", {}):
        known = [*getattr(members, "__members__", {}), *shipped_names()]
        raise ValueError(
            f"weights={weights!r} are unknown to {preset}; expected {', '.join([*known, ''])}a path, timm:NAME or "
            "hf:ORG/NAME"
        )
    return members[name]
