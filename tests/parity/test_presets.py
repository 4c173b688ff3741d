"""The real sizes: ViT-B/16 in full, the larger ones by shape in full and by value on a few blocks."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from vitscratch import PRESETS, EncoderBlock, VisionTransformer, vit_b_16
from vitscratch.parity import assert_parity, awaken, timm_twin
from vitscratch.parity.presets import check_preset

PAPER = ["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"]


def test_b_16_in_full() -> None:
    result = check_preset("vit_b_16", batch_size=2)
    assert result.passed, f"{result.report.verdict()}\n{result.report.table()}"
    assert (result.parameters_mapped, result.parameter_count, result.depth) == (152, 86_567_656, 12)
    assert all(row.value_diff <= 1e-10 and row.gradient_diff <= 1e-10 for row in result.report.rows)
    assert sum(row.parameters for row in result.report.rows) == 86_567_656
    folded = result.report.folded()
    assert [row.name for row in folded.rows] == [
        *("input", "cls_token", "pos_embed", "patch_embed", "dropout"),
        *(f"blocks.{i}" for i in range(12)),
        *("norm", "head", "output"),
    ]
    assert all(row.parameters == 7_087_872 for row in folded.rows if row.name.startswith("blocks."))
    assert folded.max_value_diff == result.report.max_value_diff


@pytest.mark.parametrize("preset", PAPER[1:])
def test_the_others_map_in_full_and_agree_on_one_block(preset: str) -> None:
    result = check_preset(preset, depth=1, batch_size=1)
    assert result.passed, f"{result.report.verdict()}\n{result.report.table()}"
    assert result.mapped_exactly_once
    assert result.parameters_mapped == 8 + 12 * PRESETS[preset].depth
    assert result.parameter_count == PRESETS[preset].num_parameters
    assert f"1 of {PRESETS[preset].depth} blocks" in result.describe_mapping()


@pytest.mark.parametrize("preset", ["vit_ti_16", "vit_s_16", "vit_nano_32", "vit_nano_8"])
def test_the_small_ones_agree_in_full(preset: str) -> None:
    assert check_preset(preset, batch_size=2).passed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stated_tolerances_hold(dtype: str) -> None:
    result = check_preset("vit_b_16", depth=4, dtype=dtype, batch_size=2)
    assert result.passed, result.report.verdict()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stated_tolerances_leave_no_room_for_a_gross_mistake(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitscratch import EncoderBlock

    monkeypatch.setattr(EncoderBlock, "forward", lambda self, x: x + self.mlp(self.norm2(x + self.attn(self.norm1(x)))))
    assert not check_preset("vit_ti_16", depth=2, dtype=dtype).passed


def test_unknown_presets_and_dtypes_are_named() -> None:
    with pytest.raises(ValueError, match="preset 'vit_x' is unknown; there are vit_nano_8, "):
        check_preset("vit_x")
    with pytest.raises(ValueError, match="dtype 'float16' has no tolerance; there are float64, "):
        check_preset("vit_nano_8", dtype="float16")


@pytest.mark.parametrize("arguments", [{"depth": 0}, {"depth": 13}, {"batch_size": 0}])
def test_impossible_sizes_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="vit_b_16 takes 1 to 12 blocks and at least 1 picture"):
        check_preset("vit_b_16", **arguments)


def test_timms_vit_base_patch16_224_loads_our_weights_with_no_renaming() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed (pip install 'vitscratch[test]')")
    theirs = timm.create_model("vit_base_patch16_224", pretrained=False).double().eval()
    ours = vit_b_16().double().eval()
    awaken(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    _, mapping = timm_twin(PRESETS["vit_b_16"])
    report = assert_parity(ours, theirs, torch.randn(1, 3, 224, 224, dtype=torch.float64), mapping)
    assert report.parameters_mapped == 152


def test_encoder_block_of_b_16_has_the_parameters_of_torchs() -> None:
    with torch.device("meta"):
        ours = EncoderBlock(768, 12, 3072)
        theirs = nn.TransformerEncoderLayer(768, 12, 3072, activation="gelu", norm_first=True)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 7_087_872


def test_a_mistake_shows_in_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitscratch import MLP

    monkeypatch.setattr(MLP, "forward", lambda self, x: self.fc2(torch.relu(self.fc1(x))))
    result = check_preset("vit_nano_8")
    assert not result.passed and result.report.first_divergence.name == "blocks.0.mlp.fc2"


def test_a_parameter_too_many_shows_in_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    built = VisionTransformer.from_config

    def with_extra(config: object) -> VisionTransformer:
        model = built(config)
        model.extra = nn.Parameter(torch.zeros(3))
        return model

    monkeypatch.setattr(VisionTransformer, "from_config", with_extra)
    result = check_preset("vit_nano_8")
    assert not result.passed and not result.mapped_exactly_once
    assert "DO NOT MAP" in result.describe_mapping()
    assert result.report.unmapped_ours == ["extra"]


def test_torchvision_has_no_rectangles() -> None:
    from vitscratch.parity import torchvision_twin

    with pytest.raises(ValueError, match=r"torchvision has no twin for image \(8, 4\), .*timm_twin knows the others"):
        torchvision_twin(replace(PRESETS["vit_nano_8"], image_size=(8, 4)))
