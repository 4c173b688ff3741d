"""Names of torchvision's `VisionTransformer` turned into ours; `vitscratch.weights` does it by a table."""

import re
from collections.abc import Mapping

from torch import Tensor

# In order: parts of torchvision's names, and what we call them.
NAMES = (
    ("module.", ""),
    ("encoder.layers.encoder_layer_", "blocks."),
    ("encoder.pos_embedding", "pos_embed"),
    ("encoder.ln", "norm"),
    ("conv_proj", "patch_embed.proj"),
    ("class_token", "cls_token"),
    ("heads.head", "head"),
    ("ln_1", "norm1"),
    ("ln_2", "norm2"),
    ("self_attention.in_proj_", "attn.qkv."),
    ("self_attention.out_proj", "attn.proj"),
    ("mlp.0", "mlp.fc1"),
    ("mlp.3", "mlp.fc2"),
    ("mlp.linear_1", "mlp.fc1"),  # so in files from before torchvision 0.13
    ("mlp.linear_2", "mlp.fc2"),
)


def convert_torchvision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of `vitscratch.VisionTransformer`."""
    converted = {}
    for name, tensor in state_dict.items():
        for theirs, ours in NAMES:
            name = re.sub(rf"(^|(?<=[._\d])){re.escape(theirs)}", ours, name)
        converted[name] = tensor
    return converted
