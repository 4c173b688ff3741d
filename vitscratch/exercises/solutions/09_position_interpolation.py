"""The library's."""

from vitscratch.weights.resize import resize_position_embedding

__all__ = ["resize_position_embedding"]
