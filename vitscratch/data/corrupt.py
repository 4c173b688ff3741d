"""What happens to pictures on their way: saved as JPEG, shrunk, blurred, noisy. To see what is left of an accuracy.

Sizes are in pixels of the batch, so corrupt pictures in their own size, before they are resized for a model.
"""

from collections.abc import Callable
from io import BytesIO

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from vitscratch.data.pictures import as_picture, open_picture
from vitscratch.data.preprocessing import to_bytes

SMALLEST = 8
"""Sides of pictures in pixels: below it half the size and a blur leave nothing to recognise."""


def jpeg(images: UInt8[Tensor, "b c H W"], quality: int) -> UInt8[Tensor, "b c H W"]:
    """Encode as JPEG and decode again: blocks of 8 x 8 pixels, and colours at half the resolution.

    Args:
        images: one channel or three. quality: 1 to 100, of Pillow's encoder.

    Raises:
        ValueError: pictures of another kind, or a quality that the encoder does not know.
    """
    _check(images)
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality {quality}; expected 1 (smallest file) to 100 (best picture)")
    saved = torch.empty_like(images)
    for i, image in enumerate(images.cpu()):
        file = BytesIO()
        # Said, for the default is the encoder's: one colour for 2 x 2 pixels.
        as_picture(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        saved[i] = to_bytes(open_picture(file.getvalue(), channels=len(image)), len(image))
    return saved


def halved(images: UInt8[Tensor, "b c H W"]) -> UInt8[Tensor, "b c H W"]:
    """Resize to half the sides, rounded down, and back: bilinear both ways, with antialiasing on the way down.

    Raises:
        ValueError: pictures that are no bytes, have neither one nor three channels, or a side below 8 pixels.
    """
    _check(images)
    height, width = images.shape[2:]
    small = F.interpolate(images.float(), (height // 2, width // 2), mode="bilinear", antialias=True)
    return _bytes(F.interpolate(_bytes(small).float(), (height, width), mode="bilinear"))


def blurred(images: UInt8[Tensor, "b c H W"]) -> UInt8[Tensor, "b c H W"]:
    """Blur with a Gaussian whose standard deviation is 1 pixel; outside, the picture goes on as in a mirror.

    Raises:
        ValueError: see `halved`.
    """
    from torchvision.transforms.v2 import functional

    _check(images)
    return functional.gaussian_blur(images, kernel_size=[7, 7], sigma=[1.0, 1.0])  # 7: three deviations on each side


def noisy(images: UInt8[Tensor, "b c H W"], generator: Generator) -> UInt8[Tensor, "b c H W"]:
    """Add Gaussian noise to every value, with a standard deviation of 10 of the 255 steps.

    Args:
        generator: a CPU's; one that goes on from batch to batch gives the same noise in batches of any size.

    Raises:
        ValueError: see `halved`.
    """
    _check(images)
    result = torch.empty_like(images)
    for i, image in enumerate(images):
        noise = torch.randn(image.shape, generator=generator)  # for each picture: torch fills a batch in another order
        result[i] = _bytes(image + 10 * noise.to(image.device))
    return result


Corruption = Callable[[Tensor, Generator], Tensor]
"""Changes a batch of bytes, (b, c, H, W); the generator is for what is drawn."""

CORRUPTIONS: dict[str, Corruption] = {
    "JPEG 95": lambda images, _: jpeg(images, 95),
    "JPEG 75": lambda images, _: jpeg(images, 75),
    "JPEG 50": lambda images, _: jpeg(images, 50),
    "half size": lambda images, _: halved(images),
    "blur": lambda images, _: blurred(images),
    "noise": noisy,
}


def _bytes(values: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    return values.round().clamp(0, 255).byte()


def _check(images: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise ValueError(
            f"images are {images.dtype}; expected uint8: (255 * images).round().byte() for floats in [0, 1]"
        )
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < SMALLEST:
        raise ValueError(
            f"images of shape {tuple(images.shape)}; expected (batch, 1 or 3 channels, height, width), sides of "
            f"{SMALLEST} px or more"
        )
