"""Everything that changes while a model is trained: what a checkpoint has to hold."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import LRScheduler

from vitscratch.randomness import (
    random_state,
    set_random_state,
    set_torch_random_state,
    torch_random_state,
)
from vitscratch.training import distributed
from vitscratch.training.ema import MovingAverage
from vitscratch.training.history import EpochRecord, Monitor, best_epoch
from vitscratch.training.metrics import Metrics
from vitscratch.training.precision import Precision, choose_precision
from vitscratch.training.watch import Watch


@runtime_checkable
class Positioned(Protocol):
    """Batches that can begin anywhere, such as those of `vitscratch.data`."""

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Let the next iteration be that epoch (0, 1, ...), from batch number `start` on."""


@dataclass
class Run:
    """A training run at some moment, between two steps. `Run.state_dict` is complete: a run that goes on from it
    does, bit for bit, what it would have done."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    average: MovingAverage | None
    precision: Precision = "auto"

    epoch: int = 0  # epochs that are over
    batch: int = 0  # batches of the next one that went into a step already
    metrics: Metrics = field(default_factory=Metrics)  # of those batches
    seconds: float = 0.0  # that the epoch has taken so far; waited: of which without a batch
    waited: float = 0.0
    epoch_random: dict[str, Any] = field(default_factory=random_state)  # when the epoch began
    epoch_generators: list[Tensor] = field(default_factory=list)  # of a DataLoader that has its own, likewise
    history: list[EpochRecord] = field(default_factory=list)
    best: dict[str, Tensor] | None = None  # weights of the best epoch so far, on the CPU; None without validation

    dtype: torch.dtype = field(init=False)  # what the precision is here; a run that goes on keeps what "auto" was
    scaler: GradScaler = field(init=False)
    watch: Watch = field(init=False)
    clock: float = field(default_factory=time.perf_counter)  # up to where `seconds` have been counted

    def __post_init__(self) -> None:
        self.watch = Watch(self.optimizer)
        self._compute_in(choose_precision(self.precision, next(self.model.parameters()).device))

    def _compute_in(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.scaler = GradScaler(next(self.model.parameters()).device.type, enabled=dtype == torch.float16)

    @property
    def result(self) -> nn.Module:
        """The model to validate and to keep: the averaged one if there is one."""
        return self.average.model if self.average is not None else self.model

    def unseen(self, train: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the present epoch that went into no step yet; the time spent waiting for them is counted.

        Our own batches are told where to start. Any other iterable starts the epoch again from the random state in
        which it started before, and what was seen is thrown away: a DataLoader that shuffles gives the same order.
        A sampler that wants to know the epoch, as DistributedSampler does, is told.
        """
        self.clock = time.perf_counter()
        if isinstance(train, Positioned):
            train.set_epoch(self.epoch, self.batch)
            iterator = iter(train)
        else:
            iterator = self._from_the_start(train)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def _from_the_start(self, train: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        sampler: Any = getattr(train, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self.epoch)
        generators = [getattr(holder, "generator", None) for holder in (train, sampler)]
        own = [generator for generator in generators if isinstance(generator, Generator)]
        if self.batch == 0:
            self.epoch_random, self.epoch_generators = random_state(), [generator.get_state() for generator in own]
            return iter(train)
        now = random_state()
        set_random_state(self.epoch_random)
        for generator, state in zip(own, self.epoch_generators, strict=True):
            generator.set_state(state)
        iterator = iter(train)
        for _ in range(self.batch):
            next(iterator)
        set_random_state(now)
        return iterator

    def count(self, batches: int = 0) -> None:
        """Note that so many more batches went into a step, and the time that has passed."""
        now = time.perf_counter()
        self.batch += batches
        self.seconds, self.clock = self.seconds + now - self.clock, now

    def end_epoch(self, validated: Metrics, learning_rate: float, monitor: Monitor) -> None:
        """Write the epoch's record, keep its weights if they are the best so far, and begin the next one."""
        trained, training_seconds = self.metrics.over_processes(), self.seconds
        self.count()
        self.epoch += 1
        record = EpochRecord(
            epoch=self.epoch,
            learning_rate=learning_rate,
            train_loss=trained.loss,
            train_accuracy=trained.accuracy,
            validation_loss=validated.loss,
            validation_accuracy=validated.accuracy,
            seconds=self.seconds,
            images_per_second=trained.total / max(training_seconds, 1e-9),
            data_wait=min(1.0, self.waited / max(training_seconds, 1e-9)),
        )
        self.history.append(record)
        if best_epoch(self.history, monitor) == self.epoch:
            state = distributed.model_state(self.result)
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        self.batch, self.seconds, self.waited, self.metrics = 0, 0.0, 0.0, Metrics()
        self.epoch_random = random_state()

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, lists and dicts only. In a distributed run every process has to call it.

        Raises:
            NonFiniteLoss: the last steps were void; see `Watch`.
        """
        self.watch.finish()
        average = self.average
        return {
            "model": distributed.model_state(self.model),
            "average": {"updates": average.updates, "model": average.model.state_dict()} if average else None,
            "optimizer": distributed.optimizer_state(self.model, self.optimizer),
            "scheduler": self.scheduler.state_dict(),
            "dtype": str(self.dtype).removeprefix("torch."),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "metrics": self.metrics.over_processes().state_dict(),
            "seconds": self.seconds,
            "waited": self.waited,
            "epoch_random": self.epoch_random,
            "epoch_generators": self.epoch_generators,
            "random": random_state(),
            "torch_random_of_each_process": distributed.gather(torch_random_state()),
            "best": self.best,
            "history": [asdict(record) for record in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, with as many processes as one likes: batches are counted over all of them."""
        if (self.average is None) is not (state["average"] is None):
            raise ValueError("it was written with another ema_decay: one of the two runs averages, the other does not")
        distributed.load_states(self.model, state["model"], self.optimizer, state["optimizer"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"]["model"])
            self.average.updates = state["average"]["updates"]
        self.scheduler.load_state_dict(state["scheduler"])
        if self.precision == "auto":  # another machine would choose another, and end with other weights
            self._compute_in(getattr(torch, state["dtype"]))
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.seconds, self.waited = state["seconds"], state["waited"]
        self.epoch_random, self.best = state["epoch_random"], state["best"]
        self.epoch_generators = state["epoch_generators"]
        self.history = [EpochRecord(**record) for record in state["history"]]
        self.metrics = Metrics()
        rank, of_each_process = distributed.rank(), state["torch_random_of_each_process"]
        if rank == 0:  # which counts for all until now
            self.metrics.load_state_dict(state["metrics"], next(self.model.parameters()).device)
        set_random_state(state["random"])
        if 0 < rank < len(of_each_process):
            set_torch_random_state(of_each_process[rank])
        elif rank:  # a process that was not there before
            torch.manual_seed(torch.initial_seed() + rank)
