"""`vitscratch lr-find` as a user types it."""

import json
from pathlib import Path

import pytest
import torch

from vitscratch.cli import main


def test_the_recipe_s_clipping_and_precision_are_those_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}

    def lr_find(model: object, batches: object, **options: object) -> None:
        given.update(options)
        raise RuntimeError("enough")

    monkeypatch.setattr("vitscratch.training.lr_find", lr_find)
    options = ["--clip-norm", "0.7", "--weight-decay", "0.03", "--seed", "5", "--precision", "bf16"]
    assert main(["lr-find", "digits", "--device", "cpu", "--out", str(tmp_path / "x.png"), *options]) == 1
    assert (given["clip_norm"], given["weight_decay"], given["seed"]) == (0.7, 0.03, 5)
    assert given["precision"] == torch.bfloat16
    assert main(["lr-find", "digits", "--device", "cpu", "--out", str(tmp_path / "x.png"), "--clip-norm", "None"]) == 1
    assert given["clip_norm"] is None and list(tmp_path.iterdir()) == []


def test_a_loss_that_ends_infinite_can_still_be_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    numbers, out = tmp_path / "l.json", tmp_path / "l.PNG"
    options = ["--steps", "12", "--smallest", "1e30", "--largest", "1e38", "--clip-norm", "None"]
    assert main(["lr-find", "digits", "--device", "cpu", "--out", str(out), "--json", str(numbers), *options]) == 0
    found = json.loads(numbers.read_text())
    assert found["losses"][-1] is None and len(found["losses"]) == len(found["rates"]) < 12
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "12 steps are few, try 100 or more" in capsys.readouterr().out


def test_a_plot_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lr-find", "digits", "--out", "range.jpg"]) == 2
    assert "--out range.jpg: expected a file whose name ends in .png" in capsys.readouterr().err


def test_help_says_what_has_no_effect(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["lr-find", "--help"])
    assert "have no effect in it" in " ".join(capsys.readouterr().out.replace("│", " ").split())
