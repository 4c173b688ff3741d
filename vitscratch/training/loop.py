"""The loop: what one step does, in order, once; an epoch of steps; and a run of epochs."""

import math
from collections.abc import Callable, Iterable, Sized
from contextlib import nullcontext
from functools import partial
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from vitscratch.config import TrainingConfig
from vitscratch.training import distributed
from vitscratch.training.activation import activation_checkpointing, blocks_of
from vitscratch.training.checkpoint import Checkpoints
from vitscratch.training.ema import MovingAverage
from vitscratch.training.failures import explained
from vitscratch.training.history import EpochRecord, is_over
from vitscratch.training.inputs import Batch, check_batches, check_labels, gpu_labels_explained, in_groups
from vitscratch.training.metrics import Metrics
from vitscratch.training.mixing import Mix, mixing
from vitscratch.training.optimizer import adamw, warn_of_coupled_decay
from vitscratch.training.precision import autocast
from vitscratch.training.run import Run
from vitscratch.training.schedule import warmup_cosine
from vitscratch.training.watch import Watch


@runtime_checkable
class Batches(Sized, Iterable[Batch], Protocol):
    """(images, labels) batches of which one can ask how many there are: a DataLoader, a list, our own."""


@gpu_labels_explained()
def train_one_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None = None,
    *,
    clip_norm: float | None = 1.0,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    mix: Mix | None = None,
    accumulate: int = 1,
    precision: torch.dtype = torch.float32,
    scaler: GradScaler | None = None,
    average: MovingAverage | None = None,
    metrics: Metrics | None = None,
    watch: Watch | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Metrics:
    """Show the model every batch once, and take one step for each (or for each `accumulate` of them).

    Args:
        model: returns logits (b, classes) for images (b, c, H, W); put into train mode.
        batches: (images, labels) pairs; moved to the model's device.
        optimizer: takes the steps. scheduler: takes one after each, so its unit is steps too.
        clip_norm, label_smoothing, accumulate: see `TrainingConfig`.
        class_weights: (classes,) factor on the loss of each class's pictures; see `balanced_weights`.
        mix: mixup or cutmix; see `mixing`.
        precision: of the matrix products; see `choose_precision`. scaler: needed for torch.float16.
        average: follows the model after each step.
        metrics: counts on if given (when an epoch is resumed). watch: the caller's, for its `finish`.
        on_step: called after each step with the number of batches that went into it.

    Returns:
        Metrics of the training pictures, with the plain (unsmoothed, unweighted) loss.

    Raises:
        NonFiniteLoss: a loss or gradient is nan or infinite; the weights are still those of the step before.
        ValueError: labels that are no class numbers; see `check_labels`.
    """
    warn_of_coupled_decay(optimizer)
    model.train()
    device = next(model.parameters()).device
    metrics = Metrics() if metrics is None else metrics
    scaler = GradScaler(device.type, enabled=False) if scaler is None else scaler
    watch = Watch(optimizer) if watch is None else watch
    for group in in_groups(batches, accumulate):
        pictures = distributed.total(sum(len(labels) for _, labels in group))
        optimizer.zero_grad()
        step_loss = torch.zeros((), device=device)
        for number, (images, given) in enumerate(group, start=1):
            distributed.average_gradients(model, now=number == len(group))
            images, labels = images.to(device, non_blocking=True), given.to(device, non_blocking=True)
            inputs, targets = (images, labels) if mix is None else mix(images, labels)
            with autocast(device, precision):
                logits = model(inputs)
            check_labels(given, logits.shape)
            losses = F.cross_entropy(
                logits.float(), targets, class_weights, label_smoothing=label_smoothing, reduction="sum"
            )
            # The mean over the pictures of this step, in all batches and processes (whose gradients are averaged).
            loss = losses * distributed.processes() / pictures
            step_loss += loss.detach()
            scaler.scale(loss).backward()
            metrics.update(logits.detach(), labels)
        scaler.unscale_(optimizer)  # so that clipping sees the gradient's true length
        norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if clip_norm is None else clip_norm)
        # Stop before a bad step. An fp16 gradient may overflow, which the scaler sees to, but the loss may not.
        watch(step_loss if scaler.is_enabled() else norm, group)
        scaler.step(optimizer)
        scaler.update()
        if scheduler is not None:
            scheduler.step()
        if average is not None:
            average.update(model)
        if on_step is not None:
            on_step(len(group))
    watch.finish()
    return metrics


