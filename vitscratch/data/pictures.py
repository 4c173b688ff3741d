"""Opening a picture file: one way for training, checking and prediction, whatever the format and the pixels."""

import os
import stat
import threading
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 89_478_485
"""Pillow's own limit, 256 MiB of RGB: above it a small file may be made to fill the memory (a decompression bomb)."""

MAX_BYTES = 2**30
"""No picture file is larger, 1 GiB: a whole file is read at once."""

EXTENSIONS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".gif": "GIF", ".bmp": "BMP",
    ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM", ".avif": "AVIF",
}  # fmt: skip
"""Names of files that are taken for pictures, in any case, and the format that Pillow should find in them."""

_opening = threading.Lock()


class PictureError(ValueError):
    """A file that cannot be read as a picture; the message says why, in a few words."""


def open_picture(
    file: str | os.PathLike[str] | bytes, *, channels: int = 3, max_pixels: int | None = MAX_PIXELS
) -> "Image":
    """Open, decode completely and turn upright a picture, as 8-bit RGB or grey.

    Transparency is laid on white, CMYK and palettes become RGB, 16-bit grey is scaled to 8 bits, the first frame of
    an animation is taken, and the orientation in the EXIF data is applied.

    Args:
        file: a path, or the bytes of a file.
        channels: 3 for RGB, 1 for grey.
        max_pixels: refuse a larger picture by its header, before decoding; None for any size.

    Raises:
        PictureError: no picture, a broken one, or one that is too large.
    """
    picture = decode(file, max_pixels)
    return to_8_bit(upright(picture), channels)


def decode(file: str | os.PathLike[str] | bytes, max_pixels: int | None) -> "Image":
    """The picture as it is stored, decoded to the last pixel.

    Raises:
        PictureError: see `open_picture`.
    """
    from PIL import ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True: broken pictures would pass; set it to False")
    data = file if isinstance(file, bytes) else read_file(Path(file))
    try:
        picture = open_header(data)
        width, height = picture.size
        if max_pixels is not None and width * height > max_pixels:
            raise PictureError(f"too large: {width:,} x {height:,} px is over the limit of {max_pixels:,} px")
        picture.load()
    except PictureError:
        raise
    except Exception as error:  # a broken file makes Pillow raise nearly anything: OSError, SyntaxError, struct.error
        raise PictureError(_reason(error, data)) from error
    return picture


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        PictureError: it cannot be read, is no ordinary file (reading a pipe would wait for ever), or is too large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PictureError("not an ordinary file")
        if status.st_size > MAX_BYTES:
            raise PictureError(f"too large: {status.st_size:,} bytes are over the limit of {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror or error}") from error


def open_header(data: bytes) -> "Image":
    """Read the header alone. Pillow's own limit on size is switched off meanwhile: it cannot be set for one call."""
    from PIL import Image

    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(BytesIO(data))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _reason(error: Exception, data: bytes) -> str:
    from PIL import UnidentifiedImageError

    if not data:
        return "empty: 0 bytes"
    if isinstance(error, UnidentifiedImageError):
        text = data[:512].lstrip().lower()
        what = "an HTML page" if text.startswith((b"<!doctype html", b"<html")) else "text" if _is_text(text) else ""
        return f"no picture: it holds {what}" if what else "no picture: no format that Pillow knows"
    return f"cannot be decoded: {error or type(error).__name__}"


def _is_text(data: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in data)


def upright(picture: "Image") -> "Image":
    """Turn a picture, itself, as its EXIF data say; one with broken EXIF data stays as it is."""
    from PIL import ImageOps

    # Like broken files, broken EXIF data raise nearly anything; the pixels are fine.
    with suppress(Exception):
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


def to_8_bit(picture: "Image", channels: int) -> "Image":
    """Any mode as 8-bit RGB (channels 3) or grey (1).

    Raises:
        PictureError: 32-bit pixels, whose range nobody knows, or colours that Pillow cannot convert.
    """
    from PIL import Image

    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        wide = np.asarray(picture).astype(np.uint32)  # convert("L") would clip at 255: nearly all white
        picture = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise PictureError(f"unknown range: 32-bit pixels, mode {picture.mode}; save it with 8 or 16 bits")
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    wanted = "L" if channels == 1 else "RGB"
    if picture.mode == wanted:
        return picture
    try:
        return picture.convert("RGB").convert(wanted)  # not every mode becomes grey directly
    except ValueError as error:
        raise PictureError(f"unknown colours: mode {picture.mode}: {error}") from error


def as_picture(image: Tensor) -> "Image":
    """A (c, h, w) tensor, bytes or floats in [0, 1], as `open_picture` would return it."""
    from torchvision.transforms.v2 import functional

    return functional.to_pil_image(image if image.dtype == torch.uint8 else image.mul(255).round().byte())
