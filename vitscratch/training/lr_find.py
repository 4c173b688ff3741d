"""The learning-rate range test (Smith, arXiv 1506.01186, section 3.3)."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from vitscratch.randomness import random_state_kept
from vitscratch.training.aside import set_gradients, working_copy
from vitscratch.training.optimizer import adamw
from vitscratch.training.precision import autocast

MEMORY = 0.9  # of the running mean over losses: about the last ten steps count
DIVERGED = 4.0  # times the best loss so far
ENOUGH = 100  # steps: with fewer, a rate that helps may not have had the time to show it


@dataclass(frozen=True)
class LRRange:
    """What a range test saw: the learning rate of each step, and the loss before that step.

    `smoothed` is a running mean of `losses`. `suggestion` is None if the loss did not clearly fall; `reason` says, in
    a sentence, where it comes from or why there is none. `diverged`: the test stopped early.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None
    reason: str
    diverged: bool

    def __repr__(self) -> str:
        """What was found, without the hundreds of numbers."""
        return f"LRRange(suggestion={self.suggestion}, reason={self.reason!r}, {len(self.rates)} steps)"


def lr_find(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]] | Iterable[list[Tensor]],
    *,
    smallest: float = 1e-6,
    largest: float = 1.0,
    steps: int = 100,
    weight_decay: float = 0.05,
    clip_norm: float | None = 1.0,
    precision: torch.dtype = torch.float32,
    seed: int = 0,
) -> LRRange:
    """Train a copy while the learning rate grows exponentially, and see where the loss falls, and where it breaks.

    The suggestion is a tenth of the rate at which the smoothed loss was lowest: at the minimum itself training is on
    the brink already. On the digits (vit_nano_8, batches of 64, five seeds, 50 to 200 steps) this gave 6e-4 to 3e-3
    where validation had chosen 2e-3; the other common choice, the steepest descent, gave 2e-3 to 9e-3, near to where
    the loss breaks. So take it as an order of magnitude for the peak, no more: it holds for this batch size, falls
    with more steps, and comes from one short run without warm-up and decay, and with the plain loss: no mixup, label
    smoothing, class weights, accumulation or average of weights. Compare two or three rates around it.

    Args:
        model: fresh, or as it is before training; a copy is trained, with `adamw`. It stays as it is, bit for bit,
            as does every random state, after an error or Ctrl-C, too.
        batches: (images, labels) pairs; when they end they begin again. Those that know `set_epoch` are put back to
            epoch 0 (and start there), and a DataLoader's own generator to its state.
        smallest, largest: the rates of the first and of the last step, above 0.
        steps: at least 10; fewer than 100 may be too few to tell. weight_decay, clip_norm: as in training.
        precision: of the matrix products, as from `choose_precision`. Give it here rather than wrap the call in
            `torch.autocast`, which within one context goes on with the copies of the weights that it made first.
        seed: of dropout and the like, at least 0.

    Raises:
        ValueError: rates or steps that make no sense, or no batches.
    """
    if not 0.0 < smallest < largest or steps < 10:
        raise ValueError(
            f"smallest {smallest}, largest {largest}, steps {steps}: expected 0 < smallest < largest, 10 steps or more"
        )
    rates = [smallest * (largest / smallest) ** (step / (steps - 1)) for step in range(steps)]
    with random_state_kept(seed), _order_kept(batches), torch.inference_mode(False), torch.enable_grad():
        return _judge(rates, _losses(working_copy(model).train(), batches, rates, weight_decay, clip_norm, precision))


def _losses(
    model: nn.Module,
    batches: Iterable[Any],
    rates: list[float],
    weight_decay: float,
    clip_norm: float | None,
    precision: torch.dtype,
) -> list[float]:
    """The loss before each step, until it diverges."""
    optimizer = adamw(model, rates[0], weight_decay)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not parameters:
        raise ValueError("every parameter of the model is frozen: there is nothing to learn, at any rate")
    device = parameters[0].device
    scaler = GradScaler(device.type, enabled=precision == torch.float16)
    losses: list[float] = []
    for rate, (images, labels) in zip(rates, _endless(batches), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate
        with autocast(device, precision):
            logits = model(images.to(device))
        loss = F.cross_entropy(logits.float(), labels.to(device))
        losses.append(loss.item())
        if _has_diverged(losses):
            break
        set_gradients(scaler.scale(loss), parameters)
        scaler.unscale_(optimizer)  # so that clipping sees the gradient's true length
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        scaler.step(optimizer)
        scaler.update()
    return losses


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError("batches are empty, or used up; give a list, a DataLoader or batches that begin again")


@contextmanager
def _order_kept(batches: Any) -> Iterator[None]:
    """Batches that were looked at give the same order afterwards as if they had not been."""
    holders = [holder for holder in (batches, getattr(batches, "sampler", None)) if holder is not None]
    generators = [generator for holder in holders if (generator := getattr(holder, "generator", None)) is not None]
    states = [generator.get_state() for generator in generators]
    with_epochs = [holder for holder in holders if hasattr(holder, "set_epoch")]
    for holder in with_epochs:
        holder.set_epoch(0)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        for holder in with_epochs:
            holder.set_epoch(0)


def _smooth(losses: list[float]) -> list[float]:
    """Running mean that forgets, corrected for its start at 0 as Adam's are."""
    smoothed, mean = [], 0.0
    for step, loss in enumerate(losses, start=1):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        smoothed.append(mean / (1 - MEMORY**step))
    return smoothed


def _has_diverged(losses: list[float]) -> bool:
    """Not finite, or four times the best; the noise of losses near 0 does not count."""
    if not math.isfinite(losses[-1]):
        return True
    smoothed = _smooth(losses)
    return smoothed[-1] > DIVERGED * max(min(smoothed), 0.05 * smoothed[0])


def _judge(rates: list[float], losses: list[float]) -> LRRange:
    diverged = _has_diverged(losses)
    smoothed = _smooth(losses)
    finite = [loss for loss in smoothed if math.isfinite(loss)]
    suggestion = None
    if not finite:
        reason = "the very first loss is not finite: look at the data and the model (doctor) before the learning rate"
    elif not _fell(finite, losses):
        reason = "the loss never fell: no learning rate helps here; look for the mistake first (doctor)"
        if len(rates) < ENOUGH:
            reason = f"the loss fell too little to tell: {len(rates)} steps are few, try {ENOUGH} or more"
    else:
        best = finite.index(min(finite))
        suggestion = rates[best] / 10
        reason = f"a tenth of {rates[best]:.1e}, where the smoothed loss was lowest ({finite[best]:.3f})"
        if best == len(rates) - 1:
            reason += "; it was still falling, so try a larger `largest`"
    n = len(losses)
    return LRRange(tuple(rates[:n]), tuple(losses), tuple(smoothed), suggestion, reason, diverged)


def _fell(smoothed: list[float], losses: list[float]) -> bool:
    """By 5 % of the start at least, and by more than batches differ at the smallest rates, where nothing moves yet."""
    start = losses[: max(3, len(losses) // 10)]
    mean = sum(start) / len(start)
    spread = math.sqrt(sum((loss - mean) ** 2 for loss in start) / len(start))
    return mean - min(smoothed) > max(0.05 * mean, spread)
