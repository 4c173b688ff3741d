"""A few pictures of a set, as they are and as a model sees them."""

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitscratch.data.augment import Augmentation
from vitscratch.data.builtin import BUILT_IN, load_built_in
from vitscratch.data.check import list_set
from vitscratch.data.files import Transform
from vitscratch.data.pictures import PictureError, as_picture, open_picture
from vitscratch.data.preprocessing import Preprocessing, to_bytes, to_float
from vitscratch.randomness import derive_seed, random_state_kept

if TYPE_CHECKING:
    from PIL.Image import Image
else:
    from typing import Any as Image


@dataclass(frozen=True)
class Examples:
    """Some pictures of a set, upright, 8-bit RGB or grey; (n,) labels; the classes' names; bad files passed over."""

    pictures: tuple[Image, ...]
    labels: Int[Tensor, " n"]
    class_names: tuple[str, ...]
    passed_over: tuple[str, ...]


def choose_examples(
    data: str | os.PathLike[str],
    count: int,
    seed: int,
    *,
    channels: int = 3,
    data_dir: str | os.PathLike[str] | None = None,
) -> Examples:
    """Pictures of a set at random, as many of each class as possible; only they are opened.

    Args:
        data, data_dir: see `load_splits`; of a divided set, the training part.
        count: at least 1. seed: of the choice. channels: 3 or 1.

    Raises:
        ValueError, RuntimeError: no such set, or no picture in it that can be opened.
    """
    labels, names, take = _catalogue(data, channels, data_dir)
    generator = random.Random(seed)
    by_class = [[number for number, label in enumerate(labels) if label == chosen] for chosen in range(len(names))]
    shuffled = [generator.sample(numbers, len(numbers)) for numbers in by_class]
    pictures: list[tuple[int, Image]] = []
    passed_over = []
    for number in chain.from_iterable(zip_longest(*shuffled)):  # one of each class, then another of each, ...
        if len(pictures) == count:
            break
        if number is None:  # this class has no more
            continue
        try:
            pictures.append((labels[number], take(number)))
        except PictureError as error:
            passed_over.append(str(error))
    if not pictures:
        raise ValueError(f"{data} has no picture that can be opened; `vitscratch data check {data}` says why")
    pictures.sort(key=lambda pair: pair[0])
    chosen = torch.tensor([label for label, _ in pictures])
    return Examples(tuple(picture for _, picture in pictures), chosen, names, tuple(passed_over))


def augmented_views(
    pictures: Sequence[Image],
    preprocessing: Preprocessing,
    augment: Augmentation | Transform | None,
    views: int,
    seed: int,
) -> Float[Tensor, "n views c H W"]:
    """What a model sees of each picture in several epochs, but for the normalisation: in [0, 1].

    Args:
        pictures: of `open_picture`. preprocessing, augment: see `FileBatches`.
        views: of each picture. seed: of the augmentation.
    """
    seen = []
    for view in range(views):
        if augment is None or isinstance(augment, Augmentation):
            images = torch.stack([to_float(preprocessing.pixels(picture)) for picture in pictures])
            if augment is not None:
                generator = torch.Generator().manual_seed(derive_seed(seed, view))
                images = augment(images, torch.rand(len(images), augment.draws, generator=generator))
        else:
            with random_state_kept(derive_seed(seed, view)):
                images = torch.stack([to_float(augment(to_bytes(x, preprocessing.channels))) for x in pictures])
        seen.append(images)
    return torch.stack(seen, dim=1)


def _catalogue(
    data: str | os.PathLike[str], channels: int, data_dir: str | os.PathLike[str] | None
) -> tuple[list[int], tuple[str, ...], Callable[[int], Image]]:
    """Labels, names of the classes, and what opens the picture of a number."""
    if str(data) in BUILT_IN:
        part = next(iter(load_built_in(str(data), data_dir).values()))  # the training part comes first
        return part.labels.tolist(), part.class_names, lambda number: as_picture(part.images[number])
    listing = list_set(Path(data))
    entries = [entry for entry in listing.entries if entry.split in (None, "train")]

    def take(number: int) -> Image:
        try:
            return open_picture(entries[number].read(), channels=channels)
        except PictureError as error:
            raise PictureError(f"{entries[number].name}: {error}") from error

    return [entry.label for entry in entries], listing.class_names, take
