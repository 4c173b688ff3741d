"""The library's."""

from vitscratch.encoder import EncoderBlock

__all__ = ["EncoderBlock"]
