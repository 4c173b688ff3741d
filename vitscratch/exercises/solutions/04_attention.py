"""The library's."""

from vitscratch.attention import attention

__all__ = ["attention"]
