from pathlib import Path

import pytest

from tests.data.make import encoded, picture, write_folder
from vitscratch.data import list_folder


def found(root: Path) -> list[tuple[str, str]]:
    return [(finding.kind, finding.where) for finding in list_folder(root).findings]


def test_an_undivided_folder(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"dog": 2, "cat": 1, "dog/puppy/small": 3})
    listing = list_folder(root)
    assert listing.class_names == ("cat", "dog") and listing.splits == () and not listing.findings
    assert [(entry.name, entry.label, entry.split) for entry in listing.entries][:2] == [
        ("cat/000.png", 0, None),
        ("dog/000.png", 1, None),
    ]
    assert len(listing.entries) == 6  # at any depth


@pytest.mark.parametrize("name", ["val", "valid", "validation", "VAL"])
def test_a_divided_folder(tmp_path: Path, name: str) -> None:
    root = write_folder(tmp_path / "set", {f"{split}/{c}": 2 for split in ("test", "train", name) for c in "ab"})
    listing = list_folder(root)
    assert listing.splits == ("train", "validation", "test") and listing.class_names == ("a", "b")
    assert [entry.split for entry in listing.entries] == ["train"] * 4 + ["validation"] * 4 + ["test"] * 4


def test_a_class_named_train_is_a_class(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"train": 2, "tram": 2, "test": 2})
    assert list_folder(root).class_names == ("test", "train", "tram") and list_folder(root).splits == ()


def test_clutter_is_passed_over_and_the_rest_is_told(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 2, "dog": 2, ".git/cat": 2})
    image = encoded(picture(50))
    for name in (".DS_Store", "cat/._000.png", "cat/Thumbs.db", "labels.csv"):
        (root / name).write_bytes(b"x")
    for name in ("stray.jpg", "dog/notes.txt", "dog/old.png.bak", "dog/UPPER.JPG"):
        (root / name).write_bytes(image)
    assert sorted(found(root)) == [
        ("ignored", "dog/notes.txt"),
        ("ignored", "dog/old.png.bak"),
        ("ignored", "stray.jpg"),
    ]
    assert len(list_folder(root).entries) == 5


def test_folders_beside_the_splits_are_told(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {f"{split}/{c}": 2 for split in ("train", "test_hard") for c in "ab"})
    (root / "train" / "x.png").write_bytes(b"")
    assert list_folder(root).class_names == ("test_hard", "train")  # a folder with pictures is a class
    (root / "train" / "x.png").unlink()
    assert found(root) == [("unused folder", "test_hard")] and list_folder(root).splits == ("train",)


def test_classes_must_agree(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"train/cat": 2, "train/dog": 2, "test/cat": 2, "test/eel": 1})
    (root / "val" / "cat").mkdir(parents=True)
    messages = [finding.message for finding in list_folder(root).findings if finding.severity == "bad"]
    assert "class 'dog' is in train but not in test" in messages
    assert "class 'eel' is in test but not in train" in messages
    assert ("empty class", "val/cat") in found(root)


def test_too_few_classes_point_to_the_right_folder(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "outer", {"inner/cat": 2, "inner/dog": 2})
    (finding,) = list_folder(root).findings
    assert finding.kind == "too few classes" and finding.message.endswith(f"Did you mean {root / 'inner'}?")
    (tmp_path / "nothing").mkdir()
    assert "class folders found: none; expected at least two" in list_folder(tmp_path / "nothing").findings[0].message


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="file is not a folder"):
        list_folder(tmp_path / "file")
    root = write_folder(tmp_path / "set", {"train/a": 1, "train/b": 1, "val/a": 1, "valid/a": 1})
    with pytest.raises(ValueError, match="two folders for validation"):
        list_folder(root)


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 1, "dog\nline": 1})
    try:
        (root / "cat" / "na\udcffme.txt").write_bytes(b"")
    except OSError:
        pytest.skip("this file system wants names that are text")
    assert found(root) == [("ignored", "cat/na\\udcffme.txt")]
    assert [entry.name for entry in list_folder(root).entries][1] == "dog\\nline/000.png"
