"""The library's."""

from vitscratch.mlp import MLP

__all__ = ["MLP"]
