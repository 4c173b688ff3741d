import pytest
import torch
from torch.testing import assert_close

from vitscratch.data import Augmentation, Chain, Cutout, RandomAffine, RandomCropFlip

NONE = {"degrees": 0.0, "shift": 0.0, "scale": 0.0}


def affine(images: torch.Tensor, **limits: float) -> torch.Tensor:
    return RandomAffine(**{**NONE, **limits})(images, torch.rand(len(images), 5))


def test_no_limits_change_nothing() -> None:
    images = torch.rand(3, 2, 7, 11)
    assert_close(affine(images), images)


def centroid(image: torch.Tensor) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(image.shape[0]), torch.arange(image.shape[1]), indexing="ij")
    return torch.stack([(image * rows).sum(), (image * columns).sum()]) / image.sum()


def test_shift_is_in_pixels_and_each_picture_gets_its_own() -> None:
    images = torch.zeros(200, 1, 21, 31)
    images[:, :, 9:12, 14:17] = 1.0
    moved = torch.stack([centroid(image[0]) for image in affine(images, shift=2.0)]) - torch.tensor([10.0, 15.0])
    assert moved.abs().max() <= 2.0 + 1e-3
    assert (moved.abs().max(dim=0).values > 1.8).all()
    assert moved.mean(dim=0).abs().max() < 0.3 and len(moved.unique(dim=0)) > 190


def test_turn_is_a_turn_in_pixels_also_when_the_picture_is_not_square() -> None:
    images = torch.zeros(100, 1, 41, 81)
    images[:, :, 20, 40 + 15] = 1.0  # a dot 15 pixels right of the centre
    moved = torch.stack([centroid(image[0]) for image in affine(images, degrees=30.0)]) - torch.tensor([20.0, 40.0])
    assert_close(moved.norm(dim=1), torch.full((100,), 15.0), rtol=0, atol=0.3)
    angles = torch.rad2deg(torch.atan2(moved[:, 0], moved[:, 1]))
    assert 27 < angles.abs().max() <= 31


def test_scale_changes_distances_by_its_fraction() -> None:
    images = torch.zeros(100, 1, 41, 41)
    images[:, :, 20, 20 + 15] = 1.0
    distances = torch.stack([centroid(image[0])[1] - 20 for image in affine(images, scale=0.2)]) / 15
    assert 0.79 < distances.min() < 0.82 and 1.18 < distances.max() < 1.21


def test_shear_moves_rows_and_not_the_middle_one() -> None:
    images = torch.zeros(100, 1, 41, 41)
    images[:, :, 5, 20] = images[:, :, 20, 20] = 1.0
    sheared = affine(images, shear=0.3)
    offset = torch.stack([centroid(image[0, :12])[1] - 20 for image in sheared])
    assert 0.25 * 15 < offset.abs().max() <= 0.31 * 15
    assert_close(sheared[:, 0, 20, 20], torch.ones(100), rtol=0, atol=0.05)


@pytest.mark.parametrize(("fill", "mode"), [("reflect", "reflect"), ("zero", "constant")])
def test_crop_and_flip_is_pad_then_cut_then_mirror(fill: str, mode: str) -> None:
    images, uniform = torch.rand(101, 2, 7, 11), torch.rand(101, 3)
    done = RandomCropFlip(3, 0.5, fill)(images, uniform)
    padded = torch.nn.functional.pad(images, (3, 3, 3, 3), mode=mode)
    for i, (down, right, flip) in enumerate(uniform.tolist()):
        top, left = int(7 * down), int(7 * right)
        expected = padded[i, :, top : top + 7, left : left + 11]
        assert_close(done[i], expected.flip(2) if flip < 0.5 else expected, rtol=0, atol=0)


