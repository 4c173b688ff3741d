"""Four ways to train a pretrained model on pictures of one's own, from the cheapest to the dearest.

======================  ==========================================================================================
`train_head`            the body stays as it is; for few pictures that look like those of the pretraining
`train_last`            the last blocks learn, too; in between, in cost and in what it can learn
`train_all`             everything learns at once, lower layers more slowly; for many pictures, or unlike ones
`fine_tune`             first the head alone, then everything: a head that still guesses would otherwise send large
                        gradients through a body that knows better (Howard and Ruder, arXiv 1801.06146, section 3.3)
======================  ==========================================================================================

Each is `fit` with other parameters and rates, takes all of `fit`'s options, and returns its records.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from vitscratch.config import TrainingConfig
from vitscratch.training import Checkpoints, EpochRecord, Run, best_epoch, fit
from vitscratch.training.loop import Batches
from vitscratch.transfer.freeze import freeze, unfreeze
from vitscratch.transfer.groups import parameter_groups

HEAD, ALL = "head", "all"  # the parts of `fine_tune`; checkpoints of the first lie in a folder of its name in the run's


def train_head(model: nn.Module, train: Batches, config: TrainingConfig, **options: Any) -> list[EpochRecord]:
    """Train the head alone; the body is frozen, and stays so.

    Without augmentation `linear_probe` gives the same result in a fraction of the time.

    Args:
        model: a classifier with a head for the classes of `train` (`replace_head`).
        train, config, options: as for `fit`, without an optimizer.
    """
    freeze(model)
    return _fit(model, train, config, 1.0, options)


def train_last(
    model: nn.Module, train: Batches, config: TrainingConfig, last: int, layer_decay: float = 1.0, **options: Any
) -> list[EpochRecord]:
    """Train the last blocks, the norm after them and the head; what is below stays frozen.

    Args:
        last: how many blocks, at least 1 (of a ResNet: stages).
        layer_decay: see `train_all`.
    """
    freeze(model)
    unfreeze(model, last=last)
    return _fit(model, train, config, layer_decay, options)


def train_all(
    model: nn.Module, train: Batches, config: TrainingConfig, layer_decay: float = 0.75, **options: Any
) -> list[EpochRecord]:
    """Train everything at once, each block with its own learning rate.

    Args:
        layer_decay: in (0, 1]: each block learns so many times as fast as the one above it: lower layers see edges and
            colours, which new pictures have, too. 1: all learn alike.
    """
    unfreeze(model)
    return _fit(model, train, config, layer_decay, options)


def fine_tune(
    model: nn.Module,
    train: Batches,
    config: TrainingConfig,
    *,
    head_epochs: int = 1,
    head_learning_rate: float | None = None,
    layer_decay: float = 0.75,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[Run], None] | None = None,
    on_epoch: Callable[[Run], None] | None = None,
    **options: Any,
) -> list[EpochRecord]:
    """`train_head` for a few epochs, then `train_all`, each with a warm-up of its own.

    Args:
        head_epochs: of the first part, at least 1; `config.epochs` counts the second alone.
        head_learning_rate: of the first part; default ten times `config.learning_rate`, as a linear layer bears more.
        layer_decay: of the second part.
        checkpoints: those of the first part lie in its folder's folder "head"; best.pt is the best of both parts.
        on_step, on_epoch, options: as for `fit`; records and epochs are counted through both parts.

    Returns:
        The records of both parts, "head" and "all". With `patience` the model ends with the weights of the best epoch
        of all, which may be one of the first part.
    """
    rate = 10 * config.learning_rate if head_learning_rate is None else head_learning_rate
    warmup = min(config.warmup_epochs, head_epochs / 5)
    first = replace(config, epochs=head_epochs, learning_rate=rate, warmup_epochs=warmup, compile=False)
    own = None
    if checkpoints is not None:
        own = Checkpoints(checkpoints.folder / HEAD, checkpoints.monitor, stop=checkpoints.stop)
    joined: Callable[[list[EpochRecord]], list[EpochRecord]] = partial(_joined, after=[])
    before = train_head(
        model,
        train,
        first,
        checkpoints=own,
        on_step=_retold(on_step, joined),
        on_epoch=_retold(on_epoch, joined),
        **options,
    )
    if checkpoints is not None:
        checkpoints.go_on_after(checkpoints.folder / HEAD, before)
    joined = partial(_joined, before)
    kept = copy.deepcopy(model.state_dict()) if config.patience is not None else {}
    after = train_all(
        model,
        train,
        config,
        layer_decay,
        checkpoints=checkpoints,
        on_step=_retold(on_step, joined),
        on_epoch=_retold(on_epoch, joined),
        **options,
    )
    history = joined(after)
    if config.patience is not None and (best_epoch(history, config.monitor) or len(history)) <= len(before):
        model.load_state_dict(kept)  # nothing of the second part was better
    return history


def _fit(
    model: nn.Module, train: Batches, config: TrainingConfig, layer_decay: float, options: dict[str, Any]
) -> list[EpochRecord]:
    groups = parameter_groups(model, config.learning_rate, layer_decay, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    return fit(model, train, config, optimizer=optimizer, **options)


def _joined(before: list[EpochRecord], after: list[EpochRecord]) -> list[EpochRecord]:
    """The records of both parts, numbered through."""
    first = [replace(record, part=HEAD) for record in before]
    return first + [replace(record, epoch=record.epoch + len(before), part=ALL) for record in after]


def _retold(
    call: Callable[[Run], None] | None, joined: Callable[[list[EpochRecord]], list[EpochRecord]]
) -> Callable[[Run], None] | None:
    """The same, told of the whole run, whose records are `joined` of those of the part."""
    if call is None:
        return None

    def told(run: Run) -> None:
        whole = copy.copy(run)
        whole.history = joined(run.history)
        whole.epoch = run.epoch + len(whole.history) - len(run.history)
        call(whole)

    return told
