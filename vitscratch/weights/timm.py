"""Weights under timm's names, which are ours: timm itself, DeiT, AugReg, DINO, MAE (their encoder), and many others.

Source: `timm/models/vision_transformer.py`; the first of these names are DeiT's (arXiv 2012.12877).
"""

from vitscratch.weights.table import Ecosystem, Row, both

TIMM = Ecosystem(
    "timm",
    rows=(
        *both("patch_embed.proj", "patch_embed.proj"),
        Row("cls_token", "cls_token"),
        Row("pos_embed", "pos_embed"),
        *both("blocks.{i}.norm1", "blocks.{i}.norm1"),
        *both("blocks.{i}.attn.qkv", "blocks.{i}.attn.qkv"),
        *both("blocks.{i}.attn.proj", "blocks.{i}.attn.proj"),
        *both("blocks.{i}.norm2", "blocks.{i}.norm2"),
        *both("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.fc1"),
        *both("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.fc2"),
        *both("norm", "norm"),
        *both("head.norm", "fc_norm"),  # in place of norm, where the patches are averaged first
        *both("head.pre_logits", "pre_logits.fc"),  # until timm 0.6
        *both("head", "head"),
    ),
    marks=("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.norm1.weight"),
    meanings=(
        ("decoder_*", "MAE's decoder, which only pretraining needs"),
        ("mask_token", "what pretraining puts in place of a hidden patch"),
        ("dist_token", "DeiT's distillation token, a second class token"),
        ("head_dist.*", "the head that reads DeiT's distillation token"),
        ("reg_token", "register tokens (arXiv 2309.16588)"),
        ("register_tokens", "register tokens (arXiv 2309.16588)"),
        ("*.ls[12].gamma", "LayerScale: each branch of a block is scaled before it is added (arXiv 2103.17239)"),
        ("*.gamma_[12]", "LayerScale: each branch of a block is scaled before it is added (arXiv 2103.17239)"),
        ("norm_pre.*", "a norm before the first block, as CLIP has it"),
        ("patch_embed.norm.*", "a norm after the patch projection"),
        ("*.attn.[qk]_norm.*", "a norm of queries and keys"),
        ("*.attn.norm.*", "a norm before the projection of attention"),
        ("*.attn.[qv]_bias", "BEiT's separate biases of query and value"),
        ("*relative_position*", "a table of relative positions, as BEiT has it"),
        ("*rope*", "rotary position embedding"),
        ("*.mlp.fc1_[gx].*", "an MLP with a gate (SwiGLU)"),
        ("*.mlp.w[123]*", "an MLP with a gate (SwiGLU)"),
        ("*.mlp.norm.*", "a norm inside the MLP"),
        ("attn_pool.*", "pooling by attention, as SigLIP has it"),
        ("head.*", "a head that is not one linear layer"),
    ),
)
