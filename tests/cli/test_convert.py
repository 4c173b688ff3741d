"""`vitscratch convert` as a user types it: what it writes is loaded by the library that it is for."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.data.make import picture
from vitscratch import VisionTransformer
from vitscratch.cli import main
from vitscratch.config import ViTConfig
from vitscratch.data import Preprocessing
from vitscratch.parity import awaken, timm_twin, torchvision_twin
from vitscratch.weights import SavedModel, build_from, load_model, save_model
from vitscratch.weights import convert as module
from vitscratch.weights.convert import ENDINGS, convert
from vitscratch.weights.heads import NormedHead, PreLogitsHead

CONFIG = ViTConfig(
    image_size=10, patch_size=5, in_channels=3, num_classes=7, embed_dim=22, depth=2, num_heads=2, mlp_dim=13
)
NAMES = ("ant", "b, é", "cat", "dog", "eel", "fox", "gnu")
PREPROCESSING = Preprocessing((10, 10), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "squash", "bicubic").to_dict()


def made(config: ViTConfig = CONFIG, preprocessing: dict[str, Any] = PREPROCESSING) -> SavedModel:
    model = VisionTransformer.from_config(config).eval()
    awaken(model, seed=2)
    model.requires_grad_(False)
    return SavedModel(model, config, NAMES, preprocessing, {"trained_on": "nothing"})


def saved_in(folder: Path, saved: SavedModel) -> Path:
    path = folder / "in.safetensors"
    save_model(path, saved.model, saved.config, saved.class_names, saved.preprocessing, saved.provenance)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return saved_in(tmp_path, made())


def tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return torch.load(path, weights_only=True) if path.suffix == ".pth" else load_file(path)


def assert_says_the_same(theirs: nn.Module, saved: SavedModel) -> None:
    height, width = saved.model.patch_embed.image_size
    images = torch.randn(3, saved.config.in_channels, height, width, dtype=torch.float64)
    expected = saved.model.double()(images)
    assert expected.std() > 0.1  # not asleep
    torch.testing.assert_close(theirs.double().eval()(images), expected, atol=1e-10, rtol=0)


def assert_same_bits(found: nn.Module, saved: SavedModel) -> None:
    expected = saved.model.state_dict()
    assert found.state_dict().keys() == expected.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


# each target is loaded by its own library


@pytest.mark.parametrize("ending", ENDINGS["timm"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_timm_loads_it(tmp_path: Path, capsys: pytest.CaptureFixture, ending: str, pool: Any) -> None:
    saved = made(replace(CONFIG, pool=pool, image_size=(10, 15), in_channels=2), {})
    out = tmp_path / f"out{ending}"
    assert main(["convert", str(saved_in(tmp_path, saved)), str(out), "--to", "timm"]) == 0
    theirs, _ = timm_twin(saved.config)
    theirs.load_state_dict(tensors(out), strict=True)
    assert_says_the_same(theirs, saved)
    printed = capsys.readouterr().out
    assert f" MB, {len(tensors(out))} tensors in float32; read back, they are equal bit for bit" in printed
    assert ("global_pool='avg', fc_norm=False" in printed) == (pool == "mean")
    said = "in its header, which vitscratch reads and timm does not:"
    said = said if ending == ".safetensors" else "that file does not say:"
    assert f"{said} that there are 2 heads; " in printed and "class names; preprocessing" in printed


@pytest.mark.parametrize("ending", ENDINGS["torchvision"])
def test_torchvision_loads_it(tmp_path: Path, source: Path, ending: str) -> None:
    out = tmp_path / f"out{ending}"
    assert main(["convert", str(source), str(out), "--to", "torchvision"]) == 0
    theirs, _ = torchvision_twin(CONFIG)
    theirs.load_state_dict(tensors(out), strict=True)
    assert_says_the_same(theirs, made())


def test_timm_loads_googles_layout(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out.npz"
    assert main(["convert", str(source), str(out), "--to", "npz"]) == 0
    theirs, _ = timm_twin(CONFIG)
    theirs.load_pretrained(str(out))
    assert_says_the_same(theirs, made())


def test_transformers_loads_it_with_names_and_preprocessing(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra bench)")
    config = replace(CONFIG, image_size=(10, 15), patch_size=(5, 3))
    resized = Preprocessing((10, 15), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "squash", "bicubic")
    saved, out = made(config, resized.to_dict()), tmp_path / "out"
    assert main(["convert", str(saved_in(tmp_path, saved)), str(out), "--to", "hf"]) == 0
    theirs, info = transformers.ViTForImageClassification.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info  # nothing missing, unexpected or of another shape
    assert theirs.config.id2label == dict(enumerate(NAMES))

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = theirs

        def forward(self, images: Tensor) -> Tensor:
            return self.model(images).logits

    assert_says_the_same(Logits(), saved)
    processor = transformers.ViTImageProcessor.from_pretrained(out)
    seen = processor(picture(1), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(seen, resized.to_tensor(picture(1)))


def test_transformers_crops_as_we_do(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra bench)")
    from PIL import Image

    cropped = Preprocessing((14, 14), 3, resize="crop", fraction=0.875)
    convert(made(replace(CONFIG, image_size=14, patch_size=7), cropped.to_dict()), tmp_path / "out", "hf")
    processor = transformers.ViTImageProcessor.from_pretrained(tmp_path / "out")
    noise = Image.fromarray(torch.randint(0, 255, (16, 22, 3), dtype=torch.uint8).numpy())
    seen = processor(noise, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(seen, cropped.to_tensor(noise))


def test_what_transformers_cannot_prepare_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    preprocessing = Preprocessing((10, 15), 3, resize="crop")  # its processor crops squares of the shorter edge
    path = saved_in(tmp_path, made(replace(CONFIG, image_size=(10, 15)), preprocessing.to_dict()))
    assert main(["convert", str(path), str(tmp_path / "out"), "--to", "hf"]) == 0
    assert "does not say: preprocessing (transformers has none like it)" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def test_onnx(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed (extra onnx)")
    out = tmp_path / "out.onnx"
    assert main(["convert", str(source), str(out), "--to", "onnx"]) == 0
    printed = capsys.readouterr()
    last = printed.out.splitlines()[-1]  # onnxscript 0.6 has a line of its own
    assert " MB, for any batch size; onnxruntime's logits differ from the model's by at most" in last
    assert printed.err == ""


def test_a_run_folder_and_all_the_way_round(tmp_path: Path) -> None:
    """ours -> npz -> transformers' -> ours: not a bit is lost, and the last two know the names."""
    run = tmp_path / "run"
    run.mkdir()
    saved = made()
    saved_in(run, saved).rename(run / "model.safetensors")
    (run / "config.json").write_text('{"recipe_name": "digits"}')  # a run has one too
    there = [str(run), str(tmp_path / "a.npz"), str(tmp_path / "b"), str(tmp_path / "c.safetensors")]
    for source, out, to in zip(there, there[1:], ["npz", "hf", "vitscratch"], strict=False):
        assert main(["convert", source, out, "--to", to]) == 0
    assert_same_bits(build_from(tmp_path / "b").model, saved)
    assert_same_bits(load_model(Path(there[-1])).model, saved)
    assert main(["convert", str(run), str(tmp_path / "d"), "--to", "hf"]) == 0
    read = build_from(tmp_path / "d")
    assert read.class_names == NAMES and read.preprocessing == PREPROCESSING and read.config == CONFIG


