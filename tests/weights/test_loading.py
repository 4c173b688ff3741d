"""`load` and `build_from`: whole, or refused with the model untouched; other grids, channels, heads; the report."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision.models import VisionTransformer as TheirTransformer

from vitscratch import VisionTransformer, ViTConfig
from vitscratch.data import Preprocessing
from vitscratch.parity import awaken
from vitscratch.transfer import extract_features, replace_head
from vitscratch.weights import (
    LoadReport,
    PreLogitsHead,
    adapt_channels,
    build_from,
    load,
    load_model,
    resize_position_embedding,
    save_model,
    to_ecosystem,
    write_tensors,
)

# 12 pixels in patches of 3: 4 x 4. Width 15 is no multiple of 64, so no rule tells the heads.
TINY = ViTConfig(12, 3, 3, 7, embed_dim=15, depth=2, num_heads=5, mlp_dim=29)
WIDE = replace(TINY, image_size=(12, 6), num_heads=3, pool="mean")  # 4 x 2 patches


def model_of(config: ViTConfig = TINY, seed: int = 1) -> VisionTransformer:
    model = VisionTransformer.from_config(config).eval()
    awaken(model, seed)
    return model


def theirs_of(config: ViTConfig = TINY) -> TheirTransformer:
    model = TheirTransformer(
        image_size=config.image_size, patch_size=config.patch_size, num_layers=config.depth,
        num_heads=config.num_heads, hidden_dim=config.embed_dim, mlp_dim=config.mlp_dim,
        num_classes=config.num_classes,
    )  # fmt: skip
    awaken(model, 2)
    return model.eval()


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A file of torchvision's."""
    torch.save(theirs_of().state_dict(), tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A file of our own, not square, of a model that pools by the mean."""
    names, preprocessing = [f"kind {i}" for i in range(7)], Preprocessing((12, 6), 3, (0.1, 0.2, 0.6), (0.5,))
    path = tmp_path / "ours.safetensors"
    save_model(path, model_of(WIDE), WIDE, names, preprocessing.to_dict(), {"made": "here"})
    return path


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def images_for(model: VisionTransformer) -> Tensor:
    return torch.randn(3, model.patch_embed.in_channels, *model.patch_embed.image_size)


def test_load_takes_everything_and_says_so(theirs: Path) -> None:
    model = model_of()
    report = load(model, theirs)
    assert report.ecosystem == "torchvision" and set(report.loaded) == set(model.state_dict())
    assert not (report.missing or report.unexpected or report.resized or report.ignored)
    assert str(report).splitlines()[0] == f"{len(report.loaded)} tensors loaded (torchvision)"
    images = images_for(model)
    assert_close(model(images), theirs_of()(images), rtol=0, atol=1e-5)


def test_the_models_precision_and_freezing_stay(theirs: Path) -> None:
    model = model_of().double().requires_grad_(False)
    model.head.requires_grad_(True)
    parameters = dict(model.named_parameters())
    load(model, theirs)
    assert all(p is parameters[name] and p.dtype == torch.float64 for name, p in model.named_parameters())
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    expected = theirs_of().double()
    assert_close(model.head.bias, expected.heads.head.bias, rtol=0, atol=0)
    images = images_for(model).double()
    assert_close(model(images), expected(images), rtol=0, atol=1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_load_onto_a_gpu(theirs: Path) -> None:
    model = model_of().cuda()
    load(model, theirs)
    assert model.head.bias.is_cuda and model.head.bias.cpu().equal(theirs_of().heads.head.bias)


def test_another_head_is_ignored_if_asked(theirs: Path) -> None:
    model = model_of()
    replace_head(model, 4)
    awaken(model.head)
    before = state_of(model)
    report = load(model, theirs, head=False)
    assert report.ignored == ("head.weight", "head.bias") and "ignored: head.weight, head.bias" in str(report)
    after = model.state_dict()
    assert all(after[name].equal(before[name]) == name.startswith("head.") for name in before)


@pytest.mark.parametrize(("ecosystem", "side"), [("torchvision", 21), ("timm", (9, 15))])
def test_positions_are_resized_as_their_ecosystem_does(ecosystem: str, side: Any, tmp_path: Path) -> None:
    source = model_of()
    path = tmp_path / "weights.pth"
    if ecosystem == "torchvision":
        state: dict[str, Tensor] = theirs_of().state_dict()
        positions = state["encoder.pos_embedding"]
    else:
        state = source.state_dict()
        positions = state["pos_embed"]
    torch.save(state, path)
    model = model_of(replace(TINY, image_size=side), seed=5)
    rows, columns = model.patch_embed.grid_size
    report = load(model, path)
    assert report.resized == (f"pos_embed: 4 x 4 -> {rows} x {columns} patches",)
    expected = resize_position_embedding(positions, (4, 4), (rows, columns), ecosystem)
    assert_close(model.pos_embed.detach(), expected, rtol=0, atol=0)
    assert model.pos_embed[:, 0].equal(positions[:, 0])


def test_as_many_patches_in_another_shape_are_resized(ours: Path) -> None:
    model = model_of(replace(WIDE, image_size=(6, 12)))
    assert load(model, ours).resized == ("pos_embed: 4 x 2 -> 2 x 4 patches",)
    expected = resize_position_embedding(load_file(ours)["pos_embed"], (4, 2), (2, 4))
    assert_close(model.pos_embed.detach(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("ecosystem", ["torchvision", "timm", "google"])
def test_a_square_of_positions_is_no_rectangle_of_as_many(ecosystem: str, tmp_path: Path) -> None:
    """4 x 4 patches for a model with 2 x 8: what the model has says nothing of what the weights were trained on."""
    source = model_of()
    path = tmp_path / ("square.npz" if ecosystem == "google" else "square.pth")
    write_tensors(path, to_ecosystem(source.state_dict(), TINY, ecosystem))
    model = model_of(replace(TINY, image_size=(6, 24)), seed=5)
    report = load(model, path)
    assert report.resized == ("pos_embed: 4 x 4 -> 2 x 8 patches",)
    assert any(
        note.startswith("16 positions assumed to be 4 x 4; if the pictures had 2 x 8, config") for note in report.notes
    )
    method = "torchvision" if ecosystem == "torchvision" else "timm"
    expected = resize_position_embedding(source.pos_embed.detach(), (4, 4), (2, 8), method)
    assert_close(model.pos_embed.detach(), expected, rtol=0, atol=0)
    built = build_from(path, image_size=(6, 24), num_heads=5)
    assert_close(built.model.pos_embed.detach(), expected, rtol=0, atol=0)
    assert any("16 positions assumed to be 4 x 4" in note for note in built.provenance["notes"])


def test_a_rectangle_of_positions_is_told_by_config_or_by_the_model(tmp_path: Path) -> None:
    """2 x 8 patches: the file alone looks like 4 x 4. 2 x 4 is no square, so the model's own shape counts."""
    config = replace(TINY, image_size=(6, 24))
    source = model_of(config)
    write_tensors(tmp_path / "model.safetensors", source.state_dict())
    said = {"architecture": "x", "num_features": 15, "model_args": {"num_heads": 5}}
    (tmp_path / "config.json").write_text(json.dumps(said | {"pretrained_cfg": {"input_size": [3, 6, 24]}}))
    model = model_of(config, seed=5)
    assert load(model, tmp_path).resized == () and model.pos_embed.equal(source.pos_embed)
    assert build_from(tmp_path).config.image_size == (6, 24)
    other = model_of(replace(TINY, image_size=(6, 12)))
    write_tensors(tmp_path / "other.pth", other.state_dict())
    (tmp_path / "config.json").unlink()
    model = model_of(replace(TINY, image_size=(6, 12)), seed=5)
    assert load(model, tmp_path / "other.pth").resized == () and model.pos_embed.equal(other.pos_embed)


def test_other_channels_are_adapted(theirs: Path) -> None:
    model = model_of(replace(TINY, in_channels=1))
    report = load(model, theirs)
    assert report.resized == ("patch_embed.proj.weight: 3 -> 1 channels",)
    assert_close(model.patch_embed.proj.weight.detach(), adapt_channels(theirs_of().conv_proj.weight.detach(), 1))
    grey = images_for(model)
    assert_close(model(grey), theirs_of()(grey.expand(-1, 3, -1, -1)), rtol=0, atol=1e-4)


def changed(config: dict[str, Any] | None = None, drop: str = "", extra: str = "") -> Callable[[Path], None]:
    """A way to spoil a file of timm's layout."""

    def spoil(path: Path) -> None:
        model = model_of(replace(TINY, **(config or {})))
        state = {name: tensor for name, tensor in model.state_dict().items() if not (drop and name.startswith(drop))}
        torch.save(state | ({extra: torch.zeros(15)} if extra else {}), path)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (changed({"num_classes": 1009}), {}, "has 1,009 classes (head.weight, head.bias), the model's has 7; head="),
        (changed(drop="head."), {}, "has no head, the model has head.weight, head.bias; head=False keeps"),
        (changed(drop="norm.weight"), {}, "does not fit: missing: norm.weight; partial=True takes what fits"),
        (changed({"depth": 1}), {}, "missing: blocks.1.norm1.weight, "),
        (changed({"depth": 3}), {}, "unexpected: blocks.2.norm1.weight, blocks.2.norm1.bias, "),
        (changed(extra="reg_token"), {}, "unexpected: reg_token; no counterpart: reg_token: register tokens"),
        (changed(extra="blocks.1.ls1.gamma"), {}, "unexpected: blocks.1.ls1.gamma; no counterpart: "),
        (changed({"mlp_dim": 31}), {}, "blocks.0.mlp.fc1.weight is (31, 15) there, (29, 15) in the model"),
        (changed({"mlp_dim": 31}), {"partial": True}, "build_from builds a model of its architecture"),
        (changed({"patch_size": 2}), {}, "patch_embed.proj.weight is (15, 3, 2, 2) there, (15, 3, 3, 3) in the model"),
        (changed({"embed_dim": 20}), {"head": False}, " more differ; build_from builds"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_the_model_untouched(
    spoil: Callable[[Path], None], arguments: dict[str, bool], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "spoilt.pth"
    spoil(path)
    model = model_of(seed=3)
    before = state_of(model)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the message is compared below)
        load(model, path, **arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value) and "spoilt.pth" in str(caught.value)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_partial_takes_what_fits_and_names_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "deeper.pth"
    changed({"depth": 3}, drop="norm.weight", extra="decoder_norm.bias")(path)
    model = model_of(seed=3)
    before = state_of(model)
    report = load(model, path, partial=True)
    assert report.missing == ("norm.weight",) and set(report.loaded) == set(before) - {"norm.weight"}
    assert {"decoder_norm.bias", "blocks.2.attn.qkv.weight"} <= set(report.unexpected)
    assert "missing: norm.weight" in str(report) and "and 9 more" in str(report)
    assert [name for name in before if model.state_dict()[name].equal(before[name])] == ["norm.weight"]


def test_nothing_matched_is_an_error_even_if_partial(tmp_path: Path) -> None:
    save_file({"encoder.0.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors.*it has encoder.0.weight"):
        load(model_of(), tmp_path / "other.safetensors", partial=True)


def test_heads_and_pooling_that_no_shape_shows_are_compared(ours: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trained with 3 attention heads, the model has 5; build it with num_heads=3"):
        load(model_of(replace(WIDE, num_heads=5)), ours)
    other = model_of(replace(WIDE, pool="cls"))
    with pytest.raises(ValueError, match=r"reads pool='mean', the model's 'cls'; build it with pool='mean', or head="):
        load(other, ours)
    load(other, ours, head=False)  # a new head may read what it likes
    # A file that does not say how many heads it has: what is usual is no reason to refuse, but to tell.
    usual = replace(TINY, embed_dim=192, num_heads=6, mlp_dim=11)
    torch.save(model_of(usual).state_dict(), tmp_path / "usual.pth")
    report = load(model_of(usual), tmp_path / "usual.pth")
    assert "note: num_heads: the model has 6, the usual number for this width is 3" in str(report)


def test_load_wants_a_model_of_ours_that_has_memory(theirs: Path) -> None:
    with torch.device("meta"):
        empty = VisionTransformer.from_config(TINY)
    with pytest.raises(ValueError, match="on the meta device, where nothing can be loaded; build_from"):
        load(empty, theirs)
    with pytest.raises(ValueError, match=r"absent.pth does not exist; expected the folder of a run, a file"):
        load(model_of(), theirs.with_name("absent.pth"))


# build_from


def test_build_from_is_the_model_of_the_file(theirs: Path) -> None:
    saved = build_from(theirs, num_heads=5)
    assert saved.config == TINY and not saved.model.training
    images = images_for(saved.model)
    assert_close(saved.model(images), theirs_of()(images), rtol=0, atol=1e-5)
    assert saved.class_names == tuple(f"class {i}" for i in range(7))
    assert Preprocessing.from_dict(saved.preprocessing).image_size == (12, 12)
    assert saved.provenance["source"] == str(theirs) and saved.provenance["ecosystem"] == "torchvision"
    with pytest.raises(ValueError, match=r"no tensor tells how many heads a width of 15 has"):
        build_from(theirs)


def test_build_from_trains_and_leaves_the_file_alone(theirs: Path) -> None:
    content = theirs.read_bytes()
    model = build_from(theirs, num_heads=5).model
    assert all(p.requires_grad and p.is_leaf and p.is_contiguous() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(images_for(model)).square().sum().backward()
    before = state_of(model)
    optimizer.step()
    assert not any(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert theirs.read_bytes() == content and build_from(theirs, num_heads=5).model.head.bias.equal(before["head.bias"])


def test_build_from_gives_what_load_gives(theirs: Path) -> None:
    asked = {"image_size": (9, 15), "in_channels": 5}
    saved = build_from(theirs, num_heads=5, **asked)
    assert saved.config == replace(TINY, **asked)
    model = model_of(saved.config, seed=7)
    load(model, theirs)
    assert_close(saved.model.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert saved.preprocessing == {}  # of five channels nobody knows any
    assert "pos_embed: 4 x 4 -> 3 x 5 patches" in saved.provenance["notes"]


def test_our_own_files_keep_names_and_preprocessing(ours: Path) -> None:
    saved = build_from(ours)
    assert saved.config == WIDE and saved.class_names[5] == "kind 5" and saved.provenance["made"] == "here"
    assert saved.preprocessing == Preprocessing((12, 6), 3, (0.1, 0.2, 0.6), (0.5,)).to_dict()
    assert_close(saved.model.state_dict(), model_of(WIDE).state_dict(), rtol=0, atol=0)
    grey = Preprocessing.from_dict(build_from(ours, in_channels=1, image_size=(6, 6)).preprocessing)
    assert (grey.channels, grey.image_size, grey.std) == (1, (6, 6), (0.5,)) and grey.mean == pytest.approx([0.3])
    assert build_from(ours, pool="cls").model.pool == "cls"


def test_another_number_of_classes_gets_a_new_head_at_zero(ours: Path) -> None:
    saved = build_from(ours, num_classes=4)
    assert not saved.model.head.weight.any() and saved.model.head.weight.shape == (4, 15)
    assert saved.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert saved.model.norm.bias.equal(model_of(WIDE).norm.bias)
    assert "head made anew: head.weight" in saved.provenance["notes"]
    assert build_from(ours, num_classes=7).class_names[0] == "kind 0"


def test_weights_without_a_head(tmp_path: Path) -> None:
    path = tmp_path / "body.pth"
    changed(drop="head.")(path)
    with pytest.raises(
        ValueError, match=r"body.pth has no head that tells classes; build_from\(\.\.\., num_classes=10\)"
    ):
        build_from(path, num_heads=5)
    saved = build_from(path, num_heads=5, num_classes=3)
    assert not saved.model.head.weight.any() and saved.config.num_classes == 3
    assert load(model_of(), path, head=False).ignored == ()


def test_a_pooler_is_no_head(tmp_path: Path) -> None:
    """transformers' ViTModel: a hidden layer, and nothing behind it that tells classes."""
    body = {name: tensor for name, tensor in model_of().state_dict().items() if not name.startswith("head.")}
    pooler = {"head.pre_logits.weight": torch.randn(15, 15), "head.pre_logits.bias": torch.randn(15)}
    path = tmp_path / "pooler.bin"
    write_tensors(path, to_ecosystem(body | pooler, TINY, "huggingface"))
    with pytest.raises(ValueError, match=r"pooler.bin has no head that tells classes; build_from\("):
        build_from(path, num_heads=5)
    with pytest.raises(ValueError, match=r"pooler.bin has no head, the model has head.weight, head.bias; head=False"):
        load(model_of(), path)
    saved = build_from(path, num_heads=5, num_classes=3)
    assert saved.model.head.weight.shape == (3, 15) and not saved.model.head.weight.any()
    assert "head made anew: head.pre_logits.weight" in saved.provenance["notes"]


@pytest.mark.parametrize(("dtype", "name"), [(torch.float64, "float64"), (torch.bfloat16, "bfloat16")])
def test_another_precision_is_told(dtype: torch.dtype, name: str, tmp_path: Path) -> None:
    torch.save(model_of().to(dtype).state_dict(), tmp_path / "w.pth")
    notes = build_from(tmp_path / "w.pth", num_heads=5).provenance["notes"]
    assert f"{name} read as float32" in notes
    torch.save(model_of().state_dict(), tmp_path / "w.pth")
    assert not any("read as" in note for note in build_from(tmp_path / "w.pth", num_heads=5).provenance["notes"])


def test_what_is_missing_is_drawn_if_a_part_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "part.pth"
    changed(drop="blocks.1.mlp.fc2", extra="mask_token")(path)
    with pytest.raises(ValueError, match=r"missing: blocks.1.mlp.fc2.weight, blocks.1.mlp.fc2.bias; unexpected: mask"):
        build_from(path, num_heads=5)
    model = build_from(path, num_heads=5, partial=True).model
    assert model.blocks[1].mlp.fc2.weight.std() > 0.1 and model.blocks[1].mlp.fc2.weight.abs().max() < 1
    assert model.blocks[1].mlp.fc1.weight.equal(model_of().blocks[1].mlp.fc1.weight)


def with_pre_logits() -> VisionTransformer:
    model = model_of()
    model.head = PreLogitsHead(15, 11, 7)
    awaken(model, 4)
    return model


def test_a_pre_logits_layer_is_built_or_refused(tmp_path: Path) -> None:
    theirs = TheirTransformer(12, 3, 2, 5, 15, 29, num_classes=7, representation_size=11).eval()
    awaken(theirs, 6)
    path = tmp_path / "pre.pth"
    torch.save(theirs.state_dict(), path)
    model = build_from(path, num_heads=5).model
    images = images_for(model)
    assert_close(model(images), theirs(images), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"the model head.weight, head.bias; head=False keeps .*; build_from builds"):
        load(model_of(), path)
    taken = with_pre_logits()
    load(taken, path)
    assert_close(taken(images), theirs(images), rtol=0, atol=1e-5)
    saved = tmp_path / "pre.safetensors"
    save_model(saved, taken, TINY, ["x"] * 7, Preprocessing((12, 12), 3).to_dict(), {})
    for again in (build_from(saved).model, load_model(saved).model):
        assert_close(again(images), taken(images), rtol=0, atol=0)


def test_a_norm_after_the_mean_is_built_and_stays(tmp_path: Path) -> None:
    theirs = timm.models.VisionTransformer(
        img_size=12, patch_size=3, num_classes=7, embed_dim=15, depth=2, num_heads=5, mlp_ratio=2, global_pool="avg"
    )
    awaken(theirs)
    path = tmp_path / "mae.pth"
    torch.save({"model": theirs.state_dict()}, path)
    saved = build_from(path, num_heads=5)
    images, model = images_for(saved.model), saved.model
    assert_close(model(images), theirs.eval()(images), rtol=0, atol=1e-5)
    ours = tmp_path / "ours.safetensors"
    save_model(ours, model, saved.config, saved.class_names, saved.preprocessing, {})
    for again in (build_from(ours).model, load_model(ours).model):
        assert_close(again(images), model(images), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"the model head.weight, head.bias; head=False keeps .*; build_from builds"):
        load(model_of(replace(TINY, pool="mean")), path)

    other = build_from(path, num_heads=5, num_classes=3).model  # a new head behind the norm that the body came with
    assert other.head.linear.weight.shape == (3, 15) and not other.head.linear.weight.any()
    assert_close(other.head.norm.state_dict(), model.head.norm.state_dict(), rtol=0, atol=0)
    with torch.no_grad():
        other.head.norm.weight.zero_()
    report = load(other, path, head=False)
    assert report.ignored == ("head.linear.weight", "head.linear.bias") and other.head.norm.weight.any()
    replace_head(model, 4)
    features, _ = extract_features(model, [(images, torch.zeros(len(images), dtype=torch.long))])
    assert_close(features, theirs.forward_head(theirs.forward_features(images), pre_logits=True), rtol=0, atol=1e-5)
    assert_close(model.features(images), theirs.forward_features(images)[:, 1:].mean(dim=1), rtol=0, atol=1e-5)
    assert model.head.linear.weight.shape == (4, 15)


def test_what_is_missing_beside_a_new_head_is_drawn(tmp_path: Path) -> None:
    theirs = timm.models.VisionTransformer(
        img_size=12, patch_size=3, num_classes=7, embed_dim=15, depth=2, num_heads=5, mlp_ratio=2, global_pool="avg"
    )
    awaken(theirs)
    part = {n: t for n, t in theirs.state_dict().items() if n not in ("fc_norm.weight", "blocks.1.mlp.fc2.weight")}
    torch.save(part, tmp_path / "part.pth")
    model = build_from(tmp_path / "part.pth", num_heads=5, num_classes=3, partial=True).model
    assert model.head.norm.weight.eq(1).all() and model.blocks[1].mlp.fc2.weight.std() > 0.1
    assert not model.head.linear.weight.any() and not model.head.linear.bias.any()


def test_half_precision_files_give_float32_models(ours: Path) -> None:
    model = model_of(WIDE).half()
    save_model(ours, model, WIDE, [f"{i}" for i in range(7)], Preprocessing((12, 6), 3).to_dict(), {})
    built = build_from(ours).model
    assert {p.dtype for p in built.parameters()} == {torch.float32}
    assert_close(built.state_dict(), model.float().state_dict(), rtol=0, atol=0)


def test_a_folder_of_timms_says_heads_pooling_and_preprocessing(tmp_path: Path) -> None:
    theirs = timm.models.VisionTransformer(
        img_size=12, patch_size=3, num_classes=7, embed_dim=15, depth=2, num_heads=5, mlp_ratio=2, global_pool="avg",
        fc_norm=False,
    )  # fmt: skip
    awaken(theirs)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    cfg = {"input_size": [3, 12, 12], "crop_pct": 0.8, "interpolation": "bicubic", "mean": [0.1, 0.2, 0.3]}
    described = {"architecture": "x", "num_features": 15, "global_pool": "avg", "model_args": {"num_heads": 5}}
    (tmp_path / "config.json").write_text(json.dumps(described | {"pretrained_cfg": cfg | {"std": [0.5] * 3}}))
    saved = build_from(tmp_path)
    assert (saved.config.num_heads, saved.config.pool, saved.preprocessing["fraction"]) == (5, "mean", 0.8)
    images = images_for(saved.model)
    assert_close(saved.model(images), theirs.eval()(images), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"num_heads=3: .* was trained with 5; leave it out"):
        build_from(tmp_path, num_heads=3)


def test_a_long_report_stays_short() -> None:
    report = LoadReport("timm", ("a",), missing=tuple(f"name{i}" for i in range(1004)), notes=("x",))
    assert str(report) == (
        "1 tensors loaded (timm)\nmissing: name0, name1, name2, name3 and 1,000 more\nnote: x"
    )  # fmt: skip
