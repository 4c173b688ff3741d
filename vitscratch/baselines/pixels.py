"""Models that take a picture for a list of numbers: PCA + logistic regression, and a support vector machine."""

import warnings
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Batch = tuple[Tensor, Tensor]
Choice = Literal["validation_loss", "validation_accuracy"]

COMPONENTS = (2, 5, 10, 20, 50, 100)
SVM_C = (1.0, 10.0)
MAX_VALUES = 2**28
"""Pixel values kept of training pictures, and as many of validation ones, 1 GiB (scikit-learn needs about four times
that): 87,381 colour pictures of 32 px."""

MAX_SVM_WORK = 2 * 10**10
"""Limit on pictures² x values of a picture, as an SVM compares all pairs: 2,551 colour pictures of 32 px, 17,677 grey
ones of 8 px. 1,180 of 32 px, a fifth of that, took 15 s of a CPU core."""

FOLDS = 5  # of the training part, to turn an SVM's distances into probabilities


@runtime_checkable
class Batches(Sized, Iterable[Batch], Protocol):
    """(images, labels) batches of which one can ask how many there are."""


@dataclass(frozen=True)
class Trial:
    """A setting that was tried, what it gave on the validation pictures, and whether its solver converged."""

    setting: str
    validation_loss: float
    validation_accuracy: float
    converged: bool


