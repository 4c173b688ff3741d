"""Settings: the shape of a Vision Transformer and what it costs, and how a model is trained. Needs no torch."""

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


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How `vitscratch.training.fit` trains a model. Every field is an option of `vitscratch train RECIPE` too."""

    epochs: int
    """Passes over the training pictures, at least 1."""

    learning_rate: float
    """AdamW's, at its peak: reached after the warm-up, then falling to 0 along half a cosine."""

    weight_decay: float = 0.05
    """Each step takes this fraction, times the learning rate, off every weight matrix (not off norms, biases, tokens
    and positions)."""

    warmup_epochs: float = 0.0
    """Epochs (a fraction is fine) in which the learning rate rises in a straight line. Adam knows little of the
    gradient's size in its first steps, so a ViT wants small ones. (In a recipe, a warm-up that is no shorter than the
    run becomes a fifth of it.)"""

    clip_norm: float | None = 1.0
    """Longest gradient (L2 norm over all parameters) that a step may follow; a longer one is shortened. None: any."""

    label_smoothing: float = 0.0
    """Share in [0, 1) of each label that is spread over all classes, so that no logit need grow without end
    (arXiv 1512.00567, section 7)."""

    mixup: float = 0.0
    """Above 0: pictures and labels of a batch are blended in pairs, with a weight from Beta(mixup, mixup)
    (arXiv 1710.09412); 0.2 to 0.8 is usual. Training accuracy is then no measure of anything."""

    cutmix: float = 0.0
    """Above 0: a rectangle of each picture comes from another one, its area from Beta(cutmix, cutmix), and the label is
    shared accordingly (arXiv 1905.04899); 1.0 is usual. With mixup too, each batch gets one of them at random."""

    ema_decay: float = 0.0
    """Above 0: keep a moving average of the weights, average = decay x average + (1 - decay) x weights after each step.
    It is what is validated and what the run returns. 0.999 remembers about 1,000 steps."""

    accumulate: int = 1
    """Batches that make one step. The gradient equals that of one batch as large as all of them."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the matrix products: auto takes bf16 where the hardware multiplies it faster than fp32, fp16 (with
    loss scaling) on older GPUs, fp32 elsewhere. Weights and optimizer stay in fp32."""

    compile: bool = False
    """Let torch.compile generate code for the model: a minute or so at the start, faster steps afterwards."""

    activation_checkpointing: bool = False
    """Keep only the input of each block and compute the rest again in the backward pass: less memory, a third more
    arithmetic, the same gradients (arXiv 1604.06174)."""

    patience: int | None = None
    """Stop after this many epochs in a row without a better `monitor`, and return the weights of the best epoch. None:
    train for all epochs and return the last weights. As many as epochs: train for all and return the best."""

    monitor: Literal["validation_loss", "validation_accuracy"] = "validation_loss"
    """What says which epoch is best."""

    balance_classes: bool = False
    """Weigh each picture by the rarity of its class (pictures / (classes x pictures of its class)), so that every class
    counts the same in the loss."""

    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several processes (torchrun): ddp copies the model to each; fsdp divides it among them, for models that do
    not fit on one device, and goes without ema_decay."""

    seed: int = 0
    """Of the initial weights, the order of the pictures, their augmentation and dropout."""

    deterministic: bool = False
    """Only algorithms that give the same bits each time; slower on a GPU. The CPU gives the same bits anyway, with the
    same number of threads. Other versions, machines or batch sizes may round otherwise."""

    def __post_init__(self) -> None:
        at_least_one = dict(epochs=self.epochs, accumulate=self.accumulate, patience=self.patience)
        for name, value in at_least_one.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} {value}: expected at least 1")
        at_least_zero = dict(weight_decay=self.weight_decay, mixup=self.mixup, cutmix=self.cutmix)
        for name, amount in at_least_zero.items():
            if not amount >= 0:
                raise ValueError(f"{name} {amount}: expected 0 or more")
        for name, share in dict(label_smoothing=self.label_smoothing, ema_decay=self.ema_decay).items():
            if not 0 <= share < 1:
                raise ValueError(f"{name} {share}: expected 0 or more, and below 1")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate {self.learning_rate}: expected a number above 0")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs}: expected 0 to epochs, {self.epochs}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm {self.clip_norm}: expected above 0, or None for no clipping")
