"""Fakes: from the training part alone, as many as scans, on their grid, and no easy prey for a linear model."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.testing import assert_close

from vitscratch.data import Pictures, digits, load_splits, real_or_fake
from vitscratch.data.real_or_fake import CLASSES, real_and_fake

FAKE, REAL = 0, 1
SIZES = {"seed": 0, "validation_fraction": 0.2, "test_fraction": 0.2}


def load(**changes: float):
    return load_splits("fake-digits", **(SIZES | changes))


def of(part: Pictures, label: int) -> torch.Tensor:
    return part.images[part.labels == label].flatten(1)


def rows(images: torch.Tensor) -> set[tuple[float, ...]]:
    return set(map(tuple, images.tolist()))


def test_each_part_has_as_many_fakes_as_scans_and_every_scan_is_in_one() -> None:
    splits = load()
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    assert splits.class_names == CLASSES == ("FAKE", "REAL")
    assert {name: len(part) for name, part in parts.items()} == {"train": 2154, "validation": 720, "test": 720}
    for part in parts.values():
        assert len(of(part, FAKE)) == len(of(part, REAL)) == len(part) // 2
    scans, all_scans = [rows(of(part, REAL)) for part in parts.values()], rows(digits().images.flatten(1))
    assert set.union(*scans) == all_scans and sum(map(len, scans)) == len(all_scans)
    fakes = set.union(*(rows(of(part, FAKE)) for part in parts.values()))
    assert len(fakes) == 1797 and not fakes & all_scans  # no two alike, and none is a copy
    assert splits.summary["how"].startswith("real pictures divided") and splits.summary["counts"]["test"]["FAKE"] == 360


def test_the_scans_are_divided_as_those_of_the_set_digits() -> None:
    for changes in ({"seed": 3}, {"validation_fraction": 0.3, "test_fraction": 0.1}):
        mine, plain = load(**changes), load_splits("digits", **(SIZES | changes))
        for name in ("train", "validation", "test"):
            assert_close(of(getattr(mine, name), REAL), getattr(plain, name).images.flatten(1), rtol=0, atol=0)


def test_held_out_scans_have_no_say_in_the_fakes() -> None:
    """Other held-out scans, the same fakes; another training part, other fakes."""
    scans = digits()
    plain = load_splits("digits", **SIZES)
    held_out = rows(torch.cat([plain.validation.images, plain.test.images]).flatten(1))
    inside = torch.tensor([tuple(row) in held_out for row in scans.images.flatten(1).tolist()])
    for changed, same in ((inside, True), (~inside, False)):
        images = torch.where(changed[:, None, None, None], 1 - scans.images, scans.images)
        other = real_and_fake(Pictures(images, scans.labels, scans.class_names), **SIZES)
        for name in ("train", "validation", "test"):
            assert torch.equal(of(other[name], FAKE), of(getattr(load(), name), FAKE)) == same


def test_a_seed_gives_the_same_fakes_and_another_seed_others() -> None:
    one, two, other = load(), load(), load(seed=1)
    assert_close(one.test.images, two.test.images, rtol=0, atol=0)
    assert not rows(of(one.test, FAKE)) & rows(of(other.test, FAKE))
    assert not rows(of(one.test, FAKE)) & rows(of(one.validation, FAKE))


def test_rounding_gives_no_fake_away() -> None:
    """Both classes are whole numbers from 0 to 16 of sixteenths, and both use all of them."""
    train = load().train
    for label in (FAKE, REAL):
        levels = of(train, label) * 16
        assert_close(levels, levels.round(), rtol=0, atol=0)
        assert not torch.signbit(levels).any()  # no -0
        assert levels.unique().tolist() == list(range(17))


def test_a_linear_model_sees_little() -> None:
    """Chance is 50 %; a generator without a model for each digit, or with a shifted mean, is well above."""
    splits = load()
    linear = LogisticRegression(max_iter=2000).fit(splits.train.images.flatten(1), splits.train.labels)
    assert linear.score(splits.validation.images.flatten(1), splits.validation.labels) < 0.65


def test_parts_that_are_not_wanted_are_not_there() -> None:
    splits = load(validation_fraction=0.0, test_fraction=0.0)
    assert splits.validation is None and splits.test is None and len(splits.train) == 2 * 1797


def test_too_few_scans_to_fit_a_generator_to_are_an_error() -> None:
    scans = digits()
    few = scans.part(torch.cat([(scans.labels == label).nonzero()[: 7 if label == 3 else 9, 0] for label in range(10)]))
    with pytest.raises(
        ValueError, match="5 training pictures of class '3': fakes of 5 principal components need at le"
    ):
        real_and_fake(few, seed=0, validation_fraction=0.0, test_fraction=0.25)
    assert real_or_fake.COMPONENTS == 5
