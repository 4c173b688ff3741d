"""Commands as a user types them. Exit codes: 0 done, 1 the check failed, 2 wrong usage or bad input, 130 Ctrl-C."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vitscratch
from vitscratch.cli import main

PNG = b"\x89PNG"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vitscratch", *arguments]


# parity


def test_parity_prints_the_table_and_writes_the_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "out.json"
    assert main(["parity", "vit_nano_8", "vit_nano_32", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "vit_nano_8: AGREES: 44 parameter tensors" in printed and "blocks.2.mlp.fc2" in printed
    results = json.loads(path.read_text())
    assert [result["preset"] for result in results] == ["vit_nano_8", "vit_nano_32"]
    for result in results:
        assert result["passed"] is True and result["dtype"] == "float64"
        assert result["reference"].startswith("torchvision ")
        assert result["max_value_diff"] <= 1e-10 and result["max_gradient_diff"] <= 1e-10
        for row in result["rows"]:
            assert row["shape"] == row["reference_shape"]
            assert 0 <= row["value_diff"] <= 1e-10 and 0 <= row["gradient_diff"] <= 1e-10
    assert [result["parameters_mapped"] for result in results] == [44, 80]
    assert list(tmp_path.iterdir()) == [path]


def test_parity_exits_1_and_names_the_layer_on_divergence(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        vitscratch.EncoderBlock, "forward", lambda self, x: self.mlp(self.norm2(self.attn(self.norm1(x))))
    )
    path = tmp_path / "out.json"
    assert main(["parity", "vit_nano_8", "--fold", "--json", str(path)]) == 1
    assert "vit_nano_8: DIVERGES first at blocks.0.norm2" in capsys.readouterr().out
    assert json.loads(path.read_text())[0]["passed"] is False


def test_parity_says_when_it_runs_fewer_blocks(capsys: pytest.CaptureFixture) -> None:
    assert main(["parity", "vit_nano_8", "--depth", "2", "--dtype", "float32"]) == 0
    printed = capsys.readouterr().out
    assert "values and gradients were compared on 2 of 3 blocks" in printed and "blocks.2" not in printed


# summary


def test_summary_gives_exact_numbers_and_what_torchinfo_misses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "summary.json"
    assert main(["summary", "vit_b_16", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "Total params: 86,567,656" in printed and "35.128" in printed
    numbers = json.loads(path.read_text())
    assert numbers["parameters"] == 86_567_656 and numbers["flops"] == 35_127_656_448
    assert sum(part["parameters"] for part in numbers["parts"]) == 86_567_656
    # What the closing lines claim of torchinfo: 152,064 parameters outside layers are not in its size in MB.
    assert "Params size (MB): 345.66" in printed
    assert pytest.approx(345.66, abs=0.005) == (86_567_656 - 152_064) * 4 / 1e6


# quickstart


def test_quickstart_leaves_four_pictures_and_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, extra = tmp_path / "runs" / "one", tmp_path / "metrics.json"
    assert main(["quickstart", "--quick", "--device", "cpu", "--out", str(out), "--json", str(extra)]) == 0
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == ["attention.png", "curves.png", "positions.png", "predictions.png"]
    assert all((out / name).read_bytes().startswith(PNG) for name in pictures)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics == json.loads(extra.read_text())
    assert metrics["parity_passed"] is True and metrics["parity_max_value_diff"] <= 1e-10
    assert 0 <= metrics["test_accuracy"] <= 1 and metrics["seconds"] > 0 and metrics["quick"] is True
    config = json.loads((out / "config.json").read_text())
    assert config["recipe"]["epochs"] == 6 and str(torch.__version__).startswith(config["torch"])
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert [row["epoch"] for row in rows] == list("123456")
    printed = capsys.readouterr().out
    assert "1/3" in printed and "2/3" in printed and "3/3" in printed and "AGREES" in printed
    assert "read next" in printed and all(str(out / name) in printed for name in pictures)


# bench


def test_bench_patch_embedding(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitscratch.recipes import patch_embedding

    monkeypatch.setattr(patch_embedding, "SHAPES", [(8, 2, 1, 6, 3)])
    monkeypatch.setattr(torch, "compile", lambda form: form)  # compiling is tried in test_without_hook.py
    path = tmp_path / "bench.json"
    assert main(["bench", "patch-embedding", "--quick", "--device", "cpu", "--json", str(path)]) == 0
    results = json.loads(path.read_text())
    assert [row["mode"] for row in results["rows"]] == [
        f"{how} {what}" for how in ("eager", "compiled") for what in ("inference", "training")
    ]
    assert all(row["linear_ms"] > 0 and row["ratio"] > 0 for row in results["rows"])
    assert "quartiles" in capsys.readouterr().out


def _without_optional_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if transformers and vit-pytorch were not installed, and without the seconds that large products take."""
    from vitscratch.bench import compare, peers

    found = peers.find_spec
    absent = ("transformers", "vit_pytorch")
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name in absent else found(name))
    monkeypatch.setattr(compare, "matmul_flops", lambda *arguments: 1e12)
    monkeypatch.setattr(torch, "compile", lambda model: model)  # compiling is tried in test_without_hook.py


