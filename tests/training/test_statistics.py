"""Statistics against published numbers, exact fractions and scikit-learn's neighbours in SciPy."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as reference

from vitscratch.training import (
    calibration,
    confusion_matrix,
    mcnemar,
    surest_mistakes,
    wilson_interval,
)


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (0, 7), (7, 7), (5, 7), (19, 541), (9_897, 10_000)])
def test_wilson_interval_is_scipys(correct: int, total: int) -> None:
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-12)
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= correct / total <= high <= 1


def test_wilson_interval_by_hand() -> None:
    """Its ends are where the observed share is 1.96 standard deviations away: z² p (1 - p) / n = (81/263 - p)²."""
    for p in wilson_interval(81, 263):  # Newcombe's example, Statistics in Medicine 17, 1998, has 0.2553 to 0.3662
        assert 1.959963984540054**2 * p * (1 - p) / 263 == pytest.approx((81 / 263 - p) ** 2, abs=1e-15)
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 13)[0] == 0 and wilson_interval(13, 13)[1] == 1


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 5), (6, 5), (1, -1)])
def test_wilson_interval_refuses_counts_that_cannot_be(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"{correct} correct of {total} pictures gives no interval"):
        wilson_interval(correct, total)


def answers(both: int, only_first: int, only_second: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Shuffled, so that an order that is lost would show."""
    counts = torch.tensor([both, only_first, only_second, neither])
    first = torch.tensor([True, True, False, False]).repeat_interleave(counts)
    second = torch.tensor([True, False, True, False]).repeat_interleave(counts)
    order = torch.randperm(len(first))
    return first[order], second[order]


def test_mcnemar_by_hand() -> None:
    """Of 7 pictures that one alone got right, 1 against 6: 2 (1 + 7) / 2^7."""
    result = mcnemar(*answers(11, 6, 1, 3))
    assert (result.both, result.only_first, result.only_second, result.neither) == (11, 6, 1, 3)
    assert result.p_value == 0.125


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(0, 0), (1, 0), (3, 3), (3, 4), (0, 17), (41, 23), (211, 307), (1_100, 1_301)]
)
def test_mcnemar_is_the_binomial_test_and_does_not_care_who_is_first(only_first: int, only_second: int) -> None:
    result = mcnemar(*answers(5, only_first, only_second, 2))
    n = only_first + only_second
    expected = binomtest(only_first, n, 0.5).pvalue if n else 1.0
    assert result.p_value == pytest.approx(expected, rel=1e-9)
    swapped = mcnemar(*answers(5, only_second, only_first, 2))
    assert swapped.p_value == result.p_value and swapped.only_first == only_second


def test_mcnemar_of_many_pictures_is_exact_and_does_not_overflow() -> None:
    tail = sum(Fraction(math.comb(3_001, i), 2**3_001) for i in range(1_001))
    assert mcnemar(*answers(0, 2_001, 1_000, 0)).p_value == float(2 * tail)
    assert mcnemar(*answers(0, 5_000, 0, 0)).p_value == 0  # 2^-4999: below the smallest float


def test_mcnemar_refuses_other_pictures() -> None:
    for first, second in [
        (torch.ones(3, dtype=torch.bool), torch.ones(5, dtype=torch.bool)),
        2 * (torch.ones(0).bool(),),
    ]:
        with pytest.raises(ValueError, match=f"{len(first)} answers of one model and {len(second)} of the other"):
            mcnemar(first, second)


def test_calibration_by_hand() -> None:
    """Five bins. (0.4, 0.6]: 0.5 right, 0.6 wrong. (0.6, 0.8]: none. (0.8, 1]: 0.9 right, 0.85 wrong, 1 right."""
    sure = torch.tensor([0.5, 0.59, 0.9, 0.85, 1.0], dtype=torch.float64)
    probabilities = torch.stack([(1 - sure) / 2, sure, (1 - sure) / 2], dim=1)
    result = calibration(probabilities, torch.tensor([1, 2, 1, 0, 1]), bin_count=5)
    assert [(part.total, part.correct) for part in result.bins] == [(2, 1), (3, 2)]
    assert [(part.low, part.high) for part in result.bins] == [(0.4, 0.6), (0.8, 1.0)]
    assert [part.confidence for part in result.bins] == pytest.approx([1.09 / 2, 2.75 / 3])
    assert [part.accuracy for part in result.bins] == pytest.approx([1 / 2, 2 / 3])
    assert result.error == pytest.approx(2 / 5 * (1.09 / 2 - 1 / 2) + 3 / 5 * (2.75 / 3 - 2 / 3))


