"""The library's."""

from vitscratch.patches import PatchEmbedding

__all__ = ["PatchEmbedding"]
