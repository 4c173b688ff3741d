"""Activation checkpointing: memory for arithmetic."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model: the layers of its longest `nn.ModuleList` or `nn.Sequential` of one class."""
    lists = [list(layer) for layer in model.modules() if isinstance(layer, (nn.ModuleList, nn.Sequential))]
    alike = [layers for layers in lists if len({type(layer) for layer in layers}) == 1 and list(layers[0].parameters())]
    return max(alike, key=len, default=[])


def checkpoint_activations(model: nn.Module) -> list[nn.Module]:
    """Let each block but the last keep only its input, and run again in the backward pass; gives back these blocks.

    The second run draws the same dropout, so the gradients are the same bits (arXiv 1604.06174). The last block's
    backward pass comes at once, so there is nothing to gain.

    Raises:
        ValueError: a model without repeated blocks, or with BatchNorm in them, which would count each batch twice.
    """
    blocks = blocks_of(model)[:-1]
    if any(isinstance(layer, _BatchNorm) for block in blocks for layer in block.modules()):
        raise ValueError("activation_checkpointing: BatchNorm would count each batch twice; leave it off")
    if not blocks:
        raise ValueError("activation_checkpointing: the model has no list of equal blocks; leave it off")
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return blocks


@contextmanager
def activation_checkpointing(model: nn.Module) -> Iterator[None]:
    """`checkpoint_activations` while this lasts."""
    blocks = checkpoint_activations(model)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the instance's; the class's shows again