def test_calibration_puts_the_edge_of_a_bin_into_the_lower_one() -> None:
    result = calibration(torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 0]), bin_count=4)
    assert [part.high for part in result.bins] == [0.5, 0.75]


def test_calibration_takes_sums_in_float64_and_bins_as_numpy_does() -> None:
    probabilities = torch.randn(4_999, 7).mul(2).softmax(dim=1)
    labels = torch.randint(7, (4_999,))
    confidence, predicted = (values.numpy() for values in probabilities.max(dim=1))
    right = predicted == labels.numpy()
    edges = np.linspace(0, 1, 16)
    number = np.digitize(confidence, edges, right=True) - 1
    expected = sum(abs(right[number == i].mean() - confidence[number == i].mean()) * np.mean(number == i)
                   for i in range(15) if (number == i).any())  # fmt: skip
    assert calibration(probabilities, labels).error == pytest.approx(expected, abs=1e-6)


def test_calibration_of_a_model_that_knows_is_right() -> None:
    result = calibration(torch.eye(3), torch.arange(3))
    assert result.error == 0 and [part.total for part in result.bins] == [3] and result.bins[0].high == 1


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins", "message"),
    [
        (torch.tensor([[2.0, -1.0]]), [0], 15, "from -1 to 2 do not sum to 1 .*; give logits through softmax"),
        (torch.tensor([[0.5, 0.7]]), [0], 15, "do not sum to 1"),
        (torch.full((1, 2), float("nan")), [0], 15, "do not sum to 1"),
        (torch.tensor([[0.5, 0.5]]), [2], 15, "labels from 2 to 2; expected 0 to 1"),
        (torch.tensor([[0.5, 0.5]]), [0, 1], 15, "probabilities of 1 pictures and 2 labels"),
        (torch.zeros(0, 2), [], 15, "probabilities of 0 pictures and 0 labels"),
        (torch.tensor([[0.5, 0.5]]), [0], 0, "bin_count is 0; expected at least 1"),
    ],
)
def test_calibration_refuses(probabilities: torch.Tensor, labels: list[int], bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration(probabilities, torch.tensor(labels, dtype=torch.long), bins)


def test_confusion_matrix_is_scikit_learns_with_classes_that_never_occur() -> None:
    labels, predicted = torch.randint(3, (101,)), torch.randint(4, (101,))
    expected = reference.confusion_matrix(labels, predicted, labels=range(5))
    torch.testing.assert_close(confusion_matrix(predicted, labels, 5), torch.tensor(expected))
    torch.testing.assert_close(
        confusion_matrix(torch.tensor([1, 1, 0]), torch.tensor([0, 0, 2]), 3),
        torch.tensor([[0, 2, 0], [0, 0, 0], [1, 0, 0]]),
    )


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        ([0], [0, 1], "1 predictions and 2 labels"),
        ([3], [0], "predictions from 3 to 3; expected numbers from 0 to 2"),
        ([0, 1], [-1, 0], "labels from -1 to 0; expected numbers from 0 to 2"),
    ],
)
def test_confusion_matrix_refuses(predicted: list[int], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(torch.tensor(predicted), torch.tensor(labels), 3)


def test_surest_mistakes_come_surest_first_and_are_mistakes() -> None:
    probabilities = torch.tensor([[0.99, 0.01], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1], [0.3, 0.7]])
    labels = torch.tensor([0, 0, 0, 1, 0])
    assert surest_mistakes(probabilities, labels, 3).tolist() == [3, 1, 2]
    assert surest_mistakes(probabilities, labels, 99).tolist() == [3, 1, 2, 4]
    assert surest_mistakes(probabilities[:1], labels[:1], 3).tolist() == []
