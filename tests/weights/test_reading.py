"""What is said of files that are wrapped, incomplete, another model, or wrong."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.weights.make import CONFIG, ENDINGS, assert_same_tensors, our_model
from vitscratch.config import PRESETS
from vitscratch.weights import (
    Weights,
    build_from,
    load_model,
    read_tensors,
    read_weights,
    save_model,
    to_ecosystem,
    write_tensors,
)
from vitscratch.weights.beside import read_beside

STATE = our_model().state_dict()


def read(folder: Path, content: Any) -> Weights:
    torch.save(content, folder / "weights.pth")
    return read_weights(folder / "weights.pth", num_heads=5)


def without(*names: str) -> dict[str, Tensor]:
    assert set(names) <= STATE.keys()
    return {name: tensor for name, tensor in STATE.items() if name not in names}


@pytest.mark.parametrize(
    "prefix",
    ["module.", "backbone.", "_orig_mod.", "encoder.", "module._orig_mod.backbone.", "model.visual.trunk."],
)
@pytest.mark.parametrize("ecosystem", ["torchvision", "timm", "huggingface"])
def test_prefixes_are_taken_off_with_a_note(prefix: str, ecosystem: str, tmp_path: Path) -> None:
    theirs = to_ecosystem(STATE, CONFIG, ecosystem)
    usual = "vit." if ecosystem == "huggingface" else ""
    weights = read(tmp_path, {prefix + name: tensor for name, tensor in theirs.items()})
    assert weights.ecosystem == ecosystem and weights.unexpected == ()
    assert_same_tensors(weights.tensors, STATE)
    assert f"prefix {prefix + usual!r} taken off" in weights.notes


def test_a_head_beside_the_backbone(tmp_path: Path) -> None:
    theirs = {f"module.{'' if name.startswith('head') else 'backbone.'}{name}": value for name, value in STATE.items()}
    assert_same_tensors(read(tmp_path, theirs).tensors, STATE)


@pytest.mark.parametrize("nest", ["model", "state_dict", "teacher", "model_ema"])
def test_checkpoints_are_unwrapped_with_a_note(nest: str, tmp_path: Path) -> None:
    weights = read(tmp_path, {"epoch": 3, "args": Namespace(lr=0.1), nest: STATE})
    assert_same_tensors(weights.tensors, STATE)
    assert f"weights taken from {nest!r} (beside it: epoch, args)" in weights.notes


def test_of_student_and_teacher_the_teacher_is_taken(tmp_path: Path) -> None:
    student = {f"module.backbone.{name}": tensor * 0 for name, tensor in STATE.items()}
    teacher = {f"backbone.{name}": tensor for name, tensor in without("head.weight", "head.bias").items()}
    weights = read(tmp_path, {"student": student, "teacher": teacher | {"head.mlp.0.weight": torch.ones(2, 3)}})
    assert weights.unexpected == ("head.mlp.0.weight",) and weights.config == replace(CONFIG, num_classes=0)
    assert_same_tensors(weights.tensors, without("head.weight", "head.bias"))
    assert "weights taken from 'teacher' (beside it: student)" in weights.notes


def test_two_models_in_one_file_are_refused(tmp_path: Path) -> None:
    two = {f"{which}_encoder.{name}": tensor for which in ("base", "momentum") for name, tensor in STATE.items()}
    with pytest.raises(ValueError, match=r"2 models of timm, under 'base_encoder\.', 'momentum_encoder\.'"):
        read(tmp_path, two)
    with pytest.raises(ValueError, match=r"head\.bias.* both mean head\.bias"):
        read(tmp_path, {f"backbone.{name}": tensor for name, tensor in STATE.items()} | {"head.bias": torch.ones(11)})


@pytest.mark.parametrize(
    ("extra", "shape", "meaning"),
    [
        ("reg_token", (1, 4, 15), "register tokens"),
        ("dist_token", (1, 1, 15), "distillation token"),
        ("head_dist.weight", (11, 15), "distillation token"),
        ("blocks.0.ls1.gamma", (15,), "LayerScale"),
        ("blocks.1.ls2.gamma", (15,), "LayerScale"),
        ("norm_pre.weight", (15,), "before the first block"),
        ("patch_embed.norm.weight", (15,), "after the patch projection"),
        ("blocks.0.attn.q_norm.weight", (3,), "norm of queries and keys"),
        ("blocks.1.attn.k_norm.bias", (3,), "norm of queries and keys"),
        ("blocks.0.mlp.fc1_g.weight", (13, 15), "SwiGLU"),
        ("decoder_blocks.0.attn.qkv.weight", (24, 8), "MAE's decoder"),
        ("mask_token", (1, 1, 15), "hidden patch"),
    ],
)
def test_what_ours_has_no_place_for_is_named_and_explained(
    extra: str, shape: tuple[int, ...], meaning: str, tmp_path: Path
) -> None:
    weights = read(tmp_path, STATE | {extra: torch.ones(shape)})
    assert weights.unexpected == (extra,)
    assert any(extra in note and meaning in note for note in weights.notes)
    assert_same_tensors(weights.tensors, STATE)


def test_many_of_a_kind_make_one_note(tmp_path: Path) -> None:
    scales = {f"blocks.{i}.ls{j}.gamma": torch.ones(15) for i in range(2) for j in (1, 2)}
    weights = read(tmp_path, STATE | scales)
    assert set(weights.unexpected) == scales.keys()
    assert sum("LayerScale" in note for note in weights.notes) == 1
    assert any("blocks.0.ls1.gamma and 3 more" in note for note in weights.notes)


def test_a_norm_after_the_mean_is_seen(tmp_path: Path) -> None:
    """MAE's fine-tuned models: they pool the patches and have fc_norm in place of norm."""
    fc_norm = {f"fc_norm.{n}": torch.ones(15) for n in ("weight", "bias")}
    weights = read(tmp_path, without("norm.weight", "norm.bias") | fc_norm)
    assert weights.config.pool == "mean" and weights.unexpected == ()
    assert {"head.norm.weight", "head.norm.bias", "head.linear.weight", "head.linear.bias"} < weights.tensors.keys()
    assert "head.weight" not in weights.tensors
    torch.save(STATE | fc_norm, tmp_path / "both.pth")  # nobody's: the norm before the mean is not dropped in silence
    with pytest.raises(ValueError, match=r"both.pth does not fit: unexpected: norm.weight, norm.bias; partial=True"):
        build_from(tmp_path / "both.pth", num_heads=5)


