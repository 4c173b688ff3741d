"""vitscratch: the Vision Transformer from its parts, checked against the reference implementations."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vitscratch.attention import MultiHeadSelfAttention
    from vitscratch.config import PRESETS, ViTConfig
    from vitscratch.encoder import EncoderBlock
    from vitscratch.explain import attention_maps, position_similarity, record_attention
    from vitscratch.mlp import MLP
    from vitscratch.patches import PatchEmbedding, embed_patches, patchify, unpatchify
    from vitscratch.vit import (
        VisionTransformer,
        build,
        init_weights,
        vit_b_16,
        vit_b_32,
        vit_h_14,
        vit_l_16,
        vit_l_32,
        vit_nano_8,
        vit_nano_32,
        vit_s_16,
        vit_ti_16,
    )

# Where each public name lives. Loaded at first use, so that `vitscratch --help` need not wait for torch.
_HOME = {
    **dict.fromkeys(["PRESETS", "ViTConfig"], "config"),
    **dict.fromkeys(["PatchEmbedding", "embed_patches", "patchify", "unpatchify"], "patches"),
    **dict.fromkeys(["MultiHeadSelfAttention"], "attention"),
    **dict.fromkeys(["MLP"], "mlp"),
    **dict.fromkeys(["EncoderBlock"], "encoder"),
    **dict.fromkeys(["VisionTransformer", "build", "init_weights"], "vit"),
    **dict.fromkeys(["vit_ti_16", "vit_s_16", "vit_b_16", "vit_b_32", "vit_l_16"], "vit"),
    **dict.fromkeys(["vit_l_32", "vit_h_14", "vit_nano_8", "vit_nano_32"], "vit"),
    **dict.fromkeys(["attention_maps", "position_similarity", "record_attention"], "explain"),
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vitscratch' has no attribute {name!r}")
    return getattr(import_module(f"vitscratch.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
