"""The Vision Transformer (arXiv 2010.11929): Eq. 1 to Eq. 4, its initial weights, and the sizes of Table 1."""

from dataclasses import asdict, fields, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscratch.config import PRESETS, Size, ViTConfig
from vitscratch.encoder import EncoderBlock
from vitscratch.patches import PatchEmbedding
from vitscratch.untouched import is_untouched


class VisionTransformer(nn.Module):
    """Classify pictures: patches to tokens, encoder blocks, and a linear head on one token.

    Args:
        image_size, patch_size: sides in pixels, one number or (height, width).
        in_channels: channels of a picture. num_classes: length of the logits.
        embed_dim, depth, num_heads, mlp_dim: width D, number of blocks L, heads, hidden width of the MLP.
        dropout, attention_dropout: probabilities in [0, 1].
        pool: what the head reads: "cls", the class token (the paper), or "mean", the mean of the patch tokens
            (the class token still takes part in attention, but not in the mean).

    Shape:
        (b, c, H, W) -> logits (b, num_classes).

    Raises:
        ValueError: sizes that do not fit together, or an unknown pool.
    """

    one_query: bool = True  # whether the last block may leave out what nobody reads: see `class_token`

    def __init__(
        self,
        image_size: Size,
        patch_size: Size,
        in_channels: int,
        num_classes: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        pool: Literal["cls", "mean"] = "cls",
    ) -> None:
        super().__init__()
        if pool not in ("cls", "mean"):
            raise ValueError(f"pool {pool!r} is unknown; expected 'cls' or 'mean'")
        axes = dict(in_channels=in_channels, num_classes=num_classes, embed_dim=embed_dim, depth=depth, mlp_dim=mlp_dim)
        if bad := {name: size for name, size in axes.items() if size < 1}:
            raise ValueError(f"sizes {bad}: expected at least 1 of each")
        self.pool = pool
        self.patch_embed = PatchEmbedding(image_size, patch_size, in_channels, embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.patch_embed.num_patches, embed_dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            EncoderBlock(embed_dim, num_heads, mlp_dim, dropout, attention_dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)
        init_weights(self)

    @classmethod
    def from_config(cls, config: ViTConfig) -> "VisionTransformer":
        """Build the model that a `ViTConfig` describes."""
        return cls(**asdict(config))

    def embed(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n d"]:
        """What the first block gets: the class token, then the patches row by row, each with its position."""
        patches = self.patch_embed(images)
        cls_token = self.cls_token.expand(images.shape[0], -1, -1)  # one token, shared by every picture of the batch
        x = torch.cat([cls_token, patches], dim=1) + self.pos_embed  # Eq. 1
        return self.dropout(x)

    def tokens(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n d"]:
        """All tokens after the last block and the final norm: the class token, then the patches row by row."""
        x = self.embed(images)
        for block in self.blocks:  # Eq. 2 and Eq. 3
            x = block(x)
        return self.norm(x)

    def class_token(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d"]:
        """`tokens(images)[:, 0]` for 8 % less arithmetic (B/16): in the last block only the class token asks.

        What the others take from each other there, nobody reads. Same values and gradients to rounding (with dropout
        in training, same distribution). All tokens are computed if `one_query` is False, a subclass has its own
        `tokens`, or a layer that would see one token alone was replaced or hooked (`is_untouched`).
        """
        *blocks, last = self.blocks or [nn.Identity()]
        if not (self.one_query and type(self).tokens is VisionTransformer.tokens and is_untouched(last, self.norm)):
            return self.tokens(images)[:, 0]
        x = self.embed(images)
        for block in blocks:
            x = block(x)
        return self.norm(last(x, one_query=True))[:, 0]

    def features(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d"]:
        """What the head reads, y of Eq. 4: the class token, or the mean of the patch tokens."""
        return self.class_token(images) if self.pool == "cls" else self.tokens(images)[:, 1:].mean(dim=1)  # Eq. 4

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b classes"]:
        return self.head(self.features(images))


@torch.no_grad()
def init_weights(model: VisionTransformer, position: Literal["normal", "sincos"] = "normal") -> None:
    """Draw every parameter anew from torchvision's distributions (`torchvision/models/vision_transformer.py`).

    ======================  ==================================  =====================================
    parameter               distribution                        source
    ======================  ==================================  =====================================
    patch_embed.proj        weight N(0, 1 / fan_in), bias 0     LeCun normal; fan_in = c * p * p
    cls_token               0                                   the paper's code
    pos_embed               N(0, 0.02^2)                        BERT; or `sincos_position_embedding`
    norm1, norm2, norm      weight 1, bias 0                    LayerNorm's identity
    attn.qkv                weight Xavier uniform, bias 0       fan_in D, fan_out 3 D, as packed
    attn.proj               weight U(-D^-1/2, D^-1/2), bias 0   nn.Linear's default
    mlp.fc1, mlp.fc2        weight Xavier uniform,              the paper's code
                            bias N(0, 1e-6^2)
    head                    0                                   the paper: every logit starts at 0
    ======================  ==================================  =====================================

    Args:
        model: changed in place.
        position: "normal" as torchvision; "sincos" starts the learned position embedding at 2-D sine-cosine
            values (`sincos_position_embedding`); `vitscratch bench digits` compares the two.

    Raises:
        ValueError: another position.
    """
    if position not in ("normal", "sincos"):
        raise ValueError(f"position {position!r} is unknown; expected 'normal' or 'sincos'")
    proj = model.patch_embed.proj
    nn.init.trunc_normal_(proj.weight, std=proj.weight[0].numel() ** -0.5)
    nn.init.zeros_(proj.bias)  # type: ignore[arg-type]  # Conv2d may do without a bias, this one does not
    nn.init.zeros_(model.cls_token)
    if position == "normal":
        nn.init.normal_(model.pos_embed, std=0.02)
    else:
        model.pos_embed[0] = sincos_position_embedding(model.patch_embed.grid_size, model.pos_embed.shape[2])
    for block in model.blocks:
        assert isinstance(block, EncoderBlock)
        block.norm1.reset_parameters()
        block.norm2.reset_parameters()
        nn.init.xavier_uniform_(block.attn.qkv.weight)
        nn.init.zeros_(block.attn.qkv.bias)
        block.attn.proj.reset_parameters()
        nn.init.zeros_(block.attn.proj.bias)
        for layer in (block.mlp.fc1, block.mlp.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)
    model.norm.reset_parameters()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)


def sincos_position_embedding(grid_size: tuple[int, int], embed_dim: int) -> Float[Tensor, "n d"]:
    """Sines and cosines of row and column at falling frequencies: near positions get similar vectors.

    A quarter of the width each: sin and cos of the row, sin and cos of the column, with frequencies from 1
    down to 1/10000 (the Transformer's, arXiv 1706.03762, in two dimensions). The class token's row is 0.

    Args:
        grid_size: rows and columns of patches.
        embed_dim: width D, a multiple of 4.

    Returns:
        (1 + rows * columns, embed_dim), first the class token.
    """
    if embed_dim % 4:
        nearest = f"{embed_dim // 4 * 4} or {embed_dim // 4 * 4 + 4}"
        raise ValueError(f"embed_dim {embed_dim} is not a multiple of 4 (sin, cos of row, column); nearest: {nearest}")
    frequencies = 10_000.0 ** -torch.linspace(0, 1, embed_dim // 4)
    row, column = torch.meshgrid(*(torch.arange(side) for side in grid_size), indexing="ij")
    angles = [position.flatten()[:, None] * frequencies for position in (row, column)]
    patches = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, embed_dim), patches])


def build(preset: str, **overrides: Any) -> VisionTransformer:
    """Build a preset by name (`vitscratch.config.PRESETS`), with any field of `ViTConfig` replaced.

    Raises:
        ValueError: no such preset. TypeError: no such field.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is unknown; there are {', '.join(PRESETS)}")
    known = [field.name for field in fields(ViTConfig)]
    if unknown := overrides.keys() - known:
        raise TypeError(f"{preset} has no {', '.join(sorted(unknown))}; what can be replaced: {', '.join(known)}")
    return VisionTransformer.from_config(replace(PRESETS[preset], **overrides))


def _torchvision_style(preset: str, weights: Any, progress: bool, overrides: dict[str, Any]) -> VisionTransformer:
    """Build a preset through torchvision's signature, with pretrained weights if they are asked for."""
    if weights is not None:
        from vitscratch.weights import pretrained  # here alone: it imports this file

        return pretrained(preset, weights, progress, overrides)
    return build(preset, **overrides)


def vit_ti_16(weights: Any = None, progress: bool = True, **overrides: Any) -> VisionTransformer:
    """ViT-Ti/16 after DeiT: 5,717,416 parameters at 224 pixels with 1,000 classes."""
    return _torchvision_style("vit_ti_16", weights, progress, overrides)


def vit_s_16(weights: Any = None, progress: bool = True, **overrides: Any) -> VisionTransformer:
    """ViT-S/16 after DeiT: 22,050,664 parameters."""
    return _torchvision_style("vit_s_16", weights, progress, overrides)


def vit_b_16(weights: Any = None, progress: bool = True, **overrides: Any) -> VisionTransformer:
    """ViT-B/16: 86,567,656 parameters. Overrides are fields of `ViTConfig`: `vit_b_16(num_classes=2)`."""
    return _torchvision_style("vit_b_16", weights, progress, overrides)


def vit_b_32(weights: Any = None, progress: bool = True, **overrides: Any) -> VisionTransformer:
    """ViT-B/32: 88,224,232 parameters."""
    return _torchvision_style("vit_b_32", weights, progress, overrides)


def vit_l_16(weights: Any = None, progress: bool = True, **overrides: Any) -> VisionTransformer:
    """ViT-L/16: 304,326,632 parameters."""
    return _torchvision_style("vit_l_16", weights, progress, overrides)


def vit_l_32(weights: Any = None, progress: bool = True, **overrides: Any) -> VisionTransformer:
    """ViT-L/32: 306,535,400 parameters."""
    return _torchvision_style("vit_l_32", weights, progress, overrides)


def vit_h_14(weights: Any = None, progress: bool = True, **overrides: Any) -> VisionTransformer:
    """ViT-H/14: 632,045,800 parameters."""
    return _torchvision_style("vit_h_14", weights, progress, overrides)


def vit_nano_32(weights: Any = None, progress: bool = True, **overrides: Any) -> VisionTransformer:
    """For 32-pixel colour photographs: 2,693,578 parameters with 10 classes."""
    return _torchvision_style("vit_nano_32", weights, progress, overrides)


def vit_nano_8(weights: Any = None, progress: bool = True, **overrides: Any) -> VisionTransformer:
    """For 8-pixel grey digits: 338,890 parameters with 10 classes."""
    return _torchvision_style("vit_nano_8", weights, progress, overrides)
