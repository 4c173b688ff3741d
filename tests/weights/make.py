"""Small models, their references, and files of weights for the tests here."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from vitscratch import VisionTransformer
from vitscratch.config import ViTConfig
from vitscratch.parity import awaken
from vitscratch.weights import NormedHead, PreLogitsHead, Weights
from vitscratch.weights.heads import with_head_of

# Prime and distinct where it can be: no two axes of any tensor can be mistaken for each other, but D x D.
CONFIG = ViTConfig(
    image_size=21, patch_size=7, in_channels=3, num_classes=11, embed_dim=15, depth=2, num_heads=5, mlp_dim=13
)
HIDDEN = 17
ENDINGS = {"torchvision": ".pth", "timm": ".safetensors", "huggingface": ".bin", "google": ".npz"}


def our_model(config: ViTConfig = CONFIG, hidden: int | None = None, normed: bool = False) -> VisionTransformer:
    """Ours, awake, in float64; `hidden`: with a pre-logits layer of this width; `normed`: with a `NormedHead`."""
    model = VisionTransformer.from_config(config)
    if hidden is not None:
        model.head = PreLogitsHead(config.embed_dim, hidden, config.num_classes)  # type: ignore[assignment]
    if normed:
        model.norm = nn.Identity()  # type: ignore[assignment]
        model.head = NormedHead(config.embed_dim, config.num_classes)  # type: ignore[assignment]
    awaken(model, seed=7)
    return model.double().eval()


def pictures(config: ViTConfig = CONFIG, number: int = 3) -> Tensor:
    side = config.image_size
    height, width = side if isinstance(side, tuple) else (side, side)
    return torch.randn(number, config.in_channels, height, width, dtype=torch.float64)


def assert_same_tensors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Every tensor there, and equal to the last bit."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def ours_with(weights: Weights) -> VisionTransformer:
    """Our model with weights that were read, which have to be complete."""
    model = VisionTransformer.from_config(replace(weights.config, num_classes=weights.config.num_classes or 1)).double()
    if not weights.config.num_classes:
        model.head = nn.Identity()  # type: ignore[assignment]
    else:
        with_head_of(model, weights.tensors).double()
    model.load_state_dict(weights.tensors)
    return model.eval()


def assert_logits_match(ours: nn.Module, theirs: nn.Module, config: ViTConfig = CONFIG) -> None:
    images = pictures(config)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-10)
