"""Damage in JPEG files that the decoder keeps to itself: it fills in grey or garbage and reports success."""

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")  # in compressed data 0xFF stands before 0 or a restart marker
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_SOS, _EOI, _DRI = 0xDA, 0xD9, 0xDD
_BETWEEN_SCANS = {_SOS, _EOI, _DRI, 0xC4, 0xDB, 0xDC, 0xFE, *range(0xE0, 0xF0)}  # tables, comments, application data


def jpeg_end(data: bytes, picture: "Image") -> tuple[int, str | None]:
    """Where a JPEG picture ends in its file, in bytes, and what is wrong with it although it decodes without an error.

    Changed bytes that still make a valid code cannot be told from a picture, here as anywhere.

    Args:
        data: the file. picture: decoded from it.
    """
    end, damage = _walk(data)
    if damage is None and _is_cut_short(data[: end - 2], picture):
        damage = "its data end early, and what is missing was made up"
    return end, damage


def _walk(data: bytes) -> tuple[int, str | None]:
    """Go from marker to marker (ITU T.81, annex B): the end of the picture, and what should not have been met."""
    position, restarts_expected = 2, False
    while found := _MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == _EOI:
            return position, None
        if marker == 0x01:
            continue
        start = position + int.from_bytes(data[position : position + 2], "big")
        position = start
        if marker == _DRI:
            restarts_expected = data[start - 2 : start] != b"\0\0"
        if marker == _SOS:
            following = _MARKER.search(data, start)
            if following is None:
                return len(data), "it has no end: cut short"
            if following[1][0] not in _BETWEEN_SCANS:
                return len(data), f"marker FF{following[1][0]:02X} inside the compressed data"
            restarts = [number[0] - 0xD0 for number in _RESTART.findall(data, start, following.start())]
            if restarts and not restarts_expected:
                return len(data), "restart markers in a picture that has none"
            if restarts != [i % 8 for i in range(len(restarts))]:
                return len(data), "restart markers out of order: a piece is missing"
            position = following.start()
    return len(data), "it has no end marker"


def _is_cut_short(without_end: bytes, picture: "Image") -> bool:
    """Whether the decoder ran out of data. It then fills blocks with exactly 128, the grey in the middle.

    A whole picture may end in that grey. But it has no use for more data, so some that are put behind its own change
    nothing; where data are missing, they become part of the picture. A progressive picture has a first, coarse form of
    all blocks early, so it may lack data without any grey.
    """
    from vitscratch.data.pictures import PictureError, decode

    last = picture.getpixel((picture.width - 1, picture.height - 1))
    if last not in (128, (128, 128, 128)) and "progressive" not in picture.info:
        return False
    try:
        longer = decode(without_end + bytes(range(1, 255)) * 4 + b"\xff\xd9", max_pixels=None)
    except PictureError:
        return True
    return not np.array_equal(np.asarray(longer), np.asarray(picture))
