"""Batches from picture files, for sets that do not fit in memory."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vitscratch.data.augment import Augmentation
from vitscratch.data.batches import Batch, EpochBatches, TensorBatches, check_augmentation
from vitscratch.data.pictures import PictureError, open_picture
from vitscratch.data.preprocessing import Preprocessing, to_bytes, to_float
from vitscratch.data.sets import PictureFiles, Pictures
from vitscratch.randomness import derive_seed, random_state_kept

Transform = Callable[[Tensor], Tensor]


class FileBatches(EpochBatches):
    """(images, labels) batches of picture files, decoded by worker processes while the model computes.

    Without a torchvision transform it yields what `TensorBatches` yields for the same pictures decoded beforehand:
    the same batches in the same order, augmented by the same numbers.

    Args:
        files: paths of pictures, already checked (see `load_splits`). labels: (n,).
        preprocessing: size, channels and normalisation.
        batch_size, seed, rank, processes: see `TensorBatches`.
        augment: an `Augmentation`, applied after resizing and before normalisation; or a random torchvision v2
            transform, applied to the (c, h, w) bytes instead of resizing, so what it returns has to have the right size
            (end with RandomResizedCrop, say). Its random state is seeded from (seed, epoch, picture).
        workers: processes that decode; None for one per core up to 8; 0 decodes in this process.
        pin_memory: copy batches to memory that a GPU reads by itself; None: if there is one.

    Raises:
        ValueError: arguments that do not fit together. OSError: while iterating: a file that cannot be read any more.
    """

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]],
        labels: Tensor,
        preprocessing: Preprocessing,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: Augmentation | Transform | None = None,
        workers: int | None = None,
        rank: int = 0,
        processes: int = 1,
        pin_memory: bool | None = None,
    ) -> None:
        if len(files) != len(labels):
            raise ValueError(f"{len(files)} files, {len(labels)} labels: expected as many labels as files")
        check_augmentation(augment, seed)
        super().__init__(len(files), batch_size, seed, rank, processes)
        workers = min(8, os.cpu_count() or 1) if workers is None else workers
        if workers < 0:
            raise ValueError(f"workers {workers}: expected 0 (decode in this process) or more")
        self._draws = augment.draws if isinstance(augment, Augmentation) else 0
        self._sampler = _EpochSampler()
        self._iteration = 0
        self._loader = DataLoader(
            _Files([os.fspath(file) for file in files], labels, preprocessing, augment),
            batch_sampler=self._sampler,
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
            worker_init_fn=_ignore_interrupts,
            generator=torch.Generator(),  # else the loader draws from the global one
        )

    def _epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        order, uniform = self._draw(epoch, self._draws)
        rows = [self._rows(batch) for batch in range(start, len(self))]
        self._iteration += 1
        self._sampler.requests = _requests(order, uniform, rows, (self._seed or 0, epoch))
        return self._received(iter(self._loader), self._iteration)

    def _received(self, batches: Iterator[Batch | str], iteration: int) -> Iterator[Batch]:
        while True:
            if iteration != self._iteration:  # workers serve one iteration at a time
                raise RuntimeError("another iteration of the same FileBatches has begun; finish one before the next")
            batch = next(batches, None)
            if batch is None:
                return
            if isinstance(batch, str):
                raise OSError(batch)
            yield batch


class _Request(NamedTuple):
    """A picture, and all that is random about it: so a worker need not know the epoch, nor keep a random state."""

    number: int
    seed: int
    uniform: tuple[float, ...]


def _requests(
    order: Tensor, uniform: Tensor, batches: Sequence[slice], seeds: tuple[int, int]
) -> Iterator[list[_Request]]:
    """No method: a generator that knew the FileBatches would make a circle, which ends the workers' queues too early,
    and then the end of the workers takes five seconds each."""
    for rows in batches:
        yield [
            _Request(index, derive_seed(*seeds, index), tuple(numbers))
            for index, numbers in zip(order[rows].tolist(), uniform[rows].tolist(), strict=True)
        ]


class _EpochSampler(Sampler[list[_Request]]):
    """Hands the loader the requests of the epoch that is about to begin."""

    def __init__(self) -> None:
        self.requests: Iterator[list[_Request]] = iter(())

    def __iter__(self) -> Iterator[list[_Request]]:
        return self.requests


class _Files(Dataset[Batch | str]):
    """What a worker does: requests in, a batch out."""

    def __init__(
        self,
        files: list[str],
        labels: Tensor,
        preprocessing: Preprocessing,
        augment: Augmentation | Transform | None,
    ) -> None:
        self.files, self.labels, self.preprocessing, self.augment = files, labels, preprocessing, augment

    def __getitems__(self, requests: list[_Request]) -> Batch | str:
        """The batch, or what is wrong: an error raised in a worker arrives as a page of traceback."""
        images = torch.empty(len(requests), self.preprocessing.channels, *self.preprocessing.image_size)
        for i, request in enumerate(requests):
            try:
                images[i] = self._picture(request)
            except PictureError as error:
                return (
                    f"{self.files[request.number]}: {error}; was it changed? `vitscratch data check` looks at all files"
                )
        return self.preprocessing.normalise(images), self.labels[[request.number for request in requests]]

    def _picture(self, request: _Request) -> Tensor:
        picture = open_picture(self.files[request.number], channels=self.preprocessing.channels, max_pixels=None)
        if self.augment is None or isinstance(self.augment, Augmentation):
            image = to_float(self.preprocessing.pixels(picture))
            if self.augment is None:
                return image
            return self.augment(image[None], torch.tensor([request.uniform]))[0]
        with random_state_kept(request.seed):
            image = to_float(self.augment(to_bytes(picture, self.preprocessing.channels)))
        if tuple(image.shape[1:]) != self.preprocessing.image_size:
            raise ValueError(f"the transform made {tuple(image.shape)}; expected size {self.preprocessing.image_size}")
        return image


def _as_it_is(batch: Any) -> Any:  # the loader's own type says list, which is what it would be without __getitems__
    return batch


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches workers too: they go on, so that the main process can finish its step; they end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how the main process ends them, whatever handler they inherited


def make_batches(
    part: Pictures | PictureFiles,
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    seed: int | None = None,
    augment: Augmentation | Transform | None = None,
    device: torch.device | str | None = None,
    workers: int | None = None,
    rank: int = 0,
    processes: int = 1,
) -> EpochBatches:
    """Batches of a part of `load_splits`: `TensorBatches` if it is in memory, else `FileBatches`.

    Args:
        part, preprocessing: of the splits; the latter with mean and std set.
        device: for a part in memory: where it is moved and where batches come from. workers: for one in files.
        batch_size, seed, augment, rank, processes: see these classes.

    Raises:
        ValueError: a torchvision transform, which works picture by picture, for a set in memory.
    """
    if isinstance(part, PictureFiles):
        return FileBatches(
            part.paths,
            part.labels,
            preprocessing,
            batch_size,
            seed=seed,
            augment=augment,
            workers=workers,
            rank=rank,
            processes=processes,
        )
    if augment is not None and not isinstance(augment, Augmentation):
        raise ValueError(f"{augment} works picture by picture, on files; load the set with max_memory=0 to use it")
    return TensorBatches(
        part.images,
        part.labels,
        batch_size,
        seed=seed,
        augment=augment,
        mean=preprocessing.mean,
        std=preprocessing.std,
        device=device,
        rank=rank,
        processes=processes,
    )
