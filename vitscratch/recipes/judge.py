"""A comparison carried out: the same pictures for every model, and a test part that none sees before all are done.

The test set is read at the end, by construction. What models are trained and chosen with comes from
`Sets.splits`, which has no test part to read; only `judge` loads that part, and takes models that are done.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitscratch.baselines import LeftOut, PixelModel, fit_pca_logistic, fit_rbf_svm
from vitscratch.data import (
    CORRUPTIONS,
    Corruption,
    PictureFiles,
    Pictures,
    Preprocessing,
    Splits,
    class_counts,
    make_batches,
    open_picture,
)
from vitscratch.data.pictures import as_picture
from vitscratch.data.preprocessing import to_bytes, to_float
from vitscratch.data.splits import some
from vitscratch.recipes.base import BUILT_IN, Recipe
from vitscratch.recipes.comparison import Candidate
from vitscratch.recipes.experiment import Progress, load, normalised, threads
from vitscratch.training import EpochRecord, choose_precision, predictions

LEAST_TIMES = 5  # that a batch is timed at least, if the test part is one batch


@dataclass(frozen=True)
class Finished:
    """A model that is done: all that is known of it before the test.

    Args:
        title, recipe: the candidate's. parameters: numbers that a prediction needs.
        predict: normalised pictures (b, c, H, W) -> probabilities (b, classes), on the CPU.
        preprocessing: of these pictures.
        validation_loss, validation_accuracy: of what is kept, which they have chosen.
        epochs: that were run, None for a model of pixels. kept: the epoch, or the setting, that is kept.
        seconds: of the training in all. history: of each epoch. precision: of a network, such as "bfloat16".
        notes: what else has to be said, a sentence each.
    """

    title: str
    recipe: Recipe
    parameters: int
    predict: Callable[[Tensor], Tensor]
    preprocessing: Preprocessing
    validation_loss: float
    validation_accuracy: float
    epochs: int | None
    kept: str
    seconds: float
    history: Sequence[EpochRecord] = ()
    precision: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """What the test part says of a model.

    Args:
        probabilities, labels: of every test picture, in order.
        images_per_second: median over batches of normalised pictures in memory.
        robust: of `robust_total` drawn pictures, how many the model gets right "as they are" and under each corruption.
    """

    probabilities: Float[Tensor, "n classes"]
    labels: Int[Tensor, " n"]
    images_per_second: float
    robust: dict[str, int] = field(default_factory=dict)
    robust_total: int = 0

    @property
    def correct(self) -> Tensor:
        """Whether each picture was recognised, (n,)."""
        return self.probabilities.argmax(dim=1) == self.labels


OnBatch = Callable[[Finished, str, int], None]


class Sets:
    """The pictures for one recipe after another, loaded again only where the size or the channels are others."""

    def __init__(self) -> None:
        self._key: Any = None
        self._splits: Splits | None = None

    def splits(self, recipe: Recipe, progress: Progress | None = None) -> Splits:
        """What to train and to choose with: the test part is None, and its pictures are not kept.

        Raises:
            ValueError: the set has no validation or no test part, or a part lacks a class.
        """
        key = (recipe.picture_shape(), recipe.preprocessing())
        if self._splits is None or key != self._key:
            whole = load(recipe, progress)
            _check_parts(recipe, whole)
            self._key, self._splits = key, replace(whole, test=None)
        return self._splits


def _check_parts(recipe: Recipe, splits: Splits) -> None:
    for name, purpose in (("validation", "chooses by"), ("test", "reports")):
        part = getattr(splits, name)
        if part is None:
            raise ValueError(f"{recipe.data} has no {name} part, which a comparison {purpose}")
        counts = class_counts(part.labels, splits.class_names)
        if missing := [name for name, count in counts.items() if not count]:
            raise ValueError(
                f"{recipe.data}: max_pictures {recipe.max_pictures} leaves the {name} part without class "
                f"{missing[0]!r}; take more"
            )


def fit_pixels(candidate: Candidate, splits: Splits) -> Finished | LeftOut:
    """Fit a model of pixels."""
    recipe, started = candidate.recipe, time.perf_counter()
    preprocessing = normalised(recipe, splits)
    assert splits.validation is not None
    train, validation = (
        make_batches(part, preprocessing, 512, workers=recipe.workers) for part in (splits.train, splits.validation)
    )
    classes = len(splits.class_names)
    fit: Callable[..., PixelModel | LeftOut] = fit_pca_logistic if candidate.pixels == "pca" else fit_rbf_svm
    model = fit(train, validation, num_classes=classes, seed=recipe.seed, monitor=recipe.monitor)
    if isinstance(model, LeftOut):
        return model
    return Finished(
        title=candidate.title,
        recipe=recipe,
        parameters=model.parameters,
        predict=model.probabilities,
        preprocessing=preprocessing,
        validation_loss=model.chosen.validation_loss,
        validation_accuracy=model.chosen.validation_accuracy,
        epochs=None,
        kept=model.chosen.setting,
        seconds=time.perf_counter() - started,
        notes=(*model.notes, f"{model.chosen.setting}, chosen by validation loss from {len(model.trials)} settings"),
    )


def finished(
    candidate: Candidate, file: Path, metrics: dict[str, Any], history: Sequence[EpochRecord], device: str
) -> Finished:
    """A trained network, from the files that its run has left."""
    model, preprocessing, _ = candidate.recipe.restore(file)
    precision = choose_precision(candidate.recipe.precision, torch.device(device))
    return Finished(
        title=candidate.title,
        recipe=candidate.recipe,
        parameters=metrics["parameters"],
        predict=partial(_predict, model.to(device), precision),
        preprocessing=preprocessing,
        validation_loss=metrics["validation_loss"],
        validation_accuracy=metrics["validation_accuracy"],
        epochs=metrics["epochs"],
        kept=f"epoch {metrics['kept_epoch']}",
        seconds=metrics["seconds"],
        history=history,
        precision=str(precision).removeprefix("torch."),
        notes=tuple(candidate.recipe.provenance().get("notes", ())),
    )


def _predict(model: nn.Module, precision: torch.dtype, images: Tensor) -> Tensor:
    return predictions(model, [(images, torch.zeros(len(images), dtype=torch.long))], precision)[0]


def judge(
    models: Sequence[Finished],
    *,
    robust: int = 0,
    progress: Progress | None = None,
    on_batch: OnBatch = lambda model, what, pictures: None,
) -> tuple[list[Judged], Pictures | PictureFiles]:
    """Load the test part, for the first time, and measure models that are done on it.

    Args:
        models: all of the comparison, with nothing left to choose.
        robust: also under each of `CORRUPTIONS`, at most so many pictures, drawn by the split's seed; 0 for none. They
            are changed in their own size; the noise is the same for every model.
        progress: see `load`. on_batch: told which model was measured, on what, and on how many pictures more.

    Returns:
        A verdict for each model, and the test part in the size of the first one's pictures.
    """
    parts: dict[Any, Pictures | PictureFiles] = {}
    shown: Pictures | PictureFiles | None = None
    judged = []
    for model in models:
        shape = (model.recipe.picture_shape(), model.recipe.preprocessing())
        if shape not in parts:
            parts = {shape: held_out(model.recipe, progress)}  # of one size at a time
        part = parts[shape]
        shown = shown if shown is not None else part
        batches = make_batches(part, model.preprocessing, model.recipe.batch_size, workers=model.recipe.workers)
        with threads(model.recipe.threads):
            judged.append(_measured(model.predict, _told(batches, partial(on_batch, model, "the test part"))))
    assert shown is not None
    _check_same([one.labels for one in judged])
    if robust:
        recipe = min((model.recipe for model in models), key=_area)
        own = held_out(recipe, progress, own_size=True)
        _check_same([own.labels, judged[0].labels])
        drawn = some(own.labels, robust, recipe.split_seed)
        own = own.part(drawn)
        for number, model in enumerate(models):
            right = {"as they are": int(judged[number].correct[drawn].sum()), **_robust(model, own, on_batch)}
            judged[number] = replace(judged[number], robust=right, robust_total=len(drawn))
    return judged, shown


def _check_same(labels: Sequence[Tensor]) -> None:
    if any(not torch.equal(one, labels[0]) for one in labels):
        raise RuntimeError("the test parts of two models are not the same pictures: they have changed meanwhile")


def held_out(recipe: Recipe, progress: Progress | None = None, own_size: bool = False) -> Pictures | PictureFiles:
    """The test part, in the recipe's size; with `own_size` that of a folder stays as it is."""
    is_folder = recipe.data not in BUILT_IN and Path(recipe.data).is_dir()
    splits = load(recipe, progress, max_memory=0) if own_size and is_folder else load(recipe, progress)
    assert splits.test is not None
    return splits.test


