"""Where weights come from: torchvision's, timm's and the Hub's downloads (all replaced), the package; the builders."""

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close
from torchvision.models import ViT_B_16_Weights, ViT_L_16_Weights
from torchvision.transforms.functional import InterpolationMode

import vitscratch
from vitscratch import VisionTransformer, ViTConfig, config
from vitscratch.data import Preprocessing, open_picture
from vitscratch.parity import awaken
from vitscratch.recipes import FineTune
from vitscratch.weights import (
    build_from,
    load,
    read_weights,
    save_model,
    shipped,
    shipped_names,
    sources,
    to_ecosystem,
)
from vitscratch.weights.sources import _of_torchvision, find_file

SMALL = ViTConfig(32, 16, num_classes=1000, embed_dim=192, depth=1, num_heads=3, mlp_dim=31)
MEMBER = ViT_B_16_Weights.IMAGENET1K_V1


@pytest.fixture
def model() -> VisionTransformer:
    model = VisionTransformer.from_config(SMALL).eval()
    awaken(model)
    return model


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of downloads, empty, and no network."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))

    def offline(*arguments: Any, **options: Any) -> None:
        raise URLError("no network here")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def downloaded(hub: Path, model: VisionTransformer) -> Path:
    """Small weights under the name of torchvision's for B/16."""
    path = hub / MEMBER.url.rpartition("/")[2]
    torch.save(to_ecosystem(model.state_dict(), SMALL, "torchvision"), path)
    return path


# torchvision's


def test_a_member_brings_names_and_preprocessing(downloaded: Path, model: VisionTransformer) -> None:
    saved = build_from(MEMBER)
    assert_close(saved.model.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert saved.class_names == tuple(MEMBER.meta["categories"])
    assert saved.provenance["weights"] == "ViT_B_16_Weights.IMAGENET1K_V1" and saved.provenance["url"] == MEMBER.url
    expected = Preprocessing((32, 32), 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), fraction=0.875)
    assert Preprocessing.from_dict(saved.preprocessing) == expected
    assert not any("assumed" in note and "num_heads" not in note for note in saved.provenance["notes"])


