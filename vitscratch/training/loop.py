"""The loop: what one step does, in order, once."""

import math
import time
from collections.abc import Callable, Iterable, Sized
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from vitscratch.training.history import EpochRecord
from vitscratch.training.metrics import Metrics
from vitscratch.training.optimizer import adamw
from vitscratch.training.schedule import warmup_cosine

Batch = tuple[Tensor, Tensor]


@runtime_checkable
class Batches(Sized, Iterable[Batch], Protocol):
    """(images, labels) batches of which one can ask how many there are: a DataLoader, a list, our own."""


def train_one_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None = None,
    *,
    clip_norm: float | None = 1.0,
    label_smoothing: float = 0.0,
) -> Metrics:
    """Show the model every batch once, and take one step for each.

    Args:
        model: returns logits (b, classes) for images (b, c, H, W); put into train mode.
        batches: (images, labels) pairs; moved to the model's device.
        optimizer: takes one step for each batch. scheduler: takes one after it, so its unit is steps too.
        clip_norm: longest gradient (L2 norm over all parameters) that a step may follow; None for any.
        label_smoothing: probability in [0, 1) that is spread over all classes (arXiv 1512.00567, section 7).

    Returns:
        Metrics of the training pictures, with the plain (unsmoothed) loss.
    """
    model.train()
    device = next(model.parameters()).device
    metrics = Metrics()
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        optimizer.zero_grad()
        logits = model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        metrics.update(logits.detach(), labels)
    return metrics


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Batch]) -> Metrics:
    """Measure loss and accuracy in eval mode, every picture counted once; the model's mode is put back."""
    device = next(model.parameters()).device
    metrics = Metrics()
    was_training = model.training
    model.eval()
    try:
        for images, labels in batches:
            metrics.update(model(images.to(device)), labels.to(device))
    finally:
        model.train(was_training)
    return metrics


def fit(
    model: nn.Module,
    train: Batches,
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float = 0.05,
    warmup_epochs: float = 0.0,
    clip_norm: float | None = 1.0,
    label_smoothing: float = 0.0,
    validation: Batches | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> list[EpochRecord]:
    """Train with AdamW, warm-up and cosine decay for a fixed number of epochs.

    Args:
        model: changed in place; see `train_one_epoch`.
        train: the training batches; one pass over it is an epoch.
        epochs: at least 1. The model after the last one is the result: nothing is chosen on the way.
        learning_rate: the peak. weight_decay: AdamW's, see `decay_groups`.
        warmup_epochs: length of the warm-up, in epochs (a fraction is fine).
        clip_norm, label_smoothing: see `train_one_epoch`.
        validation: measured after every epoch if given. Never the test set: what is looked at gets fitted.
        on_epoch: called with each record, for progress.

    Returns:
        One record for each epoch.

    Raises:
        ValueError: no epochs, no batches, or a warm-up longer than the run.
        FloatingPointError: the loss of an epoch is nan or infinite.
    """
    if epochs < 1 or len(train) < 1:
        raise ValueError(f"epochs {epochs} and {len(train)} training batches: expected at least one of each")
    if validation is not None and len(validation) < 1:
        raise ValueError("validation has no batches; expected at least one, or None")
    if not 0 <= warmup_epochs <= epochs:
        raise ValueError(f"warmup_epochs {warmup_epochs}: expected 0 to epochs, {epochs}")
    optimizer = adamw(model, learning_rate, weight_decay)
    warmup_steps, total_steps = round(warmup_epochs * len(train)), epochs * len(train)
    scheduler = LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup_steps, total_steps))
    history = []
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        trained = train_one_epoch(
            model, train, optimizer, scheduler, clip_norm=clip_norm, label_smoothing=label_smoothing
        )
        validated = evaluate(model, validation) if validation is not None else Metrics()
        record = EpochRecord(
            epoch=epoch,
            learning_rate=learning_rate * warmup_cosine(epoch * len(train) - 1, warmup_steps, total_steps),
            train_loss=trained.loss,
            train_accuracy=trained.accuracy,
            validation_loss=validated.loss,
            validation_accuracy=validated.accuracy,
            seconds=time.perf_counter() - started,
        )
        if not math.isfinite(record.train_loss):
            raise FloatingPointError(
                f"the training loss of epoch {epoch} is {record.train_loss}; "
                f"try a lower learning rate than {learning_rate}"
            )
        history.append(record)
        if on_epoch is not None:
            on_epoch(record)
    return history
