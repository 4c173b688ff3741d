"""Reference implementations of the same architecture, and how their names map onto ours."""

from torch import Tensor, nn

from vitscratch.config import ViTConfig
from vitscratch.parity.names import NameMapping, Reference
from vitscratch.patches import pair


def _to_tokens(grid: Tensor) -> Tensor:
    """A convolution's (b, d, rows, columns) as tokens (b, n, d), row by row."""
    return grid.flatten(2).mT


# Ours -> torchvision's; {i} stands for the number of a block. Their attention is nn.MultiheadAttention,
# which holds q, k and v as one parameter and uses its output layer without calling it, so these are paired
# as parameters and the attention layer is compared as a whole.
_TORCHVISION: NameMapping = {
    "patch_embed.proj": "conv_proj",
    "patch_embed": Reference("conv_proj", _to_tokens),
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "dropout": "encoder.dropout",
    "blocks.{i}.norm1": "encoder.layers.encoder_layer_{i}.ln_1",
    "blocks.{i}.attn.qkv.weight": "encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight",
    "blocks.{i}.attn.qkv.bias": "encoder.layers.encoder_layer_{i}.self_attention.in_proj_bias",
    "blocks.{i}.attn.proj.weight": "encoder.layers.encoder_layer_{i}.self_attention.out_proj.weight",
    "blocks.{i}.attn.proj.bias": "encoder.layers.encoder_layer_{i}.self_attention.out_proj.bias",
    "blocks.{i}.attn": "encoder.layers.encoder_layer_{i}.dropout",  # ours ends with it, theirs is followed by it
    "blocks.{i}.norm2": "encoder.layers.encoder_layer_{i}.ln_2",
    "blocks.{i}.mlp.fc1": "encoder.layers.encoder_layer_{i}.mlp.0",
    "blocks.{i}.mlp.fc2": "encoder.layers.encoder_layer_{i}.mlp.3",
    "blocks.{i}.mlp": "encoder.layers.encoder_layer_{i}.mlp",
    "blocks.{i}": "encoder.layers.encoder_layer_{i}",
    "norm": "encoder.ln",
    "head": "heads.head",
}

# timm shares our names, but for the dropout before the blocks. Its qkv and proj are layers that are called, so
# they are compared as layers; its patch_embed returns tokens as ours does.
_TIMM: NameMapping = {
    **{
        name: name
        for name in ("patch_embed.proj", "patch_embed", "cls_token", "pos_embed", "norm", "head", "blocks.{i}")
    },
    **{
        f"blocks.{{i}}.{name}": f"blocks.{{i}}.{name}"
        for name in ("norm1", "attn.qkv", "attn.proj", "attn", "norm2", "mlp.fc1", "mlp.fc2", "mlp")
    },
    "dropout": "pos_drop",
}


def torchvision_twin(config: ViTConfig) -> tuple[nn.Module, NameMapping]:
    """torchvision's VisionTransformer of the same architecture, and the mapping of our names onto its.

    Raises:
        ValueError: a picture or patch that is not square, or mean pooling: torchvision has neither.
    """
    from torchvision.models import VisionTransformer

    (height, width), (patch_height, patch_width) = pair(config.image_size), pair(config.patch_size)
    if height != width or patch_height != patch_width or config.pool != "cls":
        raise ValueError(
            f"torchvision has no twin for image {config.image_size}, patch {config.patch_size}, pool {config.pool!r}; "
            "expected squares and 'cls' (timm_twin knows the others)"
        )
    model = VisionTransformer(
        image_size=height,
        patch_size=patch_height,
        num_layers=config.depth,
        num_heads=config.num_heads,
        hidden_dim=config.embed_dim,
        mlp_dim=config.mlp_dim,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        num_classes=config.num_classes,
    )
    if config.in_channels != 3:  # torchvision's takes colour pictures only, but its patch projection can be replaced
        model.conv_proj = nn.Conv2d(config.in_channels, config.embed_dim, kernel_size=patch_height, stride=patch_height)
    return model, _spread(_TORCHVISION, config.depth)


def timm_twin(config: ViTConfig) -> tuple[nn.Module, NameMapping]:
    """timm's VisionTransformer of the same architecture (needs timm installed), and the mapping onto its names."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        in_chans=config.in_channels,
        num_classes=config.num_classes,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_dim / config.embed_dim,
        pos_drop_rate=config.dropout,
        proj_drop_rate=config.dropout,
        attn_drop_rate=config.attention_dropout,
        global_pool="token" if config.pool == "cls" else "avg",
        fc_norm=False,  # the norm before the mean, as in ours and in the paper's code
    )
    return model, _spread(_TIMM, config.depth)


def _spread(table: NameMapping, depth: int) -> NameMapping:
    """Write out the rows with {i} for every block."""
    mapping: dict[str, str | Reference] = {}
    for ours, theirs in table.items():
        for i in range(depth) if "{i}" in ours else [0]:
            mapping[ours.format(i=i)] = theirs.format(i=i) if isinstance(theirs, str) else theirs
    return mapping