@pytest.mark.parametrize("member", [*ViT_B_16_Weights, *ViT_L_16_Weights], ids=repr)
def test_preprocessing_is_torchvisions(member: Any, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "picture.png"
    pixels = torch.randint(256, (3, 97, 131), dtype=torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    transforms = member.transforms()
    ours = _of_torchvision(transforms)
    assert ours.image_size == member.meta["min_size"]
    assert transforms.interpolation in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
    picture = open_picture(path, channels=3)
    assert_close(ours.to_tensor(picture), transforms(picture), rtol=0, atol=2.01 / 255 / 0.224)  # two steps of a byte


def test_a_download_is_checked_kept_and_mapped(
    hub: Path, model: VisionTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def download(url: str, path: str, hash_prefix: str | None, progress: bool) -> None:
        asked.append((url, hash_prefix, progress))
        torch.save(to_ecosystem(model.state_dict(), SMALL, "torchvision"), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert build_from(MEMBER, progress=False).model.head.bias.equal(model.head.bias)
    assert asked == [(MEMBER.url, "c867db91", False)]


@pytest.mark.parametrize("source", [MEMBER, "ViT_B_16_Weights.IMAGENET1K_V1"])
def test_offline_one_line_says_what_and_where(hub: Path, source: Any) -> None:
    with pytest.raises(OSError, match="no network here") as caught:
        load(vitscratch.vit_nano_32(), source)
    message = str(caught.value)
    assert "ViT_B_16_Weights.IMAGENET1K_V1 is not on this machine" in message and "\n" not in message
    assert f"put it at {hub / 'vit_b_16-c867db91.pth'}, or name the path of a copy" in message


# the builders


@pytest.fixture
def small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """vit_b_16 of a few numbers, so that its weights are quickly made."""
    preset = replace(SMALL, image_size=224, num_classes=1000)
    monkeypatch.setitem(config.PRESETS, "vit_b_16", preset)


@pytest.mark.parametrize("weights", [MEMBER, "IMAGENET1K_V1", "DEFAULT", "ViT_B_16_Weights.IMAGENET1K_V1"])
def test_builders_take_torchvisions_weights(
    weights: Any, downloaded: Path, small_preset: None, model: VisionTransformer
) -> None:
    built = vitscratch.vit_b_16(weights=weights, progress=False)
    assert built.training and built.patch_embed.image_size == (32, 32)  # the weights' own size, as torchvision has it
    assert_close(built.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_builders_take_overrides(downloaded: Path, small_preset: None, model: VisionTransformer) -> None:
    built = vitscratch.vit_b_16("DEFAULT", image_size=(48, 16), dropout=0.1, in_channels=1, num_classes=1000)
    assert built.dropout.p == 0.1 and built.patch_embed.grid_size == (3, 1)
    assert_close(built.patch_embed.proj.weight, model.patch_embed.proj.weight.sum(1, keepdim=True))
    assert vitscratch.vit_b_16("DEFAULT", pool="mean").pool == "mean"
    assert vitscratch.vit_b_16(str(downloaded)).head.bias.equal(model.head.bias)


@pytest.mark.parametrize(
    ("builder", "weights", "overrides", "error", "message"),
    [
        ("vit_b_16", "DEFAULT", {"num_classes": 5}, ValueError, "num_classes=5: the head of ViT_B_16_Weights.IMAGENET"),
        ("vit_b_16", "DEFAULT", {"hidden_dim": 5}, TypeError, "vit_b_16 has no hidden_dim; what can be replaced: "),
        ("vit_b_16", "DEFAULT", {"embed_dim": 96}, ValueError, "does not fit: patch_embed.proj.weight is (192, 3, "),
        ("vit_b_16", "IMAGENET1K_V9", {}, ValueError, "weights='IMAGENET1K_V9' are unknown to vit_b_16; expected IM"),
        ("vit_b_32", MEMBER, {}, ValueError, "(192, 3, 16, 16) there, (768, 3, 32, 32) in the model; "),
        ("vit_s_16", "DEFAULT", {}, ValueError, "weights='DEFAULT' are unknown to vit_s_16; expected a path, "),
        ("vit_nano_32", "cifar100", {}, ValueError, "weights='cifar100' are unknown to vit_nano_32; expected a path, "),
    ],
)  # fmt: skip
def test_builders_refuse_what_does_not_fit(
    builder: str, weights: Any, overrides: dict, error: type, message: str, downloaded: Path, small_preset: None,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(shipped_module(), "FILES", tmp_path / "none")
    with pytest.raises(error) as caught:
        getattr(vitscratch, builder)(weights=weights, **overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


# weights that come with the package


def shipped_module() -> Any:
    return sys.modules["vitscratch.weights.shipped"]  # the package has a function of that name


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with weights for vit_nano_8 in it, called "digits"."""
    monkeypatch.setattr(shipped_module(), "FILES", tmp_path / "files")
    (tmp_path / "files").mkdir()
    path, preset = tmp_path / "files" / "digits.safetensors", config.PRESETS["vit_nano_8"]
    model = VisionTransformer.from_config(preset)
    awaken(model, 8)
    save_model(path, model.half(), preset, list("0123456789"), Preprocessing((8, 8), 1).to_dict(), {})
    return path


def test_shipped_weights_are_found_by_name(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shipped_names() == ("digits",) and shipped("digits") == package
    built = vitscratch.vit_nano_8(weights="digits")
    assert built.head.bias.dtype == torch.float32 and built.head.bias.std() > 0.1
    assert build_from("digits").class_names[3] == "3"
    with pytest.raises(ValueError, match="no weights 'letters' come with vitscratch; there are digits"):
        shipped("letters")
    with pytest.raises(ValueError, match=r"letters does not exist; expected the folder of .*, digits, timm:"):
        read_weights("letters")
    with pytest.raises(ValueError, match="weights='letters' are unknown to vit_nano_8; expected digits, a path, "):
        vitscratch.vit_nano_8(weights="letters")
    with pytest.raises(ValueError, match="does not fit: "):
        vitscratch.vit_nano_32(weights="digits")
    assert find_file("digits") == shipped("digits") and find_file(shipped("digits")) == shipped("digits")
    assert FineTune(weights="digits", data="digits").absolute().weights == "digits"
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()  # pictures, say
    assert FineTune(weights="digits", data="digits").absolute().weights == "digits"
    assert "'digits' means the weights that come with vitscratch; ./digits is a" in read_weights("digits").notes[-1]
    with pytest.raises(ValueError, match=r"digits has no weights; expected one of model.safetensors, "):
        read_weights("./digits")


# timm's


NO_WAY_TO = sources._no_way_to


@pytest.fixture(autouse=True)
def way(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the network whether it is there."""
    monkeypatch.setattr(sources, "_no_way_to", lambda address: None)


@pytest.fixture
def timms(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """timm.create_model, without a download."""
    create = timm.create_model

    def created(name: str, pretrained: bool) -> Any:
        assert pretrained
        tiny = create(name, img_size=32, embed_dim=96, depth=1, num_heads=2, global_pool="avg", fc_norm=False)
        awaken(tiny)
        return tiny.eval()

    monkeypatch.setattr(timm, "create_model", created)
    return created


def test_timms_models_bring_heads_pooling_and_preprocessing(timms: Callable[..., Any]) -> None:
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    saved, theirs = build_from(f"timm:{name}"), timms(name, True)
    assert saved.config.num_heads == 2 and saved.config.pool == "mean" and saved.config.num_classes == 1000
    images = torch.randn(2, 3, 32, 32)
    assert_close(saved.model(images), theirs(images), rtol=0, atol=1e-4)
    described = Preprocessing.from_dict(saved.preprocessing)
    assert (described.mean, described.fraction, described.interpolation) == ((0.5,) * 3, 0.9, "bicubic")
    assert saved.class_names[0] == "tench"


def test_what_timm_does_not_have_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"timm:vit_tiny_patch16_224.nothing: .*; there are vit_tiny_patch16_224.aug"):
        read_weights("timm:vit_tiny_patch16_224.nothing")
    with pytest.raises(ValueError, match="timm:nothing: timm has no pretrained model of that name"):
        read_weights("timm:nothing")

    def offline(name: str, pretrained: bool) -> None:
        raise ConnectionError("no network here.\nmore")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(OSError, match=r"could not download it \(no network here\); on a machine with") as caught:
        read_weights("timm:vit_tiny_patch16_224")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(sources, "find_spec", lambda package: None)
    with pytest.raises(ImportError, match=r"timm:x needs timm; pip install 'vitscratch\[timm\]' brings it"):
        read_weights("timm:x")


def test_without_a_network_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told to look on this machine alone; what it knows there still loads."""
    from huggingface_hub import constants, hf_hub_download

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "_no_way_to", lambda address: "no name service")
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: hf_hub_download("org/vit", "x", cache_dir="no"))
    with pytest.raises(OSError, match=r"timm could not download it \(no name service\); on a machine with a network"):
        read_weights("timm:vit_tiny_patch16_224")
    with pytest.raises(
        OSError, match=r"config.json of hf:org/of-nobody is not on this .* Hub \(no name service\); put"
    ):
        read_weights("hf:org/of-nobody")
    assert constants.HF_HUB_OFFLINE is False
    seen = []
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: seen.append(constants.HF_HUB_OFFLINE))
    with suppress(AttributeError):
        read_weights("timm:vit_tiny_patch16_224")
    assert seen == [True]


@pytest.mark.parametrize(
    ("error", "waits"),
    [("ConnectError", False), ("ConnectionError", False), ("ConnectTimeout", True), ("ReadTimeout", True)],
)
def test_a_slow_network_is_one(error: str, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx's and requests' names of errors, by which versions of the Hub's client differ."""

    class Session:
        def head(self, address: str, timeout: float) -> None:
            raise type(error, (Exception,), {})("no name service. Look.")

    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    assert NO_WAY_TO("https://nowhere") == (None if waits else "no name service")


def test_a_model_of_timms_that_is_no_vit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
    with pytest.raises(ValueError, match="timm:resnet18: this is a ResNet, not a plain ViT"):
        read_weights("timm:resnet18")


# the Hugging Face Hub's


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: VisionTransformer) -> Path:
    """What org/vit has on the Hub; `fetched` is where downloads go."""
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    there, fetched = tmp_path / "there", tmp_path / "fetched"
    there.mkdir()
    fetched.mkdir()
    described = {"hidden_size": 192, "num_attention_heads": 3, "image_size": 32, "layer_norm_eps": 1e-6}
    described["id2label"] = {str(i): f"thing {i}" for i in range(1000)}
    (there / "config.json").write_text(json.dumps(described))
    processor = {"size": {"height": 32, "width": 32}, "resample": 2, "image_mean": [0.1] * 3, "image_std": [0.5] * 3}
    (there / "preprocessor_config.json").write_text(json.dumps(processor))
    save_file(to_ecosystem(model.state_dict(), SMALL, "huggingface"), there / "model.safetensors")

    def hf_hub_download(name: str, file: str) -> str:
        assert name == "org/vit"
        if not there.exists() and not (fetched / file).exists():
            raise LocalEntryNotFoundError("An error happened.\nLook.")
        if there.exists() and not (there / file).exists():
            raise EntryNotFoundError("404")
        return shutil.copy(there / file, fetched) if there.exists() else str(fetched / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: None)
    return there


def test_a_repository_brings_everything(repository: Path, model: VisionTransformer) -> None:
    for _ in range(2):
        saved = build_from("hf:org/vit")
        assert_close(saved.model.state_dict(), model.state_dict(), rtol=0, atol=0)
        assert saved.class_names[17] == "thing 17"
        described = Preprocessing.from_dict(saved.preprocessing)
        assert (described.mean, described.resize) == ((0.1,) * 3, "squash")
        if repository.exists():
            shutil.rmtree(repository)  # from now on offline


def test_the_old_format_is_taken_where_there_is_no_other(repository: Path, model: VisionTransformer) -> None:
    (repository / "model.safetensors").unlink()
    torch.save(to_ecosystem(model.state_dict(), SMALL, "huggingface"), repository / "pytorch_model.bin")
    (repository / "preprocessor_config.json").unlink()
    saved = build_from("hf:org/vit")
    assert saved.model.head.bias.equal(model.head.bias)
    assert any("preprocessing assumed" in note for note in saved.provenance["notes"])


def test_what_the_hub_does_not_have_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"hf:org/vit has neither model.safetensors nor pytorch_model.bin; expected"):
        read_weights("hf:org/vit")
    (repository / "config.json").unlink()
    with pytest.raises(ValueError, match=r"hf:org/vit has no config.json; expected a model of transformers or timm"):
        read_weights("hf:org/vit")
    with pytest.raises(ValueError, match=r"hf:vit: expected hf:ORG/NAME, such as hf:google/vit-base-patch16-224"):
        read_weights("hf:vit")
    for path in (*repository.iterdir(), *repository.with_name("fetched").iterdir()):
        path.unlink()
    repository.rmdir()
    with pytest.raises(
        OSError, match=r"config.json of hf:org/vit is not on this machine, .*\(An error happened\)"
    ) as e:
        read_weights("hf:org/vit")
    assert "\n" not in str(e.value) and "into a folder, and name that folder as the source" in str(e.value)
    monkeypatch.setattr(sources, "find_spec", lambda package: None)
    with pytest.raises(ImportError, match=r"hf:org/vit needs huggingface_hub; pip install 'vitscratch\[hub\]'"):
        read_weights("hf:org/vit")
