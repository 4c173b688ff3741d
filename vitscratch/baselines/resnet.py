"""torchvision's ResNets (arXiv 1512.03385) with a head for our classes, to be trained by the same `fit`."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Weights = str | Path | Enum
"""A member of torchvision's weights such as `ResNet18_Weights.IMAGENET1K_V1`, its name, or a local .pth file."""

SMALL = 64
"""Side in pixels up to which a picture is small: the usual stem leaves a 32nd of it, 2 x 2 at most."""


@dataclass(frozen=True)
class ResNet:
    """A ResNet, and what was done to torchvision's to get it (a sentence each)."""

    name: str
    model: nn.Module
    notes: tuple[str, ...]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that takes its running statistics for a batch of a single value per channel.

    The last batch of an epoch may be one picture, and the last stage of a small picture one pixel; torch refuses to
    train on it.
    """

    def forward(self, input: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def resnet(
    name: str,
    num_classes: int,
    *,
    weights: Weights | None = None,
    in_channels: int = 3,
    small_stem: bool = False,
) -> ResNet:
    """Build a ResNet, pretrained or from torch's random state, with a new head.

    Args:
        name: "resnet18" or "resnet34".
        num_classes: length of the logits. in_channels: 3, or 1 for grey.
        weights: see `Weights`; None: random ones.
        small_stem: begin with a 3 x 3 convolution of stride 1 and no pooling, as is usual for CIFAR's 32 px. The
            usual stem halves a picture twice before the first block; `SMALL` says where that is too much. Where a
            picture is a single pixel before the last stage, torch 2.15 makes random or infinite gradients of it on
            CPUs in bf16, so train in fp32: with the usual stem up to 16 px (32 px are fine), with the small one up to
            4 px (8 px are fine).

    Raises:
        ValueError: another name, or weights of something else. OSError: weights that are not here, without a network.
    """
    from torchvision import models

    if name not in ("resnet18", "resnet34"):
        raise ValueError(f"{name!r} is unknown; there are resnet18 and resnet34")
    if in_channels not in (1, 3):
        raise ValueError(f"in_channels {in_channels}: expected 3, or 1 for grey")
    model: Any = getattr(models, name)(norm_layer=BatchNorm)
    notes = ["random weights"]
    if weights is not None:
        model.load_state_dict(_without_head(name, model, weights))
        notes = [f"weights of {weights}, but for the head"]
    if small_stem:
        model.conv1 = _drawn(nn.Conv2d(in_channels, 64, kernel_size=3, padding=1, bias=False))
        model.maxpool = nn.Identity()
        notes.append("stem for small pictures: a new 3 x 3 convolution of stride 1, no pooling")
    elif in_channels == 1:
        colours = model.conv1.weight.data
        model.conv1 = _drawn(nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False))
        if weights is not None:  # the same answer as for the grey picture as RGB
            model.conv1.weight.data = colours.sum(dim=1, keepdim=True)
            notes.append("the first convolution takes grey: the sum of its kernels of three colours")
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return ResNet(name, model, tuple(notes))


def _drawn(convolution: nn.Conv2d) -> nn.Conv2d:
    """With random weights of the distribution that torchvision's ResNets begin with."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _without_head(name: str, model: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """All of a ResNet's weights as they should be loaded, the head as it is in the model.

    Raises:
        ValueError: other names or shapes than this ResNet's.
    """
    state = _read(weights)
    wanted = model.state_dict()
    state |= {key: value for key, value in wanted.items() if key.startswith("fc.")}
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [key for key in state if key not in wanted] + [
        key for key in wanted if key in state and state[key].shape != wanted[key].shape
    ]
    if missing or wrong:
        examples = ", ".join((missing + wrong)[:3])
        raise ValueError(
            f"{weights} does not hold the weights of {name}: {len(missing)} are missing and {len(wrong)} unknown or of "
            f"another shape ({examples}); expected torchvision's names"
        )
    return wanted | state


def _read(weights: Weights) -> dict[str, Tensor]:
    from torchvision.models import WeightsEnum, get_weight

    if isinstance(weights, str) and "_Weights." in weights:
        weights = get_weight(weights)
    if isinstance(weights, WeightsEnum):
        path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
        try:
            return dict(weights.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"{weights} is not on this machine, and {weights.url} could not be downloaded "
                f"({str(error).splitlines()[0]}); put it at {path}, or name the path of a copy"
            ) from error
    if isinstance(weights, Enum):
        raise ValueError(f"{weights!r} is no member of torchvision's weights, such as ResNet18_Weights.IMAGENET1K_V1")
    if not Path(weights).is_file():
        raise ValueError(
            f"{weights} is no file; expected torchvision's weights in a .pth, or a name such as "
            "ResNet18_Weights.IMAGENET1K_V1"
        )
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken file makes it raise
        raise ValueError(f"{weights} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{weights} holds no state dict: expected names and tensors")
    return state
