"""The shape of a Vision Transformer in a few numbers, and what it costs in parameters and arithmetic."""

from dataclasses import dataclass
from typing import Literal

Size = int | tuple[int, int]


@dataclass(frozen=True)
class Cost:
    """Parameters and forward FLOPs (one picture; a multiply-add counts as two) of one part of a model."""

    part: str
    parameters: int
    flops: int


@dataclass(frozen=True)
class ViTConfig:
    """Architecture of a Vision Transformer (arXiv 2010.11929, Table 1).

    Args:
        image_size, patch_size: side in pixels, or (height, width).
        in_channels: channels of the picture. num_classes: length of the logits.
        embed_dim: width of a token (D). depth: number of encoder blocks (L).
        num_heads: attention heads (k); divides embed_dim. mlp_dim: hidden width of the MLP.
        dropout, attention_dropout: probabilities in [0, 1].
        pool: the head reads the class token ("cls") or the mean of the patch tokens ("mean").

    Whether the sizes fit together is checked where they are used, when the model is built.
    """

    image_size: Size = 224
    patch_size: Size = 16
    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    dropout: float = 0.0
    attention_dropout: float = 0.0
    pool: Literal["cls", "mean"] = "cls"

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            size = getattr(self, name)
            if isinstance(size, list):  # as JSON has it
                object.__setattr__(self, name, tuple(size))

    @property
    def num_patches(self) -> int:
        """Patches of a picture (N): rows times columns."""
        height, width = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,) * 2
        return (height // self._patch_sides[0]) * (width // self._patch_sides[1])

    @property
    def _patch_sides(self) -> tuple[int, int]:
        return self.patch_size if isinstance(self.patch_size, tuple) else (self.patch_size,) * 2

    @property
    def num_parameters(self) -> int:
        """Learned numbers in the model, from `costs`."""
        return sum(cost.parameters for cost in self.costs())

    @property
    def flops(self) -> int:
        """Forward FLOPs for one picture, from `costs`: the architecture's, the figure that people compare."""
        return sum(cost.flops for cost in self.costs())

    @property
    def executed_flops(self) -> int:
        """Those that our model executes without attention dropout: with pool "cls" the last block has one query
        (`VisionTransformer.class_token`), and makes neither keys nor values."""
        if self.pool != "cls":
            return self.flops
        n, d, m = self.num_patches + 1, self.embed_dim, self.mlp_dim
        block = sum(cost.flops for cost in self.costs() if cost.part.startswith("blocks")) // self.depth
        return self.flops - block + 8 * d * d + 4 * n * self.num_heads * d + 4 * d * m

    def costs(self) -> list[Cost]:
        """Parameters and FLOPs part by part, by formula.

        Matrix products are counted, the two of attention (q k^T and weights v) among them; additions of
        biases, norms, GELU and softmax are not.
        """
        n, d, m = self.num_patches + 1, self.embed_dim, self.mlp_dim  # n counts the class token
        patch_values = self.in_channels * self._patch_sides[0] * self._patch_sides[1]
        return [
            Cost("patch embedding", patch_values * d + d, 2 * self.num_patches * patch_values * d),
            Cost("class token", d, 0),
            Cost("position embedding", n * d, 0),
            Cost("blocks: norms", self.depth * 4 * d, 0),
            Cost("blocks: attention qkv", self.depth * (3 * d * d + 3 * d), self.depth * 6 * n * d * d),
            Cost("blocks: attention products", 0, self.depth * 4 * n * n * d),
            Cost("blocks: attention projection", self.depth * (d * d + d), self.depth * 2 * n * d * d),
            Cost("blocks: MLP", self.depth * (2 * d * m + m + d), self.depth * 4 * n * d * m),
            Cost("final norm", 2 * d, 0),
            Cost("head", self.num_classes * (d + 1), 2 * d * self.num_classes),
        ]


# Ti and S after DeiT (arXiv 2012.12877, Table 1); B, L and H after the paper's Table 1.
# nano_8 and nano_32 are ours, for 8-pixel digits and 32-pixel photographs: their number is the picture's side,
# the others' the patch's.
PRESETS: dict[str, ViTConfig] = {
    "vit_nano_8": ViTConfig(8, 4, 1, 10, embed_dim=96, depth=3, num_heads=4, mlp_dim=384),
    "vit_nano_32": ViTConfig(32, 4, 3, 10, embed_dim=192, depth=6, num_heads=3, mlp_dim=768),
    "vit_ti_16": ViTConfig(embed_dim=192, num_heads=3, mlp_dim=768),
    "vit_s_16": ViTConfig(embed_dim=384, num_heads=6, mlp_dim=1536),
    "vit_b_16": ViTConfig(),
    "vit_b_32": ViTConfig(patch_size=32),
    "vit_l_16": ViTConfig(embed_dim=1024, depth=24, num_heads=16, mlp_dim=4096),
    "vit_l_32": ViTConfig(patch_size=32, embed_dim=1024, depth=24, num_heads=16, mlp_dim=4096),
    "vit_h_14": ViTConfig(patch_size=14, embed_dim=1280, depth=32, num_heads=16, mlp_dim=5120),
}
