"""Other grids and other channels: equal to the libraries whose rules these are."""

from collections import OrderedDict

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from torch.testing import assert_close
from torchvision.models.vision_transformer import interpolate_embeddings

from vitscratch.weights.resize import adapt_channels, resize_position_embedding

GRIDS = [(1, 1), (2, 3), (3, 2), (5, 5), (7, 4), (13, 17)]


@pytest.mark.parametrize("old", GRIDS)
@pytest.mark.parametrize("new", GRIDS)
def test_timm_defines_the_values(old: tuple[int, int], new: tuple[int, int]) -> None:
    positions = torch.randn(1, 1 + old[0] * old[1], 11)
    resized = resize_position_embedding(positions, old, new)
    assert_close(resized, resample_abs_pos_embed(positions, list(new), list(old)), rtol=0, atol=0)
    assert resized[:, 0].equal(positions[:, 0])


@pytest.mark.parametrize("old", [1, 2, 5, 7])
@pytest.mark.parametrize("new", [1, 2, 3, 7, 12])
def test_torchvision_defines_the_values(old: int, new: int) -> None:
    positions = torch.randn(1, 1 + old * old, 11)
    theirs = interpolate_embeddings(3 * new, 3, OrderedDict({"encoder.pos_embedding": positions.clone()}))
    resized = resize_position_embedding(positions, (old, old), (new, new), "torchvision")
    assert_close(resized, theirs["encoder.pos_embedding"], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["timm", "torchvision"])
def test_the_class_token_and_the_same_grid_are_untouched(method: str, dtype: torch.dtype) -> None:
    positions = torch.randn(1, 1 + 5 * 7, 11).to(dtype)
    assert resize_position_embedding(positions, (5, 7), (5, 7), method) is positions
    resized = resize_position_embedding(positions, (5, 7), (7, 5), method)  # as many patches, in another shape
    assert resized.dtype == dtype and resized[:, 0].equal(positions[:, 0])
    assert not resized[:, 1:].equal(positions[:, 1:])


@pytest.mark.parametrize("method", ["timm", "torchvision"])
def test_rows_and_columns_are_not_exchanged(method: str) -> None:
    """Positions that tell their own place: the first feature grows along the rows alone, the second along columns."""
    row, column = torch.meshgrid(torch.linspace(0, 1, 6), torch.linspace(0, 1, 4), indexing="ij")
    positions = torch.cat([torch.zeros(1, 1, 2), torch.stack([row, column], dim=-1).reshape(1, 24, 2)], dim=1)
    resized = resize_position_embedding(positions, (6, 4), (11, 9), method)[0, 1:].reshape(11, 9, 2)
    assert_close(resized[..., 0], resized[:, :1, 0].expand(11, 9))
    assert_close(resized[..., 1], resized[:1, :, 1].expand(11, 9))
    assert (resized[:, 0, 0].diff() > 0).all() and (resized[0, :, 1].diff() > 0).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_channels_are_adapted_as_timm_does(channels: int, dtype: torch.dtype) -> None:
    weight = torch.randn(11, 3, 5, 2).to(dtype)
    adapted = adapt_channels(weight, channels)
    assert_close(adapted, adapt_input_conv(channels, weight.clone()), rtol=0, atol=0)
    assert (adapted is weight) == (channels == 3)


def test_a_grey_picture_gives_the_same_tokens_as_its_copies() -> None:
    weight, grey = torch.randn(11, 3, 5, 2, dtype=torch.float64), torch.randn(2, 1, 5, 2, dtype=torch.float64)
    tokens = torch.nn.functional.conv2d(grey.expand(2, 3, 5, 2), weight)
    assert_close(torch.nn.functional.conv2d(grey, adapt_channels(weight, 1)), tokens, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resize_position_embedding(torch.zeros(1, 6, 3), (2, 3), (4, 4)), "has 6 rows; expected 7: the class"),
        (lambda: resize_position_embedding(torch.zeros(1, 7, 3), (2, 3), (0, 4)), "grid of 0 x 4 patches; expected"),
        (lambda: adapt_channels(torch.zeros(5, 3, 2, 2), 0), "in_channels 0: expected at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
