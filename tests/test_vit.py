import copy
import pickle
from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import vitscratch
from vitscratch import PRESETS, VisionTransformer, ViTConfig, build, init_weights, vit_nano_8
from vitscratch.parity import awaken
from vitscratch.vit import sincos_position_embedding

SMALL = ViTConfig((14, 33), (7, 11), 5, 13, embed_dim=15, depth=2, num_heads=3, mlp_dim=29)


def small(**overrides: object) -> VisionTransformer:
    model = VisionTransformer(**{**vars(SMALL), **overrides}).double().eval()
    awaken(model)
    return model


def pictures(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 5, 14, 33, dtype=torch.float64)


def test_shapes_at_every_station() -> None:
    model = small()
    assert model(pictures()).shape == (2, 13)
    assert model.features(pictures()).shape == (2, 15)
    assert model.tokens(pictures()).shape == (2, 1 + 2 * 3, 15)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_pooling(pool: str) -> None:
    model, images = small(pool=pool), pictures()
    tokens = model.tokens(images)
    expected = tokens[:, 0] if pool == "cls" else tokens[:, 1:].sum(dim=1) / 6  # without the class token
    assert_close(model.features(images), expected, rtol=0, atol=1e-12)
    assert_close(model(images), expected @ model.head.weight.T + model.head.bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_a_picture_does_not_see_its_neighbours_in_the_batch(batch: int) -> None:
    model, images = small(), pictures(batch)
    alone = torch.cat([model(image[None]) for image in images])
    assert_close(model(images), alone, rtol=0, atol=1e-12)
    assert_close(model(images.flip(0)), alone.flip(0), rtol=0, atol=1e-12)


def test_swapping_patches_changes_the_logits() -> None:
    model, images = small(), pictures()
    swapped = images.roll(11, dims=3)  # every patch moves one column
    assert (model(images) - model(swapped)).abs().min() > 1e-6


def test_without_positions_swapping_patches_changes_nothing() -> None:
    model, images = small(), pictures()
    nn.init.zeros_(model.pos_embed)
    assert_close(model(images), model(images.roll(11, dims=3)), rtol=0, atol=1e-12)


def test_every_parameter_gets_a_gradient() -> None:
    model = small()
    model(pictures()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_parameter_names_are_the_shared_ones() -> None:
    model = small(depth=1)
    assert set(model.state_dict()) == {
        "cls_token",
        "pos_embed",
        *(f"{layer}.{kind}" for layer in ("patch_embed.proj", "norm", "head") for kind in ("weight", "bias")),
        *(
            f"blocks.0.{layer}.{kind}"
            for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
            for kind in ("weight", "bias")
        ),
    }


def test_dropout_rates_reach_the_blocks() -> None:
    model = small(dropout=0.1, attention_dropout=0.2)
    assert model.dropout.p == 0.1
    assert all(block.attn.dropout.p == block.mlp.dropout.p == 0.1 for block in model.blocks)
    assert all(block.attn.attention_dropout == 0.2 for block in model.blocks)


# What init_weights' table promises: standard deviation, and the largest value if the distribution is bounded.
D, M, FAN_IN = 768, 3072, 3 * 16 * 16
UNIFORM = 3**0.5  # largest value of a uniform distribution in standard deviations
INIT = {
    "patch_embed.proj.weight": (FAN_IN**-0.5, None),
    "patch_embed.proj.bias": (0.0, None),
    "cls_token": (0.0, None),
    "pos_embed": (0.02, None),
    "blocks.0.attn.qkv.weight": ((2 / (D + 3 * D)) ** 0.5, UNIFORM * (2 / (D + 3 * D)) ** 0.5),
    "blocks.0.attn.qkv.bias": (0.0, None),
    "blocks.0.attn.proj.weight": (D**-0.5 / UNIFORM, D**-0.5),
    "blocks.0.attn.proj.bias": (0.0, None),
    "blocks.0.mlp.fc1.weight": ((2 / (D + M)) ** 0.5, UNIFORM * (2 / (D + M)) ** 0.5),
    "blocks.0.mlp.fc1.bias": (1e-6, None),
    "blocks.0.mlp.fc2.weight": ((2 / (D + M)) ** 0.5, UNIFORM * (2 / (D + M)) ** 0.5),
    "blocks.0.mlp.fc2.bias": (1e-6, None),
    "head.weight": (0.0, None),
    "head.bias": (0.0, None),
}


def _check_statistics(tensor: torch.Tensor, std: float, largest: float | None) -> None:
    tensor = tensor.detach().double()
    if std == 0.0:
        assert (tensor == 0).all()
        return
    n = tensor.numel()
    assert abs(tensor.mean()) < 5 * std / n**0.5
    assert_close(tensor.std().item(), std, rtol=5 / n**0.5, atol=0)
    if largest is not None:
        assert 0.999 * largest < tensor.abs().max() <= largest * (1 + 1e-6)
    else:  # a normal distribution: its tail is in the data, its fourth moment is 3
        assert tensor.abs().max() > 2.5 * std
        assert_close(((tensor / std) ** 4).mean().item(), 3.0, rtol=60 / n**0.5, atol=0)


@pytest.fixture(scope="module")
def fresh() -> tuple[nn.Module, nn.Module, dict[str, str]]:
    from vitscratch.parity import pair_parameters, torchvision_twin

    torch.manual_seed(1)
    config = ViTConfig(depth=1)
    theirs, mapping = torchvision_twin(config)
    ours = VisionTransformer.from_config(config)
    return ours, theirs, {pair.ours: pair.theirs[0] for pair in pair_parameters(ours, theirs, mapping)}


@pytest.mark.parametrize("name", INIT)
def test_initial_weights_have_the_statistics_of_the_table_and_so_have_torchvisions(name: str, fresh: tuple) -> None:
    ours, theirs, names = fresh
    _check_statistics(ours.get_parameter(name), *INIT[name])
    _check_statistics(theirs.get_parameter(names[name]), *INIT[name])


def test_initial_norms_are_the_identity_and_the_table_covers_the_rest(fresh: tuple) -> None:
    ours, _, names = fresh
    norms = {name for name in names if "norm" in name}
    for name in norms:
        assert (ours.get_parameter(name) == (1.0 if name.endswith("weight") else 0.0)).all()
    assert norms | INIT.keys() == names.keys()


def test_init_weights_draws_every_parameter_anew() -> None:
    model = small()
    before = copy.deepcopy(model.state_dict())
    init_weights(model)
    assert all((model.state_dict()[name] != before[name]).all() for name in before)


def test_sincos_start_is_the_formula() -> None:
    model = build("vit_nano_8", patch_size=2)
    init_weights(model, position="sincos")
    table = model.pos_embed[0]
    quarter = table.shape[1] // 4
    assert (table[0] == 0).all()
    row, column = 2, 3
    for i in (0, 1, quarter - 1):
        frequency = 10_000 ** (-i / (quarter - 1))
        waves = [
            wave(torch.tensor(position * frequency)) for position in (row, column) for wave in (torch.sin, torch.cos)
        ]
        assert_close(table[1 + row * 4 + column, i::quarter], torch.stack(waves))
    similarity = torch.cosine_similarity(table[1 + 5], table[1:], dim=1)
    assert similarity.argmax() == 5 and similarity[6] > similarity[7] > 0  # near is more alike than far
    with pytest.raises(ValueError, match=r"embed_dim 15 is not a multiple of 4 .*nearest: 12 or 16"):
        sincos_position_embedding((2, 3), 15)


@pytest.mark.parametrize("position", ["normal", "sincos"])
def test_first_logits_are_zero_so_the_first_loss_is_ln_classes(position: str) -> None:
    model = vit_nano_8()
    init_weights(model, position=position)
    assert (model(torch.randn(3, 1, 8, 8)) == 0).all()


def test_builders_take_overrides_and_refuse_what_they_do_not_know() -> None:
    model = vit_nano_8(num_classes=3, image_size=(12, 8), in_channels=2, dropout=0.1)
    assert model(torch.randn(5, 2, 12, 8)).shape == (5, 3)
    with pytest.raises(TypeError, match="vit_nano_8 has no hidden_dim; what can be replaced: image_size, "):
        vit_nano_8(hidden_dim=3)
    with pytest.raises(ValueError, match="preset 'vit_x' is unknown; there are vit_nano_8, "):
        build("vit_x")


def test_weights_that_nobody_has_are_refused() -> None:
    """Those that there are: tests/weights/test_sources.py."""
    assert isinstance(vit_nano_8(None, False), VisionTransformer)
    with pytest.raises(ValueError, match=r"weights='IMAGENET1K_V1' are unknown to vit_nano_8; expected "):
        vit_nano_8(weights="IMAGENET1K_V1")


@pytest.mark.parametrize("preset", [name for name in PRESETS if not name.startswith("vit_nano")])
def test_torchvision_builders_can_be_swapped_for_ours(preset: str) -> None:
    import torchvision.models as torchvision_models

    if not hasattr(torchvision_models, preset):
        assert preset in ("vit_ti_16", "vit_s_16")  # DeiT's sizes, which torchvision does not have
        return  # tests/parity/test_presets.py and HEADS below hold them
    with torch.device("meta"):
        arguments = {"weights": None, "progress": False, "num_classes": 7, "dropout": 0.1}
        ours, theirs = (getattr(library, preset)(**arguments) for library in (vitscratch, torchvision_models))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    # The number of heads changes no parameter, so it has to be looked at.
    assert ours.blocks[0].attn.num_heads == theirs.encoder.layers[0].self_attention.num_heads


HEADS = {"vit_ti_16": 3, "vit_s_16": 6}  # DeiT, Table 1


@pytest.mark.parametrize("preset", HEADS)
def test_heads_of_deits_sizes_are_timms(preset: str) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed (pip install 'vitscratch[test]')")
    theirs = timm.create_model({"vit_ti_16": "deit_tiny_patch16_224", "vit_s_16": "deit_small_patch16_224"}[preset])
    assert PRESETS[preset].num_heads == HEADS[preset] == theirs.blocks[0].attn.num_heads
    assert PRESETS[preset].depth == len(theirs.blocks) and PRESETS[preset].embed_dim == theirs.embed_dim


def test_every_builder_states_its_parameters() -> None:
    for preset, config in PRESETS.items():
        assert f"{config.num_parameters:,}" in str(getattr(vitscratch, preset).__doc__), preset


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, r"sizes \{'depth': 0\}: expected at least 1"),
        ({"num_classes": 0, "in_channels": -1}, r"'in_channels': -1, 'num_classes': 0"),
        ({"embed_dim": -8}, r"sizes \{'embed_dim': -8\}"),
        ({"num_heads": 5}, "embed_dim 96 does not split into 5 heads of equal width; nearest: 4"),
        ({"attention_dropout": 1.5}, "attention_dropout 1.5 is no probability"),
        ({"patch_size": 0}, "size 0 is no size in pixels"),
        ({"patch_size": -2}, "size -2 is no size in pixels"),
    ],
)
def test_sizes_that_are_none_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vit_nano_8(**arguments)


