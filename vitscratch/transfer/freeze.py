"""Which layers learn. The others keep their bytes, stay in eval mode, and cost neither gradients nor activations."""

from collections.abc import Callable, Collection
from typing import Any, ClassVar

from torch import nn

from vitscratch.transfer.head import head_name
from vitscratch.transfer.layers import layer_numbers

# timm's dropout just before the head is the head's: features do not change, what the head sees of them does.
_HEAD_DROPOUT = ("head_drop", "head.drop")


def freeze(model: nn.Module) -> None:
    """Let the head learn and nothing else.

    Autograd keeps no activations of a frozen layer and makes no gradients for it, so no optimizer moves it, not even
    one that was given all parameters. It also stays in eval mode when the model is put into train mode: dropout and
    stochastic depth are off, and BatchNorm neither uses nor collects the statistics of the batch. (`requires_grad`
    alone leaves all of these on, and a BatchNorm moves with every picture.)

    Args:
        model: changed in place: one of ours, torchvision's ViTs and ResNets, timm's. It stays in train or eval mode;
            copies of it, compiled or averaged, are frozen as it is. `unfreeze` lets more of it learn.

    Raises:
        ValueError: a model whose head cannot be found; see `head_name`.
    """
    _let_learn(model, {head_name(model), *_HEAD_DROPOUT})


def unfreeze(model: nn.Module, last: int | None = None) -> None:
    """Let everything learn, or only the last blocks with the head and all that is between them.

    Args:
        model: as for `freeze`, frozen or not.
        last: 1 to all of a ViT's encoder blocks, or of a ResNet's stages (`layer4` is the last). What comes before
            them is frozen: the other blocks, patch embedding, class token and positions, a ResNet's first
            convolution. The norm after the last block and a pre-logits layer learn. None: the whole model learns.

    Raises:
        ValueError: as many blocks are not there, or it is not known where they are; see `block_names`.
    """
    if last is None:
        _let_learn(model, {name for name, _ in model.named_modules()})
        return
    numbers = layer_numbers(model)
    blocks = max(numbers.values()) - 1
    if not 1 <= last <= blocks:
        other = "freeze(model) lets only the head learn, unfreeze(model) everything"
        raise ValueError(f"last {last}: {type(model).__name__} has {blocks} blocks; expected 1 to {blocks}; {other}")
    _let_learn(model, {name for name, number in numbers.items() if number > blocks - last})


def _let_learn(model: nn.Module, awake: Collection[str]) -> None:
    """Let the modules of these names learn, and freeze all others; parents of what learns stay in the model's mode."""
    asleep = []
    for name, module in model.named_modules():
        learns = name in awake
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(learns)
            if not learns:
                parameter.grad = None
        if not learns and name and not any(other.startswith(f"{name}.") for other in awake):
            asleep.append(name)
    if asleep and not isinstance(model, _PartlyAsleep):
        # As torch.nn.utils.parametrize does. A method bound to this model would go on with it in a copy, not with that.
        model.__class__ = _partly_asleep(type(model))
    if isinstance(model, _PartlyAsleep):
        model.asleep_layers = tuple(asleep)
    model.train(model.training)


class _PartlyAsleep(nn.Module):
    """What is put in front of a model's own class when parts of it are frozen."""

    built_as: ClassVar[type[nn.Module]]
    asleep_layers: tuple[str, ...]  # names of modules; a copy of the model has its own modules of these names

    def train(self, mode: bool = True) -> "_PartlyAsleep":
        """Set the mode of all that is not frozen; what is frozen stays in eval mode."""
        super().train(mode)
        for name, module in self.named_modules():
            if name in self.asleep_layers:
                module.eval()
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[..., Any], tuple[type[nn.Module]], Any]:
        # copy and pickle would call the class by its name, under which they find the model's own.
        return _empty, (self.built_as,), self.__getstate__()  # type: ignore[no-untyped-call]


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _partly_asleep(kind: type[nn.Module]) -> type[nn.Module]:
    """The subclass of a model's class that keeps frozen parts in eval mode; it has the same name."""
    if kind not in _CLASSES:
        _CLASSES[kind] = type(
            kind.__name__,
            (_PartlyAsleep, kind),
            {"__module__": kind.__module__, "built_as": kind, "__doc__": kind.__doc__},
        )
    return _CLASSES[kind]


def _empty(kind: type[nn.Module]) -> nn.Module:
    partly_asleep = _partly_asleep(kind)
    return partly_asleep.__new__(partly_asleep)
