"""The attention weights of a whole model, obtained without changing what it computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscratch.attention import MultiHeadSelfAttention


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the attention weights of every `MultiHeadSelfAttention` during the forward passes inside.

    The weights are computed a second time beside the model's own (fused) attention, so the model's output,
    its random numbers and its gradients stay the same to the last bit; it takes longer meanwhile.

    Yields:
        A dict, filled by each forward pass: name of the layer -> weights (b, h, n, n), without dropout,
        detached. A later pass overwrites an earlier one.

    Raises:
        ValueError: the model has no `MultiHeadSelfAttention`.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, MultiHeadSelfAttention)}
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no vitscratch MultiHeadSelfAttention; "
            "recording works for models that are built from it"
        )
    recorded: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        @torch.no_grad()
        def hook(layer: MultiHeadSelfAttention, inputs: tuple[Tensor, ...]) -> None:
            recorded[name] = layer.weights(inputs[0])  # of all tokens, even where only the class token asks

        return hook

    handles = [layer.register_forward_pre_hook(record(name)) for name, layer in layers.items()]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def attention_maps(model: nn.Module, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "depth b h n n"]:
    """The attention weights of every block for a batch: `maps[layer, picture, head, query, key]`.

    Query 0 is the class token: `maps[-1, 0, :, 0, 1:]` is how much it takes from each patch in the last block.

    Args:
        model: one that is built from `MultiHeadSelfAttention`; call `model.eval()` first.
        images: (b, c, H, W).

    Returns:
        (depth, b, h, n, n); every row of the last axis sums to one.
    """
    with record_attention(model) as recorded:
        model(images)
    return torch.stack(list(recorded.values()))