def test_bench_train_prints_a_table_and_writes_json_and_bars(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_optional_peers(monkeypatch)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "123456789")
    path, bars = tmp_path / "bench.json", tmp_path / "bars.png"
    options = [
        "--activation-checkpointing",
        "--no-memory",
        "--peak-tflops",
        "2",
        "--json",
        str(path),
        "--out",
        str(bars),
    ]
    assert main(["bench", "train", "--model", "vit_nano_8", "--quick", "--device", "cpu", *options]) == 0
    results = json.loads(path.read_text())
    models = ["vitscratch", "torchvision", "timm", "vitscratch, checkpointed"]
    assert [row["model"] for row in results["rows"]] == models
    assert (results["what"], results["model"], results["depth"], results["quick"]) == ("train", "vit_nano_8", 2, True)
    assert results["work"]["batch_size"] == 2 and results["work"]["training"] is True
    assert results["settings"]["MALLOC_TRIM_THRESHOLD_"] == "123456789"
    for row in results["rows"]:
        assert row["stated_mfu"] == pytest.approx(row["mfu"] / 2) and row["memory_bytes"] is None
    printed = capsys.readouterr().out
    assert "transformers is not installed, so it is not measured" in printed and "vit-pytorch is not" in printed
    assert (
        "vit_nano_8, 2 blocks, training, batch 2, fp32, cpu" in printed
        and "MALLOC_TRIM_THRESHOLD_=123456789" in printed
    )
    assert all(f"eager     {model:<24} " in printed for model in models)
    assert bars.read_bytes().startswith(PNG)


