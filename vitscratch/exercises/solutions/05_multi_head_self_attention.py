"""The library's."""

from vitscratch.attention import MultiHeadSelfAttention

__all__ = ["MultiHeadSelfAttention"]
