"""From any picture to the tensor that a model sees: the same for training in memory, from files, and for prediction."""

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Resize = Literal["crop", "squash", "none"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
# A picture longer than this many times the crop is cut before it is resized: 1 x 30,000 pixels would become gigabytes.
_LONGEST = 100


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a tensor; saved with a model, so that `predict` needs nothing else.

    Args:
        image_size: (height, width) in pixels.
        channels: 3 for RGB or 1 for grey.
        mean, std: of each channel, for pixels in [0, 1]; 0 and 1 leave the pixels as they are.
        resize: "crop": resize so that the picture just covers image_size / fraction, keeping its proportions, then
            cut out the centre; "squash": resize both sides, whatever the proportions; "none": sizes have to fit.
        interpolation: of the resizing; antialiased when it shrinks (but for "nearest").
        fraction: for "crop": side of the crop as a part of the resized picture, in (0, 1]; 0.875 is 224 out of 256.

    Raises:
        ValueError: a value outside what is said above.
    """

    image_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: Resize = "crop"
    interpolation: Interpolation = "bilinear"
    fraction: float = 1.0

    def __post_init__(self) -> None:
        number = self.channels if self.channels in (1, 3) else 0
        for name in ("mean", "std"):  # one value stands for all channels
            values = getattr(self, name)
            object.__setattr__(self, name, tuple(values) * number if len(values) == 1 else tuple(values))
        for name, value, fine, wanted in (
            ("channels", self.channels, number, "1 or 3"),
            ("image_size", self.image_size, len(self.image_size) == 2 and min(self.image_size) >= 1, "two sides >= 1"),
            ("mean", self.mean, len(self.mean) == number and _finite(self.mean), f"{number} numbers"),
            ("std", self.std, len(self.std) == number and _finite(self.std) and min(self.std) > 0, f"{number} > 0"),
            ("resize", self.resize, self.resize in ("crop", "squash", "none"), "crop, squash or none"),
            (
                "interpolation",
                self.interpolation,
                self.interpolation in ("nearest", "bilinear", "bicubic"),
                "nearest, bilinear or bicubic",
            ),
            ("fraction", self.fraction, 0 < self.fraction <= 1, "a number in (0, 1]"),
        ):
            if not fine:
                raise ValueError(f"preprocessing: {name} is {value}; expected {wanted}")

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Back from `to_dict`, checked.

        Raises:
            ValueError: a field that is missing, unknown, or not what it should be.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise ValueError(f"preprocessing: expected exactly the fields {sorted(names)}, got {values!r:.200}")
        try:
            return cls(
                image_size=(int(values["image_size"][0]), int(values["image_size"][1])),
                channels=int(values["channels"]),
                mean=tuple(float(value) for value in values["mean"]),
                std=tuple(float(value) for value in values["std"]),
                resize=values["resize"],
                interpolation=values["interpolation"],
                fraction=float(values["fraction"]),
            )
        except (TypeError, IndexError, KeyError) as error:
            raise ValueError(f"preprocessing: {error}, in {values!r:.200}") from error

    def pixels(self, picture: "Image") -> UInt8[Tensor, "c H W"]:
        """Resize and cut a picture of `open_picture` (RGB or grey): the bytes that a set in memory holds.

        Raises:
            ValueError: a size that does not fit, with resize="none".
        """
        from torchvision.transforms.v2 import InterpolationMode, functional

        image = to_bytes(picture, self.channels)
        if self.resize == "none" or tuple(image.shape[1:]) == self.image_size:
            if tuple(image.shape[1:]) != self.image_size:
                raise ValueError(
                    f"picture of {image.shape[1]} x {image.shape[2]} px, where {self.image_size[0]} x "
                    f"{self.image_size[1]} is wanted; resize='crop' or 'squash' would make it fit"
                )
            return image
        mode = InterpolationMode(self.interpolation)
        if self.resize == "squash":
            return functional.resize(image, list(self.image_size), mode, antialias=True).contiguous()
        image = _shortened(image, self.image_size)
        resized = functional.resize(image, self._covering(image.shape[1], image.shape[2]), mode, antialias=True)
        return functional.center_crop(resized, list(self.image_size)).contiguous()

    def to_tensor(self, picture: "Image") -> Float[Tensor, "c H W"]:
        """What the model sees of a picture of `open_picture`, without augmentation: resized, cut and normalised.

        Raises:
            ValueError: a size that does not fit, with resize="none".
        """
        return self.normalise(to_float(self.pixels(picture)))

    def normalise(self, images: Float[Tensor, "*b c H W"]) -> Float[Tensor, "*b c H W"]:
        """(images - mean) / std, channel by channel, for images in [0, 1]."""
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return normalise(images, mean, std)

    def denormalise(self, images: Float[Tensor, "*b c H W"]) -> Float[Tensor, "*b c H W"]:
        """Back to [0, 1], to draw what a model saw."""
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)

    def _covering(self, height: int, width: int) -> list[int]:
        """Size, in the proportions of (height, width), that just covers the crop divided by `fraction`."""
        wanted_height, wanted_width = (math.floor(side / self.fraction) for side in self.image_size)
        if height * wanted_width <= width * wanted_height:
            return [wanted_height, wanted_height * width // height]
        return [wanted_width * height // width, wanted_width]


def to_bytes(picture: "Image", channels: int) -> UInt8[Tensor, "c h w"]:
    """A picture as a tensor of bytes, grey or RGB as asked for, in its own size."""
    from torchvision.transforms.v2 import functional

    return functional.pil_to_tensor(picture.convert("L" if channels == 1 else "RGB"))


def to_float(images: Tensor) -> Float[Tensor, "..."]:
    """Bytes as floats in [0, 1]; floats as they are. The arithmetic of torchvision's ToDtype(scale=True)."""
    return images.float().mul_(1 / 255) if images.dtype == torch.uint8 else images


def normalise(
    images: Float[Tensor, "*b c H W"], mean: Float[Tensor, "c 1 1"], std: Float[Tensor, "c 1 1"]
) -> Float[Tensor, "*b c H W"]:
    """(images - mean) / std."""
    return (images - mean) / std


def _shortened(image: UInt8[Tensor, "c h w"], size: tuple[int, int]) -> UInt8[Tensor, "c _ _"]:
    from torchvision.transforms.v2 import functional

    height, width = image.shape[1:]
    longest = [_LONGEST * -(-width * size[0] // size[1]), _LONGEST * -(-height * size[1] // size[0])]
    if height <= longest[0] and width <= longest[1]:
        return image
    return functional.center_crop(image, [min(height, longest[0]), min(width, longest[1])])


def _finite(values: tuple[float, ...]) -> bool:
    return all(math.isfinite(value) for value in values)