def test_qkv_without_bias_is_noted(tmp_path: Path) -> None:
    weights = read(tmp_path, without("blocks.0.attn.qkv.bias", "blocks.1.attn.qkv.bias"))
    assert weights.unexpected == () and any("without bias" in note for note in weights.notes)


@pytest.mark.parametrize("ecosystem", ENDINGS)
def test_a_dropped_position_row_is_named(ecosystem: str, tmp_path: Path) -> None:
    short = STATE | {"pos_embed": STATE["pos_embed"][:, 1:]}
    path = tmp_path / f"weights{ENDINGS[ecosystem]}"
    theirs = to_ecosystem(short, CONFIG, ecosystem)
    write_tensors(path, theirs)
    weights = read_weights(path, num_heads=5)
    assert weights.config == CONFIG and "pos_embed" not in weights.tensors
    assert len(weights.unexpected) == 1 and "pos" in weights.unexpected[0] and weights.unexpected[0] in theirs
    assert any("(1, 9, 15), expected (1, 10, 15): the row of the class token is missing" in n for n in weights.notes)


def transposed(name: str) -> dict[str, Tensor]:
    return STATE | {name: STATE[name].transpose(0, 1)}


@pytest.mark.parametrize("ecosystem", ENDINGS)
@pytest.mark.parametrize(
    "name", ["blocks.1.mlp.fc1.weight", "blocks.0.attn.qkv.weight", "head.weight", "patch_embed.proj.weight"]
)
def test_a_transposed_kernel_is_named(ecosystem: str, name: str, tmp_path: Path) -> None:
    """In the file, after the conversion that is right: whoever wrote it transposed once too often."""
    if (ecosystem, name) == ("huggingface", "blocks.0.attn.qkv.weight"):
        name = "blocks.0.mlp.fc2.weight"  # there q, k and v are square: only logits can tell (test_ecosystems)
    theirs = to_ecosystem(STATE, CONFIG, ecosystem)
    ours = to_ecosystem({n: torch.full_like(t, float(n == name)) for n, t in STATE.items()}, CONFIG, ecosystem)
    wrong = next(their_name for their_name, tensor in ours.items() if tensor.any())
    theirs[wrong] = theirs[wrong].transpose(0, -1)
    write_tensors(tmp_path / f"weights{ENDINGS[ecosystem]}", theirs)
    with pytest.raises(ValueError, match=f"(?s){name}|{wrong}") as caught:
        read_weights(tmp_path / f"weights{ENDINGS[ecosystem]}", num_heads=5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong", "what"),
    [
        ("norm.bias", torch.tensor(1.0), r"float32 of shape \(\)"),
        ("blocks.1.attn.qkv.bias", torch.ones(45).to_sparse(), r"sparse of shape \(45,\)"),
        ("patch_embed.proj.weight", torch.ones(15, 3, 0, 0), r"float32 of shape \(15, 3, 0, 0\)"),
        ("head.weight", torch.ones(11, 15, dtype=torch.complex64), "complex64"),
        ("head.bias", torch.ones(11, dtype=torch.int64), "int64"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_tensor_that_no_parameter_can_be_is_named(
    prefix: str, name: str, wrong: Tensor, what: str, tmp_path: Path
) -> None:
    theirs = {prefix + n: tensor for n, tensor in (STATE | {name: wrong}).items()}
    with pytest.raises(ValueError, match=f"{prefix}{name} is {what}.*expected dense floating-point") as caught:
        read(tmp_path, theirs)
    assert "\n" not in str(caught.value)


def test_whole_numbers_that_no_model_of_ours_has_are_only_unexpected(tmp_path: Path) -> None:
    assert read(tmp_path, STATE | {"relative_position_index": torch.arange(3)}).unexpected == (
        "relative_position_index",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_noted(value: float, tmp_path: Path) -> None:
    head = STATE["head.weight"].clone()
    head[3, 2] = value
    assert any(
        "not finite" in note and "head.weight" in note for note in read(tmp_path, STATE | {"head.weight": head}).notes
    )
    assert not any("not finite" in note for note in read(tmp_path, STATE).notes)


def test_our_own_files_are_checked_as_well(tmp_path: Path) -> None:
    model = our_model().float()
    save_model(tmp_path / "m.safetensors", model, CONFIG, ["x"] * 11, {}, {})
    file = read_tensors(tmp_path / "m.safetensors")
    wrong = file.tensors | {"head.bias": torch.ones(11, dtype=torch.int32)}
    write_tensors(tmp_path / "m.safetensors", wrong, file.metadata)
    for reader in (read_weights, load_model):
        with pytest.raises(ValueError, match=r"m.safetensors is refused: head.bias is int32 of shape \(11,\)"):
            reader(tmp_path / "m.safetensors")
    write_tensors(tmp_path / "m.safetensors", file.tensors, file.metadata | {"class_names": "{"})
    for reader in (read_weights, load_model):
        with pytest.raises(ValueError, match=r"m.safetensors is refused: its header is damaged \("):
            reader(tmp_path / "m.safetensors")


def test_a_missing_head_is_no_head(tmp_path: Path) -> None:
    weights = read(tmp_path, without("head.weight", "head.bias"))
    assert weights.config.num_classes == 0 and weights.class_names is None
    assert_same_tensors(weights.tensors, without("head.weight", "head.bias"))


@pytest.mark.parametrize("block", [0, 1])
def test_a_missing_block_is_named(block: int, tmp_path: Path) -> None:
    renumbered = {name.replace("blocks.1.", "blocks.2."): tensor for name, tensor in STATE.items()}
    if block == 0:
        renumbered = {name: tensor for name, tensor in renumbered.items() if not name.startswith("blocks.0.")}
    with pytest.raises(ValueError, match=f"block {block} is missing of 3"):
        read(tmp_path, renumbered)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["conv1.weight", "layer1.0.conv1.weight", "fc.weight"], "this is a ResNet, not a plain ViT"),
        (["patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"], "this is a Swin Transformer"),
        (["w", "b", "c", "d", "e"], r"\(torchvision, timm, huggingface, google\); it has w, b, c, d, \.\.\."),
        (["patch_embed.proj.weight", "stages.0.weight"], "norm.bias is missing.*not known: stages.0.weight"),
    ],
)
def test_another_model_is_refused_in_one_line(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, {name: torch.ones(2, 2) for name in names})
    assert "\n" not in str(caught.value)


def test_a_real_resnet_is_refused(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    with torch.device("meta"):
        names = resnet18().state_dict()
    with pytest.raises(ValueError, match="this is a ResNet"):
        read(tmp_path, {name: torch.ones(1) for name in names})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv_root/kernel", "a hybrid: a ResNet makes its patches"),
        ("Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel", "big_vision's layout"),
    ],
)
def test_googles_other_models_are_refused_by_name(name: str, message: str, tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.npz", to_ecosystem(STATE, CONFIG, "google") | {name: torch.ones(2)})
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        read_weights(tmp_path / "w.npz")


def test_the_optimizers_state_in_googles_file_is_not_looked_at(tmp_path: Path) -> None:
    theirs = {f"opt/target/{name}": tensor for name, tensor in to_ecosystem(STATE, CONFIG, "google").items()}
    write_tensors(tmp_path / "w.npz", theirs | {"opt/state/step": torch.ones(1)})
    weights = read_weights(tmp_path / "w.npz")
    assert weights.unexpected == ()
    assert_same_tensors(weights.tensors, STATE)


def test_heads_of_a_known_width_are_assumed_and_others_are_asked_for(tmp_path: Path) -> None:
    """No rule is good for all widths: timm's vit_giant is 1,408 wide and has 16 heads, not 22 of width 64."""
    path = tmp_path / "w.safetensors"
    config = replace(CONFIG, embed_dim=192, num_heads=3, depth=1)
    write_tensors(path, our_model(config).state_dict())
    weights = read_weights(path)
    assert weights.config == config and any("as vit_nano_32 of the same width has" in note for note in weights.notes)
    assert PRESETS["vit_nano_32"].num_heads == PRESETS["vit_ti_16"].num_heads  # one width, one number
    config = replace(CONFIG, embed_dim=128, num_heads=4, depth=1)
    write_tensors(path, our_model(config).state_dict())
    with pytest.raises(ValueError, match=r"how many heads a width of 128 has; config.json beside it says so, or num_h"):
        read_weights(path)
    assert read_weights(path, num_heads=4).config == config


@pytest.mark.parametrize("installed", [True, False])
def test_of_an_architecture_of_timms_timm_knows_the_heads(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = {"architecture": "vit_giant_patch14_224", "num_features": 1408, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(theirs))
    if not installed:
        monkeypatch.setattr("vitscratch.weights.beside.find_spec", lambda name: None)
    assert read_beside(tmp_path, "timm", 1408).num_heads == (16 if installed else None)
    theirs |= {"architecture": "resnet18", "num_features": 512}
    assert read_beside(tmp_path, "timm", 512, theirs).num_heads is None
    assert read_beside(tmp_path, "timm", 512, theirs | {"architecture": "of my own"}).num_heads is None


@pytest.mark.parametrize("ecosystem", ["torchvision", "timm", "google"])
def test_a_thousand_logits_have_imagenets_names(ecosystem: str, tmp_path: Path) -> None:
    config = replace(CONFIG, num_classes=1000)
    write_tensors(tmp_path / "w.npz", to_ecosystem(our_model(config).state_dict(), config, ecosystem))
    weights = read_weights(tmp_path / "w.npz", num_heads=5)
    assert weights.ecosystem == ecosystem  # from the names alone, whatever the file's ending
    assert weights.class_names is not None and weights.class_names[0] == "tench" and len(weights.class_names) == 1000
    assert any("ImageNet-1k assumed" in note for note in weights.notes)


def test_timms_config_says_pooling_and_preprocessing(tmp_path: Path) -> None:
    write_tensors(tmp_path / "model.safetensors", STATE)
    trained = {
        "input_size": [3, 21, 21],
        "interpolation": "bilinear",
        "crop_pct": 0.75,
        "mean": [0.1] * 3,
        "std": [0.3] * 3,
    }
    described = {"architecture": "vit_odd", "num_features": 15, "global_pool": "avg", "pretrained_cfg": trained}
    (tmp_path / "config.json").write_text(json.dumps(described | {"model_args": {"num_heads": 5}}))
    weights = read_weights(tmp_path)
    assert weights.config == replace(CONFIG, pool="mean") and weights.notes == ()
    assert weights.preprocessing == {
        "image_size": [21, 21], "channels": 3, "mean": [0.1] * 3, "std": [0.3] * 3, "resize": "crop",
        "interpolation": "bilinear", "fraction": 0.75,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ecosystem", "ending", "mean", "resize", "interpolation", "fraction"),
    [
        ("torchvision", ".pth", 0.485, "crop", "bilinear", 0.875),
        ("timm", ".safetensors", 0.5, "crop", "bicubic", 0.9),
        ("timm", ".pth", 0.485, "crop", "bicubic", 0.875),
        ("google", ".npz", 0.5, "squash", "bilinear", 1.0),
        ("huggingface", ".bin", 0.5, "squash", "bilinear", 1.0),
    ],
)
def test_the_usual_preprocessing_of_each(
    ecosystem: str, ending: str, mean: float, resize: str, interpolation: str, fraction: float, tmp_path: Path
) -> None:
    config = replace(CONFIG, image_size=224, patch_size=56)
    write_tensors(tmp_path / f"w{ending}", to_ecosystem(our_model(config).state_dict(), config, ecosystem))
    weights = read_weights(tmp_path / f"w{ending}", num_heads=5)
    found = weights.preprocessing or {}
    assert (found["resize"], found["interpolation"], found["fraction"]) == (resize, interpolation, fraction)
    assert found["mean"][0] == mean and found["image_size"] == [224, 224]


def test_grey_pictures_get_one_mean_and_other_channels_none(tmp_path: Path) -> None:
    for channels, length in ((1, 1), (5, 0)):
        config = replace(CONFIG, in_channels=channels)
        weights = read(tmp_path, our_model(config).state_dict())
        assert weights.config.in_channels == channels
        assert len((weights.preprocessing or {"mean": []})["mean"]) == length


def test_our_own_files(tmp_path: Path) -> None:
    model = our_model(replace(CONFIG, pool="mean")).float()
    names = [f"class {i}" for i in range(11)]
    save_model(tmp_path / "m.safetensors", model, replace(CONFIG, pool="mean"), names, {"said": 1}, {"from": "here"})
    weights = read_weights(tmp_path / "m.safetensors")
    assert weights.ecosystem == "vitscratch" and weights.config == replace(CONFIG, pool="mean")
    assert weights.class_names == tuple(names) and weights.preprocessing == {"said": 1}
    assert weights.provenance == {"from": "here"}
    assert_same_tensors(weights.tensors, model.state_dict())
