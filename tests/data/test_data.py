import pytest
import torch
from torch.testing import assert_close

from vitscratch.data import RandomAffine, TensorBatches, class_counts, digits, stratified_split


def test_digits_are_the_1797_scans() -> None:
    pictures = digits()
    assert pictures.images.shape == (1797, 1, 8, 8) and pictures.labels.shape == (1797,)
    assert pictures.images.min() == 0.0 and pictures.images.max() == 1.0
    assert pictures.class_names == tuple("0123456789")
    assert sum(class_counts(pictures.labels, pictures.class_names).values()) == 1797


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_split_is_stratified_complete_and_disjoint(seed: int) -> None:
    labels = digits().labels
    train, test = stratified_split(labels, 0.2, seed)
    assert (len(train), len(test)) == (1437, 360)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(1797))
    for label in range(10):
        assert abs((labels[test] == label).sum() - 0.2 * (labels == label).sum()) < 1
    assert_close(stratified_split(labels, 0.2, seed), (train, test))


def test_split_is_not_in_order_and_follows_the_seed() -> None:
    labels = torch.arange(100) // 50  # sorted by class, as image folders are: the article's one-class test set
    _, test = stratified_split(labels, 0.1, 0)
    assert labels[test].unique().tolist() == [0, 1]
    assert stratified_split(labels, 0.1, 1)[1].tolist() != test.tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 3.0])
def test_split_refuses_a_fraction_that_is_none(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"test_fraction .* is outside \(0, 1\)"):
        stratified_split(torch.arange(20) % 2, fraction, 0)


def test_split_refuses_to_leave_a_class_out() -> None:
    with pytest.raises(ValueError, match=r"classes \[7\] have a single picture"):
        stratified_split(torch.tensor([0, 0, 0, 1, 1, 1, 7]), 0.5, 0)
    rare = torch.tensor([0] * 50 + [1] * 50 + [2] * 2)
    with pytest.raises(ValueError, match=r"classes \[2\] have too few pictures to be in the second part"):
        stratified_split(rare, 0.05, 0)


def test_class_counts_shows_empty_classes() -> None:
    assert class_counts(torch.tensor([2, 0, 2]), ["cat", "dog", "eel"]) == {"cat": 1, "dog": 0, "eel": 2}


@pytest.mark.parametrize("batch_size", [1, 4, 7, 50])
@pytest.mark.parametrize("seed", [None, 3])
def test_every_picture_comes_once_in_every_epoch(batch_size: int, seed: int | None) -> None:
    images, labels = torch.arange(23.0).reshape(23, 1, 1, 1), torch.arange(23)
    batches = TensorBatches(images, labels, batch_size, seed=seed)
    for _ in range(2):
        epoch = list(batches)
        assert len(epoch) == len(batches) and all(len(x) == batch_size for x, _ in epoch[:-1])
        for x, y in epoch:
            assert_close(x.flatten().long(), y)
        assert sorted(torch.cat([y for _, y in epoch]).tolist()) == list(range(23))


def test_order_changes_from_epoch_to_epoch_and_repeats_for_a_seed() -> None:
    def orders(seed: int | None) -> list[list[int]]:
        batches = TensorBatches(torch.zeros(23, 1, 1, 1), torch.arange(23), 5, seed=seed)
        return [torch.cat([y for _, y in batches]).tolist() for _ in range(2)]

    first, second = orders(1)
    assert first != second and orders(1) == [first, second] and orders(2) != [first, second]
    assert orders(None) == [list(range(23))] * 2


def test_batches_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="3 images, 4 labels, batch_size 2"):
        TensorBatches(torch.zeros(3, 1, 1, 1), torch.zeros(4), 2)
    with pytest.raises(ValueError, match="batches of at least 1"):
        TensorBatches(torch.zeros(3, 1, 1, 1), torch.zeros(3), 0)


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
