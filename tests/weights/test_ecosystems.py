"""Ours -> theirs -> ours, bit for bit, and logits against each ecosystem's own model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.weights.make import (
    CONFIG,
    ENDINGS,
    HIDDEN,
    assert_logits_match,
    assert_same_tensors,
    our_model,
    ours_with,
    pictures,
)
from vitscratch.config import ViTConfig
from vitscratch.parity import awaken, timm_twin, torchvision_twin
from vitscratch.weights import read_weights, to_ecosystem, write_tensors
from vitscratch.weights.table import PACKED, Ecosystem, Reshape, Row

MEAN = replace(CONFIG, pool="mean")


def there_and_back(folder: Path, model: nn.Module, ecosystem: str, config: ViTConfig = CONFIG) -> None:
    """Through a file, and compare every tensor."""
    path = folder / f"model{ENDINGS[ecosystem]}"
    write_tensors(path, to_ecosystem(model.state_dict(), config, ecosystem))
    weights = read_weights(path, num_heads=None if ecosystem == "google" else config.num_heads)
    assert weights.ecosystem == ecosystem
    assert weights.unexpected == ()
    assert weights.config == replace(config, pool="cls", num_classes=weights.config.num_classes)
    assert_same_tensors(weights.tensors, model.state_dict())


@pytest.mark.parametrize("ecosystem", ENDINGS)
def test_there_and_back_is_the_same_to_the_last_bit(ecosystem: str, tmp_path: Path) -> None:
    there_and_back(tmp_path, our_model(), ecosystem)


@pytest.mark.parametrize("ecosystem", ["torchvision", "timm", "google"])
def test_there_and_back_with_a_pre_logits_layer(ecosystem: str, tmp_path: Path) -> None:
    there_and_back(tmp_path, our_model(hidden=HIDDEN), ecosystem)


def test_there_and_back_with_a_norm_after_the_mean(tmp_path: Path) -> None:
    model, path = our_model(MEAN, normed=True), tmp_path / "model.safetensors"
    write_tensors(path, to_ecosystem(model.state_dict(), MEAN, "timm"))
    weights = read_weights(path, num_heads=5)
    assert weights.unexpected == () and weights.config == MEAN  # the norm tells that the head reads the mean
    assert_same_tensors(weights.tensors, model.state_dict())


@pytest.mark.parametrize("ecosystem", ENDINGS)
def test_there_and_back_without_a_head(ecosystem: str, tmp_path: Path) -> None:
    model = our_model()
    model.head = nn.Identity()  # type: ignore[assignment]
    there_and_back(tmp_path, model, ecosystem, replace(CONFIG, num_classes=0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("ecosystem", ENDINGS)
def test_the_precision_stays(ecosystem: str, dtype: torch.dtype, tmp_path: Path) -> None:
    there_and_back(tmp_path, our_model().to(dtype), ecosystem)


@pytest.mark.parametrize("ecosystem", ["timm", "google"])
def test_pictures_that_are_not_square(ecosystem: str, tmp_path: Path) -> None:
    config = replace(CONFIG, image_size=(14, 33), patch_size=(7, 11))
    path = tmp_path / f"model{ENDINGS[ecosystem]}"
    tensors = our_model(config).state_dict()
    write_tensors(path, to_ecosystem(tensors, config, ecosystem))
    weights = read_weights(path, image_size=(14, 33), num_heads=5)
    assert weights.config == config
    assert_same_tensors(weights.tensors, tensors)
    with pytest.raises(ValueError, match=r"position embedding has 7 rows; .*say image_size"):
        read_weights(path, num_heads=5)


def test_a_head_that_splits_the_width_otherwise_is_seen_in_googles_file(tmp_path: Path) -> None:
    config = replace(CONFIG, num_heads=3)
    write_tensors(tmp_path / "model.npz", to_ecosystem(our_model(config).state_dict(), config, "google"))
    assert read_weights(tmp_path / "model.npz").config.num_heads == 3


def torchvision_model(hidden: int | None = None) -> nn.Module:
    from torchvision.models import VisionTransformer

    twin = VisionTransformer(21, 7, 2, 5, 15, 13, num_classes=11, representation_size=hidden)
    awaken(twin, seed=5)
    return twin.double().eval()


@pytest.mark.parametrize("hidden", [None, HIDDEN])
def test_torchvision_computes_the_same(hidden: int | None, tmp_path: Path) -> None:
    theirs = torchvision_model(hidden)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    weights = read_weights(tmp_path / "theirs.pth", num_heads=5)
    assert weights.unexpected == () and weights.config == CONFIG
    assert_logits_match(ours_with(weights), theirs)
    assert_same_tensors(to_ecosystem(weights.tensors, CONFIG, "torchvision"), theirs.state_dict())


def test_torchvision_computes_the_same_with_ours() -> None:
    ours, (theirs, _) = our_model(), torchvision_twin(CONFIG)
    theirs.double().eval().load_state_dict(to_ecosystem(ours.state_dict(), CONFIG, "torchvision"))
    assert_logits_match(ours, theirs)


def test_torchvisions_old_names_of_the_mlp(tmp_path: Path) -> None:
    """The published files have them."""
    theirs = torchvision_model()
    old = {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): tensor
        for name, tensor in theirs.state_dict().items()
    }
    assert old.keys() != theirs.state_dict().keys()
    torch.save(old, tmp_path / "old.pth")
    assert_logits_match(ours_with(read_weights(tmp_path / "old.pth", num_heads=5)), theirs)


@pytest.mark.parametrize("config", [CONFIG, MEAN], ids=["cls", "mean"])
def test_timm_computes_the_same(config: ViTConfig, tmp_path: Path) -> None:
    theirs, _ = timm_twin(config)
    awaken(theirs, seed=5)
    theirs.double().eval()
    write_tensors(tmp_path / "theirs.safetensors", theirs.state_dict())
    weights = read_weights(tmp_path / "theirs.safetensors", num_heads=5)
    assert weights.unexpected == () and weights.config == CONFIG
    assert any("class token is assumed" in note for note in weights.notes)
    assert_logits_match(ours_with(replace(weights, config=config)), theirs)


@pytest.mark.parametrize("config", [CONFIG, MEAN], ids=["cls", "mean"])
def test_timm_computes_the_same_with_ours(config: ViTConfig) -> None:
    ours, (theirs, _) = our_model(config), timm_twin(config)
    theirs.double().eval().load_state_dict(to_ecosystem(ours.state_dict(), config, "timm"))
    assert_logits_match(ours, theirs)


def timm_with_fc_norm() -> nn.Module:
    """timm's default for global_pool="avg", as MAE's fine-tuned models have it."""
    from timm.models.vision_transformer import VisionTransformer

    theirs = VisionTransformer(21, 7, 3, 11, "avg", embed_dim=15, depth=2, num_heads=5, mlp_ratio=13 / 15)
    awaken(theirs, seed=5)
    assert isinstance(theirs.norm, nn.Identity) and theirs.fc_norm.weight.std() > 0.1
    return theirs.double().eval()


@pytest.mark.parametrize("normed", [True, False])
def test_timm_computes_the_same_with_its_norm_after_the_mean(normed: bool, tmp_path: Path) -> None:
    theirs, path = timm_with_fc_norm(), tmp_path / "theirs.pth"
    torch.save(theirs.state_dict(), path)
    weights = read_weights(path, num_heads=5)
    assert weights.unexpected == () and weights.config == MEAN
    ours = ours_with(weights)
    if not normed:  # planted: the same numbers, and the norm where models of ours have it
        ours.norm, ours.head.norm = ours.head.norm, nn.Identity()
        with pytest.raises(AssertionError, match="not close"):
            assert_logits_match(ours, theirs)
        return
    assert_logits_match(ours, theirs)
    assert_same_tensors(to_ecosystem(ours.state_dict(), MEAN, "timm"), theirs.state_dict())
    again = timm_with_fc_norm()
    again.load_state_dict(to_ecosystem(our_model(MEAN, normed=True).state_dict(), MEAN, "timm"))
    assert_logits_match(our_model(MEAN, normed=True), again)


def test_timm_computes_the_same_without_a_head() -> None:
    ours, (theirs, _) = our_model(), timm_twin(CONFIG)
    ours.head = nn.Identity()  # type: ignore[assignment]
    theirs.reset_classifier(0)  # type: ignore[operator]
    theirs.double().eval().load_state_dict(to_ecosystem(ours.state_dict(), CONFIG, "timm"))
    assert_logits_match(ours, theirs)


@pytest.mark.parametrize("config", [CONFIG, MEAN], ids=["cls", "mean"])
def test_timms_own_reader_of_googles_files_agrees(config: ViTConfig, tmp_path: Path) -> None:
    """What we write as .npz, timm reads, and computes our logits."""
    ours, (theirs, _) = our_model(config), timm_twin(config)
    write_tensors(tmp_path / "model.npz", to_ecosystem(ours.state_dict(), config, "google"))
    theirs.double().eval().load_pretrained(str(tmp_path / "model.npz"))  # type: ignore[operator]
    assert_logits_match(ours, theirs)


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_a_google_file_that_our_table_did_not_write(prefix: str, tmp_path: Path) -> None:
    """Made here array by array; timm's reader and ours get the same model out of it."""
    import numpy as np

    arrays = {prefix + name: array for name, array in google_arrays().items()}
    np.savez(tmp_path / "model.npz", **arrays)
    (theirs, _), weights = timm_twin(CONFIG), read_weights(tmp_path / "model.npz")
    theirs.double().eval().load_pretrained(str(tmp_path / "model.npz"))  # type: ignore[operator]
    assert weights.unexpected == () and weights.config == CONFIG
    assert_logits_match(ours_with(weights), theirs)


