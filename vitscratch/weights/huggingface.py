"""Weights of Hugging Face's ViTModel and ViTForImageClassification, and of their DeiT, DINO and MAE encoders.

Source: `transformers/models/vit/modeling_vit.py`. The table has the names that files on the hub carry, which
transformers 5 still writes and reads; its models in memory go by the other spellings. A pooler is ViTModel's alone:
a hidden layer with tanh, what others call pre-logits.
"""

from vitscratch.weights.table import PACKED, Ecosystem, Row, both

_BLOCK = "encoder.layer.{i}"
_QKV = tuple(f"{_BLOCK}.attention.attention.{name}" for name in ("query", "key", "value"))

HUGGINGFACE = Ecosystem(
    "huggingface",
    rows=(
        *both("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        Row("cls_token", "embeddings.cls_token"),
        Row("pos_embed", "embeddings.position_embeddings"),
        *both("blocks.{i}.norm1", f"{_BLOCK}.layernorm_before"),
        Row("blocks.{i}.attn.qkv.weight", tuple(f"{name}.weight" for name in _QKV), PACKED),
        Row("blocks.{i}.attn.qkv.bias", tuple(f"{name}.bias" for name in _QKV), PACKED),
        *both("blocks.{i}.attn.proj", f"{_BLOCK}.attention.output.dense"),
        *both("blocks.{i}.norm2", f"{_BLOCK}.layernorm_after"),
        *both("blocks.{i}.mlp.fc1", f"{_BLOCK}.intermediate.dense"),
        *both("blocks.{i}.mlp.fc2", f"{_BLOCK}.output.dense"),
        *both("norm", "layernorm"),
        *both("head.pre_logits", "pooler.dense"),
        *both("head", "classifier"),
    ),
    marks=("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.layernorm_before.weight"),
    prefixes=("", "vit.", "deit."),
    spellings=(
        (r"(^|\.)layers\.(\d+)\.(attention|layernorm|mlp)", r"\1encoder.layer.\2.\3"),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    meanings=(
        ("pooler.dense.*", "ViTModel's pooler, which a classifier does not use"),
        ("*distillation_token", "DeiT's distillation token, a second class token"),
        ("distillation_classifier.*", "the head that reads DeiT's distillation token"),
        ("cls_classifier.*", "the head that reads the class token of a distilled DeiT"),
        ("*mask_token", "what pretraining puts in place of a hidden patch"),
        ("decoder.*", "the decoder of masked pretraining"),
        ("*register_tokens", "register tokens (arXiv 2309.16588)"),
        ("*.layer_scale[12].*", "LayerScale: each branch of a block is scaled before it is added (arXiv 2103.17239)"),
        ("*.lambda_[12]", "LayerScale: each branch of a block is scaled before it is added (arXiv 2103.17239)"),
        ("*relative_position*", "a table of relative positions, as BEiT has it"),
    ),
    unused=(("pooler.dense.", "classifier.weight"),),
)
