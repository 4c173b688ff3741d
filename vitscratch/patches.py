"""A picture becomes a sequence of patches, and every patch a token: the first half of Eq. 1."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

Size = int | tuple[int, int]


def pair(size: Size) -> tuple[int, int]:
    """(height, width) in pixels of a size that may be given as one number; ValueError if it is no size."""
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or any(side != int(side) or side < 1 for side in sides):
        raise ValueError(f"size {size!r} is no size in pixels; expected a whole number from 1 on, or (height, width)")
    return int(sides[0]), int(sides[1])


def patchify(images: Float[Tensor, "b c H W"], patch_size: Size) -> Float[Tensor, "b n d"]:
    """Cut pictures into patches, read row by row, each flattened as (channel, row, column).

    The paper flattens pixel first, (row, column, channel); channel first is the order of a
    convolution's weight, so that `PatchEmbedding` and pretrained checkpoints agree with it.

    Args:
        images: (b, c, H, W), H and W multiples of the patch's sides.
        patch_size: sides of a patch in pixels, one number or (height, width).

    Returns:
        (b, n, c * height * width) with n = (H / height) * (W / width).

    Raises:
        ValueError: a side of the picture is not a multiple of the patch's.
    """
    height, width = pair(patch_size)
    if images.ndim != 4:
        raise ValueError(f"images of shape {tuple(images.shape)}; expected (batch, channels, height, width)")
    _grid(images.shape[2:], (height, width))
    return rearrange(images, "b c (rows p) (columns q) -> b (rows columns) (c p q)", p=height, q=width)


def unpatchify(patches: Float[Tensor, "b n d"], image_size: Size, patch_size: Size) -> Float[Tensor, "b c H W"]:
    """Put patches back together: the inverse of `patchify`.

    Args:
        patches: (b, n, c * height * width) as `patchify` returns them.
        image_size, patch_size: sides in pixels, one number or (height, width).

    Raises:
        ValueError: the number of patches or their length does not fit the sizes.
    """
    height, width = pair(patch_size)
    rows, columns = _grid(pair(image_size), (height, width))
    if patches.shape[1] != rows * columns or patches.shape[2] % (height * width):
        raise ValueError(
            f"patches of shape {tuple(patches.shape)} do not make a picture of {pair(image_size)} px; expected "
            f"(batch, {rows * columns}, channels * {height * width}) for patches of {height} x {width} px"
        )
    return rearrange(patches, "b (rows columns) (c p q) -> b c (rows p) (columns q)", rows=rows, p=height, q=width)


def embed_patches(
    images: Float[Tensor, "b c H W"], weight: Float[Tensor, "d c p q"], bias: Float[Tensor, " d"]
) -> Float[Tensor, "b n d"]:
    """The patch embedding as the paper writes it: x_p E + b, one linear map of every patch (Eq. 1).

    `PatchEmbedding` computes the same numbers as a strided convolution, which is the faster form for B/16
    (`vitscratch bench patch-embedding`). A test holds the two equal, in values and gradients.
    """
    return F.linear(patchify(images, (weight.shape[2], weight.shape[3])), weight.flatten(1), bias)


class PatchEmbedding(nn.Module):
    """Map every patch of a picture to a token with one and the same linear layer (Eq. 1).

    A convolution whose stride is its kernel size visits each patch once and multiplies it with one
    matrix: it is that linear layer. `embed_patches` is the same in the paper's words.

    Args:
        image_size, patch_size: sides in pixels, one number or (height, width).
        in_channels: channels of a picture (1 grey, 3 colour, or any other).
        embed_dim: width of a token (D).

    Shape:
        (b, c, H, W) -> (b, n, d), patches row by row.

    Raises:
        ValueError: a side of the picture is not a multiple of the patch's, or a batch has another shape.
    """

    def __init__(self, image_size: Size, patch_size: Size, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.image_size, self.patch_size, self.in_channels = pair(image_size), pair(patch_size), in_channels
        self.grid_size = _grid(self.image_size, self.patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=self.patch_size, stride=self.patch_size)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n d"]:
        expected = (self.in_channels, *self.image_size)
        if images.shape[1:] != expected:
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not fit: expected (batch, channels, height, width) "
                f"= (b, {', '.join(map(str, expected))}); resize the pictures or build the model for their size; "
                "one picture alone is images[None]"
            )
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}; expected floating point: images.float() / 255, normalised")
        return rearrange(self.proj(images), "b d rows columns -> b (rows columns) d")


def _grid(image_size: tuple[int, ...], patch_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches; ValueError that names the nearest sizes if they do not come out even."""
    for image, patch in zip(image_size, patch_size, strict=True):
        if image < patch or image % patch:
            lower = image // patch * patch
            nearest = f"{lower} or {lower + patch}" if lower else f"{patch}"
            raise ValueError(f"image {image} px is not a multiple of patch {patch} px; nearest: {nearest}")
    return image_size[0] // patch_size[0], image_size[1] // patch_size[1]
