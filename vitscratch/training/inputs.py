"""What the loop cannot use, said in a line before torch says it in its own words, or on a GPU much later."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]


def check_batches(name: str, batches: Any) -> None:
    """See that there are batches, and that one can go through them again.

    Raises:
        ValueError: there are none, or nobody knows how many, as with a generator.
    """
    try:
        count = len(batches)
    except TypeError as error:
        raise ValueError(
            f"{name} is a {type(batches).__name__} without a length; expected batches that can be counted, and gone "
            f"through again every epoch: give list({name}), or a DataLoader over a set with a length"
        ) from error
    if count < 1:
        raise ValueError(f"{name} has no batches; expected at least one")


def in_groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """The batches, `size` at a time; the last group may be smaller."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def check_labels(labels: Tensor, logits_shape: Sequence[int]) -> None:
    """See that labels are class numbers. Values are looked at on the CPU alone: a GPU would have to wait for them.

    Args:
        labels: as the loader gave them, on any device.
        logits_shape: (pictures, classes).

    Raises:
        ValueError: another type or shape, or a number outside 0 to classes - 1.
    """
    if len(logits_shape) != 2:
        raise ValueError(f"the model returned {tuple(logits_shape)}; expected logits (pictures, classes)")
    pictures, classes = logits_shape
    if labels.dtype != torch.int64 or labels.shape != (pictures,):
        raise ValueError(
            f"labels are {labels.dtype} {tuple(labels.shape)}; expected class numbers, torch.int64 ({pictures},): "
            "labels.long(), labels.squeeze(1) or one_hot.argmax(dim=1)"
        )
    if labels.device.type != "cpu" or not pictures:
        return
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(
            f"label {low if low < 0 else high} does not go with {classes} logits; expected 0 to {classes - 1}: count "
            f"classes from 0, or build the model with num_classes={max(high, 0) + 1}"
        )


@contextmanager
def gpu_labels_explained() -> Iterator[None]:
    """Say in a line what it usually means that a GPU's kernel stopped at an assertion."""
    try:
        yield
    except RuntimeError as error:
        if "device-side assert" not in str(error):
            raise
        raise ValueError(
            "the GPU stopped at an index that is out of range: most likely a label outside 0 to classes - 1; keep the "
            "labels on the CPU, or run one epoch there (--device cpu), to be told which"
        ) from error
