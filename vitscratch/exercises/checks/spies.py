"""Models and optimizers that note what is asked of them, for the checks of code that trains and measures."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vitscratch.exercises.exercise import Mistake

# Mistakes of the two exercises that call a loss.
SWAPPED = Mistake(
    "ev_swapped",
    "You swap predictions and labels in the call of the loss; predictions should come first.",
    "loss",
    (
        "In which order does F.cross_entropy take its two arguments?",
        "First what the model says, then what is true.",
    ),
)

NLL_OF_LOGITS = Mistake(
    "ts_nll_of_logits",
    "Your loss is minus the label's logit; it should be minus its log softmax.",
    "loss",
    (
        "Can your loss become negative?",
        "F.nll_loss expects log-probabilities; nothing stops the label's logit from growing for ever.",
        "Use F.cross_entropy, or F.nll_loss of log_softmax(logits, dim=1).",
    ),
)
NLL_OF_PROBABILITIES = Mistake(
    "ts_nll_of_probabilities",
    "Your loss is minus the label's probability; it should be minus its logarithm.",
    "loss",
    (
        "What is your loss when the label's probability is 1? And when it is 0?",
        "F.nll_loss expects logarithms: log_softmax, not softmax.",
    ),
)


class _Notes(list[Any]):
    """A list that a copy of its owner shares: who measures a copy of the model asks the model, too."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Notes":
        return self


@dataclass
class Call:
    """One forward pass."""

    images: Tensor
    logits: Tensor
    modes: tuple[bool, ...]
    """`training` of each module, the model's own first."""

    with_graph: bool
    gradients: list[Tensor] = field(default_factory=list)
    """Of the loss by the logits: one for each backward pass."""


class SpiedModel(nn.Sequential):
    """Layers one after the other, with notes of every call, and of what is done to the weights, in `events`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.calls: list[Call] = _Notes()
        self.events: list[str] = _Notes()

    def logits(self, images: Tensor) -> Tensor:
        """What a call gives, without a note."""
        for layer in self:
            images = layer(images)
        return images

    def forward(self, images: Tensor) -> Tensor:
        logits = self.logits(images)
        call = Call(images.detach().clone(), logits.detach().clone(), modes(self), logits.requires_grad)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self._note(call, gradient))
        self.calls.append(call)
        return logits

    def _note(self, call: Call, gradient: Tensor) -> None:
        call.gradients.append(gradient.clone())
        self.events.append("backward")


class SpiedSGD(torch.optim.SGD):
    """Plain gradient descent, with notes of the gradients that each step uses."""

    def __init__(self, model: SpiedModel, lr: float) -> None:
        super().__init__(model.parameters(), lr=lr)
        self.model = model
        self.used: list[Tensor | None] = []  # all gradients of a step in one vector; None: there was not one

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As SGD's, closure included."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.used.append(gradients(self.model))
        self.model.events.append("step")
        super().step()
        return loss


def modes(model: nn.Module) -> tuple[bool, ...]:
    """`training` of each module, the model's own first."""
    return tuple(module.training for module in model.modules())


def gradients(model: nn.Module) -> Tensor | None:
    """All in one vector, zeros where there is none; None if there is none at all."""
    parameters = list(model.parameters())
    if all(parameter.grad is None for parameter in parameters):
        return None
    pieces = [torch.zeros_like(each) if each.grad is None else each.grad.detach().clone() for each in parameters]
    return torch.cat([piece.flatten() for piece in pieces])


def weights(model: nn.Module) -> Tensor:
    """All parameters in one vector."""
    return torch.cat([parameter.detach().clone().flatten() for parameter in model.parameters()])


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """torch's generator as after torch.manual_seed(seed), and afterwards as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def close(one: Any, other: Any, tolerance: float = 1e-4) -> bool:
    """Whether two tensors or numbers are equal up to single precision."""
    one, other = torch.as_tensor(one, dtype=torch.float64), torch.as_tensor(other, dtype=torch.float64)
    return one.shape == other.shape and bool(torch.allclose(one, other, rtol=tolerance, atol=tolerance / 10))


def is_number(value: Any) -> bool:
    """Whether it is one number, or a tensor or array of one; a text that reads like a number is not."""
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return not isinstance(value, str | bytes)


def is_swapped_cross_entropy(error: Exception) -> bool:
    """Whether it comes from a cross-entropy that got labels where it wants logits."""
    trace = error.__traceback__
    while trace is not None:
        names = trace.tb_frame.f_locals
        if trace.tb_frame.f_code.co_name == "cross_entropy" and isinstance(names.get("input"), Tensor):
            target = names.get("target")
            swapped = isinstance(target, Tensor) and target.is_floating_point()  # else a prediction, not logits
            return swapped and not names["input"].is_floating_point()
        trace = trace.tb_next
    return False