@dataclass(frozen=True)
class PixelModel:
    """A fitted model of pixels.

    Args:
        name: such as "PCA + logistic regression". trials: all settings, in order. chosen: the one that is kept.
        parameters: numbers that a prediction needs. notes: what else has to be said, a sentence each.
        predict: (n, values) numbers -> (n, classes) probabilities.
    """

    name: str
    trials: tuple[Trial, ...]
    chosen: Trial
    parameters: int
    notes: tuple[str, ...]
    predict: Callable[[np.ndarray], np.ndarray]

    def probabilities(self, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n classes"]:
        """Of each class, for pictures as the training batches had them (the same size and normalisation)."""
        return torch.from_numpy(self.predict(_flat(images)))


@dataclass(frozen=True)
class LeftOut:
    """A model that was not fitted, and why."""

    name: str
    reason: str


def fit_pca_logistic(
    train: Batches,
    validation: Batches,
    *,
    num_classes: int,
    seed: int,
    monitor: Choice = "validation_loss",
    components: Sequence[int] = COMPONENTS,
    max_iter: int = 1000,
) -> PixelModel:
    """Logistic regression on the first principal components of standardised pixels; validation says on how many.

    What was not tried, pictures that did not fit into memory, and solvers that did not converge are in the notes.

    Args:
        train, validation: batches of pictures (b, c, H, W) of one size and labels (b,): each once, not augmented.
        num_classes: length of a row of probabilities.
        seed: of the approximate PCA that scikit-learn takes for many pixels.
        monitor: what says which number of components is best.
        components: numbers to try. max_iter: of the solver (L-BFGS).

    Raises:
        ValueError: fewer than two classes among the training pictures, or none of the numbers of components fits.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    pixels, labels, notes = _read(train)
    *held_out, thinned = _read(validation, "validation pictures")
    notes += thinned
    most = min(pixels.shape)
    possible = [number for number in components if number <= most]
    if not possible:
        raise ValueError(
            f"components {tuple(components)}: {len(pixels)} pictures of {pixels.shape[1]} values have {most}"
        )
    if left_out := [str(number) for number in components if number > most]:
        notes.append(f"{' and '.join(left_out)} components left out: there are only {most}")
    scaler = StandardScaler()
    pca = PCA(max(possible), random_state=seed % 2**32)
    scores = pca.fit_transform(scaler.fit_transform(pixels))
    fitted = []
    for number in possible:
        logistic, converged = _fitted(LogisticRegression(max_iter=max_iter), scores[:, :number], labels)
        predict = partial(_predict_projected, scaler, pca, logistic, num_classes)
        fitted.append((_trial(f"{number} components", predict, held_out, converged), predict, logistic))
        if not converged:
            notes.append(f"the solver did not converge in {max_iter:,} steps with {number} components")
    trial, predict, logistic = _best(fitted, monitor)
    number = logistic.coef_.shape[1]
    parameters = (number + 3) * pixels.shape[1] + logistic.coef_.size + logistic.intercept_.size
    name = "PCA + logistic regression"
    return PixelModel(name, tuple(one[0] for one in fitted), trial, parameters, tuple(notes), predict)


def fit_rbf_svm(
    train: Batches, validation: Batches, *, num_classes: int, seed: int, monitor: Choice = "validation_loss"
) -> PixelModel | LeftOut:
    """A support vector machine with a Gaussian kernel on standardised pixels, if so many pictures are affordable.

    The kernel's width is scikit-learn's ("scale"); validation chooses C. Probabilities come from a sigmoid on the
    distances, fitted by cross-validation inside the training part (Platt, 1999).

    Args:
        train, validation, num_classes, monitor: see `fit_pca_logistic`. seed: of the cross-validation.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    name = "RBF-SVM"
    pixels, labels, notes = _read(train)
    if (work := len(pixels) ** 2 * pixels.shape[1]) > MAX_SVM_WORK or notes:
        return LeftOut(
            name,
            f"too many pictures: {len(pixels):,}² x {pixels.shape[1]:,} values is {work:.1e}, and the limit "
            f"{MAX_SVM_WORK:.1e}",
        )
    if (fewest := np.bincount(labels)[np.unique(labels)].min()) < FOLDS:
        return LeftOut(name, f"a class has {fewest} training pictures; its probabilities need at least {FOLDS}")
    *held_out, thinned = _read(validation, "validation pictures")
    # Shuffled: in a set in order, folds are unlike each other, and the sigmoid may even turn the classes round.
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    fitted = []
    for c in SVM_C:
        machine = make_pipeline(StandardScaler(), CalibratedClassifierCV(SVC(C=c), ensemble=False, cv=folds))
        machine, converged = _fitted(machine, pixels, labels)
        predict = partial(_predict, machine, num_classes)
        fitted.append((_trial(f"C {c:g}", predict, held_out, converged), predict, machine))
    trial, predict, machine = _best(fitted, monitor)
    vectors = machine[-1].calibrated_classifiers_[0].estimator.support_vectors_
    return PixelModel(name, tuple(one[0] for one in fitted), trial, vectors.size, tuple(thinned), predict)


def _read(
    batches: Batches, what: str = "pictures"
) -> tuple[Float[np.ndarray, "n values"], Int[np.ndarray, " n"], list[str]]:
    """Pixels and labels of all pictures, or of evenly spaced ones if all are too many; and a note of that."""
    rows, labels, count = [], [], 0
    step = None
    for images, given in batches:
        if step is None:
            expected = len(batches) * images.numel()  # the last may be shorter
            step = max(1, -(-expected // MAX_VALUES))
        chosen = slice(-count % step, None, step)
        rows.append(_flat(images[chosen]))
        labels.append(given[chosen].cpu().numpy())
        count += len(given)
    if not count:
        raise ValueError("no pictures to fit a model of pixels to")
    pixels = np.concatenate(rows)
    thinned = f"uses {len(pixels):,} of {count:,} {what}: more do not fit into memory"
    return pixels, np.concatenate(labels), [thinned] if len(pixels) < count else []


def _flat(images: Tensor) -> Float[np.ndarray, "n values"]:
    return images.flatten(1).float().cpu().numpy()


def _fitted(estimator: Any, pixels: np.ndarray, labels: np.ndarray) -> tuple[Any, bool]:
    """The estimator, fitted, and whether its solver converged: what scikit-learn only warns of."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(pixels, labels)
    failed = [warning for warning in caught if issubclass(warning.category, ConvergenceWarning)]
    for other in caught:
        if other not in failed:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return estimator, not failed


def _predict(estimator: Any, num_classes: int, pixels: np.ndarray) -> np.ndarray:
    """Probabilities, with a column also for a class that no training picture had."""
    result = np.zeros((len(pixels), num_classes), np.float32)
    result[:, estimator.classes_] = estimator.predict_proba(pixels)
    return result


def _predict_projected(scaler: Any, pca: Any, logistic: Any, num_classes: int, pixels: np.ndarray) -> np.ndarray:
    scores = pca.transform(scaler.transform(pixels))[:, : logistic.coef_.shape[1]]
    return _predict(logistic, num_classes, scores)


def _trial(
    setting: str, predict: Callable[[np.ndarray], np.ndarray], held_out: Sequence[np.ndarray], converged: bool
) -> Trial:
    pixels, labels = held_out
    probabilities = predict(pixels)
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss = -np.log(of_label.clip(1e-7)).mean()  # float32's own precision: a 0 must not make the mean infinite
    return Trial(setting, float(loss), float((probabilities.argmax(1) == labels).mean()), converged)


def _best(fitted: list[tuple[Trial, Any, Any]], monitor: Choice) -> tuple[Trial, Any, Any]:
    """The first of equals."""
    sign = 1 if monitor == "validation_loss" else -1
    return min(fitted, key=lambda one: sign * getattr(one[0], monitor))
