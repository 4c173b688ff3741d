"""`vitscratch predict` as a user types it, on a model that was made for the test."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.data.make import encoded, picture
from vitscratch import VisionTransformer
from vitscratch.cli import main
from vitscratch.cli import predict as command
from vitscratch.config import PRESETS, ViTConfig
from vitscratch.data import Preprocessing, open_picture
from vitscratch.parity import awaken
from vitscratch.weights import save_model, to_ecosystem

NAMES = ("cat", "a $ dog with a name that is much too long for a picture", "eel")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with nothing in it but the weights."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(3)
    config = ViTConfig(
        image_size=(6, 9), patch_size=3, in_channels=3, num_classes=3, embed_dim=10, depth=1, num_heads=2, mlp_dim=11
    )
    model = VisionTransformer.from_config(config)
    torch.nn.init.normal_(model.head.weight)
    save_model(folder / "model.safetensors", model, config, NAMES, Preprocessing((6, 9), 3).to_dict(), {})
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with five pictures, and what is none."""
    folder = tmp_path / "pictures"
    (folder / "within").mkdir(parents=True)
    for i, name in enumerate(["b.png", "a.PNG", "d.jpg", "c.png", "within/e.png", "._b.png", "f.webp"]):
        form = {".jpg": "JPEG", ".webp": "WEBP"}.get(Path(name).suffix, "PNG")
        (folder / name).write_bytes(encoded(picture(i), form))
    (folder / "notes.txt").write_text("mine")
    return folder


