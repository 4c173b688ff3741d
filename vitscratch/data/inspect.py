"""Look at one picture file: does it decode, and is anything odd about it?"""

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vitscratch.data.findings import Finding
from vitscratch.data.folders import Entry
from vitscratch.data.jpeg import jpeg_end
from vitscratch.data.pictures import EXTENSIONS, PictureError, decode, open_header, to_8_bit, upright
from vitscratch.data.traces import NO_TRACES, Traces, read_traces

if TYPE_CHECKING:
    from PIL.Image import Image
else:
    from typing import Any as Image

_LONG = 8  # times as long as wide, or the other way round


@dataclass(frozen=True)
class Inspection:
    """What is known of one file after decoding it.

    Args:
        findings: what is odd about it. digest: of its bytes; "" if it could not be read.
        size: (width, height), upright. mode, form: Pillow's names for pixels and file format; "" if it is bad.
        traces: what else its header says.
    """

    findings: tuple[Finding, ...]
    digest: str
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    form: str = ""
    traces: Traces = NO_TRACES

    @property
    def reason(self) -> str | None:
        """Why training cannot use it; None if it can."""
        return next((finding.message for finding in self.findings if finding.severity == "bad"), None)

    @property
    def is_grey(self) -> bool:
        """Whether its pixels are stored without colour."""
        return self.mode.split(" ")[0] in ("1", "L", "LA", "La", "I") or self.mode.startswith("I;16")

    def to_row(self) -> list[Any]:
        """What there is to remember of a good file, for JSON."""
        notes = [[finding.kind, finding.message] for finding in self.findings]
        return [self.digest, list(self.size), self.mode, self.form, notes, self.traces.to_row()]

    @classmethod
    def from_row(cls, name: str, row: list[Any]) -> "Inspection":
        """The opposite of `to_row`, for the file of this name."""
        digest, (width, height), mode, form, notes, traces = row
        findings = tuple(Finding("note", kind, name, message) for kind, message in notes)
        return cls(findings, digest, (width, height), mode, form, Traces.from_row(traces))


def read_bytes(entry: Entry) -> tuple[Inspection, bytes]:
    """What is known of a file without decoding it, and its bytes."""
    try:
        data = entry.read()
    except PictureError as error:
        return Inspection((Finding("bad", _kind(str(error)), entry.name, str(error)),), ""), b""
    return Inspection((), hashlib.blake2b(data, digest_size=16).hexdigest()), data


def inspect(entry: Entry, max_pixels: int | None, channels: int = 3) -> tuple[Inspection, Image | None]:
    """Decode a picture completely: what is known of it, and itself as `open_picture` would return it if it is good."""
    found, data = read_bytes(entry)
    if found.reason is not None:
        return found, None
    try:
        stored = decode(data, max_pixels)
        end, damage = jpeg_end(data, stored) if stored.format in ("JPEG", "MPO") else (len(data), None)
        if damage is not None:
            raise PictureError(f"damaged: {damage}")
        traces = read_traces(stored, len(data))
        picture = to_8_bit(upright(stored), channels)
    except PictureError as error:
        return Inspection((Finding("bad", _kind(str(error)), entry.name, str(error)),), found.digest), None
    notes = [Finding("note", kind, entry.name, message) for kind, message in _oddities(entry, data, stored, end)]
    return Inspection(
        tuple(notes), found.digest, picture.size, _pixels(stored, data), stored.format or "", traces
    ), picture


def _kind(reason: str) -> str:
    """The findings of a check are counted by the first words of what is wrong."""
    kind = reason.split(":")[0]
    return "truncated" if "truncated" in reason or "end early" in reason or "no end" in reason else kind


def _pixels(stored: Image, data: bytes) -> str:
    """Pillow's mode, with 16 bits said where Pillow shortens them by itself."""
    deep = stored.format == "PNG" and data[24:25] == b"\x10"  # the bit depth in a PNG's first chunk
    return f"{stored.mode} (16-bit)" if deep and not stored.mode.startswith("I") else stored.mode


def _oddities(entry: Entry, data: bytes, stored: Image, end: int) -> list[tuple[str, str]]:
    """(kind, message) of what works but should be known."""
    found = []
    expected = EXTENSIONS.get(entry.path.suffix.lower()) if entry.path is not None else None
    form = "JPEG" if stored.format == "MPO" else stored.format
    if expected is not None and form != expected:
        found.append(("wrong extension", f"holds {stored.format}, though its name says {expected}"))
    pixels = _pixels(stored, data)
    if stored.mode == "CMYK":
        found.append(("CMYK", "colours for print; converted to RGB without their profile"))
    if "16" in pixels or stored.mode == "I":
        found.append(("16-bit", f"mode {pixels}; scaled to 8 bits"))
    if stored.has_transparency_data:
        found.append(("transparent", f"mode {stored.mode}; laid on white"))
    if form != "JPEG" and (frames := _frames(data)) > 1:
        found.append(("several pictures", f"{frames} frames or pages; the first is used"))
    if "exif" in stored.info and not _is_exif_sound(stored.info["exif"]):
        found.append(("broken EXIF", "its orientation cannot be read; taken as it is"))
    if max(stored.size) > _LONG * min(stored.size):
        found.append(("very long", f"{stored.width:,} x {stored.height:,} px; little of it is left by a crop"))
    if stored.format == "PNG" and b"IEND" not in data:
        found.append(("no end marker", "the file is cut short, behind its last pixel"))
    if stored.format != "MPO" and (extra := len(data) - end):  # MPO: a second picture belongs there
        found.append(("trailing data", f"{extra:,} bytes after the end of the picture"))
    return found


def _frames(data: bytes) -> int:
    try:
        return getattr(open_header(data), "n_frames", 1)
    except Exception:  # a broken later frame, which nobody will use
        return 1


def _is_exif_sound(exif: bytes) -> bool:
    """Whether the first directory of EXIF data can be found and is complete (TIFF 6.0, section 2)."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return False
    offset = struct.unpack(order + "L", tiff[4:8])[0]
    if offset + 2 > len(tiff):
        return False
    entries = struct.unpack(order + "H", tiff[offset : offset + 2])[0]
    return offset + 2 + 12 * entries <= len(tiff)
