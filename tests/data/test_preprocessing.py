import json

import pytest
import torch
from torch.testing import assert_close
from torchvision.transforms import v2

from tests.data.make import picture
from vitscratch.data import Preprocessing

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def reference(resize: list[v2.Transform]) -> v2.Compose:
    return v2.Compose([v2.ToImage(), *resize, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


@pytest.mark.parametrize("size", [(37, 53), (53, 37), (41, 41), (300, 19)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_crop_is_torchvisions_resize_and_center_crop(size: tuple[int, int], interpolation: str) -> None:
    prepare = Preprocessing((28, 28), 3, MEAN, STD, interpolation=interpolation, fraction=0.875)
    mode = v2.InterpolationMode(interpolation)
    expected = reference([v2.Resize(32, mode, antialias=True), v2.CenterCrop(28)])(picture(0, size))
    assert_close(prepare.to_tensor(picture(0, size)), torch.Tensor(expected), rtol=0, atol=0)


def test_squash_is_torchvisions_resize() -> None:
    prepare = Preprocessing((17, 29), 3, MEAN, STD, resize="squash")
    expected = reference([v2.Resize((17, 29), antialias=True)])(picture(0, (41, 23)))
    assert_close(prepare.to_tensor(picture(0, (41, 23))), torch.Tensor(expected), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(19, 300), (300, 19), (2, 5), (64, 40)])
def test_a_crop_that_is_not_square_is_covered_and_keeps_proportions(size: tuple[int, int]) -> None:
    prepare = Preprocessing((17, 29), 1)
    assert prepare.to_tensor(picture(0, size)).shape == (1, 17, 29)
    gradient = picture(0, (64, 40))
    gradient.paste((0, 0, 0), (0, 0, 64, 40))
    gradient.paste((255, 255, 255), (22, 10, 42, 30))  # a square of 20 in the middle
    shown = prepare.pixels(gradient)[0] > 127
    height, width = shown.any(dim=1).sum(), shown.any(dim=0).sum()
    assert abs(int(height) - int(width)) <= 1 and abs(int(height) - 20 * 29 / 64) <= 1


def test_none_wants_the_size_and_changes_no_pixel() -> None:
    prepare = Preprocessing((11, 13), 3, resize="none")
    image = picture(0)
    assert_close(prepare.pixels(image), v2.functional.pil_to_tensor(image), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"picture of 13 x 11 px, where 11 x 13 is wanted; resize='crop' or"):
        prepare.pixels(image.transpose(2))


def test_a_very_long_picture_needs_no_memory() -> None:
    assert Preprocessing((64, 64), 3).pixels(picture(0, (60_000, 1))).shape == (3, 64, 64)


def test_there_and_back() -> None:
    prepare = Preprocessing((11, 13), 3, MEAN, STD)
    image = picture(0)
    assert_close(prepare.denormalise(prepare.to_tensor(image)) * 255, prepare.pixels(image).float(), rtol=0, atol=1e-3)
    again = Preprocessing.from_dict(json.loads(json.dumps(prepare.to_dict())))
    assert again == prepare
    assert Preprocessing((3, 5), 3, (0.5,), (0.25,)).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 2}, "channels is 2; expected 1 or 3"),
        ({"image_size": [0, 4]}, r"image_size is \(0, 4\)"),
        ({"std": [0.5, 0.0, 0.5]}, "std is"),
        ({"mean": [0.5, 0.5]}, r"mean is \(0.5, 0.5\); expected 3 numbers"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean is"),
        ({"mean": None}, "preprocessing"),
        ({"mean": ["a", "b", "c"]}, "could not convert|preprocessing"),
        ({"image_size": 4}, "preprocessing"),
        ({"fraction": 0.0}, r"fraction is 0.0; expected a number in \(0, 1\]"),
        ({"extra": 1}, "expected exactly the fields"),
    ],
)
def test_saved_nonsense_is_refused(change: dict, message: str) -> None:
    saved = {**Preprocessing((11, 13), 3, MEAN, STD).to_dict(), **change}
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_dict(saved)


@pytest.mark.parametrize("field", ["resize", "interpolation"])
def test_saved_words_are_checked(field: str) -> None:
    with pytest.raises(Exception, match=r"expected|Type-check"):
        Preprocessing.from_dict({**Preprocessing((11, 13), 3).to_dict(), field: "wild"})
