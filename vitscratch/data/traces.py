"""What a picture file gives away without a look at the picture: how it was written, and by what."""

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
else:
    from typing import Any as Image

_SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")  # in the order of Pillow's numbers


@dataclass(frozen=True)
class Traces:
    """What is known of a file from its header, beside format, mode and size.

    Args:
        file_size: bytes.
        quantisation: of a JPEG: sums of its tables, brightness first; the smaller, the finer. () of other formats.
        subsampling: of a JPEG in colour: "4:4:4", "4:2:2" or "4:2:0", full to quarter colour resolution; else "".
        progressive: of a JPEG: whether it comes coarse first.
        exif, colour_profile: whether it has them. texts: how many comments and other texts.
    """

    file_size: int = 0
    quantisation: tuple[int, ...] = ()
    subsampling: str = ""
    progressive: bool = False
    exif: bool = False
    colour_profile: bool = False
    texts: int = 0

    def to_row(self) -> list[Any]:
        """For JSON."""
        return list(astuple(self))

    @classmethod
    def from_row(cls, row: list[Any]) -> "Traces":
        """The opposite of `to_row`."""
        file_size, quantisation, *rest = row
        return cls(file_size, tuple(quantisation), *rest)


NO_TRACES = Traces()
"""Of a file that cannot be read."""


def read_traces(stored: Image, file_size: int) -> Traces:
    """What a picture as it was opened, and not yet turned upright, says of its file of so many bytes."""
    from PIL.JpegImagePlugin import get_sampling

    tables = getattr(stored, "quantization", None) or {}  # JPEGs alone have them
    sampling = get_sampling(stored) if tables else -1
    texts = [name for name, value in stored.info.items() if isinstance(value, str) or name in ("comment", "xmp")]
    return Traces(
        file_size=file_size,
        quantisation=tuple(sum(tables[number]) for number in sorted(tables)),
        subsampling=_SAMPLINGS[sampling] if sampling >= 0 else "",
        progressive="progressive" in stored.info,
        exif="exif" in stored.info,
        colour_profile="icc_profile" in stored.info,
        texts=len(texts),
    )
