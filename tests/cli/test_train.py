"""`vitscratch train`, `evaluate`, `predict`, `doctor` and `lr-find`, as a user types them."""

import csv
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from tests.data.make import write_folder
from vitscratch.cli import main
from vitscratch.training import Checkpoints, read_checkpoint

SHORT = [
    "train",
    "digits",
    "--device",
    "cpu",
    "--no-doctor",
    "--epochs",
    "2",
    "--warmup-epochs",
    "0.5",
    "--patience",
    "2",
    "--precision",
    "fp32",  # of one process and two alike to 1e-5
]
FILES = [
    "best.pt",
    "config.json",
    "curves.png",
    "history.csv",
    "last.pt",
    "metrics.json",
    "model.safetensors",
    "splits.json",
]


def train(*arguments: str) -> int:
    return main([*SHORT, *arguments])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in (".lock", "previous.pt"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has disturbed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert train("--out", str(out)) == 0
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, two: Path) -> bool:
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# A run and its folder


def test_a_run_leaves_everything_in_its_folder(finished: Path) -> None:
    assert files(finished) == FILES
    config = json.loads((finished / "config.json").read_text())
    assert config["recipe_name"] == "digits" and config["recipe"]["epochs"] == 2
    assert config["recipe"]["learning_rate"] == 2e-3 and {"torch", "python", "git_revision"} <= set(config)
    rows = list(csv.DictReader((finished / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"] and float(rows[1]["validation_loss"]) > 0
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["test_total"] == 360 and metrics["test_accuracy"] == metrics["test_correct"] / 360
    assert sum(count["total"] for count in metrics["test_per_class"].values()) == 360
    assert metrics["kept_epoch"] == 1 + [float(row["validation_loss"]) for row in rows].index(
        min(float(row["validation_loss"]) for row in rows)
    )
    best = read_checkpoint(finished / "best.pt")
    assert best["epoch"] == metrics["kept_epoch"]
    assert all(torch.equal(best["model"][name], tensor) for name, tensor in weights(finished).items())


def test_config_is_all_that_is_needed_to_repeat_a_run(finished: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    (again / "config.json").write_bytes((finished / "config.json").read_bytes())
    assert main(["train", "--resume", str(again), "--device", "cpu", "--no-doctor"]) == 0
    assert same(finished, again)


def test_every_field_of_a_recipe_is_an_option(tmp_path: Path) -> None:
    options = [
        "--learning-rate",
        "1e-3",
        "--mixup",
        "0.3",
        "--ema-decay",
        "0.9",
        "--accumulate",
        "2",
        "--clip-norm",
        "None",
        "--label-smoothing",
        "0",
        "--degrees",
        "3",
        "--balance-classes",
        "--monitor",
        "validation_accuracy",
        "--precision",
        "fp32",
        "--activation-checkpointing",
        "--seed",
        "5",
        "--batch-size",
        "50",
    ]
    assert train("--out", str(tmp_path / "run"), *options, "--epochs", "1", "--json", str(tmp_path / "m.json")) == 0
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    for name, value in zip(options, [*options[1:], ""], strict=True):
        if name.startswith("--"):
            found = recipe[name.removeprefix("--").replace("-", "_")]
            assert str(found) == value or found is True or float(found) == float(value), name
    assert json.loads((tmp_path / "m.json").read_text())["epochs"] == 1


def test_a_folder_with_a_run_is_not_overwritten(finished: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    assert train("--out", str(finished)) == 2
    error = capsys.readouterr().err
    assert "has a run in it" in error and f"vitscratch train --resume {finished}" in error and error.count("\n") == 1
    assert main(["train", "--resume", str(finished)]) == 0
    assert "is finished: epoch" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in finished.iterdir() if path.is_file()} == before


def test_a_short_run_warms_up_for_a_fifth_of_it(tmp_path: Path) -> None:
    arguments = ["train", "digits", "--epochs", "1", "--out", str(tmp_path / "run"), "--device", "cpu", "--no-doctor"]
    assert main(arguments) == 0
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert (recipe["epochs"], recipe["warmup_epochs"]) == (1, 0.2)


def test_quick_is_quick(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    digit_files(tmp_path / "mine", per_class=12)
    arguments = [
        "train",
        "pictures",
        "--data",
        str(tmp_path / "mine"),
        "--out",
        str(tmp_path / "run"),
        "--device",
        "cpu",
    ]
    assert main([*arguments, "--preset", "vit_nano_8", "--padding", "1", "--no-doctor", "--quick"]) == 0
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert recipe["epochs"] == 1 and recipe["max_pictures"] == 2000 and recipe["data"] == str(tmp_path / "mine")
    assert f"in {tmp_path / 'run'} (--quick: --epochs 1, --max-pictures 2000): loading" in capsys.readouterr().out


def test_quick_obeys_what_is_typed_beside_it(tmp_path: Path) -> None:
    command = ["train", "digits", "--quick", "--epochs", "3", "--max-pictures", "41", "--device", "cpu", "--no-doctor"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert recipe["epochs"] == 3 and recipe["max_pictures"] == 41
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"] == 3


def test_a_run_goes_on_from_another_folder_and_on_its_own_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digit_files(tmp_path / "mine", per_class=12)
    small = ["--preset", "vit_nano_8", "--epochs", "2", "--padding", "1", "--no-doctor", "--device", "cpu"]
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as meddling:
        Meddler(meddling, 1, lambda checkpoints, run: os.kill(os.getpid(), signal.SIGTERM))
        assert main(["train", "pictures", "--data", "mine", "--out", "run", *small]) == 143
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    monkeypatch.setattr("vitscratch.cli.train.pick_device", lambda wish: {"cpu": "cpu"}[wish])
    assert main(["train", "--resume", "../run"]) == 0
    assert main(["evaluate", "../run", "--device", "cpu"]) == 0


def test_ctrl_c_while_loading_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vitscratch.recipes.experiment.load_splits", interrupted)
    assert train("--out", str(tmp_path / "run")) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="pipes close in another way on Windows")
def test_a_run_goes_on_when_nobody_reads(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "vitscratch", *SHORT, "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    os.read(reading, 10)
    os.close(reading)
    _, errors = process.communicate()
    assert process.returncode == 0 and errors == ""
    assert (tmp_path / "run" / "metrics.json").exists()


def test_two_runs_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with FileLock(tmp_path / ".lock"):
        assert train("--out", str(tmp_path)) == 2
    assert "another run is writing to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--resume", "{tmp}/nothing"], "has no config.json, so there is no run in it"),
        (["train", "--resume", "{tmp}/odd"], "config.json cannot be used"),
        (["train", "pictures", "--out", "{tmp}/new"], "needs pictures of yours: --data FOLDER"),
        (["train", "digits", "--epochs", "0"], "epochs 0: expected at least 1"),
        (["train", "digits", "--preset", "vit_x"], "preset 'vit_x' is unknown"),
        (["train", "digits", "--batch-size", "0"], "batch_size 0: expected at least 1"),
        (["train", "digits", "--learning-rate", "-1"], "learning_rate -1.0: expected a number above 0"),
        (["train", "--resume={tmp}/nothing"], "has no config.json, so there is no run in it"),
        (["train", "digits", "--resume", "{tmp}/nothing"], "has no config.json, so there is no run in it"),
        (["train", "digits", "--out", "{tmp}/taken"], "has last.pt of something else in it"),
        (["evaluate", "{tmp}/nothing"], "nothing is no folder of a run, which knows its pictures; name pictures with"),
        (["predict", "{tmp}/nothing", "x.png"], "nothing does not exist; expected the folder of a run"),
        (["predict", "{tmp}/odd", "x.png", "--top", "0"], "--top 0: expected at least 1"),
        (
            ["predict", "{tmp}/odd/config.json", "x.png"],
            "config.json is none of the kinds of file that weights come in",
        ),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "last.pt").write_bytes(b"of another run")
    (tmp_path / "odd" / "config.json").write_text('{"recipe_name": "digits", "recipe": {"depth": 3}}')
    code = main([argument.format(tmp=tmp_path) for argument in arguments])
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1, error


# Interruptions


class Meddler:
    """Does something at one step of a run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, action: Any) -> None:
        original, steps = Checkpoints.after_step, 0

        def after_step(checkpoints: Checkpoints, run: Any) -> None:
            nonlocal steps
            steps += 1
            if steps == at:
                action(checkpoints, run)
            original(checkpoints, run)

        monkeypatch.setattr(Checkpoints, "after_step", after_step)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_says_how_to_go_on_and_the_end_is_the_same(
    number: int,
    code: int,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as meddling:
        Meddler(meddling, 30, lambda checkpoints, run: os.kill(os.getpid(), number))
        assert train("--out", str(tmp_path / "run")) == code
    assert f"To go on: vitscratch train --resume {tmp_path / 'run'}" in capsys.readouterr().out
    assert main(["train", "--resume", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert "Going on from" in capsys.readouterr().out
    assert same(finished, tmp_path / "run") and files(tmp_path / "run") == FILES


def test_a_full_disk(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = tmp_path / "run"
    with monkeypatch.context() as meddling:
        Meddler(meddling, 10, lambda checkpoints, run: checkpoints.save(run))

        def at_twenty(checkpoints: Checkpoints, run: Any) -> None:
            meddling.setattr(os, "fsync", full)
            checkpoints.save(run)

        Meddler(meddling, 20, at_twenty)
        assert train("--out", str(run)) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error and f"last good checkpoint: {run / 'last.pt'}" in error
    assert "train --resume" in error and error.count("\n") == 1
    assert read_checkpoint(run / "last.pt")["batch"] == 10
    assert main(["train", "--resume", str(run), "--device", "cpu"]) == 0
    assert same(finished, run)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as meddling:
        Meddler(meddling, 10, lambda checkpoints, run: checkpoints.save(run))
        Meddler(meddling, 20, lambda checkpoints, run: os.kill(os.getpid(), signal.SIGINT))
        assert train("--out", str(run)) == 130
    content = (run / "last.pt").read_bytes()
    (run / "last.pt").write_bytes(content[: len(content) // 2])
    capsys.readouterr()
    assert main(["train", "--resume", str(run), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "last.pt is refused" in printed and f"Going on from {run / 'previous.pt'}" in printed
    assert same(finished, run)


def test_a_real_process_is_killed_and_resumed(finished: Path, tmp_path: Path) -> None:
    run, kills = tmp_path / "run", 0
    command = [sys.executable, "-m", "vitscratch", *SHORT, "--out", str(run)]
    while not (run / "metrics.json").exists():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        waiting_for = ["config.json", "history.csv", "nothing"][min(kills, 2)]
        while process.poll() is None and not (run / waiting_for).exists():
            time.sleep(0.005)
        if process.poll() is None:
            process.kill()
            kills += 1
            command = [
                sys.executable,
                "-m",
                "vitscratch",
                "train",
                "--resume",
                str(run),
                "--device",
                "cpu",
                "--no-doctor",
            ]
        _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors
    assert kills >= 1 and same(finished, run)


# Several processes


def test_torchrun_gives_the_losses_of_one_process(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "vitscratch", *SHORT, "--out", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/2") == 1 and "2 processes" in done.stdout
    histories = [list(csv.DictReader((folder / "history.csv").open())) for folder in (finished, run)]
    for one, two in zip(*histories, strict=True):
        for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
            assert float(two[name]) == pytest.approx(float(one[name]), abs=1e-5), name
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test_total"] == 360 and files(run) == FILES


# Numbers that are not finite


def test_an_infinite_loss_stops_the_run_and_names_the_layer(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    assert train("--out", str(run), "--learning-rate", "1e25", "--warmup-epochs", "0", "--clip-norm", "None") == 1
    error = capsys.readouterr().err
    assert "epoch 1, batch" in error and "first non-finite" in error and error.count("\n") == 1, error
    batch = read_checkpoint(run / "nonfinite.pt")
    assert batch["images"].shape == (64, 1, 8, 8) and batch["labels"].shape == (64,)


# TensorBoard


def test_tensorboard_gets_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        """Stands for torch.utils.tensorboard.SummaryWriter, whose package is an extra."""

        def __init__(self, folder: Path) -> None:
            assert folder == tmp_path / "run" / "tensorboard"

        def __enter__(self) -> "Writer":
            return self

        def __exit__(self, *arguments: object) -> None:
            written.append(("closed", 0.0, 0))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr("vitscratch.cli.train.find_spec", lambda name: object())
    assert train("--out", str(tmp_path / "run"), "--tensorboard") == 0
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").open()))
    losses = [(step, value) for name, value, step in written if name == "train/loss"]
    assert losses == [(i + 1, float(row["train_loss"])) for i, row in enumerate(rows)]
    assert {"validation/accuracy", "learning_rate"} <= {name for name, _, _ in written} and written[-1][0] == "closed"


def test_tensorboard_that_is_missing_is_said_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitscratch.cli.train.find_spec", lambda name: None)
    assert train("--out", str(tmp_path / "run"), "--tensorboard") == 2
    assert "pip install 'vitscratch[tensorboard]'" in capsys.readouterr().err and not (tmp_path / "run").exists()


# Other commands on a run


def test_evaluate_repeats_the_test_figure(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", str(finished), "--device", "cpu", "--json", str(tmp_path / "e.json")]) == 0
    found = json.loads((tmp_path / "e.json").read_text())
    metrics = json.loads((finished / "metrics.json").read_text())
    assert found["correct"] == metrics["test_correct"] and found["total"] == 360
    assert found["loss"] == pytest.approx(metrics["test_loss"], rel=1e-5)
    assert found["per_class"] == metrics["test_per_class"]
    capsys.readouterr()
    assert main(["evaluate", str(finished), "--split", "validation", "--device", "cpu"]) == 0
    assert f"{metrics['validation_accuracy']:.2%}" in capsys.readouterr().out


def digit_files(folder: Path, per_class: int = 3) -> list[Path]:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    paths = []
    for number in range(10):
        (folder / str(number)).mkdir(parents=True)
        for i, scan in enumerate(digits.images[digits.target == number][:per_class]):
            paths.append(folder / str(number) / f"{i}.png")
            Image.fromarray((scan * 255 / 16).round().astype("uint8")).save(paths[-1])
    return paths


def test_evaluate_on_another_folder(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    digit_files(tmp_path / "mine")
    assert main(["evaluate", str(finished), "--data", str(tmp_path / "mine"), "--device", "cpu"]) == 0
    assert "of 30;" in capsys.readouterr().out
    (tmp_path / "mine" / "7").rename(tmp_path / "mine" / "seven")
    assert main(["evaluate", str(finished), "--data", str(tmp_path / "mine"), "--device", "cpu"]) == 2
    assert "the model knows 0, 1, 2" in capsys.readouterr().err


def test_predict_needs_nothing_but_the_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "model.safetensors").write_bytes((finished / "model.safetensors").read_bytes())
    paths = digit_files(tmp_path / "mine", per_class=1)
    out, listed = tmp_path / "grid.png", tmp_path / "p.json"
    arguments = [*map(str, paths), "--device", "cpu", "--top", "2", "--out", str(out), "--json", str(listed)]
    assert main(["predict", str(moved), *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11 and all(line.count("%") == 2 for line in lines[:10])
    assert out.read_bytes().startswith(b"\x89PNG")
    probabilities = json.loads(listed.read_text())
    assert all(math.isclose(sum(row.values()), 1, abs_tol=1e-5) for row in probabilities.values())
    from_file = main(["predict", str(moved / "model.safetensors"), str(paths[0]), "--device", "cpu"])
    assert from_file == 0 and capsys.readouterr().out.split()[1] == lines[0].split()[1]


def test_predict_goes_on_after_a_bad_picture(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good = digit_files(tmp_path / "mine", per_class=1)[0]
    bad = tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:60])
    assert main(["predict", str(finished), str(bad), str(good), "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    refused, classes = printed.err.splitlines()
    assert str(bad) in refused and classes.startswith("It knows 10 classes") and str(good) in printed.out


def test_doctor_and_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", "digits", "--device", "cpu", "--json", str(tmp_path / "d.json")]) == 0
    assert json.loads((tmp_path / "d.json").read_text())["passed"] is True
    capsys.readouterr()


def test_train_stops_before_the_first_step_if_the_doctor_finds_something(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitscratch import EncoderBlock

    monkeypatch.setattr(EncoderBlock, "forward", lambda self, x: x.detach())
    arguments = [
        "train",
        "digits",
        "--device",
        "cpu",
        "--epochs",
        "1",
        "--warmup-epochs",
        "0",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(arguments) == 2
    assert "the doctor's checks failed: picture_used, gradients" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # as if nothing had been there


def test_a_folder_with_bad_files_is_refused_and_trained_on_if_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    paths = digit_files(tmp_path / "mine", per_class=12)
    for i, path in enumerate(paths[::20]):
        path.write_bytes(path.read_bytes()[: 40 + i])
    command = ["train", "pictures", "--data", str(tmp_path / "mine"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    small = ["--preset", "vit_nano_8", "--epochs", "1", "--warmup-epochs", "0", "--padding", "1", "--no-doctor"]
    assert main([*command, *small]) == 2
    error = capsys.readouterr().err
    assert "6 of 120 files are bad" in error and "--skip-bad trains on the rest" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert main([*command, *small, "--skip-bad"]) == 0
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert sum(sum(part.values()) for part in splits["counts"].values()) == 114 and len(splits["skipped"]) == 6


@pytest.mark.parametrize("fewer", [[], ["--max-pictures", "17"]])
def test_a_shortcut_is_named_before_training_starts(
    fewer: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = write_folder(tmp_path / "set", {"fake": 13, "real": 13}, (8, 8))
    for path in (root / "real").iterdir():
        Image.open(path).save(path, "JPEG")
    command = ["train", "pictures", "--data", str(root), "--out", str(tmp_path / "run"), "--device", "cpu", *fewer]
    assert main([*command, "--preset", "vit_nano_8", "--epochs", "1", "--padding", "1", "--no-doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (warning,) = [number for number, line in enumerate(lines) if line.startswith("Warning: shortcut: ")]
    assert "file format tells the class with 100.0% balanced accuracy (chance 50.0%): fake PNG" in lines[warning]
    assert warning < next(number for number, line in enumerate(lines) if line.startswith("epoch 1/1"))
    assert any("shortcut" in line for line in json.loads((tmp_path / "run" / "splits.json").read_text())["warnings"])


def test_a_run_does_not_go_on_with_other_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = digit_files(tmp_path / "mine", per_class=12)
    command = ["train", "pictures", "--data", str(tmp_path / "mine"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    small = ["--preset", "vit_nano_8", "--epochs", "2", "--warmup-epochs", "0", "--padding", "1", "--no-doctor"]
    with monkeypatch.context() as meddling:
        Meddler(meddling, 1, lambda checkpoints, run: os.kill(os.getpid(), signal.SIGTERM))
        assert main([*command, *small]) == 143
    content = paths[0].read_bytes()
    paths[0].write_bytes(paths[1].read_bytes())
    assert main(["train", "--resume", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert "have changed since this run began" in capsys.readouterr().err
    paths[0].write_bytes(content)
    assert main(["train", "--resume", str(tmp_path / "run"), "--device", "cpu"]) == 0


def test_lr_find_draws_and_suggests(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, numbers = tmp_path / "range.png", tmp_path / "l.json"
    arguments = ["--steps", "40", "--device", "cpu", "--out", str(out), "--json", str(numbers)]
    assert main(["lr-find", "digits", *arguments]) == 0
    assert out.read_bytes().startswith(b"\x89PNG") and json.loads(numbers.read_text())
    assert capsys.readouterr().out
