"""ResNets: torchvision's own answers, a new head, a stem for small pictures, and the same `fit` as any module."""

import urllib.error
from enum import Enum
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from torchvision import models

from vitscratch.baselines import resnet
from vitscratch.baselines.resnet import BatchNorm
from vitscratch.data import TensorBatches
from vitscratch.training import TrainingConfig, fit, predictions


def test_local_weights_give_torchvisions_features(tmp_path: Path) -> None:
    reference = models.resnet18().eval()
    for name, buffer in reference.named_buffers():  # awake: running statistics, too
        if buffer.is_floating_point():
            low, high = (-0.1, 0.1) if name.endswith("mean") else (0.5, 1.5)  # a mean of 1 would silence every ReLU
            buffer.uniform_(low, high)
    torch.save(reference.state_dict(), tmp_path / "r.pth")
    built = resnet("resnet18", 7, weights=tmp_path / "r.pth")
    images = torch.randn(2, 3, 67, 61)
    assert built.notes == (f"weights of {tmp_path / 'r.pth'}, but for the head",)
    built.model.eval()
    assert built.model(images).shape == (2, 7)
    reference.fc, built.model.fc = torch.nn.Identity(), torch.nn.Identity()
    assert reference(images).mean() > 0.1
    assert_close(built.model(images), reference(images), rtol=0, atol=0)
    grey = resnet("resnet18", 7, weights=tmp_path / "r.pth", in_channels=1)
    grey.model.eval().fc = torch.nn.Identity()
    assert_close(grey.model(images[:, :1]), reference(images[:, :1].expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    assert "kernels of three colours" in grey.notes[1]


@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 11_177_538), ("resnet34", 21_285_698)])
def test_the_head_is_for_our_classes(name: str, parameters: int) -> None:
    built = resnet(name, 2)
    assert built.name == name and built.notes == ("random weights",)
    assert sum(p.numel() for p in built.model.parameters()) == parameters  # torchvision's, less 998 outputs


def test_the_small_stem_keeps_the_size_and_is_said() -> None:
    seen = []
    for small, side in ((True, 32), (False, 8)):
        built = resnet("resnet18", 5, in_channels=1, small_stem=small)
        built.model.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-1]))
        assert built.model.eval()(torch.randn(2, 1, 32, 32)).shape == (2, 5)
        assert seen[-1] == side
        assert ("stem for small pictures" in built.notes[-1]) == small
        # kaiming_normal_, fan_out, in whichever shape
        fan_out = 64 * built.model.conv1.kernel_size[0] ** 2
        assert built.model.conv1.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def test_fit_trains_it_even_on_a_last_batch_of_one_picture() -> None:
    images = torch.randn(9, 1, 8, 8)
    labels = torch.arange(9) % 2
    batches = TensorBatches(images, labels, 4)
    with pytest.raises(ValueError, match="more than 1 value per channel"):  # what torchvision's own does
        fit(models.resnet18(num_classes=2), TensorBatches(images.expand(-1, 3, -1, -1), labels, 4), config())
    model = resnet("resnet18", 2, in_channels=1, small_stem=True).model
    history = fit(model, batches, config(), validation=batches, num_classes=2)
    assert history[-1].validation_accuracy > 0.4
    probabilities, seen = predictions(model, batches)
    assert probabilities.shape == (9, 2) and torch.equal(seen, labels)
    assert float((probabilities.argmax(1) == labels).double().mean()) == history[-1].validation_accuracy


def config() -> TrainingConfig:
    return TrainingConfig(epochs=1, learning_rate=1e-3, precision="fp32")  # see `resnet`


def test_batch_norm_of_many_values_is_torchs() -> None:
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm2d(3)
    for images in (torch.randn(1, 3, 2, 1), torch.randn(5, 3, 1, 1)):
        assert_close(ours(images), theirs(images), rtol=0, atol=0)
    assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    one = torch.randn(1, 3, 1, 1)
    assert_close(ours(one), theirs.eval()(one))  # by the running statistics, which it leaves alone
    assert_close(ours.running_mean, theirs.running_mean, rtol=0, atol=0)


def test_weights_that_are_not_here_are_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for weights in ("ResNet34_Weights.IMAGENET1K_V1", models.ResNet34_Weights.IMAGENET1K_V1):
        with pytest.raises(OSError, match=r"is not on this machine, and https://\S+ could not be downl") as error:
            resnet("resnet34", 2, weights=weights)
        assert f"{tmp_path}/hub/checkpoints/resnet34-" in str(error.value) and "\n" not in str(error.value)


class Colour(Enum):
    RED = 1


def test_weights_of_something_else_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(models.resnet18().state_dict(), tmp_path / "18.pth")
    with pytest.raises(ValueError, match=r"18.pth does not hold the weights of resnet34: \d+ are missing .*layer1.2"):
        resnet("resnet34", 2, weights=tmp_path / "18.pth")
    (tmp_path / "page.pth").write_text("<html>")
    torch.save([1, 2], tmp_path / "list.pth")
    for weights, message in (
        (tmp_path / "page.pth", "page.pth cannot be read"),
        (tmp_path / "list.pth", "list.pth holds no state dict"),
        (tmp_path / "none.pth", "none.pth is no file; expected torchvision's weights"),
        (Colour.RED, "RED.* is no member of torchvision's weights"),
    ):
        with pytest.raises(ValueError, match=message):
            resnet("resnet18", 2, weights=weights)


def test_other_names_and_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="in_channels 4: expected 3, or 1 for grey"):
        resnet("resnet18", 2, in_channels=4)
    with pytest.raises(ValueError, match="'resnet50' is unknown; there are resnet18 and resnet34"):
        resnet("resnet50", 2)
