"""Hugging Face's models: real ones where transformers is installed, and what their files hold without it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.weights.make import CONFIG, assert_logits_match, assert_same_tensors, our_model, ours_with, pictures
from vitscratch.data import Preprocessing
from vitscratch.parity import awaken
from vitscratch.weights import read_weights, to_ecosystem, write_tensors

DESCRIBED: dict[str, Any] = {
    "hidden_size": 15,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "intermediate_size": 13,
    "image_size": 21,
    "patch_size": 7,
    "num_channels": 3,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "id2label": {str(i): f"kind {i}" for i in range(11)},
}


def their_model(pooler: bool | None = None, **changes: Any) -> nn.Module:
    """ViTForImageClassification, or ViTModel with or without a pooler."""
    transformers = pytest.importorskip("transformers", reason="the real model needs transformers (vitscratch[bench])")
    config = transformers.ViTConfig(
        **DESCRIBED | {"id2label": {i: f"kind {i}" for i in range(11)}, "hidden_dropout_prob": 0.0} | changes
    )
    if pooler is None:
        model = transformers.ViTForImageClassification(config)
    else:
        model = transformers.ViTModel(config, add_pooling_layer=pooler)
    awaken(model, seed=5)
    # Attention computes its softmax in float32 unless it is PyTorch's own.
    model.set_attn_implementation("sdpa")
    return model.double().eval()


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


def describe(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps(DESCRIBED | changes))


def write_ours(folder: Path, **changes: Any) -> dict[str, Tensor]:
    """A folder as the hub has it, made without transformers."""
    tensors = to_ecosystem(our_model().state_dict(), CONFIG, "huggingface")
    write_tensors(folder / "model.safetensors", tensors)
    describe(folder, **changes)
    return tensors


def test_a_classifier_that_transformers_saved_computes_the_same(tmp_path: Path) -> None:
    theirs = their_model()
    theirs.save_pretrained(tmp_path)  # type: ignore[operator]
    weights = read_weights(tmp_path)
    assert weights.unexpected == () and weights.config == CONFIG
    assert weights.class_names == tuple(f"kind {i}" for i in range(11))
    assert_logits_match(ours_with(weights), Logits(theirs))


def test_transformers_reads_what_we_write(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the real model needs transformers (vitscratch[bench])")
    write_ours(tmp_path, model_type="vit", architectures=["ViTForImageClassification"])
    theirs, report = transformers.ViTForImageClassification.from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float64, attn_implementation="sdpa"
    )
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_logits_match(our_model(), Logits(theirs.eval()))


@pytest.mark.parametrize("ending", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("pooler", [True, False])
def test_the_body_alone_with_and_without_a_pooler(pooler: bool, ending: str, tmp_path: Path) -> None:
    """From its names in memory, which in transformers 5 are not those in files."""
    theirs = their_model(pooler)
    write_tensors(tmp_path / ending, theirs.state_dict())
    describe(tmp_path)
    weights = read_weights(tmp_path)
    assert weights.unexpected == () and weights.config == replace(CONFIG, num_classes=0)
    images, body = pictures(), {name: t for name, t in weights.tensors.items() if not name.startswith("head.")}
    features = ours_with(replace(weights, tensors=body)).tokens(images)
    with torch.no_grad():
        output = theirs(images)
        torch.testing.assert_close(features, output.last_hidden_state, rtol=0, atol=1e-10)
        if pooler:
            weight, bias = (weights.tensors[f"head.pre_logits.{name}"] for name in ("weight", "bias"))
            pooled = (features[:, 0] @ weight.T + bias).tanh()
            torch.testing.assert_close(pooled, output.pooler_output, rtol=0, atol=1e-10)
        else:
            assert body.keys() == weights.tensors.keys()


def test_a_pooler_goes_there_and_back(tmp_path: Path) -> None:
    model = our_model()
    model.head = nn.Identity()  # type: ignore[assignment]
    tensors = model.state_dict() | {
        "head.pre_logits.weight": torch.randn(15, 15),
        "head.pre_logits.bias": torch.randn(15),
    }
    written = to_ecosystem(tensors, CONFIG, "huggingface")
    assert {"pooler.dense.weight", "embeddings.cls_token"} <= written.keys()
    write_tensors(tmp_path / "body.safetensors", written)
    assert_same_tensors(read_weights(tmp_path / "body.safetensors", num_heads=5).tensors, tensors)


def test_a_pooler_beside_a_classifier_is_not_part_of_it(tmp_path: Path) -> None:
    tensors = write_ours(tmp_path)
    extra = {"vit.pooler.dense.weight": torch.ones(15, 15), "vit.pooler.dense.bias": torch.ones(15)}
    write_tensors(tmp_path / "model.safetensors", tensors | extra)
    weights = read_weights(tmp_path)
    assert set(weights.unexpected) == extra.keys()
    assert_same_tensors(weights.tensors, our_model().state_dict())
    assert any("a classifier does not use" in note for note in weights.notes)


def test_the_files_beside_it_say_heads_classes_and_preprocessing(tmp_path: Path) -> None:
    write_ours(tmp_path)
    processor = {
        "size": {"height": 21, "width": 21},
        "resample": 3,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4] * 3,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    for source in (tmp_path, tmp_path / "model.safetensors"):
        weights = read_weights(source, num_heads=3)  # what the files say comes first
        assert weights.config == CONFIG and weights.notes == ()
        assert weights.class_names == tuple(f"kind {i}" for i in range(11))
        assert Preprocessing.from_dict(weights.preprocessing or {}) == Preprocessing(
            (21, 21), 3, (0.1, 0.2, 0.3), (0.4, 0.4, 0.4), "squash", "bicubic"
        )


def test_a_processor_that_cuts_out_the_centre(tmp_path: Path) -> None:
    write_ours(tmp_path)
    processor = {"size": {"shortest_edge": 24}, "crop_size": {"height": 21, "width": 21}, "do_center_crop": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = Preprocessing.from_dict(read_weights(tmp_path).preprocessing or {})
    assert (found.resize, found.fraction, found.image_size) == ("crop", 21 / 24, (21, 21))


def test_what_nobody_says_is_assumed_with_a_note(tmp_path: Path) -> None:
    write_ours(tmp_path, id2label={str(i): f"LABEL_{i}" for i in range(11)}, layer_norm_eps=1e-12)
    weights = read_weights(tmp_path)
    assert weights.class_names is None
    assert (weights.preprocessing or {})["mean"] == [0.5, 0.5, 0.5]
    assert any("preprocessing assumed" in note for note in weights.notes)
    assert any("layer_norm_eps 1e-12" in note for note in weights.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'"),
        ({"pooler_act": "relu"}, "pooler_act is 'relu'"),
        ({"id2label": 7}, "config.json .*is not understood"),
    ],
)
def test_what_ours_does_not_compute_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_ours(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path)


def test_a_config_of_another_model_is_not_used(tmp_path: Path) -> None:
    write_ours(tmp_path, hidden_size=21, num_attention_heads=7)
    with pytest.raises(ValueError, match="how many heads a width of 15 has"):
        read_weights(tmp_path)
    weights = read_weights(tmp_path, num_heads=5)
    assert weights.config == CONFIG and "config.json is of another model (hidden_size 21): not used" in weights.notes


def test_a_missing_key_matrix_takes_its_block_out_and_is_named(tmp_path: Path) -> None:
    tensors = write_ours(tmp_path)
    del tensors["vit.encoder.layer.1.attention.attention.key.weight"]
    write_tensors(tmp_path / "model.safetensors", tensors)
    weights = read_weights(tmp_path)
    assert "blocks.1.attn.qkv.weight" not in weights.tensors
    assert set(weights.unexpected) == {
        f"vit.encoder.layer.1.attention.attention.{name}.weight" for name in ("query", "value")
    }


def test_a_distilled_deit_is_named(tmp_path: Path) -> None:
    tensors = write_ours(tmp_path)
    theirs = {name.replace("vit.", "deit."): tensor for name, tensor in tensors.items()}
    theirs["deit.embeddings.distillation_token"] = torch.zeros(1, 1, 15)
    theirs["deit.embeddings.position_embeddings"] = torch.zeros(1, 11, 15)
    write_tensors(tmp_path / "model.safetensors", theirs)
    weights = read_weights(tmp_path)
    assert set(weights.unexpected) == {"deit.embeddings.distillation_token", "deit.embeddings.position_embeddings"}
    assert any("distillation token" in note for note in weights.notes)
    assert "pos_embed" not in weights.tensors


def test_an_empty_folder_says_what_it_wants(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no weights; expected one of model.safetensors"):
        read_weights(tmp_path)