@pytest.mark.parametrize(("to", "pool"), [("timm", "mean"), ("torchvision", "cls")])
def test_the_header_keeps_what_the_layout_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture, to: str, pool: Any
) -> None:
    """ours -> theirs -> ours, with nothing to be assumed on the way."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    saved, there, back = made(replace(CONFIG, pool=pool)), tmp_path / "there.safetensors", tmp_path / "b.safetensors"
    assert main(["convert", str(saved_in(tmp_path, saved)), str(there), "--to", to]) == 0
    capsys.readouterr()
    assert main(["convert", str(there), str(back), "--to", "vitscratch"]) == 0
    assert "note: " not in capsys.readouterr().out
    found = load_model(back)
    assert_same_bits(found.model, saved)
    assert (found.class_names, found.preprocessing, found.config) == (NAMES, PREPROCESSING, saved.config)
    assert found.provenance["trained_on"] == "nothing" and found.provenance["ecosystem"] == to
    with safe_open(there, framework="pt") as file:
        header = file.metadata()
    save_file(
        tensors(there), there, header | {"config": header["config"].replace('"embed_dim": 22', '"embed_dim": 24')}
    )
    assert main(["convert", str(there), str(tmp_path / "x.npz"), "--to", "npz", "--num-heads", "2"]) == 0
    assert "note: its header is of another model (embed_dim 24): not used" in capsys.readouterr().out
    save_file(tensors(there), there, header | {"class_names": "["})
    assert main(["convert", str(there), str(back), "--to", "vitscratch", "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert "there.safetensors: its header is damaged" in error and error.count("\n") == 1


@pytest.mark.parametrize("to", ["torchvision", "npz"])
def test_a_pre_logits_layer_goes_where_there_is_a_place_for_it(tmp_path: Path, to: Any) -> None:
    saved = made()
    saved.model.head = PreLogitsHead(22, 11, 7)  # type: ignore[assignment]
    awaken(saved.model, seed=5)
    out = tmp_path / f"out{ENDINGS[to][0]}"
    convert(saved, out, to)
    if to == "torchvision":
        from torchvision.models import VisionTransformer as Theirs

        theirs = Theirs(10, 5, 2, 2, 22, 13, num_classes=7, representation_size=11)
        theirs.load_state_dict(tensors(out), strict=True)
        assert_says_the_same(theirs, saved)
    else:
        assert_same_bits(build_from(out).model, saved)


def test_a_norm_after_the_mean_goes_to_timm_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from timm.models.vision_transformer import VisionTransformer as Theirs

    saved = made(replace(CONFIG, pool="mean"))
    saved.model.norm, saved.model.head = nn.Identity(), NormedHead(22, 7)  # type: ignore[assignment]
    awaken(saved.model, seed=5)
    path, out = saved_in(tmp_path, saved), tmp_path / "out.pth"
    assert main(["convert", str(path), str(out), "--to", "timm"]) == 0
    assert "that the head reads the mean (timm: global_pool='avg', fc_norm=True)" in capsys.readouterr().out
    theirs = Theirs(10, 5, 3, 7, "avg", embed_dim=22, depth=2, num_heads=2, mlp_ratio=13 / 22)
    theirs.load_state_dict(tensors(out), strict=True)
    assert_says_the_same(theirs, saved)
    for to in ("torchvision", "hf", "npz"):
        assert main(["convert", str(path), str(tmp_path / f"no{ENDINGS[to][0]}"), "--to", to]) == 2
        error = capsys.readouterr().err
        assert f"{to} cannot hold this model: its head norms the mean of the patch tokens; timm and onnx" in error
        assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == sorted([path, out])


def test_what_had_to_be_assumed_of_the_input_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    saved = made(replace(CONFIG, embed_dim=192, num_heads=3))
    convert(saved, tmp_path / "theirs.pth", "torchvision")
    assert main(["convert", str(tmp_path / "theirs.pth"), str(tmp_path / "out.npz"), "--to", "npz"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "note: num_heads 3 assumed, as vit_nano_32 of the same width has" in printed
    assert printed[-2].endswith("read back, they are equal bit for bit")
    assert_same_bits(build_from(tmp_path / "out.npz").model, saved)


def test_heads_and_pooling_that_the_input_does_not_say_can_be_said(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    saved, out = made(replace(CONFIG, pool="mean")), tmp_path / "out.safetensors"
    convert(saved, tmp_path / "theirs.pth", "timm")
    command = ["convert", str(tmp_path / "theirs.pth"), str(out), "--to", "vitscratch"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "no tensor tells how many heads a width of 22 has" in error and "--num-heads" in error
    assert main([*command, "--num-heads", "2", "--pool", "mean"]) == 0
    assert load_model(out).config == saved.config
    assert_says_the_same(load_model(out).model, saved)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_another_precision_is_not_kept_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture, dtype: torch.dtype
) -> None:
    source, out = tmp_path / "in.safetensors", tmp_path / "out.pth"
    model = made().model.to(dtype)
    save_model(source, model, CONFIG, NAMES, {}, {})
    assert main(["convert", str(source), str(out), "--to", "timm"]) == 0
    printed = capsys.readouterr().out
    assert f"note: {str(dtype).removeprefix('torch.')} read as float32" in printed and "tensors in float32;" in printed
    torch.testing.assert_close(tensors(out), model.float().state_dict(), rtol=0, atol=0)


def test_weights_without_a_head_are_refused_with_a_way_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    body = {name: tensor for name, tensor in made().model.state_dict().items() if not name.startswith("head.")}
    torch.save(body, tmp_path / "body.pth")
    command = ["convert", str(tmp_path / "body.pth"), str(tmp_path / "out.npz"), "--to", "npz", "--num-heads", "2"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "body.pth has no head that tells classes; build_from(..., num_classes=10)" in error
    assert "`vitscratch finetune` does both" in error and error.count("\n") == 1


# what is refused, before anything is written


@pytest.mark.parametrize(
    ("to", "changes", "said"),
    [
        ("torchvision", {"image_size": (10, 15)}, "pictures of 10 x 15 px in patches of 5 x 5 px; expected squares"),
        ("torchvision", {"patch_size": (5, 2)}, "pictures of 10 x 10 px in patches of 5 x 2 px; expected squares"),
        ("torchvision", {"in_channels": 2}, "pictures of 2 channels; expected 3"),
        ("torchvision", {"pool": "mean"}, "its head reads the mean of the patch tokens; timm and onnx"),
        ("hf", {"pool": "mean"}, "its head reads the mean of the patch tokens; timm and onnx"),
        ("npz", {"pool": "mean"}, "its head reads the mean of the patch tokens; timm and onnx"),
        ("npz", {"image_size": (10, 15)}, "its 2 x 3 patches; the file says only how many"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, to: str, changes: dict[str, Any], said: str
) -> None:
    path = saved_in(tmp_path, made(replace(CONFIG, **changes)))
    assert main(["convert", str(path), str(tmp_path / f"out{ENDINGS[to][0]}"), "--to", to]) == 2
    error = capsys.readouterr().err
    assert f"vitscratch: {to} cannot hold this model: {said}" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_heads_that_have_no_name_elsewhere(tmp_path: Path) -> None:
    saved = made()
    saved.model.head = PreLogitsHead(22, 11, 7)  # type: ignore[assignment]
    for to in ("timm", "hf"):
        with pytest.raises(ValueError, match="has a pre-logits layer; torchvision and npz have a place for that"):
            convert(saved, tmp_path / f"out{ENDINGS[to][0]}", to)  # type: ignore[arg-type]
    saved.model.head = nn.Sequential(nn.Dropout(), nn.Linear(22, 7))  # type: ignore[assignment]
    with pytest.raises(ValueError, match="its head is a Sequential; expected a linear layer, NormedHead or"):
        convert(saved, tmp_path / "out.pth", "timm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "to", "said"),
    [
        ("out.bin", "timm", "out.bin: expected a file whose name ends in .safetensors or .pth for --to timm"),
        ("out", "npz", "out: expected a file whose name ends in .npz for --to npz"),
        ("no/out.npz", "npz", "does not exist; make it first"),
        ("file.npz", "npz", "file.npz exists; --overwrite replaces it"),
        ("file.npz", "hf", "file.npz: --to hf makes a folder; expected a name without .npz, such as file"),
        ("out.safetensors", "hf", "--to hf makes a folder; expected a name without .safetensors, such as out"),
        ("file", "hf", "file is a file; --to hf makes the other"),
        ("folder", "hf", "folder has notes.txt of something else in it; name another folder"),
    ],
)
def test_a_bad_place_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture, out: str, to: str, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    (tmp_path / "file.npz").write_bytes(b"mine")
    (tmp_path / "file").touch()
    overwrite = ["--overwrite"] * (out == "folder")  # not even then
    assert main(["convert", str(tmp_path / "in does not exist"), str(tmp_path / out), "--to", to, *overwrite]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert (tmp_path / "file.npz").read_bytes() == b"mine" and (tmp_path / "folder" / "notes.txt").exists()


@pytest.mark.parametrize("to", ["npz", "hf"])
def test_overwrite_replaces(tmp_path: Path, source: Path, to: Any) -> None:
    out = tmp_path / f"out{ENDINGS[to][0]}"
    other = made()
    with torch.no_grad():
        other.model.norm.weight += 1
    convert(other, out, to)
    assert main(["convert", str(source), str(out), "--to", to]) == 2
    assert_same_bits(build_from(out).model, other)
    assert main(["convert", str(source), str(out), "--to", to, "--overwrite"]) == 0
    assert_same_bits(build_from(out).model, made())
    assert sorted(tmp_path.iterdir()) == sorted([source, out])


def test_half_the_size(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "half.safetensors"
    assert main(["convert", str(source), str(out), "--to", "vitscratch", "--half"]) == 0
    whole, half = tensors(source), tensors(out)
    for name, tensor in whole.items():
        torch.testing.assert_close(half[name], tensor.half(), rtol=0, atol=0)
    saved, images = build_from(out), torch.randn(3, 3, 10, 10)
    assert saved.model.head.weight.dtype == torch.float32 and saved.class_names == NAMES
    difference = (saved.model(images) - made().model(images)).abs().max()
    assert 0 < difference < 0.02
    assert main(["convert", str(source), str(tmp_path / "x.onnx"), "--to", "onnx", "--half"]) == 2
    assert "an ONNX file is written in float32" in capsys.readouterr().err


def test_a_file_may_replace_the_one_it_was_read_from(tmp_path: Path, source: Path) -> None:
    assert main(["convert", str(source), str(source), "--to", "timm", "--overwrite"]) == 0
    assert not (tmp_path / ".part").exists()
    assert torch.equal(tensors(source)["blocks.1.attn.qkv.weight"], made().model.blocks[1].attn.qkv.weight)


# what goes wrong on the way


def test_one_bit_that_is_lost_is_noticed(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = module.to_ecosystem

    def wrong(*arguments: Any) -> dict[str, Tensor]:
        theirs = right(*arguments)
        bias = theirs["encoder.layers.encoder_layer_1.ln_2.bias"]
        theirs["encoder.layers.encoder_layer_1.ln_2.bias"] = torch.where(
            bias == bias[3], bias.nextafter(bias + 1), bias
        )
        return theirs

    monkeypatch.setattr(module, "to_ecosystem", wrong)
    assert main(["convert", str(source), str(tmp_path / "out.pth"), "--to", "torchvision"]) == 1
    assert "failed: blocks.1.norm2.bias came back otherwise than written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_a_program_that_says_something_else_is_not_kept(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module._WRITERS, "onnx", lambda saved, path: path.write_bytes(b"") * 0)
    monkeypatch.setattr(module, "onnx_difference", lambda path, saved: float("nan"))
    assert main(["convert", str(source), str(tmp_path / "out.onnx"), "--to", "onnx"]) == 1
    assert "failed: onnxruntime's logits differ from the model's by nan" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    convert(made(), out, "hf")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "write_tensors", full)
    assert main(["convert", str(source), str(out), "--to", "hf", "--overwrite"]) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(tmp_path.iterdir()) == sorted([source, out])


def test_without_the_extra_the_command_says_what_to_install(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["convert", str(source), str(tmp_path / "out.onnx"), "--to", "onnx"]) == 2
    assert "pip install 'vitscratch[onnx]'" in capsys.readouterr().err


def test_the_config_that_transformers_reads(tmp_path: Path) -> None:
    """Also where transformers is not installed."""
    convert(made(), tmp_path / "out", "hf")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["layer_norm_eps"] == 1e-6 and config["num_attention_heads"] == 2 and config["image_size"] == 10
    assert config["id2label"]["1"] == "b, é" and config["label2id"]["gnu"] == 6
    names = tensors(tmp_path / "out" / "model.safetensors")
    assert "vit.encoder.layer.1.attention.attention.query.weight" in names and "classifier.bias" in names
