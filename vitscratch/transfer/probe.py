"""Linear probes: how far a straight line through a frozen body's features gets."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitscratch.config import TrainingConfig
from vitscratch.data import TensorBatches
from vitscratch.training import EpochRecord, Run, fit
from vitscratch.transfer.head import head_name

if TYPE_CHECKING:
    import numpy as np

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
MAX_STEPS = 2000


def linear_probe(
    model: nn.Module,
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    config: TrainingConfig,
    *,
    batch_size: int = 64,
    validation: tuple[Tensor, Tensor] | None = None,
    class_weights: Tensor | None = None,
    on_epoch: Callable[[Run], None] | None = None,
) -> list[EpochRecord]:
    """Train a model's head on features, by the loop that would train it on pictures with the body frozen.

    The result is the same, to rounding, as `fit` of the model with a frozen body in eval mode over
    `make_batches(pictures, preprocessing, batch_size, seed=config.seed)`: without augmentation, every epoch would
    compute the same features again.

    Args:
        model: its head, a new one (`replace_head`) as a rule, is changed in place; the rest is not looked at.
        features, labels: of the training pictures, in their order; see `cached_features`.
        config: see `fit`; "auto" precision is that of the model's device.
        batch_size: at least 1.
        validation: (features, labels) of the validation pictures, measured after every epoch if given.
        class_weights, on_epoch: see `fit`.

    Returns:
        One record for each epoch.

    Raises:
        ValueError: features of another width, or a config that changes pictures (mixup, cutmix).
    """
    head = model.get_submodule(head_name(model))
    assert isinstance(head, nn.Linear)
    if config.mixup or config.cutmix:
        raise ValueError(
            f"mixup {config.mixup}, cutmix {config.cutmix}: they change the pictures of every epoch, and a linear "
            "probe computes features once; set both to 0, or train with a frozen body"
        )
    if features.shape[1] != head.in_features:
        raise ValueError(f"features of width {features.shape[1]} for a head that reads {head.in_features}")
    head.requires_grad_(True)
    device = head.weight.device
    return fit(
        head,
        TensorBatches(features, labels, batch_size, seed=config.seed, device=device),
        replace(config, activation_checkpointing=False),  # a head has no activations to do without
        validation=TensorBatches(*validation, batch_size, device=device) if validation is not None else None,
        class_weights=class_weights,
        on_epoch=on_epoch,
    )


@dataclass(frozen=True)
class LogisticProbe:
    """A logistic regression, its strength chosen by `logistic_probe`.

    Args:
        weight, bias: of the linear layer that makes logits of features, float32; learned from training and validation
            pictures together, so neither tells what they are worth.
        c: the inverse strength of the regularisation that was chosen.
        tried: (c, validation accuracy in [0, 1], validation loss in nats) of all, each learned from the training
            pictures alone.
        notes: what casts doubt on the choice: a solver that did not converge, a choice at the edge of what was tried.
    """

    weight: Float[Tensor, "classes d"]
    bias: Float[Tensor, " classes"]
    c: float
    tried: tuple[tuple[float, float, float], ...]
    notes: tuple[str, ...]

    def state_dict(self) -> dict[str, Tensor]:
        """For the head: `replace_head(model, classes).load_state_dict(probe.state_dict())`."""
        return {"weight": self.weight, "bias": self.bias}


def logistic_probe(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    validation_features: Float[Tensor, "m d"],
    validation_labels: Int[Tensor, " m"],
    *,
    strengths: Sequence[float] = STRENGTHS,
    max_steps: int = MAX_STEPS,
) -> LogisticProbe:
    """Multinomial logistic regression on standardised features, its regularisation chosen on validation pictures.

    Minimises c x (sum of cross-entropies) + |weight|^2 / 2 by L-BFGS (scikit-learn's), for each c; the one with the
    highest validation accuracy wins (then the lowest loss, then the smallest c), and is fitted again to training and
    validation pictures together.

    Args:
        features, labels: of the training pictures, every class at least once.
        validation_features, validation_labels: of those to choose by. Never the test set.
        strengths: values of c to try, above 0; a small one means strong regularisation.
        max_steps: of the solver, at least 1; the result says if that was too few.

    Raises:
        ValueError: a class without training pictures, fewer than two classes, or arguments outside what is said above.
    """
    if not strengths or not min(strengths) > 0 or max_steps < 1:
        raise ValueError(
            f"strengths {tuple(strengths)}, max_steps {max_steps}: expected numbers above 0, and 1 or more"
        )
    counts = torch.bincount(labels, minlength=int(validation_labels.max()) + 1)
    if len(counts) < 2 or not counts.all():
        raise ValueError(
            f"training pictures of classes 0, 1, ... are {counts.tolist()}; expected at least two classes and at "
            "least one picture of each"
        )
    notes: list[str] = []
    tried = []
    for c in sorted(strengths):
        weight, bias = _logistic_regression(features, labels, c, max_steps, notes)
        logits = validation_features.double() @ weight.T + bias
        accuracy = float((logits.argmax(dim=1) == validation_labels).double().mean())
        tried.append((c, accuracy, float(nn.functional.cross_entropy(logits, validation_labels))))
    chosen = max(tried, key=lambda one: (one[1], -one[2], -one[0]))[0]
    if len(tried) > 1 and chosen in (tried[0][0], tried[-1][0]):
        notes.append(f"the best c, {chosen:g}, is the {'smallest' if chosen == tried[0][0] else 'largest'} tried")
    everything = torch.cat([features, validation_features]), torch.cat([labels, validation_labels])
    weight, bias = _logistic_regression(*everything, chosen, max_steps, notes)
    return LogisticProbe(weight.float(), bias.float(), chosen, tuple(tried), tuple(dict.fromkeys(notes)))


def _logistic_regression(
    features: Tensor, labels: Tensor, c: float, max_steps: int, notes: list[str]
) -> tuple[Float[Tensor, "classes d"], Float[Tensor, " classes"]]:
    """(weight, bias), float64, for features as they are: the standardisation is multiplied out."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    wide = features.double()
    mean, std = wide.mean(dim=0), wide.std(dim=0, correction=0)
    std[std <= 1e-6 * mean.abs()] = 1  # the same for every picture, but for rounding
    solver = LogisticRegression(C=c, max_iter=max_steps)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solver.fit(((wide - mean) / std).numpy(), labels.numpy())
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        notes.append(f"c = {c:g}: the solver did not converge in {int(solver.n_iter_.max())} steps")
    weight, bias = _per_class(solver.coef_) / std, _per_class(solver.intercept_)
    return weight, bias - weight @ mean


def _per_class(values: "np.ndarray") -> Tensor:
    """One row for each class; scikit-learn gives two classes one row, the difference of their logits."""
    rows = torch.from_numpy(values).double()
    return torch.cat([-rows / 2, rows / 2]) if len(rows) == 1 else rows
