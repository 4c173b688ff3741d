"""Labelled pictures, in memory or in files, and their division into training, validation and test."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from vitscratch.data.pictures import open_picture
from vitscratch.data.preprocessing import Preprocessing
from vitscratch.data.remember import file_state, remembered, versions


@dataclass(frozen=True)
class Pictures:
    """A labelled set in memory: images (n, c, H, W), bytes or floats in [0, 1], labels (n,), the classes' names; and
    digests (n) of the files, equal for identical ones, if it comes from files."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    digests: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, indices: Int[Tensor, " part"]) -> "Pictures":
        """Those of the given numbers."""
        return Pictures(self.images[indices], self.labels[indices], self.class_names, _chosen(self.digests, indices))


@dataclass(frozen=True)
class PictureFiles:
    """A labelled set in files: paths (n), labels (n,), the classes' names; and digests (n) of the files, if known."""

    paths: tuple[Path, ...]
    labels: Tensor
    class_names: tuple[str, ...]
    digests: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, indices: Int[Tensor, " part"]) -> "PictureFiles":
        """Those of the given numbers."""
        paths = tuple(self.paths[index] for index in indices.tolist())
        return PictureFiles(paths, self.labels[indices], self.class_names, _chosen(self.digests, indices))


def _chosen(digests: tuple[str, ...], indices: Tensor) -> tuple[str, ...]:
    return tuple(digests[index] for index in indices.tolist()) if digests else ()


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel, for pixels in [0, 1], and of how many pictures."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pictures: int


@dataclass(frozen=True)
class Splits:
    """A set divided into parts that share no picture.

    Args:
        train: to learn from. validation: to choose by. test: measured once. The latter two are None if there is none.
        class_names: in the order of the labels.
        preprocessing: size and channels of the pictures; its mean is 0 and its std 1 (see `statistics`).
        summary: how the set was divided, with counts per class and split, warnings and what was skipped; for JSON.
    """

    train: Pictures | PictureFiles
    validation: Pictures | PictureFiles | None
    test: Pictures | PictureFiles | None
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    summary: dict[str, Any]

    def statistics(self, sample: int | None = None) -> Statistics:
        """Mean and std of the training part's pixels, after resizing; the other parts have no say.

        Sums are exact (whole numbers) for bytes, and in float64 for floats. Those of files are remembered, and taken
        anew when one of them has changed (see `load_splits`).

        Args:
            sample: for files: at most this many pictures, evenly spaced; None for all. Sets in memory count whole.

        Raises:
            ValueError: no pictures, or a channel that is the same everywhere.
        """
        train = self.train
        if isinstance(train, Pictures):
            return _statistics(train.images.split(1024))
        step = 1 if sample is None else max(1, -(-len(train) // sample))
        return _statistics_of_files(train.paths[::step], self.preprocessing)


def _statistics_of_files(paths: Sequence[Path], prepare: Preprocessing) -> Statistics:
    """The same as without remembering: JSON keeps every bit of a float."""
    files = [[str(path.resolve()), file_state(path)] for path in paths]
    with remembered(f"statistics {files} {prepare}", versions()) as known:
        if not known:
            known |= asdict(_statistics(_decoded(paths, prepare)))
        return Statistics(tuple(known["mean"]), tuple(known["std"]), known["pictures"])


def _decoded(paths: Sequence[Path], prepare: Preprocessing) -> Iterator[Tensor]:
    """Each picture as a batch of one, decoded in threads, some of them ahead."""

    def one(path: Path) -> Tensor:
        return prepare.pixels(open_picture(path, channels=prepare.channels))[None]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(paths), 256):
            yield from pool.map(one, paths[first : first + 256])


def _statistics(chunks: Iterable[Tensor]) -> Statistics:
    """From (b, c, H, W) tensors, bytes or floats."""
    pictures = pixels = 0
    scale, totals, squares = 1, [0.0], [0.0]
    for images in chunks:
        scale, values = (255, images.long()) if images.dtype == torch.uint8 else (1, images.double())
        pictures, pixels = pictures + len(images), pixels + images[:, 0].numel()
        # Python's whole numbers do not overflow, so the sums of bytes stay exact.
        totals = _added(totals, values.sum(dim=(0, 2, 3)))
        squares = _added(squares, values.square().sum(dim=(0, 2, 3)))
    if pixels == 0:
        raise ValueError("there are no training pictures to take mean and std of")
    variances = [max(0, q * pixels - t * t) / pixels**2 for t, q in zip(totals, squares, strict=True)]
    if min(variances) == 0:
        raise ValueError(
            "a channel of the training pictures is the same in every pixel: nothing can be learned from it"
        )
    mean, std = (t / pixels / scale for t in totals), (math.sqrt(v) / scale for v in variances)
    return Statistics(tuple(mean), tuple(std), pictures)


def _added(totals: list[float], chunk: Tensor) -> list[float]:
    return [a + b for a, b in zip(totals * len(chunk) if totals == [0.0] else totals, chunk.tolist(), strict=True)]
