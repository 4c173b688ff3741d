"""Weights of torchvision's VisionTransformer: what its `state_dict()` and its downloads (vit_b_16-c867db91.pth) hold.

Source: `torchvision/models/vision_transformer.py`. Its attention packs query, key and value as ours does.
"""

from vitscratch.weights.table import Ecosystem, Row, both

_BLOCK = "encoder.layers.encoder_layer_{i}"

TORCHVISION = Ecosystem(
    "torchvision",
    rows=(
        *both("patch_embed.proj", "conv_proj"),
        Row("cls_token", "class_token"),
        Row("pos_embed", "encoder.pos_embedding"),
        *both("blocks.{i}.norm1", f"{_BLOCK}.ln_1"),
        Row("blocks.{i}.attn.qkv.weight", f"{_BLOCK}.self_attention.in_proj_weight"),
        Row("blocks.{i}.attn.qkv.bias", f"{_BLOCK}.self_attention.in_proj_bias"),
        *both("blocks.{i}.attn.proj", f"{_BLOCK}.self_attention.out_proj"),
        *both("blocks.{i}.norm2", f"{_BLOCK}.ln_2"),
        *both("blocks.{i}.mlp.fc1", f"{_BLOCK}.mlp.0"),
        *both("blocks.{i}.mlp.fc2", f"{_BLOCK}.mlp.3"),
        *both("norm", "encoder.ln"),
        *both("head.pre_logits", "heads.pre_logits"),
        *both("head", "heads.head"),
    ),
    marks=("conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight"),
    # Files from before torchvision 0.13, the published ones among them, name the layers of the MLP.
    spellings=(
        (r"(encoder_layer_\d+\.mlp)\.linear_1\.", r"\1.0."),
        (r"(encoder_layer_\d+\.mlp)\.linear_2\.", r"\1.3."),
    ),
    meanings=(("conv_proj.[0-9]*", "a convolutional stem in place of the patch projection (arXiv 2106.14881)"),),
)
