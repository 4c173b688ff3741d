"""The recipe of a ResNet: trained, saved and restored as ours are; pretrained weights learn in two parts."""

from pathlib import Path

import pytest
import torch
from torchvision import models

from tests.data.make import write_folder
from vitscratch.cli import main
from vitscratch.data import RandomCropFlip
from vitscratch.recipes import ResNetRecipe
from vitscratch.recipes.experiment import prepare


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(write_folder(tmp_path / "data", {"cat": 17, "dog": 19}))


def recipe(data: str, **changes: object) -> ResNetRecipe:
    values = {"data": data, "image_size": 16, "epochs": 1, "batch_size": 8, "precision": "fp32", "padding": 1}
    return ResNetRecipe(**(values | changes))  # type: ignore[arg-type]


def test_what_is_saved_is_restored(data: str, tmp_path: Path) -> None:
    experiment = prepare(recipe(data))
    assert experiment.config is None and experiment.parameters == 11_169_858  # torchvision's, but for stem and head
    assert experiment.model.conv1.stride == (1, 1)
    experiment.fit()
    experiment.recipe.save(tmp_path / "model.safetensors", experiment, {"recipe": "resnet"})
    model, preprocessing, names = experiment.recipe.restore(tmp_path / "model.safetensors")
    assert names == ("cat", "dog") and preprocessing == experiment.preprocessing and not model.training
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), experiment.model.eval()(images), rtol=0, atol=0)
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(ValueError, match="is refused"):
        experiment.recipe.restore(tmp_path / "model.safetensors")


def test_pretrained_weights_learn_the_head_first_and_prepare_pictures_as_they_want(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrained = models.resnet18()
    torch.save(pretrained.state_dict(), tmp_path / "r.pth")
    experiment = prepare(recipe(data, weights=str(tmp_path / "r.pth"), image_size=37, layer_decay=0.7))
    assert experiment.preprocessing.mean == (0.485, 0.456, 0.406) and experiment.model.conv1.stride == (2, 2)
    stems = []
    history = experiment.fit(None, None, lambda run: stems.append(run.model.conv1.weight.detach().clone()))
    assert [record.epoch for record in history] == [1, 2] == list(range(1, experiment.recipe.all_epochs + 1))
    assert torch.equal(stems[0], pretrained.conv1.weight) and not torch.equal(stems[1], stems[0])
    asked: list[dict[str, object]] = []
    monkeypatch.setattr("vitscratch.transfer.fine_tune", lambda *_, **options: asked.append(options) or [])
    experiment.fit()
    assert (asked[0]["head_epochs"], asked[0]["layer_decay"]) == (1, 0.7)


def test_a_run_like_any_other(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = ["train", "resnet", "--data", data, "--image-size", "8", "--epochs", "1", "--device", "cpu"]
    assert main([*command, "--out", str(out)]) == 0
    assert (out / "metrics.json").exists() and "11,169,858 parameters" in capsys.readouterr().out
    assert main([*command, "--padding", "0", "--layer-decay", "0", "--out", str(out)]) == 2
    assert "layer_decay 0.0" in capsys.readouterr().err


def test_pictures_of_a_few_pixels_are_computed_in_fp32(data: str) -> None:
    """There torch's bf16 gradients on a CPU may be random numbers (see `vitscratch.baselines.resnet`)."""
    wished = [recipe(data, image_size=size, precision="auto").precision for size in (16, 17)]
    assert wished == ["fp32", "auto"] and recipe(data, precision="bf16").precision == "bf16"


def test_pictures_are_shifted_and_mirrored_as_was_asked(data: str) -> None:
    assert recipe(data, padding=3, flip=0.25).augmentation() == RandomCropFlip(3, 0.25)
    assert recipe(data, padding=0, flip=0.0).augmentation() is None
