"""Google's .npz files: the original release and AugReg (`gs://vit_models`), with or without "opt/target/" in front.

Source: `google-research/vision_transformer`, `vit_jax/models_vit.py`. Flax keeps a linear layer's kernel as (in, out),
a convolution's as (height, width, in, out), and splits the heads: query, key and value (D, h, k), output (h, k, D).
"""

import torch
from einops import rearrange
from torch import Tensor

from vitscratch.weights.table import SAME, Ecosystem, Reshape, Row

_BLOCK = "Transformer/encoderblock_{i}"
_ATTENTION = f"{_BLOCK}/MultiHeadDotProductAttention_1"
_QKV = tuple(f"{_ATTENTION}/{name}" for name in ("query", "key", "value"))


def _pack_kernels(theirs: list[Tensor]) -> Tensor:
    return torch.cat([rearrange(kernel, "d h k -> (h k) d") for kernel in theirs])


def _unpack_kernels(ours: Tensor, num_heads: int) -> list[Tensor]:
    return [rearrange(weight, "(h k) d -> d h k", h=num_heads) for weight in ours.chunk(3)]


def _pack_biases(theirs: list[Tensor]) -> Tensor:
    return torch.cat([rearrange(bias, "h k -> (h k)") for bias in theirs])


def _unpack_biases(ours: Tensor, num_heads: int) -> list[Tensor]:
    return [rearrange(bias, "(h k) -> h k", h=num_heads) for bias in ours.chunk(3)]


def _join_heads(theirs: list[Tensor]) -> Tensor:
    return rearrange(theirs[0], "h k d -> d (h k)")


def _split_heads(ours: Tensor, num_heads: int) -> list[Tensor]:
    return [rearrange(ours, "d (h k) -> h k d", h=num_heads)]


_KERNEL = Reshape(lambda theirs: rearrange(theirs[0], "i o -> o i"), lambda ours, _: [rearrange(ours, "o i -> i o")])
_CONVOLUTION = Reshape(
    lambda theirs: rearrange(theirs[0], "p q c d -> d c p q"), lambda ours, _: [rearrange(ours, "d c p q -> p q c d")]
)
_QKV_KERNELS = Reshape(_pack_kernels, _unpack_kernels)
_QKV_BIASES = Reshape(_pack_biases, _unpack_biases)
_OUT_KERNEL = Reshape(_join_heads, _split_heads)


def _dense(ours: str, theirs: str, kernel: Reshape = _KERNEL) -> tuple[Row, Row]:
    return Row(f"{ours}.weight", f"{theirs}/kernel", kernel), Row(f"{ours}.bias", f"{theirs}/bias")


def _norm(ours: str, theirs: str) -> tuple[Row, Row]:
    return Row(f"{ours}.weight", f"{theirs}/scale", SAME), Row(f"{ours}.bias", f"{theirs}/bias")


GOOGLE = Ecosystem(
    "google",
    rows=(
        *_dense("patch_embed.proj", "embedding", _CONVOLUTION),
        Row("cls_token", "cls"),
        Row("pos_embed", "Transformer/posembed_input/pos_embedding"),
        *_norm("blocks.{i}.norm1", f"{_BLOCK}/LayerNorm_0"),
        Row("blocks.{i}.attn.qkv.weight", tuple(f"{name}/kernel" for name in _QKV), _QKV_KERNELS),
        Row("blocks.{i}.attn.qkv.bias", tuple(f"{name}/bias" for name in _QKV), _QKV_BIASES),
        *_dense("blocks.{i}.attn.proj", f"{_ATTENTION}/out", _OUT_KERNEL),
        *_norm("blocks.{i}.norm2", f"{_BLOCK}/LayerNorm_2"),
        *_dense("blocks.{i}.mlp.fc1", f"{_BLOCK}/MlpBlock_3/Dense_0"),
        *_dense("blocks.{i}.mlp.fc2", f"{_BLOCK}/MlpBlock_3/Dense_1"),
        *_norm("norm", "Transformer/encoder_norm"),
        *_dense("head.pre_logits", "pre_logits"),
        *_dense("head", "head"),
    ),
    marks=("embedding/kernel", "Transformer/encoderblock_0/LayerNorm_0/scale"),
    separator="/",
    prefixes=("", "opt/target/"),
    refused=(
        ("conv_root/*", "a hybrid: a ResNet makes its patches"),
        (
            "*MultiHeadDotProductAttention_0/*",
            "big_vision's layout, another model: no class token in most of its files",
        ),
    ),
    heads="Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/bias",
)
