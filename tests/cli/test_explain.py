"""`vitscratch explain` as a user types it, on a model that was made for the test."""

import json
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from tests.data.make import encoded, picture
from vitscratch import VisionTransformer, attention_maps, position_similarity
from vitscratch.cli import main
from vitscratch.cli.common import save_figure
from vitscratch.cli.explain import open_model
from vitscratch.config import ViTConfig
from vitscratch.data import Preprocessing, open_picture
from vitscratch.explain import attention_rollout, gaze, patch_filters, token_trajectories
from vitscratch.parity import awaken
from vitscratch.weights import load_model, save_model

PREPROCESSING = Preprocessing((6, 9), 3, (0.3, 0.4, 0.5), (0.2, 0.3, 0.4))


@pytest.fixture(scope="module", params=["cls", "mean"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(3)
    config = ViTConfig((6, 9), 3, 3, 3, embed_dim=15, depth=2, num_heads=3, mlp_dim=11, pool=request.param)
    model = VisionTransformer.from_config(config)
    awaken(model)
    save_model(folder / "model.safetensors", model, config, ("a", "b", "c"), PREPROCESSING.to_dict(), {})
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(2):
        (folder / f"{i}.png").write_bytes(encoded(picture(i, (19, 13))))
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that are saved, by the names of their files."""
    figures: dict[str, Figure] = {}

    def noted(figure: Figure, path: Path) -> None:
        figures[path.name] = figure
        save_figure(figure, path)

    monkeypatch.setattr("vitscratch.cli.explain.save_figure", noted)
    return figures


def is_png(path: Path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG"


def test_all_figures_and_their_numbers(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture, drawn: dict[str, Figure]
) -> None:
    out, listed = tmp_path / "out.png", tmp_path / "out.json"
    command = ["explain", str(run), str(pictures), "--out", str(out), "--what", "all", "--json", str(listed)]
    assert main(command) == 0
    names = ["positions", "filters", "attention", "rollout", "trajectory-1", "trajectory-2"]
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/out-{name}.png: {name}" for name in names]
    assert all(is_png(tmp_path / f"out-{name}.png") for name in names) and not out.exists()

    numbers, model = json.loads(listed.read_text()), load_model(run / "model.safetensors").model
    path = str(pictures / "1.png")
    images = PREPROCESSING.to_tensor(open_picture(path))[None]
    maps = attention_maps(model, images)
    expected = gaze(maps[1, 0].mean(dim=0), model.pool).view(2, 3)
    torch.testing.assert_close(torch.tensor(numbers["attention"][path]["block 2"]), expected)
    expected = gaze(attention_rollout(maps), model.pool)[0].view(2, 3)
    torch.testing.assert_close(torch.tensor(numbers["rollout"][path]["rollout"]), expected)
    torch.testing.assert_close(torch.tensor(numbers["positions"]), position_similarity(model))
    torch.testing.assert_close(torch.tensor(numbers["filters"]["components"]), patch_filters(model).components)
    way = token_trajectories(model, images)
    torch.testing.assert_close(torch.tensor(numbers["trajectory"][path]["kept"]), way.kept[:, 0])

    reader = "the class token" if model.pool == "cls" else "the patches, on average"
    headings = {name: " ".join(figure.get_suptitle().split()) for name, figure in drawn.items()}
    assert headings["out-attention.png"] == f"Attention of {reader}, mean over heads"
    assert headings["out-rollout.png"] == f"Attention rollout: all blocks together, of {reader}"
    panel = drawn["out-rollout.png"].axes[2]  # the second picture, as the model sees it
    shown = torch.as_tensor(panel.images[0].get_array()).permute(2, 0, 1)
    torch.testing.assert_close(shown, PREPROCESSING.denormalise(images)[0], atol=1e-5, rtol=0)
    assert headings["out-trajectory-2.png"].startswith("Tokens of 1.png")
    line = torch.as_tensor(drawn["out-trajectory-2.png"].axes[1].lines[0].get_ydata())
    torch.testing.assert_close(line, way.kept[:, 0, 1])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--block", "2"], [(1, 0), (1, 1), (1, 2)]),
        (["--head", "3"], [(0, 2), (1, 2)]),
        (["--block", "1", "--head", "2"], [(0, 1)]),
    ],
)
def test_one_block_or_head(
    options: list[str],
    expected: list[tuple[int, int]],
    run: Path,
    pictures: Path,
    tmp_path: Path,
    drawn: dict[str, Figure],
) -> None:
    out, listed = tmp_path / "out.png", tmp_path / "out.json"
    path = str(pictures / "1.png")
    assert main(["explain", str(run), path, "--out", str(out), "--json", str(listed), *options]) == 0
    model = load_model(run / "model.safetensors").model
    maps = attention_maps(model, PREPROCESSING.to_tensor(open_picture(path))[None])
    found = json.loads(listed.read_text())["attention"][path]
    assert is_png(out) and len(found) == len(expected)
    assert "mean over heads" not in drawn["out.png"].get_suptitle()
    for block, head in expected:
        shown = torch.tensor(found[f"block {block + 1}, head {head + 1}"])
        torch.testing.assert_close(shown, gaze(maps[block, 0, head], model.pool).view(2, 3))


def test_weights_alone_need_no_picture(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert main(["explain", str(run), "--what", "filters", "--out", str(out)]) == 0
    assert is_png(out)


def test_a_preset_has_weights_at_random_and_says_so(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, listed = tmp_path / "out.png", tmp_path / "out.json"
    command = ["explain", "vit_nano_8", str(pictures / "0.png"), "--out", str(out), "--what", "rollout"]
    written = []
    for _ in range(2):
        assert main([*command, "--json", str(listed)]) == 0
        assert "vitscratch: vit_nano_8: weights at random (seed 0)" in capsys.readouterr().err
        written.append(listed.read_text())
    assert written[0] == written[1]
    assert main([*command, "--num-heads", "5"]) == 2
    assert "--num-heads 5: vit_nano_8 has 4; leave it out" in capsys.readouterr().err


def test_heads_and_pooling_reach_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_model("vit_nano_8", None, "mean").config.pool == "mean"
    config = ViTConfig(9, 3, 3, 3, embed_dim=15, depth=1, num_heads=3, mlp_dim=11)
    model = VisionTransformer.from_config(config)
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    found = open_model(str(tmp_path / "theirs.pth"), 5, "mean").config
    assert (found.num_heads, found.pool) == (5, "mean")
    # A folder that is called like a preset is the folder.
    (tmp_path / "vit_nano_8").mkdir()
    save_model(tmp_path / "vit_nano_8" / "model.safetensors", model, config, ("a", "b", "c"), {}, {})
    monkeypatch.chdir(tmp_path)
    assert open_model("vit_nano_8", None, None).config == config


def test_weights_that_do_not_say_how_pictures_are_prepared_are_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = ViTConfig((6, 9), 3, 3, 3, embed_dim=15, depth=1, num_heads=3, mlp_dim=11)
    file = tmp_path / "model.safetensors"
    save_model(file, VisionTransformer.from_config(config), config, ("a", "b", "c"), {}, {})
    assert main(["explain", str(file), str(pictures), "--out", str(tmp_path / "out.png")]) == 2
    assert f"{file} does not say how its pictures were prepared" in capsys.readouterr().err


def test_a_bad_picture_is_named_and_the_others_are_shown(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (pictures / "0.png").write_text("no picture")
    out, listed = tmp_path / "out.png", tmp_path / "out.json"
    command = ["explain", str(run), str(pictures), "--out", str(out), "--what", "rollout"]
    assert main([*command, "--json", str(listed)]) == 1
    error = capsys.readouterr().err
    assert "0.png: no picture: it holds text" in error and error.count("\n") == 1
    assert list(json.loads(listed.read_text())["rollout"]) == [str(pictures / "1.png")]
    (pictures / "1.png").write_bytes(b"")
    out.unlink()
    assert main(command) == 1 and not out.exists()


def test_weights_that_do_not_say_how_pictures_are_prepared_show_what_needs_none(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    saved, bare, out = load_model(run / "model.safetensors"), tmp_path / "bare.safetensors", tmp_path / "out.png"
    save_model(bare, saved.model, saved.config, saved.class_names, {}, {})
    assert main(["explain", str(bare), str(pictures), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"{bare} does not say how its pictures were prepared; in Python, vitscratch.explain leaves" in error
    assert error.count("\n") == 1 and not out.exists()
    assert main(["explain", str(bare), "--what", "positions", "--out", str(out)]) == 0 and is_png(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.png", "--out", "y.jpg"], "--out y.jpg: expected a file whose name ends in .png"),
        (
            ["x.png", "--out", "y.png", "--json", "nowhere/x.json"],
            "--json nowhere/x.json: expected a file in a folder that exists",
        ),
        (["--out", "y.png"], "--what attention needs a picture; name one, or a folder of pictures, after the model"),
        (["x.png", "--out", "y.png", "--block", "3"], "--block 3: {run} has 2; expected 1 to 2"),
        (["x.png", "--out", "y.png", "--head", "0"], "--head 0: {run} has 3; expected 1 to 3"),
        (
            ["x.png", "--out", "y.png", "--what", "rollout", "--head", "1"],
            "--block and --head choose among attention maps; leave them out for --what rollout",
        ),
        (
            ["x.png", "--out", "y.png", "--what", "positions"],
            "--what positions shows weights, whatever the picture; leave x.png out",
        ),
        ([*(f"{i}.png" for i in range(9)), "--out", "y.png"], "9 pictures are too many for a figure; name at most 8"),
    ],
)
def test_wrong_arguments_get_one_line(
    arguments: list[str], message: str, run: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["explain", str(run), *arguments]) == 2
    printed = capsys.readouterr()
    assert message.format(run=run) in printed.err and printed.err.count("\n") == 1 and printed.out == ""