@gpu_labels_explained()
@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Batch], precision: torch.dtype = torch.float32) -> Metrics:
    """Measure loss and accuracy in eval mode, every picture counted once; the model's mode is put back."""
    device = next(model.parameters()).device
    metrics = Metrics()
    was_training = model.training
    model.eval()
    try:
        for images, labels in batches:
            with autocast(device, precision):
                logits = model(images.to(device, non_blocking=True))
            check_labels(labels, logits.shape)
            metrics.update(logits, labels.to(device, non_blocking=True))
    finally:
        model.train(was_training)
    return metrics


def fit(
    model: nn.Module,
    train: Batches,
    config: TrainingConfig,
    *,
    validation: Batches | None = None,
    num_classes: int | None = None,
    class_weights: Tensor | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[Run], None] | None = None,
    on_epoch: Callable[[Run], None] | None = None,
) -> list[EpochRecord]:
    """Train a model with warm-up and cosine decay, validate it after every epoch, and keep the right weights.

    Args:
        model: changed in place. It ends with the weights of the last epoch, or with `patience` of the best one
            (`best_epoch` says which); with `ema_decay` these are the averaged weights.
        train: the training batches; one pass over it is an epoch. In a distributed run: this process's share.
        config: everything that can be set.
        validation: measured after every epoch if given. Never the test set: what is looked at gets fitted.
        num_classes: length of the logits; mixup and cutmix need it.
        class_weights: (classes,) factor on the loss of each class's pictures; see `balanced_weights`.
        optimizer: the default is AdamW over `decay_groups`. Every group's learning rate follows the schedule.
        checkpoints: where the run is saved, and resumed from if it was saved there before.
        on_step, on_epoch: called after each with the run as it stands, for progress.

    Returns:
        One record for each epoch, those before a resume included.

    Raises:
        ValueError: no batches, labels that are no class numbers, or settings that do not fit together.
        NonFiniteLoss: a loss is nan or infinite; see `train_one_epoch`.
    """
    check_batches("train", train)
    if validation is not None:
        check_batches("validation", validation)
    elif config.patience is not None:
        raise ValueError(f"patience {config.patience} needs validation pictures; give some, or patience None")
    if config.parallel == "fsdp" and (config.ema_decay or optimizer is not None):
        raise ValueError("parallel fsdp goes without ema_decay and with an optimizer of its own; use parallel ddp")
    steps = math.ceil(len(train) / config.accumulate)
    schedule = partial(
        warmup_cosine, warmup_steps=round(config.warmup_epochs * steps), total_steps=config.epochs * steps
    )
    if config.parallel == "fsdp":
        distributed.shard(model, blocks_of(model))
    optimizer = adamw(model, config.learning_rate, config.weight_decay) if optimizer is None else optimizer
    run = Run(
        model,
        optimizer,
        scheduler=LambdaLR(optimizer, schedule),
        average=MovingAverage(model, config.ema_decay) if config.ema_decay else None,
        precision=config.precision,
    )
    mix = mixing(num_classes, config.mixup, config.cutmix)
    if checkpoints is not None:
        checkpoints.resume(run)
    compiled: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
    replica = distributed.replicate(compiled)

    def after_step(batches: int) -> None:
        run.count(batches)
        if on_step is not None:
            on_step(run)
        if checkpoints is not None:
            checkpoints.after_step(run)

    with activation_checkpointing(model) if config.activation_checkpointing else nullcontext():
        while run.epoch < config.epochs and not is_over(run.history, config.monitor, config.patience):
            with explained(run, run.dtype, config.accumulate, checkpoints):
                train_one_epoch(
                    replica,
                    run.unseen(train),
                    optimizer,
                    run.scheduler,
                    clip_norm=config.clip_norm,
                    label_smoothing=config.label_smoothing,
                    class_weights=class_weights,
                    mix=mix,
                    accumulate=config.accumulate,
                    precision=run.dtype,
                    scaler=run.scaler,
                    average=run.average,
                    metrics=run.metrics,
                    watch=run.watch,
                    on_step=after_step,
                )
            run.count()
            distributed.share_buffers(run.result)
            validated = Metrics()
            if validation is not None:
                validated = evaluate(run.average.model if run.average else compiled, validation, run.dtype)
            last_rate = max(map(float, run.scheduler.base_lrs)) * schedule((run.epoch + 1) * steps - 1)
            run.end_epoch(validated.over_processes(), last_rate, config.monitor)
            if checkpoints is not None:
                checkpoints.after_epoch(run)
            if on_epoch is not None:
                on_epoch(run)
    if checkpoints is not None:
        checkpoints.save(run)
    if config.patience is not None and run.best is not None:
        distributed.load_states(model, run.best)
    elif run.average is not None:
        model.load_state_dict(run.average.model.state_dict())
    return run.history