# The short form of the last block (tests/parity/checks.py holds it against the references and counts its work).


def _both_forms(model: VisionTransformer, images: torch.Tensor) -> list[list[torch.Tensor]]:
    """Logits and the gradients of all parameters that need one, with one query in the last block and with all."""
    found, flops = [], []
    for one_query in (True, False):
        model.one_query = one_query
        with FlopCounterMode(display=False) as counter:
            logits = model(images)
        flops.append(counter.get_total_flops())
        wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
        found.append([logits, *torch.autograd.grad(logits.square().sum(), wanted)])
    assert flops[0] < flops[1]
    return found


def _assert_forms_agree(model: VisionTransformer, images: torch.Tensor, tolerance: float) -> None:
    for short, long in zip(*_both_forms(model, images), strict=True):
        scale = long.abs().max().item()
        assert_close(short, long, rtol=0, atol=tolerance * max(scale, 1.0))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-1)]
)
@pytest.mark.parametrize(("heads", "depth", "batch"), [(1, 1, 1), (3, 2, 5), (5, 3, 2)])
def test_one_query_gives_the_same_logits_and_gradients(
    dtype: torch.dtype, tolerance: float, heads: int, depth: int, batch: int
) -> None:
    model = small(depth=depth, embed_dim=7 * heads, num_heads=heads).to(dtype).train()
    _assert_forms_agree(model, pictures(batch).to(dtype), tolerance)


