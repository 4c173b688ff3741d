"""`vitscratch evaluate` and whether its pictures are those of the training."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.data.make import encoded, picture, write_folder
from vitscratch import weights
from vitscratch.cli import main
from vitscratch.cli.evaluate import class_numbers
from vitscratch.cli.run_folder import read_run
from vitscratch.data.load import load_splits
from vitscratch.parity import awaken
from vitscratch.recipes import fine_tune
from vitscratch.recipes.experiment import load
from vitscratch.weights import load_model, save_model

EVALUATE = ["evaluate", "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and its pictures: 23 good ones, and two that were skipped."""
    folder = tmp_path_factory.mktemp("trained")
    pictures = write_folder(folder / "pictures", {"cat": 14, "dog": 11}, (8, 8))
    (pictures / "cat" / "003.png").write_bytes(b"")
    (pictures / "dog" / "004.png").write_bytes(b"")
    arguments = ["--data", str(pictures), "--out", str(folder / "run"), "--skip-bad", "--device", "cpu", "--no-doctor"]
    small = ["--preset", "vit_nano_8", "--epochs", "1", "--warmup-epochs", "0", "--padding", "1", "--workers", "0"]
    assert main(["train", "pictures", *arguments, *small]) == 0
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """The same, to be changed; its run still means the pictures of the first."""
    return shutil.copytree(trained, tmp_path / "copy")


def test_skipped_files_are_counted(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*EVALUATE, str(trained / "run"), "--json", str(tmp_path / "out.json")]) == 0
    assert "skipped 2 of 25 files that cannot be decoded" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["skipped"] == 2


@pytest.mark.parametrize("split", ["test", "train"])
def test_pictures_that_have_changed_since_the_training_are_refused(
    split: str, trained: Path, capsys: pytest.CaptureFixture
) -> None:
    new = trained / "pictures" / "cat" / "new.png"
    new.write_bytes(encoded(picture(99, (8, 8))))
    try:
        assert main([*EVALUATE, str(trained / "run"), "--split", split]) == 2
    finally:
        new.unlink()
    error = capsys.readouterr().err
    assert "have changed since the training" in error and "--data" in error and error.count("\n") == 1


def test_a_run_with_a_broken_list_of_its_pictures_is_refused(copy: Path, capsys: pytest.CaptureFixture) -> None:
    (copy / "run" / "splits.json").write_text("[")
    assert main([*EVALUATE, str(copy / "run")]) == 2
    assert "splits.json cannot be used" in capsys.readouterr().err
    (copy / "run" / "splits.json").unlink()  # of a run that does not know: nothing to compare
    assert main([*EVALUATE, str(copy / "run")]) == 0


