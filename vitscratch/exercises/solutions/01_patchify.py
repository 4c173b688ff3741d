"""The library's."""

from vitscratch.patches import patchify

__all__ = ["patchify"]