def test_every_crop_is_drawn_equally_often_and_the_ends_too() -> None:
    images = torch.arange(5.0).expand(1, 1, 5, 5) + 1
    uniform = torch.stack([torch.arange(500) / 500, torch.arange(500).flip(0) / 500, torch.ones(500) * 0.9], dim=1)
    moved = RandomCropFlip(2, 0.5, "zero")(images.expand(500, 1, 5, 5), uniform)
    middle = moved[:, 0, 2, 2]  # column 2, so 3, moved by -2 to 2
    assert middle.unique(return_counts=True)[1].tolist() == [100] * 5 and middle.min() == 1 and middle.max() == 5
    last = torch.tensor([[1 - 2**-24, 1 - 2**-24, 0.9]])  # the largest float32 below 1
    assert RandomCropFlip(2, 0.5, "zero")(images, last)[0, 0, 0, 0] == 3


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_flip_of_0_never_and_of_1_always_mirrors(flip: float) -> None:
    images = torch.rand(29, 1, 3, 5)
    expected = images.flip(3) if flip else images
    assert_close(RandomCropFlip(0, flip)(images, torch.rand(29, 3)), expected, rtol=0, atol=0)


def test_cutout_covers_a_square_with_the_mean_colour() -> None:
    images = torch.rand(97, 2, 11, 13)
    mean = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    done = Cutout(4)(images, torch.rand(97, 2))
    covered = (done == mean).all(dim=1)
    assert_close(torch.where(covered[:, None], mean, images), done, rtol=0, atol=0)
    areas = covered.sum(dim=(1, 2))
    assert areas.max() == 16 and areas.min() < 16  # some stick out
    rows, columns = covered.any(dim=2).sum(dim=1), covered.any(dim=1).sum(dim=1)
    assert_close(areas, rows * columns)
    assert covered.any(dim=0).all()  # every pixel is covered in some


def test_a_chain_gives_each_its_own_numbers() -> None:
    crop, cut = RandomCropFlip(2), Cutout(3)
    chain = Chain(crop, RandomAffine(5.0, 1.0, 0.1), cut)
    assert chain.draws == 3 + 5 + 2
    images, uniform = torch.rand(7, 3, 11, 13), torch.rand(7, 10)
    expected = cut(RandomAffine(5.0, 1.0, 0.1)(crop(images, uniform[:, :3]), uniform[:, 3:8]), uniform[:, 8:])
    assert_close(chain(images, uniform), expected, rtol=0, atol=0)
    assert_close(Chain()(images, uniform[:, :0]), images, rtol=0, atol=0)
    assert repr(Chain(cut)) == "Chain(Cutout(size=3))"


@pytest.mark.parametrize("augment", [RandomAffine(20.0, 2.0, 0.2, 0.1), RandomCropFlip(3), Cutout(5)], ids=repr)
def test_an_augmentation_is_a_pure_function_of_each_row(augment: Augmentation) -> None:
    assert isinstance(augment, Augmentation)
    images, uniform = torch.rand(17, 3, 13, 11), torch.rand(17, augment.draws)
    before, state = images.clone(), torch.get_rng_state()
    done = augment(images, uniform)
    assert_close(images, before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    rows = [16, 3, 5]
    assert_close(augment(images[rows], uniform[rows]), done[rows], rtol=0, atol=0)
    assert not torch.equal(done, images)


def test_what_cannot_be_is_refused() -> None:
    for arguments in ((-1,), (2, 1.5), (2, 0.5, "wrap")):
        with pytest.raises(Exception, match=r"RandomCropFlip|Type-check"):
            RandomCropFlip(*arguments)
    with pytest.raises(ValueError, match=r"padding 5 px reflects a picture of 5 x 9 px more than once"):
        RandomCropFlip(5)(torch.rand(1, 1, 5, 9), torch.rand(1, 3))
    assert RandomCropFlip(5, 0.5, "zero")(torch.rand(1, 1, 5, 9), torch.rand(1, 3)).shape == (1, 1, 5, 9)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        Cutout(0)