def test_bench_infer_measures_both_modes_and_the_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_optional_peers(monkeypatch)
    path = tmp_path / "bench.json"
    arguments = ["--model", "vit_nano_8", "--batch-size", "3", "--rounds", "2", "--peers", "--json", str(path)]
    assert main(["bench", "infer", "--device", "cpu", *arguments]) == 0
    eager, compiled = json.loads(path.read_text())["rows"]
    assert (eager["mode"], compiled["mode"]) == ("eager", "compiled")
    assert eager["memory_bytes"] > 0 and compiled["memory_bytes"] is None
    assert eager["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0} and eager["stated_mfu"] is None


def test_bench_quick_leaves_what_somebody_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitscratch.bench import compare

    rounds: list[int] = []
    measured = compare.interleaved
    monkeypatch.setattr(
        compare, "interleaved", lambda steps, n, *rest, **more: rounds.append(n) or measured(steps, n, *rest, **more)
    )
    _without_optional_peers(monkeypatch)
    path = tmp_path / "bench.json"
    arguments = ["bench", "infer", "--model", "vit_nano_8", "--quick", "--no-memory", "--peers", "--device", "cpu"]
    for options, wanted in (([], (2, 3)), (["--batch-size", "5"], (5, 3)), (["--rounds", "4"], (2, 4))):
        assert main([*arguments, *options, "--json", str(path)]) == 0
        told = json.loads(path.read_text())
        assert (told["work"]["batch_size"], rounds[-1]) == wanted, options
        assert [row["mode"] for row in told["rows"]] == ["eager"] and told["depth"] == 2


def test_bench_loop(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "bench.json"
    assert main(["bench", "loop", "--quick", "--device", "cpu", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["images_per_second"] == pytest.approx(1437 / found["fit_s"])
    assert 0.2 < found["ratio"] < 5 and found["by_hand_s"] > 0
    assert "of the speed by hand" in capsys.readouterr().out


def test_bench_probe(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "bench.json"
    options = ["--model", "vit_nano_8", "--epochs", "2", "--device", "cpu", "--json", str(path)]
    assert main(["bench", "probe", "--quick", *options]) == 0
    told = json.loads(path.read_text())
    assert [row["way"] for row in told["rows"]] == ["plain loop", "probe", "probe again"]
    assert len({row["accuracy"] for row in told["rows"]}) == 1 and 0 <= told["difference"] < 1e-5
    assert told["rows"][0]["ratio"] == 1 and told["rows"][0]["accuracy"] > 0.15  # of ten classes
    assert (told["what"], told["pictures"], told["epochs"]) == ("probe", 200, 2)
    out = capsys.readouterr().out
    assert "vit_nano_8, frozen, 200 digits, 2 epochs of its head, cpu" in out and "\nprobe again" in out


def test_bench_load(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitscratch.bench import loading

    monkeypatch.setattr(loading, "_peak", lambda load, before: len(load.file.read_bytes()))  # processes take seconds
    path = tmp_path / "bench.json"
    assert main(["bench", "load", "--quick", "--model", "vit_ti_16", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["what"] for row in rows] == ["load", "load and one picture"]
    for row in rows:
        assert set(row["seconds"]) == set(row["peak_bytes"]) == {"vitscratch", "torchvision"}
        assert (
            row["ratio_quartiles"][0] <= row["ratio"] <= row["ratio_quartiles"][1] and min(row["seconds"].values()) > 0
        )
    assert rows[0]["peak_bytes"]["vitscratch"] > 4 * 5_717_416
    assert "load and one picture" in capsys.readouterr().out


def test_bench_digits(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "bench.json"
    assert main(["bench", "digits", "--quick", "--device", "cpu", "--json", str(path)]) == 0
    results = json.loads(path.read_text())
    models = ["logistic regression", "k nearest neighbours", "RBF-SVM", "ViT", "ViT, normal positions"]
    assert [row["model"] for row in results["rows"]] == models == list(results["summary"])
    accuracy = {name: results["summary"][name]["mean_accuracy"] for name in models}
    assert all(0.9 < accuracy[name] <= 1 for name in models[:3])
    assert "mean" in capsys.readouterr().out


# bad input: one line on stderr, no traceback, exit code 2, before any work


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["parity", "vit_b16"], "preset 'vit_b16' is unknown; there are vit_nano_8, "),
        (["summary", "resnet"], "preset 'resnet' is unknown; there are vit_nano_8, "),
        (["parity", "vit_nano_8", "--depth", "9"], "vit_nano_8 takes 1 to 3 blocks"),
        (["parity", "vit_nano_8", "--json", "no/such/folder/x.json"], "expected a file in a folder that exists"),
        (["bench", "digits", "--splits", "0"], "splits 0, seeds 3: expected at least 1"),
        (["bench", "patch-embedding", "--rounds", "1"], "rounds 1: expected at least 2"),
        (["bench", "probe", "--epochs", "0"], "--epochs 0: expected at least 1"),
        (["bench", "loop", "--rounds", "1"], "rounds 1: expected at least 2"),
        (["bench", "load", "--rounds", "1"], "rounds 1: expected at least 2"),
        (["bench", "load", "--model", "vit_b16"], "preset 'vit_b16' is unknown; there are vit_nano_8, "),
        (["bench", "train", "--model", "vit_b16"], "preset 'vit_b16' is unknown; there are vit_nano_8, "),
        (["bench", "infer", "--batch-size", "0"], "batch size 0: expected at least 1"),
        (["bench", "infer", "--rounds", "1"], "rounds 1: expected at least 2"),
        (["bench", "infer", "--out", "{folder}"], "--out {folder}: expected a file in a folder that exists"),
        (["quickstart", "--out", "{file}"], "is a file; expected a folder"),
        (["quickstart", "--out", "{file}/below"], "cannot be made (Not a directory)"),
        (["quickstart", "--json", "{folder}"], "expected a file in a folder that exists"),
        (["train", "digits", "--epoch", "3"], "--epoch is no option here; nearest: --epochs, --warmup-epochs; --help"),
        (["train", "digits", "--lr", "0"], "learning_rate 0.0: expected a number above 0"),
        (
            ["compare", "fake_digit"],
            "compare fake_digit: there is fake-digits, cifake, fake-or-real; nearest: fake-dig",
        ),
        (["lr-find", "cifar"], "lr-find cifar: there is digits, "),
        (["train", "xyz"], "train xyz: there is digits, fake-digits, pictures, cifar10, cifar10-short, cifar10-cpu, "),
        (["doctor", "digits", "--lerning_rate=1"], "--lerning_rate is no option here; nearest: --learning-rate; "),
        (["data", "check", "{folder}", "--jsn", "x"], "--jsn is no option here; nearest: --json; --help in its place"),
        (["quickstart", "--no-quik"], "--no-quik is no option here; nearest: --no-quick"),
        (["summary", "vit_nano_8", "--frobnicate"], "--frobnicate is no option here; --help in its place lists all"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    assert main([argument.format(file=file, folder=tmp_path) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert (
        message.format(folder=tmp_path) in printed.err
        and printed.err.count("\n") == 1
        and printed.err.startswith("vitscratch: ")
    )
    assert file.read_text() == "kept" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_of_torchruns_processes_the_first_says_what_is_refused(
    rank: str, lines: int, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And torchrun, whose traceback would bury it, finds it in its error file and ends with it."""
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    for name, value in (("RUN_ID", "test"), ("ERROR_FILE", str(tmp_path / "error.json"))):
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    monkeypatch.setenv("RANK", rank)
    assert main(["train", "digits", "--epochs", "0"]) == 2
    assert capsys.readouterr().err == "vitscratch: epochs 0: expected at least 1\n" * lines
    found = ProcessFailure(local_rank=int(rank), pid=1, exitcode=2, error_file=str(tmp_path / "error.json"))
    assert found.message["message"] == "vitscratch: epochs 0: expected at least 1"
    with pytest.raises(SystemExit):
        main(["summary"])
    assert bool(capsys.readouterr().err) is bool(lines)


def test_a_device_that_is_not_there_is_named(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device that the test wants to be missing")
    assert main(["bench", "digits", "--device", "cuda"]) == 2
    assert "--device cuda is not available to torch here; there is: cpu" in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture) -> None:
    assert main(["parity", "vit_x", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["train-everything"], ["parity", "--depth", "many"], ["summary"]])
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_failures_exit_1(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitscratch.parity import presets

    def fail(*arguments: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(presets, "check_preset", fail)
    assert main(["parity", "vit_nano_8"]) == 1
    assert capsys.readouterr().err == "vitscratch: failed: out of memory\n"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("RANK", "1")  # of several processes one may fail, and it need not be the first
    assert main(["parity", "vit_nano_8"]) == 1
    assert capsys.readouterr().err == "vitscratch: failed: out of memory\n"


def test_version_and_help() -> None:
    done = subprocess.run(command("--version"), capture_output=True, text=True, check=True)
    assert done.stdout == f"vitscratch {vitscratch.__version__}\n"
    for arguments in ([], ["--help"], ["parity", "--help"]):
        done = subprocess.run(command(*arguments), capture_output=True, text=True)
        assert done.returncode == 0 and "usage: vitscratch" in done.stdout


def test_ctrl_c_ends_with_130_one_line_and_nothing_half_written(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("quickstart", "--out", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job may ignore it
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("1/3"):  # torch is loaded and the work has begun
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "stopped by Ctrl-C" in errors and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="pipes close in another way on Windows")
def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(command("parity", "vit_nano_8"), stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    os.read(reading, 10)
    os.close(reading)
    _, errors = process.communicate()
    assert "Traceback" not in errors and "BrokenPipe" not in errors, errors
    assert process.returncode == 1  # nobody has read the verdict
