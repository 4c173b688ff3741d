"""`vitscratch compare`: every model on the same pictures, and a test part that is read once, at the end."""

import json
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.data.make import encoded, picture, write_folder
from vitscratch import plots
from vitscratch.cli import compare, main
from vitscratch.cli.compare_report import _precisions
from vitscratch.cli.progress import Progress
from vitscratch.cli.train import warnings
from vitscratch.config import ViTConfig
from vitscratch.data import Preprocessing
from vitscratch.data.splits import some
from vitscratch.recipes import judge
from vitscratch.recipes.experiment import Experiment, load
from vitscratch.recipes.fake_digits import FakeDigits
from vitscratch.training import Metrics, evaluate, loop, read_checkpoint, wilson_interval
from vitscratch.vit import VisionTransformer
from vitscratch.weights import load_model, save_model

SHORT = ["--device", "cpu", "--no-doctor", "--max-pictures", "101", "--precision", "fp32"]
DIGITS = ["compare", "fake-digits", "--models", "pca", "vit", *SHORT, "--epochs", "2"]
FIGURES = ["accuracy_per_minute.png", "calibration.png", "confusion.png", "curves.png", "mistakes.png"]


def numbers(out: Path) -> dict[str, Any]:
    return json.loads((out / "comparison.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that nothing has disturbed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main([*DIGITS, "--out", str(out)]) == 0
    return out


def right_of(file: Path, pictures: Any) -> int:
    """How many pictures a saved ViT recognises."""
    saved = load_model(file)
    mean, std = (torch.tensor(saved.preprocessing[name]).view(-1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        said = saved.model((pictures.images - mean) / std).argmax(dim=1)
    return int((said == pictures.labels).sum())


def test_a_comparison_leaves_a_table_its_numbers_and_figures(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = numbers(finished)
    rows = {row["model"]: row for row in found["rows"]}
    assert set(rows) == {"PCA + logistic regression", "ViT"} and found["test_total"] == 101
    accuracies = [row["validation_accuracy"] for row in found["rows"]]
    assert accuracies == sorted(accuracies, reverse=True)
    test = load(FakeDigits(max_pictures=101)).test
    assert rows["ViT"]["test_correct"] == right_of(finished / "vit" / "model.safetensors", test)
    assert sum(map(sum, rows["ViT"]["confusion"])) == 101
    assert tuple(rows["ViT"]["test_interval"]) == wilson_interval(rows["ViT"]["test_correct"], 101)
    assert rows["ViT"]["epochs"] == 2 and rows["PCA + logistic regression"]["epochs"] is None
    metrics = json.loads((finished / "vit" / "metrics.json").read_text())
    assert "test_accuracy" not in metrics and rows["ViT"]["validation_loss"] == metrics["validation_loss"]
    assert found["mcnemar"]["both"] + found["mcnemar"]["neither"] <= 101
    assert any("100 components left out: there are only 64" in note for note in found["notes"])
    table = (finished / "comparison.md").read_text()
    assert rows["PCA + logistic regression"]["points_above_chance_per_minute"] is None
    assert rows["ViT"]["points_above_chance_per_minute"] is not None
    assert "\n| vit  | ViT " in table and "\n| pca  | PCA " in table and "| seconds | points per minute |" in table
    low, high = rows["ViT"]["test_interval"]
    assert f"{rows['ViT']['test_accuracy']:.2%} ({low:.2%} to {high:.2%})" in table and "McNemar" in table
    assert sorted(path.name for path in finished.glob("*.png")) == FIGURES
    assert "was read when every model was done" in table and "had been read before" not in table
    # The same command again reads what is there.
    capsys.readouterr()
    assert main([*DIGITS, "--out", str(finished), "--json", str(tmp_path / "told.json")]) == 0
    assert f"is finished:\n\n{table}" in capsys.readouterr().out
    assert json.loads((tmp_path / "told.json").read_text()) == found


def test_other_settings_and_a_part_alone_are_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DIGITS[:-1], "3", "--out", str(finished)]) == 2
    assert "has a run with other settings (epochs 2, not 3) in it; name another folder" in capsys.readouterr().err
    assert main(["train", "--resume", str(finished / "vit")]) == 2
    assert "is a part of a comparison; to go on with it: vitscratch compare fake-digits" in capsys.readouterr().err
    assert main([*DIGITS, "--out", str(finished / "vit")]) == 2
    assert "has a run of something else in it" in capsys.readouterr().err


def test_an_interrupted_comparison_goes_on_to_the_same_weights(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    steps = []

    def interrupt(self: Progress, run: Any) -> None:
        steps.append(run)
        if len(steps) == 3:  # of four
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "after_step", interrupt)
        assert main([*DIGITS, "--out", str(out)]) == 130
    said = capsys.readouterr().out
    assert (
        f"--epochs 2 --precision fp32 --no-doctor --device cpu --out {out}"
        in said.split("To go on: vitscratch compare")[1]
    )
    assert not (out / "comparison.json").exists() and not (out / "vit" / "metrics.json").exists()
    assert main([*DIGITS, "--out", str(out)]) == 0
    assert "Going on from" in capsys.readouterr().out
    one, two = (load_file(folder / "vit" / "model.safetensors") for folder in (out, finished))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert len(numbers(out)["rows"]) == 2


def test_the_test_part_is_read_once_when_every_model_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the weights that are tested are those of the epoch that the validation curve, scripted here, says is best."""
    out, script, read = tmp_path / "run", iter([0.9, 0.4, 0.6, 0.5, 0.1]), []
    real_fit, real_part = Experiment.fit, judge.held_out

    def fit(self: Experiment, *arguments: Any) -> Any:
        assert self.splits.test is None and not read
        return real_fit(self, *arguments)

    def held_out(*arguments: Any, **options: Any) -> Any:
        assert (out / "vit" / "metrics.json").exists() and not (out / "comparison.json").exists()
        read.append(arguments)
        return real_part(*arguments, **options)

    def scripted(*arguments: Any) -> Metrics:
        found = evaluate(*arguments)
        found._loss_sum = torch.tensor(next(script) * found.total)
        return found

    monkeypatch.setattr(Experiment, "fit", fit)
    monkeypatch.setattr(judge, "held_out", held_out)
    monkeypatch.setattr(loop, "evaluate", scripted)
    command = [*DIGITS[:-1], "6", "--patience", "2", "--out", str(out)]
    assert main(command) == 0
    assert len(read) == 1
    row = next(row for row in numbers(out)["rows"] if row["model"] == "ViT")
    assert (row["epochs"], row["kept"], round(row["validation_loss"], 3)) == (4, "epoch 2", 0.4)
    best, saved = read_checkpoint(out / "vit" / "best.pt"), load_file(out / "vit" / "model.safetensors")
    assert best["epoch"] == 2 and all(torch.equal(best["model"][name], saved[name]) for name in saved)
    assert not torch.equal(read_checkpoint(out / "vit" / "last.pt")["model"]["pos_embed"], saved["pos_embed"])


def test_robust_later_measures_a_draw_and_says_what_was_read_before(finished: Path, tmp_path: Path) -> None:
    """The same draw of test pictures for every model, as they are and damaged, and the same networks."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = (out / "vit" / "model.safetensors").read_bytes()
    command = [*DIGITS, "--out", str(out), "--robust", "--robust-pictures"]
    assert main([*command, "29"]) == 0
    found, first = numbers(out), numbers(finished)
    assert (out / "vit" / "model.safetensors").read_bytes() == before
    assert found["robust_total"] == 29 and first["robust_total"] == 0
    row = next(row for row in found["rows"] if row["name"] == "vit")
    assert row["test_correct"] == next(row for row in first["rows"] if row["name"] == "vit")["test_correct"]
    assert list(row["robust"])[:2] == ["as they are", "JPEG 95"] and len(row["robust"]) == 7
    test = load(FakeDigits(max_pictures=101)).test
    assert row["robust"]["as they are"]["correct"] == right_of(
        out / "vit" / "model.safetensors", test.part(some(test.labels, 29, seed=0))
    )
    table = (out / "comparison.md").read_text()
    assert "Test accuracy on damaged pictures, 29 of the 101 each, drawn with --split-seed 0:" in table
    assert "It had been read before" in table and "models of pixels" in table
    (out / "vit" / "model.safetensors").unlink()  # without which nothing can be measured
    assert main([*command, "29"]) == 0
    assert main([*command, "0"]) == 2
    assert main([*command, "31"]) == 2


def test_what_was_measured_on_all_pictures_is_not_measured_again_for_more(tmp_path: Path) -> None:
    assert not compare._done(tmp_path, 0)
    (tmp_path / "comparison.json").write_text('{"test_total": 13, "robust_total": 13}')
    assert [compare._done(tmp_path, robust) for robust in (0, 13, 2000, 7)] == [True, True, True, False]


@pytest.mark.parametrize("where", ["judge", "fit_pixels"])
def test_after_ctrl_c_outside_of_an_epoch_the_same_command_goes_on(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(judge, where, stop)
    out = tmp_path / "run"
    assert main([*DIGITS[:3], "pca", *SHORT, "--out", str(out)]) == 130
    said = capsys.readouterr()
    assert "Stopped by Ctrl-C. To go on: vitscratch compare fake-digits --models pca" in said.out
    assert "start again" not in said.err


def test_a_bar_counts_every_picture_that_is_measured(
    finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counted: list[int] = []

    @contextmanager
    def measuring(pictures: int) -> Any:
        counted.append(pictures)
        yield lambda model, what, number: counted.append(-number)

    monkeypatch.setattr(compare, "_measuring", measuring)
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    assert main([*DIGITS, "--out", str(out), "--robust", "--robust-pictures", "17"]) == 0
    assert counted[0] == 2 * (101 + 6 * 17) and sum(counted) == 0


def test_networks_of_different_precision_are_named() -> None:
    def one(title: str, precision: str) -> Any:
        return SimpleNamespace(title=title, precision=precision)

    models = [one("PCA", ""), one("ViT", "bfloat16"), one("ResNet-18", "float32"), one("ViT 2", "bfloat16")]
    (note,) = _precisions(models)
    assert "bfloat16: ViT, ViT 2; float32: ResNet-18." in note
    assert _precisions([models[0], models[1], models[3]]) == []


def test_32_and_224_pixels_side_by_side_with_a_file_of_weights_and_robust(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a folder as CIFAKE has it. Table and figure say of both what their accuracy costs."""
    data, out = tmp_path / "data", tmp_path / "run"
    write_folder(data / "train", {"FAKE": 23, "REAL": 29}, size=(8, 8))
    write_folder(data / "test", {"FAKE": 7, "REAL": 5}, size=(8, 8), seed=1000)
    model = VisionTransformer.from_config(
        config := ViTConfig(224, 32, 3, 7, embed_dim=12, depth=2, num_heads=2, mlp_dim=20)
    )
    weights, prepare = tmp_path / "pretrained.safetensors", Preprocessing((224, 224), 3, mean=(0.3,), std=(0.4,))
    save_model(weights, model, config, [f"class {i}" for i in range(7)], prepare.to_dict(), {})
    drawn: dict[str, float] = {}
    real = plots.accuracy_per_minute
    monkeypatch.setattr(
        plots, "accuracy_per_minute", lambda minutes, *rest: drawn.update(minutes) or real(minutes, *rest)
    )
    command = ["compare", "cifake", "--data", str(data), "--quick", "--robust", "--image-size", "8", "--out", str(out)]
    command += ["--batch-size", "13", "--vit-weights", str(weights), "--device", "cpu", "--no-doctor"]
    assert main([*command, "--models", "svm", "resnet18", "vit", "vit-224"]) == 0
    found = numbers(out)
    assert found["class_names"] == ["FAKE", "REAL"] and found["test_total"] == 12 and found["chance"] == 7 / 12
    rows = {row["model"]: row for row in found["rows"]}
    assert set(rows) == {"RBF-SVM", "ResNet-18, 8 px, scratch", "ViT, 8 px, scratch", "ViT, pretrained"}
    assert rows["ViT, pretrained"]["epochs"] == 2  # of the head, then of everything
    assert load_model(out / "vit-224" / "model.safetensors").preprocessing["image_size"] == [224, 224]
    for title in ("ViT, 8 px, scratch", "ViT, pretrained"):
        assert rows[title]["points_above_chance_per_minute"] is not None and drawn[title] == rows[title]["minutes"] > 0
    assert all(len(row["robust"]) == 7 for row in found["rows"]) and (out / "robust.png").exists()
    said = capsys.readouterr().out
    assert "JPEG 50" in said and "(--quick: --epochs 1, --max-pictures 200): loading" in said
    assert "damaged pictures, 12 each:" in said
    assert main(["predict", str(out / "resnet18"), str(data / "test" / "REAL")]) == 2
    assert "this is a ResNet, not a plain ViT" in capsys.readouterr().err


def test_an_undivided_folder_as_the_competition_has_it_and_its_shortcut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_folder(data, {"fake_images": 31})
    (data / "real_images").mkdir()
    for i in range(37):
        (data / "real_images" / f"{i}.jpg").write_bytes(encoded(picture(1000 + i), "JPEG"))
    command = ["compare", "fake-or-real", "--data", str(data), "--models", "pca", "--image-size", "8"]
    assert main([*command, "--out", str(out)]) == 0
    found = numbers(out)
    assert found["class_names"] == ["fake_images", "real_images"] and found["test_total"] == 14
    said = capsys.readouterr().out
    assert "Warning: " in said and "format" in said.split("1/1  PCA")[0].split("Warning: ")[1]
    assert any(note.startswith("Warning: ") and "format" in note for note in found["notes"])
    assert found["mcnemar"] is None and not (out / "curves.png").exists()


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        ({"train": (11, 13), "val": (3, 0), "test": (5, 5)}, [], "class 'REAL' is in train but not in validation"),
        ({"train": (11, 13), "test": (0, 5)}, [], "class 'FAKE' is in train but not in test"),
        (
            {"train": (11, 13), "test": (5, 5)},
            ["--max-pictures", "1"],
            "--max-pictures 1 drew no training picture of class",
        ),
        ({"train": (11, 13), "test": (5, 5)}, ["--test-fraction", "0"], "test_fraction 0.0: expected above 0"),
        ({}, ["--models", "cnn"], "models: 'cnn' is unknown; there are pca, svm, resnet18"),
        ({}, ["--models", "vit-224"], "--models vit-224: no --vit-weights given"),
        ({"train": (11, 13), "test": (5, 5)}, ["--vit-weights", "none.pth"], "none.pth does not exist"),
        ({}, ["--data", ""], "this comparison needs pictures of yours: --data FOLDER"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line_and_leaves_nothing(
    layout: dict[str, tuple[int, int]],
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    for number, (part, (fakes, reals)) in enumerate(layout.items()):
        counts = {name: count for name, count in (("FAKE", fakes), ("REAL", reals)) if count}
        write_folder(data / part, counts, seed=100 * number)
    assert main(["compare", "cifake", "--data", str(data), "--out", str(out), *options]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not out.exists()


def test_a_comparison_is_no_run_and_says_what_it_is(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(finished)]) == 2
    assert "it is of a comparison; `vitscratch compare fake-digits`" in capsys.readouterr().err


def test_many_warnings_of_a_kind_are_three_and_a_number() -> None:
    kinds = [f"duplicate: {number}" for number in range(5)] + ["shortcut: x"]
    told = warnings(SimpleNamespace(summary={"warnings": kinds}))  # type: ignore[arg-type]
    assert told == [*kinds[:3], "duplicate: 2 more (splits.json has them all)", "shortcut: x"]
    assert warnings(SimpleNamespace(summary={"warnings": kinds[:3]})) == kinds[:3]  # type: ignore[arg-type]


def test_a_model_that_has_one_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(VisionTransformer):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 0 * super().forward(images) + torch.tensor([0.0, 9.0])

    monkeypatch.setattr("vitscratch.vit.VisionTransformer.from_config", classmethod(lambda cls, c: Stubborn(**vars(c))))
    out = tmp_path / "run"
    assert main([*DIGITS[:3], "vit", *SHORT, "--quick", "--out", str(out)]) == 0
    notes = numbers(out)["notes"]
    assert notes[0].startswith("--quick: this shows that everything runs")
    assert any(note == "ViT takes every test picture for REAL." for note in notes)
