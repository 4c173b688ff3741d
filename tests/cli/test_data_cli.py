"""`vitscratch data` as a user types it."""

import json
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from tests.data.make import write_folder
from vitscratch import plots
from vitscratch.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "set", {"cat": 3, "dog": 4}, (17, 13))


def test_check_tells_a_good_set_and_exits_0(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "check", str(folder), "--json", str(tmp_path / "out.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].split() == ["class", "all"] and lines[1].split() == ["cat", "3"] and lines[3].split() == ["total", "7"]
    )
    assert lines[-1] == "GOOD: 7 good pictures, 2 classes, 0 notes"
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["passed"] is True and report["counts"] == {"all": {"cat": 3, "dog": 4}}
    assert report["findings"] == [] and report["sizes"] == {"17x13": 7}


def test_check_lists_bad_files_and_exits_1(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for i in range(7):
        (folder / "cat" / f"bad{i}.jpg").write_bytes(b"<html>")
    assert main(["data", "check", str(folder), "--json", str(tmp_path / "out.json")]) == 1
    printed = capsys.readouterr().out
    assert "no picture: 7" in printed and "cat/bad4.jpg: it holds an HTML page" in printed
    assert "... and 2 more (--all lists them)" in printed and "bad5" not in printed
    last = "BAD: 7 files; 7 good pictures, 2 classes, 0 notes. Training refuses; --skip-bad trains on the rest"
    assert printed.splitlines()[-1] == last
    assert len(json.loads((tmp_path / "out.json").read_text())["findings"]) == 7
    assert main(["data", "check", str(folder), "--all"]) == 1
    assert "bad6" in capsys.readouterr().out


def test_check_warns_of_a_shortcut(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write_folder(tmp_path / "set", {"fake": 11, "real": 11}, (17, 13))
    for path in (root / "real").iterdir():
        Image.open(path).save(path, "JPEG")
    assert main(["data", "check", str(root), "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "told by  file format 100%!" in printed and "(chance 50%)" in printed
    assert "Warnings: works, but what comes of it may be worthless\n  shortcut: 1\n" in printed
    assert "    file format: tells the class with 100.0% balanced accuracy (chance 50.0%)" in printed
    assert printed.splitlines()[-1].startswith("DOUBTFUL (shortcut): 22 good pictures, 2 classes, 1 warning, ")
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["shortcuts"][0] == {
        "feature": "file format",
        "accuracy": 1.0,
        "chance": 0.5,
        "needed": pytest.approx(0.926, abs=1e-3),
        "pictures": 22,
        "severity": "warning",
        "typical": {"fake": "PNG (100%)", "real": "JPEG (100%)"},
    }
    assert [finding["where"] for finding in report["findings"] if finding["severity"] == "warning"] == ["file format"]


def test_check_takes_a_limit(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "check", str(folder), "--max-pixels", "220"]) == 1
    assert "17 x 13 px is over the limit of 220 px" in capsys.readouterr().out
    assert main(["data", "check", str(folder), "--max-pixels", "0"]) == 0


@pytest.mark.parametrize("size", [[], ["--image-size", "9"]])
def test_show_draws_a_picture(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, size: list[str]) -> None:
    (folder / "cat" / "000.png").write_bytes(b"")
    out = tmp_path / "out.png"
    assert main(["data", "show", str(folder), "--out", str(out), "--count", "7", "--views", "2", *size]) == 0
    printed = capsys.readouterr().out
    assert "passed over cat/000.png: empty" in printed and f"{out}: 6 pictures" in printed
    with Image.open(out) as image:
        assert image.format == "PNG" and image.size[0] > 300
    again = tmp_path / "again.png"
    main(["data", "show", str(folder), "--out", str(again), "--count", "7", "--views", "2", *size])
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(("data", "brightness"), [("{folder}", 0.1), ("digits", 0.69)])
def test_show_draws_photos_as_they_are_and_ink_on_paper(
    data: str, brightness: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In grey, as the recipe digits has it: a dark photo stays dark, and the scans' paper is white."""
    drawn: list[float] = []

    def augmented(originals: list[torch.Tensor], seen: torch.Tensor, *labels: object) -> Figure:
        assert all(len(picture) == 1 for picture in originals) and seen.shape[2] == 1
        drawn.extend([float(torch.stack(originals).mean()), float(seen.mean())])
        return Figure()

    monkeypatch.setattr(plots, "augmented", augmented)
    for name in ("cat", "dog"):
        (tmp_path / "dark" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (26, 26, 26)).save(tmp_path / "dark" / name / "0.png")
    arguments = ["--recipe", "digits", "--out", str(tmp_path / "out.png"), "--count", "2"]
    assert main(["data", "show", data.format(folder=tmp_path / "dark"), *arguments]) == 0
    assert drawn == pytest.approx([brightness] * 2, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "absent"], "absent is no folder, no .npz file and no built-in set"),
        (["check", "digits"], "digits is a built-in set, which needs no check; `vitscratch data show digits"),
        (["check", ".", "--max-pixels", "-1"], "--max-pixels -1"),
        (["check", ".", "--json", "absent/x.json"], "--json absent/x.json: expected a file in a folder"),
        (["show", "absent", "--out", "x.png"], "absent is no folder"),
        (["show", "digits", "--out", "absent/x.png"], "--out absent/x.png: expected a file in a folder"),
        (["show", "digits", "--out", "x.jpg"], "--out x.jpg: expected a file whose name ends in .png"),
        (["show", "pictures", "--out", "x.png"], "recipe pictures needs pictures of yours: name their folder"),
        (["show", "digits", "--out", "x.png", "--count", "0"], "expected at least 1"),
        (["show", "digits", "--out", "x.png", "--recipe", "cats"], "--recipe 'cats' is unknown; there are digits"),
    ],
)
def test_wrong_arguments_get_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
