"""Layer-wise learning rates: what is near to the picture learns slowly."""

from typing import Any

from torch import nn

from vitscratch.training import decay_groups
from vitscratch.transfer.layers import layer_numbers


def parameter_groups(
    model: nn.Module, lr: float, layer_decay: float, weight_decay: float = 0.05
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: the head learns at `lr`, every layer below it slower by a factor.

    The rate of a layer is lr * layer_decay ** (layers above it). Above the last block is one layer, the head; the
    norm and a pre-logits layer between them learn at `lr` as well; patch embedding, tokens and positions, or a
    ResNet's first convolution, are below the first block. Early layers find edges and textures, which new pictures
    have too, so they should change little. (BEiT, arXiv 2106.08254, and MAE, arXiv 2111.06377, fine-tune so.)

    Args:
        model: one of ours, torchvision's ViTs and ResNets, timm's. Frozen parameters are left out.
        lr: of the head, above 0. Schedules scale every group's rate alike: pass the optimizer to `fit(optimizer=...)`.
        layer_decay: above 0, at most 1 (the same rate for all). 0.65 to 0.75 is usual for a ViT-B of 12 blocks.
        weight_decay: for matrices and kernels, at least 0; norms, biases, tokens and positions have none
            (`decay_groups`).

    Returns:
        Groups with "params", "lr" and "weight_decay", from the picture to the head; each parameter in one of them.

    Raises:
        ValueError: a setting out of its range, nothing to learn, or a model whose blocks cannot be found.
    """
    if not 0 < lr < float("inf") or not 0 < layer_decay <= 1 or not weight_decay >= 0:
        given = f"lr {lr}, layer_decay {layer_decay}, weight_decay {weight_decay}"
        raise ValueError(f"{given}: expected lr above 0, layer_decay above 0 and at most 1, weight_decay at least 0")
    numbers = layer_numbers(model)
    number_of = {id(parameter): numbers[name.rpartition(".")[0]] for name, parameter in model.named_parameters()}
    head = max(numbers.values())
    groups: dict[tuple[int, float], dict[str, Any]] = {}
    for kind in decay_groups(model, weight_decay):
        decay = kind["weight_decay"]
        for parameter in kind["params"]:
            number = number_of[id(parameter)]
            group = {"params": [], "lr": lr * layer_decay ** (head - number), "weight_decay": decay}
            groups.setdefault((number, decay), group)["params"].append(parameter)
    if not groups:
        raise ValueError("every parameter of the model is frozen: there is nothing to learn; see unfreeze")
    return [groups[key] for key in sorted(groups)]
