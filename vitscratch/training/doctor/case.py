"""The patient: a working copy of the model, pictures to try it on, and ways to look inside."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from vitscratch.training.aside import working_copy
from vitscratch.training.doctor.report import Result

Outcome = tuple[str, dict[str, Any]]  # evidence and numbers


class Failure(Exception):
    """A check failed: the evidence, what it usually means, what to do."""

    def __init__(self, evidence: str, meaning: str, advice: str, **numbers: Any) -> None:
        super().__init__(evidence)
        self.evidence, self.meaning, self.advice, self.numbers = evidence, meaning, advice, numbers

    def result(self, name: str) -> Result:
        """As a result of the check with this name."""
        return Result(name, "failed", self.evidence, self.meaning, self.advice, self.numbers)


class Skip(Exception):
    """A check has nothing to say here; the message says why."""


@dataclass
class Case:
    """Everything that a check may look at."""

    original: nn.Module  # never run, never changed: only copied
    images: Any  # as given; on the model's device if they are tensors
    labels: Any
    num_classes: int | None
    class_names: Sequence[str] | None
    patch_size: int | tuple[int, int] | None
    train_labels: Tensor | None
    steps: int | None
    model: nn.Module = field(init=False)  # the copy that checks run
    picture_flops: int = 0  # arithmetic of one picture, forwards; known once the check "logits" has passed
    notes: list[str] = field(default_factory=list)  # what was done to keep the cost small

    def __post_init__(self) -> None:
        dtype = next(self.original.parameters(), torch.empty(0)).dtype
        self.half = dtype in (torch.float16, torch.bfloat16)  # looked at in float32, where rounding hides nothing
        if self.half and isinstance(self.images, Tensor) and self.images.is_floating_point():
            self.images = self.images.float()
        self.model = self.fresh_copy()

    @property
    def large(self) -> bool:
        """A picture takes as long as with ResNet-50 or longer: few are looked at."""
        return self.picture_flops > 5e9

    @property
    def probes(self) -> int:
        """Pictures that a check runs at a time."""
        return 2 if self.large else 5

    def fresh_copy(self) -> nn.Module:
        """The model as it was given, to work on."""
        model = working_copy(self.original)
        return model.float() if self.half else model

    def noise(self, pictures: int) -> Tensor:
        """Pictures of normal noise: whatever is wrong with the data, these are fine."""
        return torch.randn(pictures, *self.images.shape[1:], dtype=self.images.dtype, device=self.images.device)

    def forward(self, images: Tensor) -> Any:
        """Logits of a clone of the pictures, so that a model that changes its input harms nobody."""
        return self.model(images.clone())

    @torch.no_grad()
    def logits(self, images: Tensor) -> Any:
        """Logits in eval mode, if the model returns any."""
        self.model.eval()
        return self.forward(images)


def steady_mode(model: nn.Module) -> nn.Module:
    """Eval mode, but with batch norms in train mode: nothing is random, and it computes as in training otherwise."""
    model.eval()
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.train()
    return model


@torch.no_grad()
def wake(model: nn.Module, images: Tensor | None) -> None:
    """Move every parameter a little, so that no zero hides what lies behind it.

    A zero head makes every logit 0, and all gradients but the head's; 32 copies of a class token only differ once
    they are moved. Each parameter gets noise of a tenth of its own spread, or of 0.1 if all its numbers are the same.
    Batch norms then take their running statistics from the images, if there are any: a fresh one's are those of no
    data at all, and where many follow each other nothing of the picture may be left at the end.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel():
            spread = parameter.std().item() if parameter.numel() > 1 else 0.0
            parameter.add_(torch.randn_like(parameter), alpha=0.1 * spread if spread > 1e-6 else 0.1)
    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in norms]
    if images is not None and norms:
        for layer in norms:
            layer.momentum = 1.0  # take all of the new statistics, keep nothing of the old
        steady_mode(model)(images)
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum


def relative(difference: Tensor, scale: Tensor) -> float:
    """Largest difference, as a fraction of the largest number that it can be compared with."""
    return difference.abs().max().item() / max(scale.abs().max().item(), 1e-30)


def first_difference(
    model: nn.Module, first: Callable[[], Any], second: Callable[[], Any], rows: int, tolerance: float
) -> str:
    """The layer that finishes first with another output for the first `rows` pictures in the second run; "" if none."""
    runs: list[list[tuple[str, Tensor]]] = []
    names = {layer: name for name, layer in model.named_modules()}

    def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) >= rows:
                runs[-1].append((names[layer] or "the model itself", leaf[:rows].detach().clone()))

    hooks = [layer.register_forward_hook(keep) for layer in names]
    try:
        for run in (first, second):
            runs.append([])
            run()
    finally:
        for hook in hooks:
            hook.remove()
    for (name, one), (other_name, other) in zip(*runs, strict=False):
        if name != other_name or one.shape != other.shape or relative(one - other, one) > tolerance:
            return name
    return ""


def one_line(error: BaseException) -> str:
    """The first line of an error, with its kind, and not too long."""
    text = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {text[0][:160].rstrip('.')}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first few of some names, and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
