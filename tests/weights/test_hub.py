"""Through the Hub's mixin and back: the same bits, class names and preprocessing. Nothing here goes online."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vitscratch import VisionTransformer
from vitscratch.config import ViTConfig
from vitscratch.parity import awaken
from vitscratch.weights import SavedModel, load_model

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra hub)")
from vitscratch.weights import hub

CONFIG = ViTConfig(
    image_size=(6, 15), patch_size=(3, 5), in_channels=1, num_classes=3, embed_dim=22, depth=2, num_heads=2,
    mlp_dim=13, pool="mean",
)  # fmt: skip
NAMES = ("ant", "b, é", "cat")
PREPROCESSING = {"image_size": [6, 15], "channels": 1, "mean": [0.1]}


@pytest.fixture
def saved() -> SavedModel:
    model = VisionTransformer.from_config(CONFIG).eval()
    awaken(model, seed=1)
    return SavedModel(model, CONFIG, NAMES, PREPROCESSING, {"trained_on": "nothing"})


def assert_same(read: SavedModel, saved: SavedModel) -> None:
    expected = saved.model.state_dict()
    assert read.model.state_dict().keys() == expected.keys()
    for name, tensor in read.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert read.config == CONFIG and read.class_names == NAMES
    assert read.preprocessing == PREPROCESSING and read.provenance == {"trained_on": "nothing"}


def test_there_and_back_through_a_folder(saved: SavedModel, tmp_path: Path) -> None:
    hub.HubModel(saved).save_pretrained(tmp_path / "flowers")
    assert sorted(path.name for path in (tmp_path / "flowers").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    read = hub.HubModel.from_pretrained(tmp_path / "flowers")
    assert_same(read.saved, saved)
    assert not read.saved.model.training
    assert_same(load_model(tmp_path / "flowers" / "model.safetensors"), saved)  # without the Hub's library
    assert json.loads((tmp_path / "flowers" / "config.json").read_text())["mlp_dim"] == 13


def test_the_card_says_what_it_is_and_how_to_load_it(saved: SavedModel, tmp_path: Path) -> None:
    hub.HubModel(saved).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "library_name: vitscratch" in card and "pipeline_tag: image-classification" in card
    assert f"{CONFIG.num_parameters:,} parameters for 3 classes, on pictures of\n6 x 15 pixels" in card
    assert "HubModel.from_pretrained" in card and "Classes: ant, b, é, cat." in card


def test_by_name_it_is_downloaded_by_huggingface_hub(
    saved: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.HubModel(saved).save_pretrained(tmp_path)
    asked = []

    def download(repo_id: str, filename: str, **options: object) -> str:
        asked.append((repo_id, filename, options["revision"], options["local_files_only"]))
        return str(tmp_path / filename)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    read = hub.HubModel.from_pretrained("me/flowers", revision="v2", local_files_only=True)
    assert ("me/flowers", "model.safetensors", "v2", True) in asked
    assert_same(read.saved, saved)


def test_push_uploads_what_save_pretrained_writes(
    saved: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    uploaded = {}

    def upload(self: HfApi, *, repo_id: str, folder_path: Path, **options: object) -> str:
        (tmp_path / "remote.safetensors").write_bytes((Path(folder_path) / "model.safetensors").read_bytes())
        uploaded[repo_id] = (sorted(path.name for path in Path(folder_path).iterdir()), options["commit_message"])
        return "done"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **options: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert hub.HubModel(saved).push_to_hub("me/flowers", commit_message="Better") == "done"
    assert uploaded == {"me/flowers": (["README.md", "config.json", "model.safetensors"], "Better")}
    assert_same(load_model(tmp_path / "remote.safetensors"), saved)


def test_somebody_elses_folder_is_refused_in_a_line(saved: SavedModel, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="does not exist"):
        hub.HubModel.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is refused"):
        hub.HubModel.from_pretrained(tmp_path)


def test_the_extra_is_named_where_it_is_missing_and_needed_nowhere_else() -> None:
    code = """
import sys
sys.modules["huggingface_hub"] = None
import vitscratch.weights
try:
    import vitscratch.weights.hub
except ImportError as error:
    assert str(error) == "the Hub needs huggingface_hub: pip install 'vitscratch[hub]'", error
else:
    raise SystemExit("imported all the same")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