def test_a_folder_stands_for_its_pictures_in_order(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, listed = tmp_path / "out.png", tmp_path / "out.json"
    again = str(pictures / "c.png")
    assert main(["predict", str(run), str(pictures), again, "--out", str(out), "--json", str(listed)]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = [str(pictures / name) for name in ("a.PNG", "b.png", "c.png", "d.jpg", "f.webp")]
    assert [line.split("  ")[0].rstrip() for line in lines[:-1]] == files
    assert lines[-1] == f"{out}: the pictures as the model sees them"
    assert list(json.loads(listed.read_text())) == files
    with Image.open(out) as image:
        assert image.format == "PNG"


def test_many_pictures_are_taken_in_parts_and_the_first_are_drawn(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["predict", str(run), str(pictures)])
    at_once = capsys.readouterr().out
    monkeypatch.setattr(command, "AT_ONCE", 2)
    monkeypatch.setattr(command, "DRAWN", 3)
    for name in ("a.PNG", "b.png"):  # a whole part of them is bad
        (pictures / name).write_bytes(b"")
    assert main(["predict", str(run), str(pictures), "--out", str(tmp_path / "out.png")]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 2 and "a.PNG" in printed.err
    assert printed.out.splitlines()[:-1] == at_once.splitlines()[2:]
    assert printed.out.splitlines()[-1].endswith("out.png: the pictures as the model sees them")
    shutil.copy(pictures / "c.png", pictures / "z.png")
    assert main(["predict", str(run), str(pictures), "--out", str(tmp_path / "out.png")]) == 1
    assert "the first 3 of 4 pictures as the model sees them" in capsys.readouterr().out


def test_weights_of_other_ecosystems_bring_their_own_preprocessing(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = VisionTransformer.from_config(replace(PRESETS["vit_nano_32"], num_classes=19))
    awaken(model)
    file = tmp_path / "theirs.pth"
    torch.save(to_ecosystem(model.state_dict(), PRESETS["vit_nano_32"], "torchvision"), file)
    listed = tmp_path / "out.json"
    assert main(["predict", str(file), str(pictures / "b.png"), "--top", "1", "--json", str(listed)]) == 0
    printed = capsys.readouterr()
    assert f"vitscratch: {file}: num_heads 3 assumed" in printed.err and "preprocessing assumed" in printed.err
    row = json.loads(listed.read_text())[str(pictures / "b.png")]
    assert list(row) == [f"class {i}" for i in range(19)]
    assumed = Preprocessing((32, 32), 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), interpolation="bicubic")
    image = assumed.to_tensor(open_picture(pictures / "b.png", channels=3))
    assert list(row.values()) == pytest.approx(model.eval()(image[None])[0].softmax(0).tolist(), abs=1e-6)
    best = max(row, key=row.get)
    assert printed.out.split("  ")[1].startswith(f"{best} {row[best]:.1%}")


def test_heads_and_pooling_that_a_file_does_not_say_can_be_said(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = ViTConfig(9, 3, 3, 5, embed_dim=22, depth=1, num_heads=11, mlp_dim=13, pool="mean")
    model = VisionTransformer.from_config(config).eval()
    awaken(model)
    file, listed = tmp_path / "theirs.pth", tmp_path / "out.json"
    torch.save(model.state_dict(), file)
    command = ["predict", str(file), str(pictures / "b.png"), "--json", str(listed)]
    assert main(command) == 2
    assert "no tensor tells how many heads a width of 22 has" in capsys.readouterr().err
    assert main([*command, "--num-heads", "11", "--pool", "mean"]) == 0
    assert "class token is assumed" not in capsys.readouterr().err
    (row,) = json.loads(listed.read_text()).values()
    usual = Preprocessing((9, 9), 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "crop", "bicubic", 0.875)
    image = usual.to_tensor(open_picture(pictures / "b.png", channels=3))
    assert list(row.values()) == pytest.approx(model(image[None])[0].softmax(0).tolist(), abs=1e-6)


def test_weights_that_come_with_the_package_go_by_name(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["vitscratch.weights.shipped"], "FILES", tmp_path)
    shutil.copy(run / "model.safetensors", tmp_path / "pets.safetensors")
    main(["predict", str(run), str(pictures)])
    expected = capsys.readouterr()
    assert main(["predict", "pets", str(pictures)]) == 0
    assert capsys.readouterr() == expected
    assert main(["predict", "pet", str(pictures)]) == 2
    assert "pet does not exist; expected the folder of a run, a file or folder of weights, pets, timm:NAME or hf:" in (
        capsys.readouterr().err
    )


def test_the_classes_that_a_model_can_name_are_told_unless_every_line_has_them_or_they_are_many(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = ViTConfig(9, 3, 3, 7, embed_dim=22, depth=1, num_heads=11, mlp_dim=13)
    for classes in (7, 23):
        names, file = [f"kind{i}" for i in range(classes)], tmp_path / "model.safetensors"
        model = VisionTransformer.from_config(replace(config, num_classes=classes))
        save_model(file, model, replace(config, num_classes=classes), names, Preprocessing((9, 9), 3).to_dict(), {})
        for top in (3, 7):
            assert main(["predict", str(file), str(pictures / "b.png"), "--top", str(top)]) == 0
            told = "It knows 7 classes: kind0, kind1, kind2, kind3, kind4, kind5, kind6\n"
            assert capsys.readouterr().err == told * ((classes, top) == (7, 3))


def test_classes_of_one_name_are_told_apart() -> None:
    assert command.unique(["crane", "eel", "crane"]) == ["crane (0)", "eel", "crane (2)"]


@pytest.mark.parametrize(
    ("name", "message"), [("timm:nothing", "timm has no pretrained model of that name"), ("hf:vit", "expected hf:ORG/")]
)
def test_names_of_other_libraries_are_asked_for(
    name: str, message: str, pictures: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["predict", name, str(pictures)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}"], "name at least one picture, or a folder of pictures, after the run"),
        (["{run}", "{tmp}/empty"], "empty has no picture files in it (.jpg, "),
        (["{tmp}/empty", "x.png"], "{tmp}/empty has no weights; expected one of model.safetensors, "),
        (["{tmp}/absent", "x.png"], "{tmp}/absent does not exist; expected the folder of a run"),
        (["{tmp}/begun", "x.png"], "(a finished run has the first; `vitscratch train --resume` finishes one)"),
        (["{tmp}/begun/last.pt", "x.png"], "last.pt is a checkpoint; name the run's folder, {tmp}/begun"),
        (["{run}", "x.png", "--out", "y.jpg"], "--out y.jpg: expected a file whose name ends in .png"),
        (["{run}", "x.png", "--out", "absent/y.png"], "--out absent/y.png: expected a file in a folder that exists"),
        (["{run}", "x.png", "--out", "."], "--out .: expected a file whose name ends in .png"),
        (["{run}", "x.png", "--top", "0"], "--top 0: expected at least 1"),
    ],
)
def test_wrong_arguments_get_one_line(
    arguments: list[str],
    message: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}")
    (tmp_path / "begun" / "last.pt").write_bytes(b"")
    assert main(["predict", *(argument.format(run=run, tmp=tmp_path) for argument in arguments)]) == 2
    printed = capsys.readouterr()
    assert message.format(tmp=tmp_path) in printed.err and printed.err.count("\n") == 1 and printed.out == ""
