import pytest
import torch
from torch.testing import assert_close

from vitscratch.data import class_counts, digits, stratified_split
from vitscratch.data.splits import divide, some


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
    with pytest.raises(ValueError, match=r"classes \['eel'\] have too few pictures to be in the second part"):
        stratified_split(rare, 0.05, 0, ["cat", "dog", "eel"])


@pytest.mark.parametrize(
    ("fraction", "part", "size", "change"), [(0.2, "second", 6, "larger"), (0.7, "first", 9, "smaller")]
)
def test_a_part_too_small_for_all_classes_is_refused_in_our_words(
    fraction: float, part: str, size: int, change: str
) -> None:
    labels = torch.arange(30) % 10
    message = (
        rf"10 classes, but {size} of 30 pictures .* in the {part} part: expected at least 10 .* a {change} fraction"
    )
    with pytest.raises(ValueError, match=message):
        stratified_split(labels, fraction, 0)
    first, second = stratified_split(labels, 1 / 3, 0)  # just enough
    assert len(first) == 20 and sorted(labels[second].tolist()) == list(range(10))


def test_class_counts_shows_empty_classes() -> None:
    assert class_counts(torch.tensor([2, 0, 2]), ["cat", "dog", "eel"]) == {"cat": 1, "dog": 0, "eel": 2}


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_parted(seed: int) -> None:
    labels = torch.arange(101) % 3
    groups = torch.arange(101)
    groups[[5, 17, 41]] = 2  # of several classes
    groups[90:] = 90
    first, second = divide(labels, groups, 0.3, seed, ["a", "b", "c"])
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(101))
    assert not set(groups[first].tolist()) & set(groups[second].tolist())
    assert 0.2 < len(second) / 101 < 0.4 and labels[second].unique().tolist() == [0, 1, 2]


def test_a_draw_of_some_leaves_no_class_out() -> None:
    labels = torch.tensor([0] * 97 + [1] * 3 + [2] * 2)
    plain = torch.randperm(102, generator=torch.Generator().manual_seed(5))
    for most in (3, 5, 6, 11):
        drawn = some(labels, most, seed=5)
        assert len(set(drawn.tolist())) == most
        assert labels[drawn].bincount(minlength=3).min() >= min(2, most // 3)
    even = torch.arange(102) % 2
    assert torch.equal(some(even, 29, seed=5), plain[:29])  # where no class is short of pictures
    assert torch.equal(some(labels, 102, seed=5), torch.arange(102))
