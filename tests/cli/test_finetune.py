"""`vitscratch finetune`: a run folder like any other, a table beside training from scratch, one line for bad input."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vitscratch import plots
from vitscratch.cli import main
from vitscratch.cli import train as train_command
from vitscratch.cli.finetune import _caveat
from vitscratch.cli.run_folder import RunFolder, read_run, start_run
from vitscratch.config import ViTConfig
from vitscratch.data import Preprocessing
from vitscratch.parity import awaken
from vitscratch.recipes import FineTune
from vitscratch.recipes.fine_tune import How
from vitscratch.training import Checkpoints, wilson_interval
from vitscratch.vit import VisionTransformer
from vitscratch.weights import load_model, save_model

CONFIG = ViTConfig(8, 4, 1, 7, embed_dim=12, depth=2, num_heads=2, mlp_dim=20)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    model = VisionTransformer.from_config(CONFIG)
    awaken(model)
    model.half()
    path = tmp_path / "pretrained.safetensors"
    names = [f"class {i}" for i in range(7)]
    save_model(path, model, CONFIG, names, Preprocessing((8, 8), 1, mean=(0.3,), std=(0.4,)).to_dict(), {})
    return str(path)


FEW = ["--epochs", "1", "--max-pictures", "97", "--no-doctor", "--device", "cpu"]


def test_a_run_folder_like_any_other(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    assert main(["finetune", weights, "digits", "--out", str(out), *FEW]) == 0
    saved = load_model(out / "model.safetensors")
    assert saved.provenance["weights"] == weights and saved.provenance["how"] == "fine-tune"
    assert saved.config.embed_dim == 12 and saved.class_names == tuple("0123456789")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["epochs"] == 2 and metrics["kept_epoch"] == 2 and metrics["test_total"] == 97
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert [(row["epoch"], row["part"]) for row in rows] == [("1", "head"), ("2", "all")]
    config = json.loads((out / "config.json").read_text())
    assert config["recipe_name"] == "fine-tune" and config["recipe"]["weights"] == weights
    printed = capsys.readouterr().out
    learns = "The head alone learns for 1 epoch: 130 of 2,798 parameters; then everything, for 1."
    assert 0 < printed.index(learns) < printed.index("epoch 1/2")
    assert "Weights:" not in printed  # a new head and half precision are as they should be
    assert main(["evaluate", str(out)]) == 0
    low, high = wilson_interval(metrics["test_correct"], 97)
    told = f"{metrics['test_correct']} of 97; 95 % interval {low:.2%} to {high:.2%})"
    assert told in capsys.readouterr().out and told in printed
    assert main(["train", "--resume", str(out)]) == 0
    assert "is finished" in capsys.readouterr().out


def test_compare_with_scratch_and_again(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    drawn: list[str] = []
    for figure in (plots.curves, plots.regularisation):

        def told(*given: object, draw: Any = figure) -> object:
            drawn.append(draw.__name__)
            return draw(*given)

        monkeypatch.setattr(plots, figure.__name__, told)
    told = tmp_path / "told.json"
    command = ["finetune", weights, "digits", "--how", "probe", "--compare", "--out", str(out), *FEW]
    assert main([*command, "--lr", "1e-3", "--json", str(told)]) == 0
    rows = json.loads((out / "comparison.json").read_text())
    assert json.loads(told.read_text()) == rows
    assert [(row["model"], row["how"], row["epochs"]) for row in rows] == [
        ("pretrained", "probe", 1),
        ("from scratch", "scratch", 1),
    ]
    table = (out / "comparison.md").read_text()
    assert "| from scratch | scratch | 1 |" in table and table in capsys.readouterr().out
    assert "\n\nOne run of each, with seed 0: " in table
    assert "the probe looked at each picture once, without augmentation; from scratch had 1 epochs." in table
    assert "regularisation was chosen on the validation pictures, which flatters its accuracy there, and " in table
    assert "same settings" not in table and "tuned for neither" not in table
    body = load_model(out / "model.safetensors").model.state_dict()
    pretrained = load_model(Path(weights)).model.state_dict()
    assert all(torch.equal(body[name], pretrained[name]) for name in body if not name.startswith("head."))
    command += ["--lr", "1e-3"]
    assert rows[0]["notes"][0].startswith("logistic regression, C = ")
    assert drawn == ["regularisation", "curves"]
    assert main(command) == 0  # the same command again finds both finished
    assert capsys.readouterr().out.count("is finished") == 2
    assert main([*command, "--last", "1"]) == 2  # another recipe in the same folder
    assert "has a run in it with other settings (last 2, not 1); `vitscratch train --resume" in capsys.readouterr().err
    assert main(["train", "digits", "--out", str(out)]) == 2
    assert "has a run in it of the recipe fine-tune; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("head", "same settings, tuned for neither, but in the pretrained model the head alone learned, ten times as "),
        ("last-n", "model only the last blocks and the head learned, and each block learned 0.6 times as fast as the "),
        ("full", "but in the pretrained model each block learned 0.6 times as fast as the one above it; both had 3 "),
        ("fine-tune", "model the head first learned alone, ten times as fast, and each block learned 0.6 times as "),
        ("scratch", "same settings, tuned for neither; both had 3 epochs."),
    ],
)
def test_the_line_below_the_table_says_which_rates_differ(how: How, said: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"epochs": 3}')
    runs = [RunFolder(tmp_path, FineTune(how=how, layer_decay=0.6), {}) for _ in range(2)]
    assert said in _caveat(*runs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["{tmp}/none.pth", "digits"],
            "none.pth does not exist; expected the folder of a run, a file or folder of weights",
        ),
        (["{weights}", "{tmp}/empty"], "empty"),
        (["{weights}", "digits", "--layer-decay", "2"], "layer_decay 2.0: expected above 0, at most 1"),
        (["{weights}", "digits", "--how", "last-n", "--last", "3"], "has 2 blocks; expected 1 to 2"),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    filled = [argument.format(tmp=tmp_path, weights=weights) for argument in arguments]
    out = tmp_path / "run"
    assert main(["finetune", *filled, "--out", str(out), *FEW]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told and len(told.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("doctor", [True, False])
def test_a_run_killed_before_its_first_checkpoint_is_examined_as_it_was_begun(
    doctor: bool, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined: list[str] = []
    monkeypatch.setattr(train_command, "examine", lambda experiment: examined.append(experiment.recipe.data))
    recipe = FineTune(weights=weights, data="digits", epochs=1, max_pictures=29)
    (tmp_path / "run").mkdir()
    start_run(tmp_path / "run", recipe, "cpu", doctor)
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert examined == ["digits"] * doctor


def test_the_wish_for_no_doctor_is_kept_in_the_folder(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: object) -> None:
        raise SystemError("killed")

    monkeypatch.setattr(Checkpoints, "resume", killed)
    monkeypatch.setattr(train_command, "forget_run", lambda path: None)
    command = ["finetune", weights, "digits", *FEW, "--debug", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemError, match="killed"):
        main(command)
    assert read_run(tmp_path / "run").config["doctor"] is False
