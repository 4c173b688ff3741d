"""The library's."""

from vitscratch.vit import VisionTransformer

__all__ = ["VisionTransformer"]
