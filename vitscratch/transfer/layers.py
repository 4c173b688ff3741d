"""The order of a classifier's layers, from the picture to the logits."""

import re

from torch import nn

# Where ViTs keep their encoder blocks: ours and timm's, torchvision's. A ResNet's stages are layer1, layer2, ...
_PLACES = ("blocks", "encoder.layers")


def block_names(model: nn.Module) -> list[str]:
    """The names of a ViT's encoder blocks, such as "blocks.0", or of a ResNet's stages, first to last.

    Raises:
        ValueError: there are none in the places that we know.
    """
    layers = dict(model.named_modules())
    for place in _PLACES:
        if names := [f"{place}.{name}" for name, _ in layers.get(place, nn.Identity()).named_children()]:
            return names
    if stages := [name for name, _ in model.named_children() if re.fullmatch(r"layer\d+", name)]:
        return stages
    places = ", ".join(_PLACES)
    raise ValueError(f"{type(model).__name__} has no encoder blocks in any of {places}, and no stages layer1, layer2")


def layer_numbers(model: nn.Module) -> dict[str, int]:
    """How deep each module is: 0 what comes before the blocks, 1 the first block, ..., blocks + 1 all after the last.

    A module's name goes with the number of the block that it is in. Modules are registered in the order in which
    they compute in all models that we know; what is between two blocks counts with the first of them.

    Raises:
        ValueError: see `block_names`.
    """
    blocks = block_names(model)
    numbers: dict[str, int] = {}
    number = 0
    for name, _ in model.named_modules():
        if name in blocks:
            number = 1 + blocks.index(name)
        elif number == len(blocks) and not name.startswith(f"{blocks[-1]}."):
            number += 1
        numbers[name] = number
    return numbers
