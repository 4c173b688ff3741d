"""What was found in files is used again only where it is still true."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.make import encoded, picture, write_folder
from vitscratch.data import Splits, check, check_set, load_splits, sets
from vitscratch.data.folders import Entry
from vitscratch.data.remember import remembered


def load(root: Path, **options: object) -> Splits:
    arguments = {"seed": 0, "validation_fraction": 0.2, "test_fraction": 0.1, "max_memory": 0, **options}
    return load_splits(root, **arguments)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the files that were decoded to be inspected."""
    names: list[str] = []
    inspect = check.inspect

    def told(entry: object, *arguments: object) -> object:
        names.append(entry.name)
        return inspect(entry, *arguments)

    monkeypatch.setattr(check, "inspect", told)
    return names


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_folder(tmp_path / "set", {"cat": 11, "dog": 7})
    (root / "cat" / "grey.png").write_bytes(encoded(picture(70, mode="L")))
    (root / "cat" / "copy.png").write_bytes((root / "cat" / "000.png").read_bytes())
    return root


def kept(cache: Path) -> Path:
    """The file about the pictures of the set; there are others about their statistics."""
    (path,) = (p for p in cache.rglob("*.json") if "cat/000.png" in p.read_text())
    return path


def test_only_new_and_changed_files_are_looked_at_again(root: Path, looked_at: list[str]) -> None:
    first = load(root)
    assert len(looked_at) == 20
    looked_at.clear()
    again = load(root)
    assert looked_at == []
    assert again.summary == first.summary and again.train.paths == first.train.paths
    assert again.summary["notes"] == {"duplicate": 1}

    (root / "dog" / "new.png").write_bytes(encoded(picture(71)))
    path = root / "cat" / "003.png"
    times = path.stat()
    path.write_bytes(encoded(picture(72))[: times.st_size].ljust(times.st_size, b"\0"))  # as long as it was
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # and as old, it says
    (root / "dog" / "000.png").unlink()
    changed = load(root, skip_bad=True)
    assert sorted(looked_at) == ["cat/003.png", "dog/new.png"]
    assert changed.summary["fingerprint"] != first.summary["fingerprint"] and changed.summary["files"] == 20


def test_bad_files_are_looked_at_every_time(root: Path, looked_at: list[str]) -> None:
    (root / "dog" / "bad.png").write_bytes(b"")
    for _ in range(2):
        looked_at.clear()
        with pytest.raises(ValueError, match="1 of 21 files are bad"):
            load(root)
    assert looked_at == ["dog/bad.png"]


def test_other_questions_are_asked_anew(root: Path, looked_at: list[str]) -> None:
    load(root)
    looked_at.clear()
    with pytest.raises(ValueError, match=r"20 of 20 files are bad .* is over the limit of 142 px"):
        load(root, max_pixels=13 * 11 - 1)
    assert len(looked_at) == 20


def test_a_check_always_decodes(root: Path, looked_at: list[str]) -> None:
    load(root)
    looked_at.clear()
    assert check_set(root).passed and len(looked_at) == 20


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def alter(path: Path) -> None:
    text = path.read_text()
    assert "PNG" in text
    path.write_text(text.replace("PNG", "GIF", 1))  # still JSON


def age(path: Path) -> None:
    first, body = path.read_text().split("\n")
    path.write_text(f"{json.dumps({**json.loads(first), 'pillow': '1.2.3'})}\n{body}")


@pytest.mark.parametrize("damage", [cut, alter, age, lambda path: path.write_bytes(b"\xff\0{"), Path.unlink])
def test_what_is_damaged_or_of_another_version_is_ignored(
    root: Path, cache: Path, looked_at: list[str], damage: object
) -> None:
    first = load(root)
    damage(kept(cache))
    looked_at.clear()
    assert load(root).summary == first.summary and len(looked_at) == 20
    looked_at.clear()
    load(root)
    assert looked_at == [] and not list(cache.rglob("*.part"))


def test_digests_that_another_version_kept_are_read_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows may have another form."""
    read: list[str] = []
    read_bytes = check.read_bytes

    def told(entry: Entry) -> object:
        read.append(entry.name)
        return read_bytes(entry)

    monkeypatch.setattr(check, "read_bytes", told)
    listing = check.list_set(root)
    first = check.digests(listing)
    assert len(read) == 20 and check.digests(listing) == first and len(read) == 20
    monkeypatch.setattr(check, "versions", lambda: {"code": "other"})
    assert check.digests(listing) == first and len(read) == 40


def test_a_cache_folder_that_cannot_be_used_is_no_error(
    root: Path, cache: Path, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    for _ in range(2):
        assert len(load(root).statistics().mean) == 3
    assert len(looked_at) == 40


def test_statistics_are_remembered_to_the_last_bit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    open_picture = sets.open_picture

    def told(path: Path, **options: object) -> object:
        opened.append(path)
        return open_picture(path, **options)

    monkeypatch.setattr(sets, "open_picture", told)
    splits = load(root)
    found = splits.statistics()
    assert sorted(opened) == sorted(splits.train.paths)
    assert load(root).statistics() == found and len(opened) == len(splits.train)
    assert splits.statistics(sample=5) != found and len(opened) == len(splits.train) + 5
    smaller = load(root, image_size=(5, 7))  # the same files
    assert smaller.statistics() != found and len(opened) == 2 * len(splits.train) + 5
    path = splits.train.paths[0]
    path.write_bytes(encoded(picture(73)))
    assert splits.statistics() != found and len(opened) == 3 * len(splits.train) + 5


def test_who_comes_second_waits_and_finds_what_the_first_has_found() -> None:
    inside, found = threading.Event(), []

    def second() -> None:
        inside.wait(20)
        with remembered("a thing", {"is": 1}) as notes:
            found.append(dict(notes))

    thread = threading.Thread(target=second)
    thread.start()
    with remembered("a thing", {"is": 1}) as notes:
        inside.set()
        thread.join(0.2)  # long enough for a second that does not wait to find nothing
        notes["x"] = [1.5, "\udcff"]
    thread.join(20)
    assert found == [{"x": [1.5, "\udcff"]}]
    with remembered("a thing", {"is": 2}) as notes:
        assert notes == {}
