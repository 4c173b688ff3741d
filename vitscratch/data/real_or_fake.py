"""Real pictures against ones from a generative model that has seen the training part alone."""

import numpy as np
import torch
from torch import Tensor

from vitscratch.data.sets import Pictures
from vitscratch.data.splits import divide
from vitscratch.randomness import derive_seed

CLASSES = ("FAKE", "REAL")  # in the order in which their folders would be numbered
COMPONENTS = 5
LEVELS = 16  # of ink


def real_and_fake(
    real: Pictures, *, seed: int, validation_fraction: float, test_fraction: float
) -> dict[str | None, Pictures]:
    """Divide real pictures, and add to each part as many fakes of each of its classes as it holds.

    Fakes of a class come from a kernel density over its training pictures, in the space of their first 5 principal
    components, each scaled to variance 1; the Gaussian kernel is as wide as Scott's rule says (1992). Validation and
    test pictures have no say in it. A fake has the same 17 levels of grey as a scan, or rounding would give it away.

    A mean of fakes is a mean of real pictures, so a linear model sees little; what fakes lack is all that five numbers
    cannot say. More components make better fakes.

    Args:
        real: grey pictures with values from 0 to 1 in steps of 1/16, such as `digits`.
        seed: of the division, which is that of `load_splits`, and of the fakes.
        validation_fraction, test_fraction: of the real pictures, in [0, 1); 0 for no such part.

    Returns:
        "train", "validation" and "test", each of the classes FAKE and REAL.

    Raises:
        ValueError: a training part with too few pictures of a class, or parts that are too small.
    """
    parts = {"train": torch.arange(len(real))}
    if test_fraction > 0:
        parts["train"], parts["test"] = divide(real.labels, parts["train"], test_fraction, seed, real.class_names)
        validation_fraction /= 1 - test_fraction  # of what is left
    if validation_fraction > 0:
        rest = parts["train"]
        first, second = divide(real.labels[rest], rest, validation_fraction, seed, real.class_names)
        parts["train"], parts["validation"] = rest[first], rest[second]
    models = _fitted(real.part(parts["train"]))
    return {
        name: _with_fakes(real.part(parts[name]), models, derive_seed(seed, number))
        for number, name in enumerate(("train", "validation", "test"))
        if name in parts
    }


class _Density:
    """A kernel density over pictures (n, pixels) of one class, in the space of their principal components."""

    def __init__(self, pixels: np.ndarray) -> None:
        from sklearn.decomposition import PCA
        from sklearn.neighbors import KernelDensity

        self.components = PCA(COMPONENTS, whiten=True, svd_solver="full")
        self.density = KernelDensity(bandwidth="scott").fit(self.components.fit_transform(pixels))

    def draw(self, count: int, seed: int) -> np.ndarray:
        """(count, pixels), in the scale of the pictures, but neither whole numbers nor within their limits."""
        return self.components.inverse_transform(self.density.sample(count, random_state=seed % 2**32))


def _fitted(train: Pictures) -> list[_Density]:
    """A model for each class."""
    models = []
    for label, name in enumerate(train.class_names):
        pixels = train.images[train.labels == label].flatten(1).double().numpy()
        if len(pixels) <= COMPONENTS:
            raise ValueError(
                f"{len(pixels)} training pictures of class {name!r}: fakes of {COMPONENTS} principal components need "
                f"at least {COMPONENTS + 1}; hold out smaller fractions"
            )
        models.append(_Density(pixels))
    return models


def _with_fakes(real: Pictures, models: list[_Density], seed: int) -> Pictures:
    counts = real.labels.bincount(minlength=len(models)).tolist()
    drawn = np.concatenate(
        [
            model.draw(count, derive_seed(seed, label))
            for label, (model, count) in enumerate(zip(models, counts, strict=True))
        ]
    )
    levels = np.rint(drawn * LEVELS).clip(0, LEVELS).astype(np.uint8)  # whole numbers: they have no -0 to betray a fake
    fakes = torch.from_numpy(levels).to(real.images.dtype) / LEVELS
    labels = torch.cat([_all(CLASSES.index("REAL"), len(real)), _all(CLASSES.index("FAKE"), len(fakes))])
    return Pictures(torch.cat([real.images, fakes.view_as(real.images)]), labels, CLASSES)


def _all(label: int, count: int) -> Tensor:
    return torch.full((count,), label)
