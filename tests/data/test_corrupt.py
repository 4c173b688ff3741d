"""Damaged pictures: the right damage, the same shape, and the same again from the same seed."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from vitscratch.data import CORRUPTIONS
from vitscratch.data.corrupt import blurred, halved, jpeg, noisy


def smooth(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Pictures with slopes, as photographs have; of pure noise JPEG leaves nothing."""
    rows = torch.linspace(0, 3, height)[:, None]
    columns = torch.linspace(0, 5, width)[None, :]
    phases = torch.rand(count, channels, 1, 1) * 6
    return (127.5 + 120 * torch.sin(rows + phases) * torch.cos(columns + 2 * phases)).byte()


def error(damaged: torch.Tensor, images: torch.Tensor) -> float:
    return float((damaged.float() - images.float()).square().mean().sqrt())


def test_corruptions_have_their_names_and_order() -> None:
    assert list(CORRUPTIONS) == ["JPEG 95", "JPEG 75", "JPEG 50", "half size", "blur", "noise"]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (11, 17), (37, 9)])
def test_corruptions_keep_shape_and_type_and_leave_their_input_alone(
    name: str, channels: int, height: int, width: int
) -> None:
    images = torch.randint(256, (3, channels, height, width), dtype=torch.uint8)
    before = images.clone()
    damaged = CORRUPTIONS[name](images, torch.Generator().manual_seed(5))
    assert damaged.shape == images.shape and damaged.dtype == torch.uint8
    torch.testing.assert_close(images, before, rtol=0, atol=0)
    assert error(damaged, images) > 0
    assert CORRUPTIONS[name](images[:0], torch.Generator()).shape == (0, channels, height, width)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_damage_every_picture_in_its_own_place(name: str) -> None:
    """Picture by picture is the same as together: the size of a batch changes nothing."""
    images = smooth(5, 3, 13, 19)
    together = CORRUPTIONS[name](images, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    parts = [CORRUPTIONS[name](part, generator) for part in images.split(2)]
    torch.testing.assert_close(torch.cat(parts), together, rtol=0, atol=0)
    assert error(together, images) < error(together, images.roll(1, dims=0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [95, 75, 50])
def test_jpeg_is_what_pillow_writes_and_reads(channels: int, quality: int) -> None:
    images = smooth(2, channels, 21, 35)
    for image, saved in zip(images, jpeg(images, quality), strict=True):
        file = BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy().squeeze()).save(file, "JPEG", quality=quality, subsampling=2)
        expected = torch.from_numpy(np.array(Image.open(file))).reshape(21, 35, channels).permute(2, 0, 1)
        torch.testing.assert_close(saved, expected, rtol=0, atol=0)


def test_jpeg_of_lower_quality_loses_more_and_detail_is_lost_first() -> None:
    noise = torch.randint(256, (2, 3, 32, 40), dtype=torch.uint8)
    errors = [error(jpeg(noise, quality), noise) for quality in (95, 75, 50)]
    assert errors == sorted(errors)
    slopes = smooth(2, 1, 32, 40)
    assert error(jpeg(slopes, 50), slopes) < errors[0] / 3


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_jpeg_refuses_a_quality_that_is_none(quality: int) -> None:
    with pytest.raises(ValueError, match=f"JPEG quality {quality}; expected 1 .* to 100"):
        jpeg(smooth(1, 1, 8, 8), quality)


def test_halved_keeps_slopes_and_loses_what_alternates() -> None:
    columns = torch.arange(16).remainder(2).mul(200).byte().expand(1, 1, 10, 16)
    assert error(halved(columns)[..., 4:-4], torch.full((1, 1, 10, 8), 100)) < 2
    slope = torch.arange(24).mul(10).byte().expand(1, 1, 10, 24)
    assert error(halved(slope)[..., 4:-4], slope[..., 4:-4]) < 1.5
    flat = torch.full((2, 3, 9, 11), 255, dtype=torch.uint8)
    torch.testing.assert_close(halved(flat), flat, rtol=0, atol=0)


@pytest.mark.parametrize(("height", "width"), [(18, 26), (19, 27)])
def test_halved_is_what_pillow_does(height: int, width: int) -> None:
    image = smooth(1, 1, height, width)
    picture = Image.fromarray(image[0, 0].float().numpy())  # floats, for Pillow rounds bytes after rows, then columns
    small = picture.resize((width // 2, height // 2), Image.Resampling.BILINEAR)
    small = Image.fromarray(np.array(small).round())
    expected = torch.from_numpy(np.array(small.resize((width, height), Image.Resampling.BILINEAR)))
    assert (halved(image)[0, 0].float() - expected).abs().max() <= 0.501  # rounded to bytes


def test_blurred_is_a_gaussian_of_one_pixel() -> None:
    images = torch.randint(256, (2, 3, 11, 14), dtype=torch.uint8)
    expected = gaussian_filter(images.double().numpy(), sigma=(0, 0, 1, 1), mode="mirror", truncate=3.0)
    assert (blurred(images).double() - torch.from_numpy(expected)).abs().max() <= 0.51  # rounded to bytes


def test_noise_has_its_size_no_pattern_and_stays_in_range() -> None:
    grey = torch.full((7, 3, 41, 43), 128, dtype=torch.uint8)
    noise = noisy(grey, torch.Generator().manual_seed(1)).float() - 128
    assert abs(float(noise.mean())) < 0.2 and float(noise.std()) == pytest.approx(10, abs=0.2)
    correlations = torch.corrcoef(noise.flatten(1))
    assert (correlations - torch.eye(7)).abs().max() < 0.1  # not the same noise on every picture
    for end in (0, 255):  # nothing goes round from 0 to 255
        damaged = noisy(torch.full_like(grey, end), torch.Generator().manual_seed(1))
        assert (damaged.float() - end).abs().max() < 60


def test_noise_is_seeded_and_goes_on() -> None:
    images, generator = smooth(3, 1, 9, 13), torch.Generator().manual_seed(3)
    first, second = noisy(images, generator), noisy(images, generator)
    assert error(first, second) > 5
    torch.testing.assert_close(noisy(images, torch.Generator().manual_seed(3)), first, rtol=0, atol=0)


@pytest.mark.parametrize("damage", [*CORRUPTIONS.values()], ids=[*CORRUPTIONS])
@pytest.mark.parametrize(("shape"), [(2, 2, 8, 8), (2, 3, 7, 8), (2, 1, 8, 7)])
def test_corruptions_refuse_other_pictures(damage: object, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images of shape \(2, .*expected \(batch, 1 or 3 channels, height, width\)"):
        damage(torch.zeros(shape, dtype=torch.uint8), torch.Generator())  # type: ignore[operator]
