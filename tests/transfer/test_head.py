"""Replacing the head: every kind of classifier, the right layer, the right size."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vitscratch import vit_nano_8
from vitscratch.transfer import head_name, replace_head


def _torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(16, 4, 1, 2, 8, 16, num_classes=7)


def _resnet() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(num_classes=7)


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=7)


KINDS: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "ours": (lambda: vit_nano_8(num_classes=7), "head", (2, 1, 8, 8)),
    "torchvision's ViT": (_torchvision_vit, "heads.head", (2, 3, 16, 16)),
    "torchvision's ResNet": (_resnet, "fc", (2, 3, 32, 32)),
    "timm's ViT": (lambda: _timm("vit_tiny_patch16_224"), "head", (2, 3, 224, 224)),
    "timm's ResNet": (lambda: _timm("resnet10t"), "fc", (2, 3, 32, 32)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_is_replaced_and_nothing_else(kind: str) -> None:
    build, name, shape = KINDS[kind]
    model = build().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert head_name(model) == name
    new = replace_head(model, 3)
    assert model.get_submodule(name) is new and new.out_features == 3
    assert_close(model(torch.randn(shape)), torch.zeros(2, 3))
    after = model.state_dict()
    assert before.keys() == after.keys()
    for key in before:
        if not key.startswith(name):
            assert_close(after[key], before[key], rtol=0, atol=0)


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Sequential has no linear head in any of head, .*last linear layer is '1'"):
        replace_head(nn.Sequential(nn.Conv2d(3, 5, 1), nn.Linear(5, 2)), 3)
    with pytest.raises(ValueError, match="num_classes 0: expected at least 1"):
        replace_head(vit_nano_8(), 0)


def test_a_second_head_is_refused() -> None:
    with pytest.raises(ValueError, match="is a distilled DeiT with a second head, head_dist"):
        replace_head(_timm("deit_tiny_distilled_patch16_224"), 2)