def google_arrays() -> "dict[str, np.ndarray]":  # noqa: F821
    import numpy as np

    draw = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "cls": (1, 1, 15),
        "embedding/kernel": (7, 7, 3, 15),
        "embedding/bias": (15,),
        "Transformer/posembed_input/pos_embedding": (1, 10, 15),
        "Transformer/encoder_norm/scale": (15,),
        "Transformer/encoder_norm/bias": (15,),
        "head/kernel": (15, 11),
        "head/bias": (11,),
    }
    for i in range(2):
        block, attention = (
            f"Transformer/encoderblock_{i}",
            f"Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1",
        )
        for name in ("query", "key", "value"):
            shapes |= {f"{attention}/{name}/kernel": (15, 5, 3), f"{attention}/{name}/bias": (5, 3)}
        shapes |= {f"{attention}/out/kernel": (5, 3, 15), f"{attention}/out/bias": (15,)}
        shapes |= {f"{block}/LayerNorm_{j}/{name}": (15,) for j in (0, 2) for name in ("scale", "bias")}
        shapes |= {f"{block}/MlpBlock_3/Dense_0/kernel": (15, 13), f"{block}/MlpBlock_3/Dense_0/bias": (13,)}
        shapes |= {f"{block}/MlpBlock_3/Dense_1/kernel": (13, 15), f"{block}/MlpBlock_3/Dense_1/bias": (15,)}
    # float32, as real files are: timm's reader takes the kernel through it
    return {name: (draw.normal(size=shape) / 3).astype(np.float32) for name, shape in shapes.items()}


