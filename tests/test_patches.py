import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vitscratch import PatchEmbedding, embed_patches, patchify, unpatchify


def test_patchify_reads_row_by_row_and_flattens_channel_row_column() -> None:
    images = torch.arange(2 * 3 * 6 * 10, dtype=torch.float64).reshape(2, 3, 6, 10)
    patches = patchify(images, (2, 5))
    assert patches.shape == (2, 3 * 2, 3 * 2 * 5)
    for row in range(3):
        for column in range(2):
            expected = images[:, :, 2 * row : 2 * row + 2, 5 * column : 5 * column + 5].flatten(1)
            assert_close(patches[:, 2 * row + column], expected, rtol=0, atol=0)


@pytest.mark.parametrize(("image", "patch"), [((6, 10), (2, 5)), ((14, 33), (7, 11)), (15, 5), (8, 1), (4, 4)])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_unpatchify_is_the_inverse_both_ways(image: object, patch: object, channels: int) -> None:
    height, width = image if isinstance(image, tuple) else (image, image)
    images = torch.randn(2, channels, height, width)
    patches = patchify(images, patch)
    assert_close(unpatchify(patches, image, patch), images, rtol=0, atol=0)
    other = torch.randn_like(patches)
    assert_close(patchify(unpatchify(other, image, patch), patch), other, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("image", "patch", "channels"), [((14, 33), (7, 11), 5), (15, 5, 3), ((4, 6), 2, 1)])
def test_linear_map_and_convolution_agree_in_values_and_gradients(
    dtype: torch.dtype, image: object, patch: object, channels: int
) -> None:
    layer = PatchEmbedding(image, patch, channels, 13).to(dtype)
    images = torch.randn(2, channels, *layer.image_size).to(dtype).requires_grad_()
    parameters = (layer.proj.weight, layer.proj.bias)
    forms = [layer(images), embed_patches(images, *parameters)]
    assert forms[0].shape == (2, layer.num_patches, 13)
    direction = torch.randn(forms[0].shape).to(dtype)
    gradients = [torch.autograd.grad((form * direction).sum(), (images, *parameters)) for form in forms]
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.1}[dtype]
    assert_close(forms[0], forms[1], rtol=tolerance, atol=tolerance)
    for convolution, linear in zip(*gradients, strict=True):
        assert_close(convolution, linear, rtol=tolerance, atol=tolerance)


def test_changing_one_patch_changes_one_token() -> None:
    layer = PatchEmbedding((6, 15), (2, 5), 3, 7)
    images = torch.randn(1, 3, 6, 15)
    changed = images.clone()
    changed[:, :, 2:4, 10:15] += 1.0  # row 1, column 2
    differs = (layer(images) != layer(changed)).any(dim=2)[0]
    assert differs.nonzero().flatten().tolist() == [1 * 3 + 2]


def test_same_as_an_independent_convolution() -> None:
    layer, reference = PatchEmbedding((6, 10), (2, 5), 3, 7), nn.Conv2d(3, 7, (2, 5), stride=(2, 5))
    reference.load_state_dict(layer.proj.state_dict())
    images = torch.randn(2, 3, 6, 10)
    assert_close(layer(images), reference(images).flatten(2).transpose(1, 2))


@pytest.mark.parametrize(
    ("image", "patch", "message"),
    [
        (225, 16, "image 225 px is not a multiple of patch 16 px; nearest: 224 or 240"),
        ((224, 30), 16, "image 30 px is not a multiple of patch 16 px; nearest: 16 or 32"),
        (10, 16, "image 10 px is not a multiple of patch 16 px; nearest: 16"),
        (8, 16, "image 8 px is not a multiple of patch 16 px; nearest: 16$"),
    ],
)
def test_sizes_that_do_not_fit_are_named_with_the_nearest_that_do(image: object, patch: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchEmbedding(image, patch, 3, 8)


def test_patchify_refuses_a_remainder() -> None:
    with pytest.raises(ValueError, match="image 9 px is not a multiple of patch 2 px; nearest: 8 or 10"):
        patchify(torch.zeros(1, 3, 8, 9), 2)


@pytest.mark.parametrize("shape", [(1, 5, 12), (1, 6, 13)])
def test_unpatchify_refuses_patches_that_make_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(batch, 6, channels \* 4\) for patches of 2 x 2 px"):
        unpatchify(torch.zeros(shape), (4, 6), 2)


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (1, 1, 8, 8), (1, 3, 16, 16)])
def test_embedding_refuses_pictures_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"do not fit: expected .* = \(b, 3, 8, 8\)"):
        PatchEmbedding(8, 2, 3, 5)(torch.zeros(shape))
