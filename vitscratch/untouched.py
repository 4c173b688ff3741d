"""Whether the layers of a model are still as they were built: the condition for leaving out what nobody reads."""

from collections.abc import Callable
from typing import Any

from torch import nn

from vitscratch.attention import MultiHeadSelfAttention
from vitscratch.encoder import EncoderBlock
from vitscratch.mlp import MLP

# What each kind of layer in an encoder block does when it is called, as long as nobody changes it.
_FORWARD: dict[type[nn.Module], Callable[..., Any]] = {
    kind: kind.forward for kind in (EncoderBlock, MultiHeadSelfAttention, MLP, nn.LayerNorm, nn.Linear, nn.Dropout)
}


def is_untouched(block: nn.Module, norm: nn.Module) -> bool:
    """Whether this is an `EncoderBlock` with a norm after it as they were built, and no hook sees what they compute.

    Then, and only then, may tokens that nobody asks for be left out: a layer that was put in (a convolution, an
    adapter) may mix tokens or know no `one_query`, and a hook is a request for all tokens. One that sees only the
    input of the block or of its attention gets all of them anyway. Hooks on every module of the process at once
    (`torch.nn.modules.module.register_module_forward_hook`, torch's FLOP counter) see what is computed.
    """
    if not isinstance(block, EncoderBlock):
        return False
    for layer in (*block.modules(), *norm.modules()):
        if type(layer).forward is not _FORWARD.get(type(layer)) or "forward" in vars(layer):
            return False  # another kind of layer, or one whose forward was replaced
        before = not isinstance(layer, EncoderBlock | MultiHeadSelfAttention) and layer._forward_pre_hooks
        if before or layer._forward_hooks or layer._backward_hooks or layer._backward_pre_hooks:
            return False
    return True