def test_googles_pre_logits_layer(tmp_path: Path) -> None:
    """timm dropped it, so the formula stands here: tanh after a hidden layer, then the logits."""
    import numpy as np

    draw, arrays = np.random.default_rng(4), google_arrays()
    arrays |= {"pre_logits/kernel": draw.normal(size=(15, HIDDEN)), "pre_logits/bias": draw.normal(size=HIDDEN)}
    arrays["head/kernel"] = draw.normal(size=(HIDDEN, 11))
    np.savez(tmp_path / "model.npz", **arrays)
    model = ours_with(read_weights(tmp_path / "model.npz"))
    images = pictures()
    with torch.no_grad():
        features = model.features(images).numpy()
        logits = np.tanh(features @ arrays["pre_logits/kernel"] + arrays["pre_logits/bias"]) @ arrays["head/kernel"]
        torch.testing.assert_close(model(images), torch.from_numpy(logits + arrays["head/bias"]), rtol=0, atol=1e-10)


def with_row(ecosystem: Ecosystem, row: Row) -> Ecosystem:
    rows = tuple(row if old.ours == row.ours else old for old in ecosystem.rows)
    assert rows != ecosystem.rows
    return replace(ecosystem, rows=rows)


def plant(monkeypatch: pytest.MonkeyPatch, name: str, row: Row) -> None:
    from vitscratch.weights.reading import ECOSYSTEMS

    monkeypatch.setitem(ECOSYSTEMS, name, with_row(ECOSYSTEMS[name], row))