def _area(recipe: Recipe) -> int:
    height, width = recipe.picture_shape()[0]
    return height * width


def _told(batches: Iterable[tuple[Tensor, Tensor]], tell: Callable[[int], None]) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in batches:
        yield images, labels
        tell(len(labels))


def _measured(predict: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> Judged:
    probabilities: list[Tensor] = []
    labels: list[Tensor] = []
    speeds: list[float] = []
    images = torch.empty(0)
    for images, given in batches:
        if not probabilities:
            predict(images)  # the first call is slower than all others
        result, speed = _timed(predict, images)
        probabilities.append(result)
        labels.append(given)
        speeds.append(speed)
    full = speeds[:-1] or speeds  # the last batch may be smaller
    full += [_timed(predict, images)[1] for _ in range(LEAST_TIMES - len(full))]
    return Judged(torch.cat(probabilities), torch.cat(labels), statistics.median(full))


def _timed(predict: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, float]:
    """Probabilities, and pictures per second."""
    started = time.perf_counter()
    result = predict(images)
    return result, len(images) / max(time.perf_counter() - started, 1e-9)


def _robust(model: Finished, part: Pictures | PictureFiles, on_batch: OnBatch) -> dict[str, int]:
    right = {}
    for name, corruption in CORRUPTIONS.items():
        generator = torch.Generator().manual_seed(model.recipe.split_seed)
        right[name] = 0
        with threads(model.recipe.threads):
            for images, labels in _told(_corrupted(model, part, corruption, generator), partial(on_batch, model, name)):
                right[name] += int((model.predict(images).argmax(dim=1) == labels).sum())
    return right


def _corrupted(
    model: Finished, part: Pictures | PictureFiles, corruption: Corruption, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches for a model, of pictures that were changed before they were resized."""
    prepare = model.preprocessing
    for numbers in torch.arange(len(part)).split(model.recipe.batch_size):
        images = []
        for image in _originals(part, numbers.tolist(), prepare.channels):
            changed = corruption(image[None], generator)[0]
            fits = tuple(changed.shape) == (prepare.channels, *prepare.image_size)
            images.append(changed if fits else prepare.pixels(as_picture(changed)))
        yield prepare.normalise(to_float(torch.stack(images))), part.labels[numbers]


def _originals(part: Pictures | PictureFiles, numbers: Sequence[int], channels: int) -> Iterator[Tensor]:
    """(c, H, W) bytes."""
    for number in numbers:
        if isinstance(part, PictureFiles):
            yield to_bytes(open_picture(part.paths[number], channels=channels), channels)
        else:
            image = part.images[number]
            yield image if image.dtype == torch.uint8 else image.mul(255).round().byte()
