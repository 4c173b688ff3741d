"""The parity suite: each check takes the library (or a copy with a mistake) and raises AssertionError if it is not
the function that the references compute. Weights are awake, arithmetic is float64, sizes are prime and distinct."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vitscratch.config import ViTConfig
from vitscratch.parity import (
    NameMapping,
    assert_parity,
    awaken,
    compare_updates,
    copy_parameters,
    pair_parameters,
    timm_twin,
    torchvision_twin,
)

Check = Callable[[SimpleNamespace], None]
CHECKS: dict[str, Check] = {}

# 2 pictures, 3 channels, 5 heads of width 7, patches of 11 px, 17 tokens (4 x 4 patches), 19 classes, 23 hidden.
SQUARE = ViTConfig(44, 11, 3, 19, embed_dim=5 * 7, depth=2, num_heads=5, mlp_dim=23)
# 2 pictures, 7 channels, 3 heads of width 11, patches of 17 x 19 px in 5 rows and 13 columns, 23 classes, 29 hidden.
RECTANGLES = ViTConfig((5 * 17, 13 * 19), (17, 19), 7, 23, embed_dim=3 * 11, depth=2, num_heads=3, mlp_dim=29)
B, N = 2, 13


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair_with(
    library: SimpleNamespace, config: ViTConfig, twin: Callable[[ViTConfig], tuple[nn.Module, NameMapping]]
) -> tuple[nn.Module, nn.Module, NameMapping]:
    """Ours and the reference with the same awake weights, in eval mode."""
    ours = library.VisionTransformer.from_config(config).double().eval()
    theirs, mapping = twin(config)
    theirs = theirs.double().eval()
    awaken(ours)
    copy_parameters(ours, theirs, mapping)
    return ours, theirs, mapping


def pictures(config: ViTConfig, batch: int = B) -> Tensor:
    height, width = config.image_size if isinstance(config.image_size, tuple) else (config.image_size,) * 2
    return normal(batch, config.in_channels, height, width)


@check
def torchvision_square(library: SimpleNamespace) -> None:
    ours, theirs, mapping = pair_with(library, SQUARE, torchvision_twin)
    shapes = {name: tuple(parameter.shape) for name, parameter in ours.named_parameters()}
    assert shapes["cls_token"] == (1, 1, 35) and shapes["pos_embed"] == (1, 17, 35)
    report = assert_parity(ours, theirs, pictures(SQUARE), mapping)
    assert report.parameters_mapped == 8 + 12 * SQUARE.depth
    assert {row.name for row in report.rows} >= {"input", "patch_embed", "cls_token", "pos_embed", "head", "output"}


@check
def torchvision_readable_attention(library: SimpleNamespace) -> None:
    ours, theirs, mapping = pair_with(library, SQUARE, torchvision_twin)
    for block in ours.blocks:
        block.attn.fused = False
    assert_parity(ours, theirs, pictures(SQUARE), mapping)


@check
def torchvision_without_gradients(library: SimpleNamespace) -> None:
    """Without gradients nn.MultiheadAttention takes a fused path of its own (if heads are even in number)."""
    config = ViTConfig(**{**vars(SQUARE), "num_heads": 2, "embed_dim": 2 * 7})
    ours, theirs, mapping = pair_with(library, config, torchvision_twin)
    with patch.object(torch, "_native_multi_head_attention", wraps=torch._native_multi_head_attention) as fused:
        report = assert_parity(ours, theirs, pictures(config), mapping, gradients=False)
    assert fused.call_count == config.depth, "the path that this check is about was not taken"
    assert report.max_gradient_diff is None


@check
def torchvision_tiny_input(library: SimpleNamespace) -> None:
    """Tokens of little variance, in which the epsilon of a norm shows."""
    ours, theirs, mapping = pair_with(library, SQUARE, torchvision_twin)
    with torch.no_grad():
        for model in (ours, theirs):
            for parameter in model.parameters():
                parameter *= 1e-3 if parameter.dim() in (3, 4) else 1  # tokens, positions and patch kernel
    assert_parity(ours, theirs, pictures(SQUARE), mapping)


@check
def torchvision_training_with_dropout(library: SimpleNamespace) -> None:
    """From the same seed both draw the same zeros in the same places: training agrees to rounding, too.

    One picture: with more, nn.MultiheadAttention lays the batch out differently in memory and draws other zeros.
    """
    config = ViTConfig(**{**vars(SQUARE), "dropout": 0.3, "attention_dropout": 0.2})
    ours, theirs, mapping = pair_with(library, config, torchvision_twin)
    assert_parity(ours.train(), theirs.train(), pictures(config, batch=1), mapping)
    for block in ours.blocks:
        block.attn.fused = False
    assert_parity(ours.train(), theirs.train(), pictures(config, batch=1), mapping)
    assert_parity(ours.eval(), theirs.eval(), pictures(config), mapping)


@check
def training_without_dropout(library: SimpleNamespace) -> None:
    """Nothing is dropped unless it is asked for: with default arguments training is eval."""
    sizes = {name: size for name, size in vars(SQUARE).items() if "dropout" not in name and name != "pool"}
    ours = library.VisionTransformer(**sizes).double().train()
    awaken(ours)
    theirs, mapping = torchvision_twin(SQUARE)
    copy_parameters(ours, theirs.double().train(), mapping)
    assert_parity(ours, theirs, pictures(SQUARE), mapping)
    for layer in (library.EncoderBlock(15, 3, 29), library.MultiHeadSelfAttention(15, 3), library.MLP(15, 29)):
        x = normal(B, N, 15).float()
        assert_close(layer.train()(x), layer.eval()(x), rtol=0, atol=0)


@check
def torchvision_dropout_in_distribution(library: SimpleNamespace) -> None:
    """Mean and spread of the features of one picture over 4,000 draws, for each rate alone and for both."""
    for dropout, attention_dropout in ((0.3, 0.0), (0.0, 0.5), (0.3, 0.5)):
        rates = {"dropout": dropout, "attention_dropout": attention_dropout}
        ours, theirs, _ = pair_with(library, ViTConfig(**{**vars(SQUARE), **rates}), torchvision_twin)
        copies = pictures(SQUARE, batch=1).expand(4000, -1, -1, -1)
        torch.manual_seed(1)
        with torch.no_grad():
            a, b = ours.train()(copies), theirs.train()(copies)
        standard_error = (a.var(dim=0) / len(a) + b.var(dim=0) / len(b)).sqrt()
        assert ((a.mean(dim=0) - b.mean(dim=0)).abs() < 5 * standard_error).all(), f"means differ at {rates}"
        assert_close(a.std(dim=0), b.std(dim=0), rtol=0.1, atol=0, msg=f"spreads differ at {rates}")


@check
def timm_rectangles(library: SimpleNamespace) -> None:
    """Pictures and patches that are not square, five channels, and the mean pool, which torchvision does not have."""
    for pool in ("cls", "mean"):
        config = ViTConfig(**{**vars(RECTANGLES), "pool": pool})
        ours, theirs, mapping = pair_with(library, config, timm_twin)
        theirs.load_state_dict(ours.state_dict(), strict=True)  # with no renaming
        assert_parity(ours, theirs, pictures(config), mapping)


@check
def features_and_tokens(library: SimpleNamespace) -> None:
    for pool in ("cls", "mean"):
        config = ViTConfig(**{**vars(RECTANGLES), "pool": pool})
        ours, theirs, _ = pair_with(library, config, timm_twin)
        tokens = theirs.forward_features(pictures(config))
        assert_close(ours.tokens(pictures(config)), tokens, rtol=0, atol=1e-10)
        features = theirs.forward_head(tokens, pre_logits=True)
        assert_close(ours.features(pictures(config)), features, rtol=0, atol=1e-10)


@check
def one_query_against_all(library: SimpleNamespace) -> None:
    """The class token alone in the last block: logits, gradients and work, against all tokens there and torchvision."""
    for depth in (1, 2, 3):
        config = ViTConfig(**{**vars(SQUARE), "depth": depth})
        ours, theirs, mapping = pair_with(library, config, torchvision_twin)
        names = {pair.ours: pair.theirs[0] for pair in pair_parameters(ours, theirs, mapping)}
        short, flops = _logits_and_gradients(ours, pictures(config))
        reference, _ = _logits_and_gradients(theirs, pictures(config))
        ours.one_query = False
        long, all_flops = _logits_and_gradients(ours, pictures(config))
        for name, tensor in short.items():
            assert_close(tensor, long[name], rtol=0, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
            assert_close(tensor, reference[names.get(name, name)], rtol=0, atol=1e-10)
        assert (flops, all_flops) == (B * config.executed_flops, B * config.flops), (
            "not all that can be spared, or more"
        )
    attention = library.MultiHeadSelfAttention(15, 3, attention_dropout=0.5).double()
    awaken(attention)
    x = normal(B, N, 15)
    assert_close(attention.eval()(x, one_query=True), attention(x)[:, :1], rtol=0, atol=1e-12)
    with torch.random.fork_rng():
        torch.manual_seed(1)  # with dropped weights it is the same row of the same pass
        short = attention.train()(x, one_query=True)
        torch.manual_seed(1)
        assert_close(short, attention(x)[:, :1], rtol=0, atol=1e-12)
    attention.attention_dropout, attention.dropout.p = 0.0, 1.0
    assert (attention(x, one_query=True) == 0).all(), "no dropout on the output"


def _logits_and_gradients(model: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], int]:
    """Logits, gradients of every parameter and of the pictures, and the FLOPs of the forward pass."""
    images = images.requires_grad_()
    # The counter knows the products of the readable form, not those of the fused one.
    readable = [layer for layer in model.modules() if hasattr(layer, "fused")]
    for layer in readable:
        layer.fused = False
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    for layer in readable:
        layer.fused = True
    logits = model(images)
    wanted = {**dict(model.named_parameters()), "images": images}
    found = torch.autograd.grad(logits, list(wanted.values()), normal(*logits.shape, seed=1))
    return {"logits": logits, **dict(zip(wanted, found, strict=True))}, counter.get_total_flops()


@check
def all_queries_where_somebody_asks(library: SimpleNamespace) -> None:
    """Where layers were hooked or replaced, the last block computes all tokens, as if there were no short form."""
    images = pictures(SQUARE)

    def model() -> nn.Module:
        return pair_with(library, SQUARE, torchvision_twin)[0]

    def all_tokens(ours: nn.Module) -> Tensor:
        return ours.head(ours.tokens(images)[:, 0])

    # Hooks: each sees what it would see in a pass of all tokens.
    listeners: list[tuple[str, Callable[[list[Any]], Callable[..., None]]]] = [
        (
            "register_forward_hook",
            lambda seen: lambda layer, inputs, output: seen.append((inputs[0].shape, output.shape)),
        ),
        ("register_forward_pre_hook", lambda seen: lambda layer, inputs: seen.append(inputs[0].shape)),
        ("register_full_backward_hook", lambda seen: lambda layer, inputs, outputs: seen.append(outputs[0].shape)),
        ("register_full_backward_pre_hook", lambda seen: lambda layer, outputs: seen.append(outputs[0].shape)),
    ]
    last = [name for name, _ in model().named_modules() if name.startswith("blocks.1")]
    for name in [*last, "norm"]:
        for register, listen in listeners:
            seen: list[Any] = []
            ours = model()
            getattr(ours.get_submodule(name), register)(listen(seen))
            ours(images).sum().backward()
            ours.zero_grad()
            all_tokens(ours).sum().backward()
            assert len(seen) == 2 * (2 if name.endswith("mlp.dropout") else 1), f"{register} on {name}: {seen}"
            assert seen[: len(seen) // 2] == seen[len(seen) // 2 :], f"{register} on {name}: {seen}"

    # Layers of another kind: tokens mixed by something else, an adapter, a wrapped forward, a block without `queries`.
    class Mix(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer
            self.weight, self.bias = layer.weight, layer.bias  # as adapters have them

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + x.mean(dim=1, keepdim=True).sum(dim=2, keepdim=True)

    for name in ("blocks.1.norm1", "blocks.1.attn.qkv", "blocks.1.norm2", "blocks.1.mlp.fc1", "norm"):
        ours = model()
        ours.set_submodule(name, Mix(ours.get_submodule(name)))
        assert_close(ours(images), all_tokens(ours), rtol=0, atol=0, msg=f"{name} was put in")
        ours = model()
        layer = ours.get_submodule(name)
        layer.forward = partial(Mix.forward, SimpleNamespace(layer=layer.__class__.forward.__get__(layer)))
        assert_close(ours(images), all_tokens(ours), rtol=0, atol=0, msg=f"forward of {name} was wrapped")
    ours = model()
    ours.blocks[1] = nn.Linear(SQUARE.embed_dim, SQUARE.embed_dim).double()
    try:
        logits = ours(images)
    except TypeError as error:
        raise AssertionError("a block of another kind was asked for the class token alone") from error
    assert_close(logits, all_tokens(ours), rtol=0, atol=0)
    ours.blocks = nn.ModuleList()
    assert_close(ours(images), all_tokens(ours), rtol=0, atol=0)
    attention = library.MultiHeadSelfAttention(15, 3).double()
    attention.qkv = Mix(attention.qkv)
    assert_close(attention(normal(B, N, 15), one_query=True), attention(normal(B, N, 15))[:, :1], rtol=0, atol=1e-12)

    # A subclass with tokens of its own.
    ours = model()
    ours.__class__ = type("Doubled", (type(ours),), {"tokens": lambda self, x: 2 * type(self).__base__.tokens(self, x)})
    assert_close(ours(images), all_tokens(ours), rtol=0, atol=0)


@check
def updates(library: SimpleNamespace) -> None:
    """Five steps of AdamW and five of SGD from the same weights end at the same weights.

    A bias of the keys moves all scores of a query alike, so its gradient is 0 but for rounding, 1e-17. Adam divides
    that by its epsilon, 1e-8: a learning rate of 1e-3 keeps the result below 1e-10.
    """
    for make_optimizer in (
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1),
        lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9),
    ):
        ours, theirs, mapping = pair_with(library, SQUARE, torchvision_twin)
        before = [parameter.clone() for parameter in ours.parameters()]
        batches = [(normal(B, 3, 44, 44, seed=step), torch.tensor([step, 2 * step])) for step in range(5)]
        report = compare_updates(ours.train(), theirs.train(), batches, mapping, make_optimizer)
        assert report.passed, f"{report.verdict()}\n{report.table()}"
        moved = [(new - old).abs().max().item() for new, old in zip(ours.parameters(), before, strict=True)]
        assert min(moved) > 1e-7, "a parameter did not move, so its update was not compared"


@check
def encoder_block_against_torch(library: SimpleNamespace) -> None:
    ours = library.EncoderBlock(15, 3, 29).double()
    theirs = nn.TransformerEncoderLayer(
        15, 3, 29, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).double()
    mapping = {
        "norm1": "norm1",
        "norm2": "norm2",
        "attn": "self_attn",
        "attn.qkv.weight": "self_attn.in_proj_weight",
        "attn.qkv.bias": "self_attn.in_proj_bias",
        "attn.proj.weight": "self_attn.out_proj.weight",
        "attn.proj.bias": "self_attn.out_proj.bias",
        "mlp.fc1": "linear1",
        "mlp.fc2": "linear2",
    }
    awaken(ours)
    copy_parameters(ours, theirs, mapping)
    assert_parity(ours, theirs, normal(B, N, 15), mapping)


@check
def attention_against_torch(library: SimpleNamespace) -> None:
    theirs = nn.MultiheadAttention(15, 3, batch_first=True).double()
    for fused in (True, False):
        ours = library.MultiHeadSelfAttention(15, 3, fused=fused).double()
        mapping = {
            "qkv.weight": "in_proj_weight",
            "qkv.bias": "in_proj_bias",
            "proj.weight": "out_proj.weight",
            "proj.bias": "out_proj.bias",
        }
        awaken(ours)
        copy_parameters(ours, theirs, mapping)
        assert_parity(ours, _SelfAttention(theirs), normal(B, N, 15), {k: f"layer.{v}" for k, v in mapping.items()})
        x = normal(B, N, 15)
        _, weights = theirs(x, x, x, average_attn_weights=False)
        assert_close(ours.weights(x), weights, rtol=0, atol=1e-10)
    for scale in (1.0, 1e4):  # scores of 10,000: exp() overflows if it is not taken of differences
        q, k, v = scale * normal(B, 3, 7, 5), normal(B, 3, N, 5, seed=1), normal(B, 3, N, 5, seed=2)
        output, weights = library.attention(q, k, v)
        assert_close(output, F.scaled_dot_product_attention(q, k, v), rtol=0, atol=1e-10)
        assert_close(weights @ v, output, rtol=0, atol=1e-10)
    with patch.object(F, "scaled_dot_product_attention", wraps=F.scaled_dot_product_attention) as fused:
        library.MultiHeadSelfAttention(15, 3)(normal(B, N, 15).float())
        assert fused.call_count == 1, "the fast form is not used"
        library.MultiHeadSelfAttention(15, 3, fused=False)(normal(B, N, 15).float())
        assert fused.call_count == 1, "the readable form is not used"


class _SelfAttention(nn.Module):
    """nn.MultiheadAttention with one argument for its three."""

    def __init__(self, layer: nn.MultiheadAttention) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x, x, need_weights=False)[0]


@check
def mlp_against_torchvision(library: SimpleNamespace) -> None:
    from torchvision.models.vision_transformer import MLPBlock

    for dropout in (0.0, 0.3):
        ours = library.MLP(15, 29, dropout).double()
        theirs = MLPBlock(15, 29, dropout).double()
        mapping = {"fc1": "0", "fc2": "3"}
        awaken(ours)
        copy_parameters(ours, theirs, mapping)
        assert_parity(ours, theirs, normal(B, N, 15), mapping)


@check
def patch_embedding_against_convolution(library: SimpleNamespace) -> None:
    for image, patch_size, channels in (((14, 33), (7, 11), 5), (35, 7, 3), ((6, 4), 2, 1)):
        ours = library.PatchEmbedding(image, patch_size, channels, 13).double()
        awaken(ours)
        images = normal(B, channels, *ours.image_size)
        reference = F.conv2d(images, ours.proj.weight, ours.proj.bias, stride=ours.patch_size)
        expected = torch.stack(
            [reference[:, :, i, j] for i in range(reference.shape[2]) for j in range(reference.shape[3])], 1
        )
        assert_close(ours(images), expected, rtol=0, atol=1e-10)
        assert_close(library.embed_patches(images, ours.proj.weight, ours.proj.bias), expected, rtol=0, atol=1e-10)
        unfolded = F.unfold(images, ours.patch_size, stride=ours.patch_size).transpose(1, 2)
        assert_close(library.patchify(images, patch_size), unfolded, rtol=0, atol=0)
        assert_close(library.unpatchify(unfolded, image, patch_size), images, rtol=0, atol=0)
