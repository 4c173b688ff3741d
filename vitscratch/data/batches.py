"""Which pictures make which batch, and batches from a set that fits in memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitscratch.data.augment import Augmentation
from vitscratch.data.preprocessing import normalise, to_float
from vitscratch.randomness import derive_seed

Batch = tuple[Tensor, Tensor]


class EpochBatches(ABC):
    """What all our batches can do, and the order they share; `_epoch` makes the batches themselves.

    What an epoch yields is a function of (seed, epoch) alone: not of global random state, of workers, of what was
    iterated before, or of the batch that iteration started at. Iterating changes no global random state.
    """

    def __init__(self, count: int, batch_size: int, seed: int | None, rank: int, processes: int) -> None:
        if batch_size < 1 or not 0 <= rank < processes:
            raise ValueError(
                f"batch_size {batch_size}, rank {rank} of {processes} processes: expected batches of at least 1, "
                "and ranks from 0 to processes - 1"
            )
        self._count, self._batch_size, self._seed = count, batch_size, seed
        self._rank, self._processes = rank, processes
        self._next = (0, 0)

    def __len__(self) -> int:
        """Batches of an epoch, the same in every process."""
        return -(-self._count // self._batch_size)  # rounded up

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Let the next iteration be this epoch, from batch number `start` on; without, iteration k is epoch k.

        Args:
            epoch: from 0. start: in [0, len(batches)].
        """
        if epoch < 0 or not 0 <= start <= len(self):
            raise ValueError(f"epoch {epoch}, start {start}: expected an epoch from 0 on and a start in 0..{len(self)}")
        self._next = (epoch, start)

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self._next
        self._next = (epoch + 1, 0)
        return self._epoch(epoch, start)

    @abstractmethod
    def _epoch(self, epoch: int, start: int) -> Iterator[Batch]: ...

    def _draw(self, epoch: int, draws: int) -> tuple[Int[Tensor, " n"], Float[Tensor, "n draws"]]:
        """The order of an epoch, and for each place in it the uniform numbers of the augmentation."""
        if self._seed is None:
            return torch.arange(self._count), torch.empty(self._count, 0)
        generator = torch.Generator().manual_seed(derive_seed(self._seed, epoch))
        order = torch.randperm(self._count, generator=generator)
        return order, torch.rand(self._count, draws, generator=generator)

    def _rows(self, batch: int) -> slice:
        """The places in the order of an epoch that are this process's share of a batch; perhaps none."""
        first = batch * self._batch_size
        return slice(first + self._rank, min(first + self._batch_size, self._count), self._processes)


class TensorBatches(EpochBatches):
    """(images, labels) batches of pictures held as one tensor: no file is read and no worker started.

    Args:
        images: (n, c, H, W), uint8 (turned into floats in [0, 1]) or floats; or features of pictures, (n, d) floats,
            which come in the same order as the pictures would. labels: (n,).
        batch_size: at least 1; the last batch may be smaller, no picture is left out.
        seed: of the order, which changes every epoch, and of the augmentation; None keeps the order.
        augment: applied to float pictures before normalisation, anew every epoch; needs a seed. Not for features.
        mean, std: of each channel (or one for all), subtracted and divided by; None leaves the pictures as they are,
            and features have to be left.
        device: where the whole set is moved, once, and where batches come from; None leaves it where it is.
        rank, processes: yield rows rank, rank + processes, ... of every batch, with the augmentation that a single
            process would give them. Together the processes yield each picture once; a share may be empty.

    Raises:
        ValueError: arguments that do not fit together.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: Augmentation | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        device: torch.device | str | None = None,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if len(images) != len(labels) or batch_size < 1:
            raise ValueError(
                f"{len(images)} images, {len(labels)} labels, batch_size {batch_size}: "
                "expected as many labels as images, and batches of at least 1"
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}; expected uint8, or floats in [0, 1]")
        check_augmentation(augment, seed)
        if (mean is None) != (std is None):
            raise ValueError(f"mean {mean} and std {std}: expected both or neither")
        if images.dim() != 4 and (augment is not None or mean is not None):
            raise ValueError(f"images of shape {tuple(images.shape)}: only (n, c, H, W) can be augmented or normalised")
        super().__init__(len(images), batch_size, seed, rank, processes)
        self.images, self.labels, self.augment = images.to(device), labels.to(device), augment
        self._mean_std = None
        if mean is not None and std is not None:
            self._mean_std = (_per_channel(mean, self.images), _per_channel(std, self.images))

    def _epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        order, uniform = self._draw(epoch, self.augment.draws if self.augment is not None else 0)
        order, uniform = order.to(self.images.device), uniform.to(self.images.device)  # once: no batch waits for it
        for batch in range(start, len(self)):
            rows = self._rows(batch)
            yield self._pictures(order[rows], uniform[rows]), self.labels[order[rows]]

    def _pictures(self, indices: Int[Tensor, " b"], uniform: Float[Tensor, "b draws"]) -> Float[Tensor, "b ..."]:
        images = to_float(self.images[indices])
        if self.augment is not None and len(images):
            images = self.augment(images, uniform)
        return images if self._mean_std is None else normalise(images, *self._mean_std)


def check_augmentation(augment: object | None, seed: int | None) -> None:
    """Refuse an augmentation without a seed: it would be neither random nor left out."""
    if augment is not None and seed is None:
        raise ValueError("augment without a seed: give seed=..., or augment=None for evaluation")


def _per_channel(values: Sequence[float], images: Tensor) -> Float[Tensor, "c 1 1"]:
    channels = images.shape[1]
    if len(values) not in (1, channels):
        raise ValueError(f"{len(values)} values of mean or std for pictures of {channels} channels: {list(values)}")
    dtype = torch.float32 if images.dtype == torch.uint8 else images.dtype
    return torch.tensor(values, dtype=dtype, device=images.device).expand(channels).view(-1, 1, 1)
