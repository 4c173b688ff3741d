"""The other implementations of the same architecture, at the same sizes."""

from collections.abc import Callable
from importlib.util import find_spec

from torch import Tensor, nn

from vitscratch.config import ViTConfig
from vitscratch.parity import timm_twin, torchvision_twin
from vitscratch.training import checkpoint_activations
from vitscratch.vit import VisionTransformer

OURS, CHECKPOINTED = "vitscratch", "vitscratch, checkpointed"


def build_peer(name: str, config: ViTConfig) -> nn.Module:
    """An implementation by name (`PEERS`, `OURS` or `CHECKPOINTED`): pictures in, logits out, no dropout.

    Raises:
        ValueError: no such name, or sizes that it cannot have. ImportError: it is not installed.
    """
    if name == OURS:
        return VisionTransformer.from_config(config)
    if name == CHECKPOINTED:
        model = VisionTransformer.from_config(config)
        checkpoint_activations(model)
        return model
    if name not in PEERS:
        raise ValueError(f"peer {name!r} is unknown; there are {', '.join(PEERS)}")
    if not installed(name):
        raise ImportError(f"{name} is not installed; pip install 'vitscratch[bench]' brings it")
    return PEERS[name](config)


def installed(name: str) -> bool:
    """Whether the package of a peer can be imported."""
    return find_spec(name.replace("-", "_")) is not None


class _Logits(nn.Module):
    """A model of Hugging Face's that returns the logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


def _transformers(config: ViTConfig) -> nn.Module:
    from transformers import ViTConfig as TheirConfig
    from transformers import ViTForImageClassification

    their_config = TheirConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_channels=config.in_channels,
        num_labels=config.num_classes,
        hidden_size=config.embed_dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.num_heads,
        intermediate_size=config.mlp_dim,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-6,
        qkv_bias=True,
        attn_implementation="sdpa",
    )
    return _Logits(ViTForImageClassification(their_config))


def _vit_pytorch(config: ViTConfig) -> nn.Module:
    """Not quite the same: no bias in the qkv-projection, and a norm before and after the patch projection."""
    from vit_pytorch import ViT

    return ViT(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=config.num_classes,
        dim=config.embed_dim,
        depth=config.depth,
        heads=config.num_heads,
        mlp_dim=config.mlp_dim,
        pool="cls",
        channels=config.in_channels,
        dim_head=config.embed_dim // config.num_heads,
    )


PEERS: dict[str, Callable[[ViTConfig], nn.Module]] = {
    "torchvision": lambda config: torchvision_twin(config)[0],
    "timm": lambda config: timm_twin(config)[0],
    "transformers": _transformers,
    "vit-pytorch": _vit_pytorch,
}
