"""Small models of every kind that transfer works on, awake: all weights random, dropout and stochastic depth on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitscratch import VisionTransformer
from vitscratch.weights import NormedHead

CLASSES = 5


def ours(pool: Any) -> nn.Module:
    return VisionTransformer(10, 5, 3, CLASSES, 14, 3, 2, 22, dropout=0.3, attention_dropout=0.2, pool=pool)


def ours_normed() -> nn.Module:
    model = ours("mean")
    model.norm, model.head = nn.Identity(), NormedHead(14, CLASSES)
    return model


def torchvision_vit(representation_size: int | None = None) -> nn.Module:
    from torchvision.models import VisionTransformer as Theirs

    return Theirs(10, 5, 3, 2, 14, 22, 0.3, 0.2, num_classes=CLASSES, representation_size=representation_size)


def torchvision_resnet() -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)


def timm_vit(**options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer as Theirs

    sizes = dict(img_size=10, patch_size=5, num_classes=CLASSES, embed_dim=14, depth=3, num_heads=2, mlp_ratio=1.5)
    return Theirs(**sizes, proj_drop_rate=0.3, attn_drop_rate=0.2, drop_path_rate=0.4, pos_drop_rate=0.1, **options)


def timm_resnet() -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    return ResNet(
        BasicBlock, (1, 1, 1, 2), num_classes=CLASSES, channels=(6, 10, 12, 14), stem_width=6, drop_path_rate=0.4
    )


# The builder, the number of blocks, and the modules between the last block and the head.
KINDS: dict[str, tuple[Callable[[], nn.Module], int, tuple[str, ...]]] = {
    "ours": (lambda: ours("cls"), 3, ("norm",)),
    "ours, mean": (lambda: ours("mean"), 3, ("norm",)),
    "ours, norm after the mean": (ours_normed, 3, ("head.norm",)),
    "torchvision's ViT": (torchvision_vit, 3, ("encoder.ln",)),
    "torchvision's ViT, pre-logits": (lambda: torchvision_vit(13), 3, ("encoder.ln", "heads.pre_logits")),
    "torchvision's ResNet": (torchvision_resnet, 4, ()),
    "timm's ViT": (timm_vit, 3, ("norm",)),
    "timm's ViT, mean, registers": (
        lambda: timm_vit(global_pool="avg", reg_tokens=2, init_values=0.1),
        3,
        ("fc_norm",),
    ),
    "timm's ResNet": (timm_resnet, 4, ()),
}


def build(kind: str) -> nn.Module:
    model = KINDS[kind][0]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def pictures(kind: str, number: int = 3) -> Tensor:
    side = 33 if "ResNet" in kind else 10
    return torch.randn(number, 3, side, side)