def row_of(name: str, ours: str) -> Row:
    from vitscratch.weights.reading import ECOSYSTEMS

    return next(row for row in ECOSYSTEMS[name].rows if row.ours == ours)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0)])
def test_a_wrong_order_of_q_k_v_changes_the_logits(
    order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = row_of("google", "blocks.{i}.attn.qkv.weight")
    plant(monkeypatch, "google", replace(right, theirs=tuple(right.theirs[i] for i in order)))
    with pytest.raises(AssertionError, match="not close"):
        test_timms_own_reader_of_googles_files_agrees(CONFIG, tmp_path)
    test_there_and_back_is_the_same_to_the_last_bit("google", tmp_path)  # which is why that test is not enough


@pytest.mark.parametrize(
    "row",
    [
        Row("blocks.{i}.attn.proj.weight", "encoder.layers.encoder_layer_{i}.self_attention.out_proj.weight",
            Reshape(lambda theirs: theirs[0].T, lambda ours, _: [ours.T])),
        Row("blocks.{i}.norm1.bias", "encoder.layers.encoder_layer_{i}.ln_2.bias"),
        Row("blocks.{i}.attn.qkv.weight", "encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight",
            Reshape(lambda theirs: theirs[0].roll(15, 0), lambda ours, _: [ours.roll(-15, 0)])),
    ],
    ids=["transposed", "another norm", "qkv turned"],
)  # fmt: skip
def test_a_mistake_in_torchvisions_table_is_noticed(row: Row, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant(monkeypatch, "torchvision", row)
    with pytest.raises((AssertionError, RuntimeError)):
        test_torchvision_computes_the_same(None, tmp_path)


def test_a_way_back_that_is_not_the_inverse_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = row_of("huggingface", "blocks.{i}.attn.qkv.bias")
    turned = Reshape(PACKED.to_ours, lambda ours, _: list(ours.chunk(3))[::-1])
    plant(monkeypatch, "huggingface", replace(right, reshape=turned))
    with pytest.raises(AssertionError, match=r"not equal|not close"):
        test_there_and_back_is_the_same_to_the_last_bit("huggingface", tmp_path)


def test_where_the_parity_report_sees_a_wrong_order_of_q_k_v() -> None:
    """No shape can tell it in a file, but the first layer that differs has its name."""
    from vitscratch.parity import compare

    ours, (theirs, mapping) = our_model(), torchvision_twin(CONFIG)
    tensors = to_ecosystem(ours.state_dict(), CONFIG, "torchvision")
    name = "encoder.layers.encoder_layer_1.self_attention.in_proj_weight"
    q, k, v = tensors[name].chunk(3)
    theirs.double().eval().load_state_dict(tensors | {name: torch.cat([q, v, k])})
    first = compare(ours, theirs, pictures(), mapping, atol=1e-10).first_divergence
    assert first is not None and first.name == "blocks.1.attn.qkv.weight"


def test_what_an_ecosystem_does_not_have_is_refused() -> None:
    state = our_model().state_dict()
    with pytest.raises(ValueError, match="torchvision has no model with pool 'mean'"):
        to_ecosystem(state, MEAN, "torchvision")
    with pytest.raises(ValueError, match="torchvision has no model with pictures and patches that are not square"):
        to_ecosystem(state, replace(CONFIG, image_size=(14, 21)), "torchvision")
    with pytest.raises(ValueError, match="huggingface has no model with a pre-logits layer"):
        to_ecosystem(our_model(hidden=HIDDEN).state_dict(), CONFIG, "huggingface")
    with pytest.raises(ValueError, match=r"timm has no name for blocks\.0\.extra"):
        to_ecosystem(state | {"blocks.0.extra": torch.zeros(1)}, CONFIG, "timm")
    with pytest.raises(ValueError, match="'keras' is unknown; there are torchvision, timm, huggingface, google"):
        to_ecosystem(state, CONFIG, "keras")
