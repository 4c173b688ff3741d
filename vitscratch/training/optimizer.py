"""AdamW, with weight decay where it belongs."""

import warnings
from typing import Any

import torch
from torch import nn

# The names of DeiT and timm, torchvision and Hugging Face.
_NEVER_DECAYED = (
    *("cls_token", "class_token", "mask_token", "reg_token", "dist_token"),
    *("pos_embed", "pos_embedding", "position_embeddings"),
)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices and kernels decay; norms, biases, tokens and positions do not.

    Decay pulls towards 0. For a matrix that means a simpler function; a norm's weight belongs at 1, and a
    bias, class token or position embedding is an offset that has no reason to be small.

    Args:
        model: any module; parameters that need no gradient are left out.
        weight_decay: AdamW's, at least 0: each step takes this fraction, times the learning rate, off a weight.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            offset = parameter.dim() < 2 or name.endswith(_NEVER_DECAYED)
            (spared if offset else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) over `decay_groups`.

    Not Adam with weight_decay: there the decay is divided by the gradient's size like the gradient, and a
    weight of 0.02 that gets little gradient is gone in seven steps. `fused` updates all parameters in one pass.
    """
    return torch.optim.AdamW(decay_groups(model, weight_decay), lr=learning_rate, fused=True)


def warn_of_coupled_decay(optimizer: torch.optim.Optimizer) -> None:
    """Warn, and explain, if this is Adam (or NAdam, RAdam) whose weight decay goes through the gradient."""
    adams = (torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam)
    if not isinstance(optimizer, adams):
        return
    for group in optimizer.param_groups:
        if group["weight_decay"] and not group.get("decoupled_weight_decay", False):
            rate, decay = group["lr"], group["weight_decay"]
            warnings.warn(
                f"{type(optimizer).__name__}(weight_decay={decay}) adds the decay to the gradient, and Adam divides "
                f"that by its own size: a weight that gets little gradient loses about lr = {rate} in every step, so "
                f"one of 0.02 is gone in {round(0.02 / rate) if rate else 'some'} steps, whatever the decay is. "
                "Use torch.optim.AdamW, or vitscratch.training.adamw",
                UserWarning,
                stacklevel=3,
            )
            return