def test_pictures_of_the_training_are_warned_of(
    trained: Path, copy: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warned(*arguments: str) -> bool:
        assert main([*EVALUATE, str(trained / "run"), "--skip-bad", *arguments]) == 0
        return "so those that it was trained on are counted, too" in capsys.readouterr().out

    monkeypatch.chdir(trained)
    new = trained / "pictures" / "dog" / "new.png"
    new.write_bytes(encoded(picture(99, (8, 8))))
    try:
        assert warned("--data", "pictures"), "the same folder, by another name, with a picture more"
    finally:
        new.unlink()
    assert warned("--data", str(copy / "pictures")), "a copy of the folder"
    assert not warned()
    (copy / "pictures" / "cat" / "001.png").unlink()
    assert not warned("--data", str(copy / "pictures"))


def test_copies_of_training_pictures_in_another_folder_are_counted(
    trained: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Those of the run's test part are none."""
    other = write_folder(tmp_path / "other", {"cat": 5, "dog": 6}, (8, 8), seed=1000)
    copied = [trained / "pictures" / "cat" / f"{number:03}.png" for number in range(5, 14)]
    for path in copied:
        shutil.copy(path, other / "cat" / f"copy-{path.name}")
    recipe = read_run(trained / "run").recipe
    digests = load(recipe).train.digests
    expected = sum(hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() in digests for path in copied)
    assert 0 < expected < 9, "some are, and some are of its other parts"

    def printed(data: Path, run: Path = trained / "run") -> str:
        assert main([*EVALUATE, str(run), "--skip-bad", "--data", str(data)]) == 0
        return capsys.readouterr().out

    assert f"Warning: {expected} of 20 pictures are byte-identical to some that the model was trained on" in printed(
        other
    )
    assert "byte-identical" not in printed(write_folder(tmp_path / "new", {"cat": 5, "dog": 6}, (8, 8), seed=2000))
    config = json.loads((copy / "run" / "config.json").read_text())
    config["recipe"]["data"] = str(tmp_path / "gone")
    (copy / "run" / "config.json").write_text(json.dumps(config))
    assert "byte-identical" not in printed(other, copy / "run")


# weights that are no run's


@pytest.fixture
def three(trained: Path, tmp_path: Path) -> Path:
    """A file of weights for three classes, and the folder "other" with pictures of two of them."""
    saved = load_model(trained / "run" / "model.safetensors")
    saved.model.head = torch.nn.Linear(saved.config.embed_dim, 3)
    awaken(saved.model, seed=3)
    file = tmp_path / "three.safetensors"
    config = replace(saved.config, num_classes=3)
    save_model(file, saved.model, config, ["eel", "dog", "cat"], saved.preprocessing, {})
    write_folder(tmp_path / "other", {"cat": 5, "dog": 7}, (8, 8), seed=500)
    return file


def test_weights_are_measured_by_the_names_of_their_classes(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Each picture's likeliest class is what `predict` says; the order of the folders has no say."""
    out = tmp_path / "out.json"
    for data in (tmp_path / "other", tmp_path / "divided"):
        assert main([*EVALUATE, str(three), "--data", str(data), "--json", str(out)]) == 0
        measured = json.loads(out.read_text())
        assert measured["per_class"].keys() == {"dog", "cat"}, "eel has no pictures"
        for name, total in (("cat", 5), ("dog", 7)):
            pictures = str(tmp_path / "other" / name)
            assert main(["predict", str(three), pictures, "--top", "1", "--device", "cpu", "--json", str(out)]) == 0
            said = [max(row, key=row.get) for row in json.loads(out.read_text()).values()]
            assert measured["per_class"][name] == {"correct": said.count(name), "total": total}
        if data.name == "other":  # then the same as the test part of a set that comes divided
            shutil.copytree(data, tmp_path / "divided" / "test")
            write_folder(tmp_path / "divided" / "train", {"cat": 3, "dog": 4}, (8, 8), seed=900)
    assert "test part of" in capsys.readouterr().out
    assert 0 < measured["correct"] < 12


def test_what_weights_cannot_be_measured_on_is_said_in_a_line(
    trained: Path, three: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = ["--data", str(tmp_path / "other")]
    (tmp_path / "other" / "dog").rename(tmp_path / "other" / "hound")
    for arguments, message in (
        ([str(trained / "run"), "--pool", "mean"], "run is a run, which knows its architecture; leave out --num-heads"),
        ([str(three)], "three.safetensors is no folder of a run, which knows its pictures; name pictures with --data"),
        ([str(three), *data], "has the classes cat, hound; the model knows eel, dog, cat: hound cannot be counted, so"),
        ([str(tmp_path / "no"), *data], "no does not exist; expected the folder of a run, a file or folder of weights"),
    ):
        assert main([*EVALUATE, *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_weights_that_do_not_name_their_classes(three: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    saved, two = load_model(three), tmp_path / "theirs.pth"
    tensors = saved.model.state_dict()
    torch.save(tensors | {name: tensors[name][1:] for name in ("head.weight", "head.bias")}, two)
    assert main([*EVALUATE, str(two), "--data", str(tmp_path / "other"), "--num-heads", "4"]) == 0
    printed = capsys.readouterr()
    assert "theirs.pth does not name its classes: taken to be, in this order, cat, dog" in printed.err
    assert "of      5" in printed.out and "of 12;" in printed.out


def test_a_class_that_the_model_knows_twice_is_refused() -> None:
    assert class_numbers(["b", "a"], ["a", "c", "b"], "x").tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"x has the classes crane; the model knows crane, eel, crane: crane cannot"):
        class_numbers(["crane"], ["crane", "eel", "crane"], "x")


# what --data means


def measured(tmp_path: Path, *arguments: str) -> dict:
    assert main([*EVALUATE, *arguments, "--json", str(tmp_path / "out.json")]) == 0
    return json.loads((tmp_path / "out.json").read_text())


def with_recipe(run: Path, **settings: object) -> str:
    config = json.loads((run / "config.json").read_text())
    config["recipe"].update(settings)
    (run / "config.json").write_text(json.dumps(config))
    return str(run)


def test_other_pictures_are_all_measured_whatever_the_run_was_trained_on(copy: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", {"cat": 5, "dog": 6}, (8, 8), seed=1000)
    run = with_recipe(copy / "run", max_pictures=3)
    assert measured(tmp_path, run, "--data", str(other))["total"] == 11


def test_a_probe_is_measured_on_other_pictures(tmp_path: Path) -> None:
    """Its recipe wants validation pictures, which these do not have."""
    folders = [write_folder(tmp_path / name, {"cat": 14, "dog": 11}, (8, 8), seed=i) for i, name in enumerate("ab")]
    few = ["--how", "probe", "--workers", "0", "--no-doctor", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(["finetune", "cifar10", str(folders[0]), *few]) == 0
    assert measured(tmp_path, str(tmp_path / "run"), "--data", str(folders[1]))["total"] == 25


def test_a_divided_set_without_that_part_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_folder(tmp_path / "only" / "train", {"cat": 5, "dog": 6}, (8, 8), seed=1000)
    arguments = [str(trained / "run"), "--data", str(tmp_path / "only")]
    for split in ("test", "validation"):
        assert main([*EVALUATE, *arguments, "--split", split]) == 2
        error = capsys.readouterr().err
        assert f"only has no {split} part; name another --split" in error and error.count("\n") == 1
    found = measured(tmp_path, *arguments, "--split", "train")
    assert found["total"] == 11 and found["what"].startswith("train part of ")


def test_parts_of_fake_digits_are_those_of_the_training(trained: Path, copy: Path, tmp_path: Path) -> None:
    fractions = {"validation_fraction": 0.11, "test_fraction": 0.23}
    run = with_recipe(copy / "run", **fractions)
    saved = load_model(copy / "run" / "model.safetensors")
    save_model(
        copy / "run" / "model.safetensors",
        saved.model,
        saved.config,
        ["REAL", "FAKE"],
        saved.preprocessing,
        saved.provenance,
    )
    parts = load_splits("fake-digits", seed=0, **fractions)
    for split in ("train", "validation", "test"):
        found = measured(tmp_path, run, "--data", "fake-digits", "--split", split)
        assert found["total"] == len(getattr(parts, split)) and found["what"] == f"{split} part of fake-digits"


def test_the_precision_is_told(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for precision, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        found = measured(
            tmp_path,
            with_recipe(copy / "run", precision=precision, data=str(tmp_path / "no")),
            "--data",
            str(copy / "pictures"),
            "--skip-bad",
        )
        assert found["precision"] == dtype
        assert f"loss {found['loss']:.4f}, in {dtype}\n" in capsys.readouterr().out


def test_weights_are_built_once(three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []
    build_from = weights.build_from
    monkeypatch.setattr(weights, "build_from", lambda source, **how: built.append(source) or build_from(source, **how))
    assert measured(tmp_path, str(three), "--data", str(tmp_path / "other"))["total"] == 12
    assert built == [str(three)]


def test_the_name_of_shipped_weights_goes_before_a_run_of_that_name(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for `predict`."""
    (tmp_path / "cifar10").symlink_to(trained / "run")
    write_folder(tmp_path / "few", {"cat": 5, "ship": 6}, (8, 8))
    monkeypatch.chdir(tmp_path)
    assert measured(tmp_path, "cifar10", "--data", "few")["per_class"].keys() == {"cat", "ship"}
    assert "./cifar10 is a file or folder of that name" in capsys.readouterr().err
    assert main([*EVALUATE, "cifar10"]) == 2
    error = capsys.readouterr().err
    assert "'cifar10' means the weights that come with vitscratch" in error and "the run as ./cifar10" in error
    assert measured(tmp_path, "./cifar10")["total"] == 5


def test_a_run_is_measured_without_the_weights_that_it_began_with(tmp_path: Path, three: Path) -> None:
    few = ["--epochs", "1", "--workers", "0", "--no-doctor", "--device", "cpu", "--out", str(tmp_path / "run")]
    data = write_folder(tmp_path / "mine", {"cat": 14, "dog": 11}, (8, 8))
    assert main(["finetune", str(three), str(data), *few]) == 0
    three.unlink()
    fine_tune._pretrained.cache_clear()
    assert measured(tmp_path, str(tmp_path / "run"))["total"] == 5
