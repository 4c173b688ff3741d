"""Batches from a set that fits in memory."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


class TensorBatches:
    """(images, labels) batches of pictures held as one tensor: no file is read and no worker started.

    Args:
        images: (n, c, H, W). labels: (n,).
        batch_size: at least 1; the last batch may be smaller, no picture is left out.
        seed: of the order, which changes every epoch, and of the augmentation; None keeps the order.
        augment: called with (images, generator) for every batch.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    ) -> None:
        if len(images) != len(labels) or batch_size < 1:
            raise ValueError(
                f"{len(images)} images, {len(labels)} labels, batch_size {batch_size}: "
                "expected as many labels as images, and batches of at least 1"
            )
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.shuffle, self.augment = seed is not None, augment
        self.generator = torch.Generator().manual_seed(seed if seed is not None else 0)

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)  # rounded up

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n = len(self.images)
        order = torch.randperm(n, generator=self.generator) if self.shuffle else torch.arange(n)
        for indices in order.split(self.batch_size):
            images = self.images[indices]
            if self.augment is not None:
                images = self.augment(images, self.generator)
            yield images, self.labels[indices]
