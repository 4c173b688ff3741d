"""What a count of correct answers says: intervals, a test of two models, calibration, and which mistakes were made."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_Z = 1.959963984540054  # 97.5 % of a standard normal lie below it


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy, after Wilson: right for small sets and near 0 and 1, too, and never outside.

    Args:
        correct, total: numbers of pictures, 0 <= correct <= total, total at least 1.

    Returns:
        Lowest and highest accuracy, in [0, 1].

    Raises:
        ValueError: counts that no test can give.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927.
    """
    if total < 1 or not 0 <= correct <= total:
        raise ValueError(
            f"{correct} correct of {total} pictures gives no interval; expected 1 picture or more, and 0 to all correct"
        )
    share, spread = correct / total, _Z**2 / total
    centre = share + spread / 2
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4)
    # Rounding must not put the end beside 0 or 1, where it is exactly.
    low = 0.0 if correct == 0 else (centre - half) / (1 + spread)
    high = 1.0 if correct == total else (centre + half) / (1 + spread)
    return low, high


@dataclass(frozen=True)
class McNemar:
    """Two models on the same pictures: how many both, one or neither got right, and the two-sided p-value."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float


def mcnemar(first: Bool[Tensor, " a"], second: Bool[Tensor, " b"]) -> McNemar:
    """McNemar's exact test: do two models differ, or is it chance which of them is right where one alone is?

    If they are equally good, each of the n pictures that one alone got right went to either with probability 1/2. The
    p-value is twice the binomial probability of a split as uneven as this one, or more, at most 1. No approximation.

    Args:
        first, second: whether each model got each picture right, in the same order.

    Raises:
        ValueError: not the same number of pictures, or none.

    Source: McNemar, Note on the Sampling Error of the Difference between Correlated Proportions or Percentages,
    Psychometrika 12, 1947; exact instead of his chi-squared.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"{len(first)} answers of one model and {len(second)} of the other; expected those of both to the same "
            "pictures, at least 1"
        )
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    discordant = only_first + only_second
    ways = term = 1  # of choosing 0, then 0 or 1, ... of the discordant pictures: whole numbers, so nothing is rounded
    for chosen in range(min(only_first, only_second)):
        term = term * (discordant - chosen) // (chosen + 1)
        ways += term
    p_value = min(1.0, 2 * ways / 2**discordant)
    return McNemar(int((first & second).sum()), only_first, only_second, int((~first & ~second).sum()), p_value)


@dataclass(frozen=True)
class CalibrationBin:
    """The pictures whose confidence is in (low, high]: how many, how many correct, and their mean confidence."""

    low: float
    high: float
    total: int
    correct: int
    confidence: float

    @property
    def accuracy(self) -> float:
        """Share of correct pictures, in [0, 1]."""
        return self.correct / self.total


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error, in [0, 1], and the bins that hold a picture, by rising confidence."""

    error: float
    bins: tuple[CalibrationBin, ...]


def calibration(
    probabilities: Float[Tensor, "b classes"], labels: Int[Tensor, " n"], bin_count: int = 15
) -> Calibration:
    """Whether a model is right as often as it says: |accuracy - confidence|, averaged over bins of equal width.

    Args:
        probabilities: of each class, for each picture; the confidence is the highest of a picture.
        labels: what each picture is.
        bin_count: at least 1.

    Raises:
        ValueError: no pictures, another number of labels, or numbers that are no probabilities (logits, say).

    Source: Guo et al., arXiv 1706.04599, Eq. 3, with its 15 bins.
    """
    _check(probabilities, labels)
    if bin_count < 1:
        raise ValueError(f"bin_count is {bin_count}; expected at least 1")
    confidence, predicted = probabilities.double().cpu().max(dim=1)  # float64: a sum of many, and Apple's GPU has none
    correct = predicted == labels.cpu()
    number = (confidence * bin_count).ceil().long().sub(1).clamp(0, bin_count - 1)
    totals = torch.bincount(number, minlength=bin_count).tolist()
    rights = torch.bincount(number[correct], minlength=bin_count).tolist()
    sums = torch.bincount(number, weights=confidence, minlength=bin_count).tolist()
    bins = tuple(
        CalibrationBin(i / bin_count, (i + 1) / bin_count, totals[i], rights[i], sums[i] / totals[i])
        for i in range(bin_count)
        if totals[i]
    )
    error = sum(abs(rights[i] - sums[i]) for i in range(bin_count)) / len(labels)
    return Calibration(error, bins)


def confusion_matrix(
    predicted: Int[Tensor, " b"], labels: Int[Tensor, " n"], classes: int
) -> Int[Tensor, "classes classes"]:
    """How many pictures of each class (row) were taken for each class (column).

    Args:
        predicted, labels: numbers of classes, 0 to classes - 1, in the same order.
        classes: how many there are.

    Raises:
        ValueError: not as many predictions as labels, or the number of a class that is not there.
    """
    if len(predicted) != len(labels):
        raise ValueError(f"{len(predicted)} predictions and {len(labels)} labels; expected one for each picture")
    for what, numbers in (("predictions", predicted), ("labels", labels)):
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < classes:
            raise ValueError(
                f"{what} from {int(numbers.min())} to {int(numbers.max())}; expected numbers from 0 to {classes - 1}"
            )
    pairs = labels.long().cpu() * classes + predicted.long().cpu()
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def surest_mistakes(
    probabilities: Float[Tensor, "b classes"], labels: Int[Tensor, " n"], count: int
) -> Int[Tensor, " mistakes"]:
    """Numbers of the pictures that a model got wrong with the highest probability, the surest first.

    Args:
        probabilities: of each class, for each picture. labels: what each picture is.
        count: at most this many.

    Raises:
        ValueError: see `calibration`.
    """
    _check(probabilities, labels)
    confidence, predicted = probabilities.max(dim=1)
    wrong = (predicted != labels).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True, stable=True)[:count]]


def _check(probabilities: Tensor, labels: Tensor) -> None:
    if len(probabilities) != len(labels) or not len(labels):
        raise ValueError(
            f"probabilities of {len(probabilities)} pictures and {len(labels)} labels; expected one label for each "
            "picture, at least 1"
        )
    sums = probabilities.sum(dim=1)
    # bf16 has 8 bits; a nan compares False.
    if not bool(((probabilities >= 0).all(dim=1) & ((sums - 1).abs() < 0.02)).all()):
        raise ValueError(
            f"probabilities from {float(probabilities.min()):.3g} to {float(probabilities.max()):.3g} do not sum to 1 "
            "for each picture, or are below 0; give logits through softmax(dim=1) first"
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < probabilities.shape[1]:
        raise ValueError(
            f"labels from {int(labels.min())} to {int(labels.max())}; expected 0 to {probabilities.shape[1] - 1}, "
            "as there are probabilities"
        )