def test_one_query_in_autocast_and_with_frozen_layers() -> None:
    model = small().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _assert_forms_agree(model, pictures().float(), 5e-2)
    for frozen in (model.blocks[0], model.blocks[1].attn, model.patch_embed):
        frozen.requires_grad_(False)
        _assert_forms_agree(model, pictures().float(), 1e-5)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap over fused attention
def test_one_query_in_functional_calls_and_gradients_of_each_picture() -> None:
    model, images = small(), pictures(3)
    parameters = {name: parameter.detach() * 1.5 for name, parameter in model.named_parameters()}

    def squares(parameters: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, parameters, (image[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(squares), in_dims=(None, 0))(parameters, images)
    model.one_query = False
    expected = [torch.func.grad(squares)(parameters, image) for image in images]
    for name in parameters:
        assert_close(each[name], torch.stack([grads[name] for grads in expected]), rtol=1e-10, atol=1e-10)


def test_all_queries_where_activations_are_checkpointed() -> None:
    model, images = small().train(), pictures()
    expected = _both_forms(model, images)[1]
    for block in model.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    model.one_query = True
    logits = model(images)
    found = [logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))]
    assert_close(found, expected, rtol=0, atol=0)


def test_one_query_draws_dropout_of_the_class_token_alone() -> None:
    model, images = small(dropout=0.5).train(), pictures(1)
    shapes: list[torch.Size] = []
    dropped = torch.nn.functional.dropout
    with patch.object(torch.nn.functional, "dropout", lambda x, *rest: shapes.append(x.shape) or dropped(x, *rest)):
        model(images)
    assert shapes == [(1, 7, 15), *[(1, 7, 15), (1, 7, 29), (1, 7, 15)], *[(1, 1, 15), (1, 1, 29), (1, 1, 15)]]


# What users do to modules.


@pytest.fixture
def nano() -> tuple[VisionTransformer, torch.Tensor]:
    model = vit_nano_8().eval()
    awaken(model)
    return model, torch.randn(3, 1, 8, 8)


def test_deepcopy_and_pickle_keep_the_function(nano: tuple) -> None:
    model, images = nano
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(twin(images), model(images), rtol=0, atol=0)


def test_channels_last_pictures_give_the_same_logits(nano: tuple) -> None:
    model = build("vit_nano_32").eval()
    awaken(model)
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    assert_close(model(images.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4)
    model = model.to(memory_format=torch.channels_last)
    assert_close(model(images.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_autocast_runs_forwards_and_backwards(nano: tuple) -> None:
    model, images = nano
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.bfloat16
    assert_close(logits.float(), model(images), rtol=0.1, atol=0.1)
    logits.float().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_half_precision_model_runs(nano: tuple) -> None:
    model, images = nano
    expected = model(images)
    assert_close(copy.deepcopy(model).bfloat16()(images.bfloat16()).float(), expected, rtol=0.1, atol=0.1)
