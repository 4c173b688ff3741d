import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from tests.data.make import encoded, picture, write_folder, write_npz
from vitscratch.data import PictureFiles, Pictures, Preprocessing, Splits, check, load_splits, open_picture
from vitscratch.data.folders import Entry
from vitscratch.data.inspect import read_bytes
from vitscratch.data.preprocessing import to_bytes


def load(data: object, **options: object) -> Splits:
    return load_splits(data, **{"seed": 0, "validation_fraction": 0.2, "test_fraction": 0.1, **options})


def rows(part: Pictures | PictureFiles | None, splits: Splits) -> set[bytes]:
    """The pixels of each picture: what must not be in two parts."""
    assert part is not None
    if isinstance(part, PictureFiles):
        images = [splits.preprocessing.pixels(open_picture(path)) for path in part.paths]
        return {image.numpy().tobytes() for image in images}
    return {image.numpy().tobytes() for image in part.images}


@pytest.mark.parametrize("max_memory", [10**9, 0])
def test_an_undivided_folder_is_divided_completely_and_by_the_seed(tmp_path: Path, max_memory: int) -> None:
    root = write_folder(tmp_path / "set", {"cat": 41, "dog": 19, "eel": 23})
    splits = load(root, max_memory=max_memory)
    assert isinstance(splits.train, PictureFiles if max_memory == 0 else Pictures)
    parts = [rows(part, splits) for part in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in parts] == [57, 17, 9]  # fractions are of all pictures
    assert len(set.union(*parts)) == 83
    assert splits.class_names == ("cat", "dog", "eel") and splits.preprocessing == Preprocessing((11, 13), 3)
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels.unique().tolist() == [0, 1, 2]
    assert splits.summary["counts"]["test"] == {"cat": 4, "dog": 2, "eel": 3}
    assert splits.summary["in_memory"] is (max_memory > 0)
    assert json.loads(json.dumps(splits.summary)) == splits.summary
    again, other = load(root, max_memory=max_memory), load(root, max_memory=max_memory, seed=1)
    assert rows(again.test, splits) == parts[2] != rows(other.test, splits)
    assert again.summary == splits.summary and other.summary["fingerprint"] == splits.summary["fingerprint"]


def test_labels_belong_to_their_pictures(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 20, "dog": 20})
    for max_memory in (10**9, 0):
        splits = load(root, max_memory=max_memory)
        for part in (splits.train, splits.validation, splits.test):
            for label, name in enumerate(part.class_names):
                of_class = rows(part.part((part.labels == label).nonzero()[:, 0]), splits)
                folder = {
                    splits.preprocessing.pixels(open_picture(p)).numpy().tobytes() for p in (root / name).iterdir()
                }
                assert of_class <= folder and of_class


def test_no_parts_are_made_where_none_are_wanted(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 5, "dog": 7})
    splits = load(root, validation_fraction=0.0, test_fraction=0.0)
    assert splits.validation is None and splits.test is None and len(splits.train) == 12


def test_given_parts_are_kept_and_validation_is_made_from_training(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"train/cat": 20, "train/dog": 30, "test/cat": 3, "test/dog": 2})
    splits = load(root, test_fraction=0.5)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [40, 10, 5]
    assert splits.summary["how"] == "train, test as given; validation divided off, stratified, by the seed"
    (root / "val").mkdir()
    for name in ("cat", "dog"):
        write_folder(root / "val", {name: 3}, seed=100 if name == "cat" else 200)
    splits = load(root)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [50, 6, 5]


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST")])
def test_the_layout_of_cifake_is_loaded_as_it_comes(tmp_path: Path, train: str, test: str) -> None:
    """The same file names in every folder, with blanks and brackets; validation from the training part alone."""
    counts = {f"{train}/REAL": 30, f"{train}/FAKE": 20, f"{test}/REAL": 3, f"{test}/FAKE": 7}
    root = write_folder(tmp_path / "cifake", counts, size=(32, 32))
    for file in root.glob("*/*/*.png"):
        with Image.open(file) as image:
            image.save(file.with_name(f"{file.stem} (2).jpg"), quality=95)
        file.unlink()
    splits = load(root, image_size=(32, 32), test_fraction=0.5)
    assert splits.class_names == ("FAKE", "REAL") and splits.summary["warnings"] == []
    assert splits.summary["counts"] == {
        "train": {"FAKE": 16, "REAL": 24},
        "validation": {"FAKE": 4, "REAL": 6},
        "test": {"FAKE": 7, "REAL": 3},
    }
    given = {to_bytes(open_picture(path), 3).numpy().tobytes() for path in (root / test).glob("*/*.jpg")}
    assert rows(splits.test, splits) == given and not rows(splits.validation, splits) & given


def test_the_layout_of_the_competition_is_divided(tmp_path: Path) -> None:
    """Two folders, no test part, pictures of many sizes and formats, and a table beside them."""
    root = write_folder(tmp_path / "set", {"fake_images": 25, "real_images": 0}, size=(37, 41))
    for i in range(35):
        (root / "real_images" / f"{i}.jpg").write_bytes(encoded(picture(500 + i, (50 + i, 43)), "JPEG"))
    (root / "train.csv").write_text("file,label")
    splits = load(root, image_size=(32, 32), test_fraction=0.2)
    assert splits.class_names == ("fake_images", "real_images")
    (warning,) = splits.summary["warnings"]
    assert warning.startswith("shortcut: ") and "fake_images PNG" in warning  # and such a set is one
    assert splits.summary["counts"] == {
        "train": {"fake_images": 15, "real_images": 21},
        "validation": {"fake_images": 5, "real_images": 7},
        "test": {"fake_images": 5, "real_images": 7},
    }


def test_an_npz_is_loaded(tmp_path: Path) -> None:
    splits = load(write_npz(tmp_path / "x.npz", {"train": 20, "test": 6}))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [16, 4, 6]
    with pytest.raises(ValueError, match="its pictures need more memory than 99 bytes"):
        load(tmp_path / "x.npz", max_memory=99)


def test_digits_are_loaded_also_in_another_size() -> None:
    splits = load("digits")
    assert splits.train.images.dtype == torch.float32 and splits.preprocessing == Preprocessing((8, 8), 1)
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 1797
    larger = load("digits", image_size=(16, 12), channels=3)
    assert larger.train.images.shape == (len(splits.train), 3, 16, 12) and larger.train.images.dtype == torch.uint8
    assert_close(larger.train.labels, splits.train.labels)


@pytest.mark.parametrize("seed", range(4))
def test_copies_stay_together(tmp_path: Path, seed: int) -> None:
    root = write_folder(tmp_path / "set", {"cat": 20, "dog": 20})
    for i in range(10):
        data = (root / "cat" / f"{i:03}.png").read_bytes()
        (root / "cat" / f"copy{i}.png").write_bytes(data)
        if i < 3:
            (root / "dog" / f"wrong{i}.png").write_bytes(data)
    splits = load(root, seed=seed, test_fraction=0.3)
    parts = [rows(part, splits) for part in (splits.train, splits.validation, splits.test)]
    assert sum(len(part) for part in parts) == 40 == len(set.union(*parts))
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 53
    assert len(splits.summary["warnings"]) == 3 and splits.summary["notes"] == {"conflicting labels": 3, "duplicate": 7}
    assert splits.summary["warnings"][0].startswith("conflicting labels: identical pictures in cat and dog: ")


def test_copies_across_given_parts_are_a_warning_and_one_file_is_an_error(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"train/cat": 9, "train/dog": 9, "test/cat": 2, "test/dog": 2})
    (root / "test/cat/copy.png").write_bytes((root / "train/cat/000.png").read_bytes())
    (warning,) = load(root).summary["warnings"]
    assert warning.startswith("duplicate across splits: identical pictures in test and train: ")
    os.link(root / "train/dog/000.png", root / "test/dog/same.png")
    with pytest.raises(ValueError, match=r"one file, by links: .*; splits must not share a file, so remove one"):
        load(root)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    root = write_folder(tmp_path / "set", {"cat": 20, "dog": 20})
    for i in range(4):
        (root / "cat" / f"{i:03}.png").write_bytes(encoded(picture(i))[: 20 + 90 * i])
    (root / "dog" / "a.jpg").write_bytes(b"")
    return root


def test_bad_files_are_refused_in_one_line(broken: Path) -> None:
    with pytest.raises(ValueError, match=r"5 of 41 files are bad \(cat/000.png: .*; \.\.\.\)") as error:
        load(broken)
    message = str(error.value)
    assert f"`vitscratch data check {broken}` lists them; --skip-bad trains on the rest" in message
    assert "\n" not in message and "dog/a.jpg" not in message  # the first three


@pytest.mark.parametrize("max_memory", [10**9, 0])
def test_bad_files_are_left_out_and_recorded_if_one_says_so(broken: Path, max_memory: int) -> None:
    splits = load(broken, skip_bad=True, max_memory=max_memory)
    skipped = splits.summary["skipped"]
    assert [line.split(":")[0] for line in skipped] == [f"cat/{i:03}.png" for i in range(4)] + ["dog/a.jpg"]
    assert splits.summary["files"] == 41 and all(": " in line for line in skipped)  # each with its reason
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 36
    parts = [rows(part, splits) for part in (splits.train, splits.validation, splits.test)]
    whole = {splits.preprocessing.pixels(picture(i)).numpy().tobytes() for i in range(4, 40)}
    assert set.union(*parts) == whole


def test_skipping_must_not_empty_a_class(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 9, "dog": 9, "eel": 2})
    for path in (root / "eel").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="the train part has no picture of class 'eel'"):
        load(root, skip_bad=True)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of its 20 files is a good picture"):
        load(root, skip_bad=True)


def test_classes_that_are_missing_or_too_small_are_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"train/cat": 9, "train/dog": 9, "test/cat": 2})
    with pytest.raises(ValueError, match="class 'dog' is in train but not in test"):
        load(root)
    with pytest.raises(ValueError, match=r"classes \['eel'\] have a single picture"):
        load(write_folder(tmp_path / "other", {"cat": 9, "dog": 9, "eel": 1}))


def test_empty_classes_are_refused_by_name(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "broken", {"cat": 9, "dog": 9, "orchid": 0})
    with pytest.raises(ValueError, match="broken/orchid: no pictures in this class folder; fill it, or move it out"):
        load(root)
    write_folder(root, {"rose": 0})
    with pytest.raises(ValueError, match=f"^{root}/orchid, {root}/rose: no pictures in these; fill them, or move them"):
        load(root)


def test_a_folder_beside_train_that_is_not_used_is_a_warning(tmp_path: Path) -> None:
    classes = {f"{split}/{c}": 9 for split in ("train", "testing", "more") for c in "ab"}
    root = write_folder(tmp_path / "set", classes)
    splits = load(root)
    assert splits.test is None and splits.summary["notes"] == {"unused folder": 2}
    assert splits.summary["warnings"] == [
        "no test part; folders beside train that are not used: more, testing; call it test"
    ]
    (root / "testing").rename(root / "test")
    assert load(root).summary["warnings"] == [
        "no validation part; folders beside train that are not used: more; call it val"
    ]
    (root / "more").rename(root / "test_matched")  # a second test part is no validation part
    assert load(root).summary["warnings"] == []


def test_sizes_must_agree_or_be_said(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 9})
    write_folder(root, {"dog": 9}, (17, 19), seed=50)
    with pytest.raises(
        ValueError, match=r"pictures have 2 sizes, 13 x 11 to 17 x 19 px \(width x height\); give image_"
    ):
        load(root)
    with pytest.raises(ValueError, match="pictures have 2 sizes"):
        load(root, image_size=(11, 13), resize="none")
    splits = load(root, image_size=(5, 7), resize="squash", interpolation="bicubic")
    assert splits.train.images.shape[1:] == (3, 5, 7)
    assert splits.preprocessing == Preprocessing((5, 7), 3, resize="squash", interpolation="bicubic")


def test_channels_follow_the_pictures_or_the_argument(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 9, "dog": 9})
    assert load(root, channels=1).train.images.shape[1] == 1
    for path in root.rglob("*.png"):
        path.write_bytes(encoded(open_picture(path, channels=1)))
    grey = load(root)
    assert grey.train.images.shape[1] == 1 and grey.preprocessing.channels == 1
    assert_close(load(root, channels=1).train.images, grey.train.images, rtol=0, atol=0)
    assert load(root, channels=3).train.images.shape[1] == 3


@pytest.mark.parametrize("max_memory", [10**9, 0])
def test_statistics_are_exact_and_of_training_alone(tmp_path: Path, max_memory: int) -> None:
    root = write_folder(tmp_path / "set", {"cat": 20, "dog": 20})
    splits = load(root, max_memory=max_memory)
    whole = load(root)
    pixels = whole.train.images.double() / 255
    found = splits.statistics()
    assert found.pictures == 28
    assert_close(torch.tensor(found.mean, dtype=torch.float64), pixels.mean(dim=(0, 2, 3)), rtol=0, atol=1e-14)
    std = pixels.std(dim=(0, 2, 3), correction=0)
    assert_close(torch.tensor(found.std, dtype=torch.float64), std, rtol=0, atol=1e-14)
    everything = torch.cat([pixels, whole.test.images.double() / 255]).mean(dim=(0, 2, 3))
    assert (torch.tensor(found.mean) - everything).abs().max() > 1e-4  # the test would notice the test part
    sample = splits.statistics(sample=10)
    assert sample.pictures == (28 if max_memory else 10)


def test_statistics_refuse_what_has_none(tmp_path: Path) -> None:
    pictures = Pictures(torch.full((5, 1, 3, 3), 77).byte(), torch.zeros(5).long(), ("a", "b"))
    with pytest.raises(ValueError, match="the same in every pixel"):
        Splits(pictures, None, None, ("a", "b"), Preprocessing((3, 3), 1), {}).statistics()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 2.0}, "validation_fraction 2.0 is outside"),
        ({"test_fraction": float("nan")}, "test_fraction nan is outside"),
        ({"validation_fraction": 1.0}, r"validation_fraction 1.0 is outside \[0, 1\)"),
        ({"test_fraction": -0.1}, r"test_fraction -0.1 is outside"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
    ],
)
def test_fractions_that_are_none_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("no such set", **options)  # before anything is looked for


def test_what_is_no_set_is_refused_with_the_names_of_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"cifar is no folder, no .npz file and no built-in set \(digits, fake-digits, cif"
    ):
        load("cifar")


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 9, "dog": 9})
    before = load(root).summary["fingerprint"]
    (root / "cat" / "000.png").rename(root / "cat" / "zzz.png")
    renamed = load(root).summary["fingerprint"]
    (root / "cat" / "zzz.png").write_bytes(encoded(picture(99)))
    assert len({before, renamed, load(root).summary["fingerprint"]}) == 3


def test_too_few_pictures_to_divide_are_counted_and_the_part_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"ant": 2, "bee": 2, "cat": 3, "dog": 3})
    with pytest.raises(ValueError, match="set: no test part can be divided off: 4 classes, but 1 of 10 pictures"):
        load(root)
    with pytest.raises(ValueError, match=r"no validation part .* but 2 of 10 .*; or --validation-fraction 0$"):
        load(root, test_fraction=0.0)
    assert load(root, test_fraction=0.0, validation_fraction=0.0).validation is None


@pytest.mark.parametrize("make", [write_folder, write_npz])
def test_fewer_pictures_are_the_same_ones_whether_the_rest_is_decoded_or_not(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"cat": 41, "dog": 19} if make is write_folder else {"train": 41, "test": 19}
    path = make(tmp_path / ("set" if make is write_folder else "set.npz"), counts)
    if make is write_folder:
        for i in range(7):
            (path / "cat" / f"copy{i}.png").write_bytes((path / "cat" / f"{i:03}.png").read_bytes())
    wanted = {"image_size": (8, 6), "channels": 3, "max_pictures": 11, "validation_fraction": 0.25, "seed": 3}
    decoded: list[str] = []
    inspect = check.inspect

    def told(entry: Entry, *arguments: object) -> object:
        decoded.append(entry.name)
        return inspect(entry, *arguments)

    monkeypatch.setattr(check, "inspect", told)
    reference = load(path, **wanted, skip_bad=True)  # which has to decode all
    assert len(decoded) == sum(counts.values()) + 7 * (make is write_folder)
    for _ in range(2):  # the second time digests are remembered
        decoded.clear()
        few = load(path, **wanted)
        parts = [(few.train, reference.train), (few.validation, reference.validation), (few.test, reference.test)]
        assert len(decoded) == len(set(decoded)) == sum(len(part) for part, _ in parts) < sum(counts.values())
        for part, expected in parts:
            assert len(part) <= 11
            assert_close((part.images, part.labels), (expected.images, expected.labels), rtol=0, atol=0)
            assert part.digests == expected.digests
        assert few.summary == reference.summary and few.preprocessing == reference.preprocessing
    whole = load(path, **{**wanted, "max_pictures": None})
    order = torch.randperm(len(whole.train), generator=torch.Generator().manual_seed(3))[:11]
    assert_close(few.train.images, whole.train.images[order], rtol=0, atol=0)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_classes_are_counted_among_the_chosen_and_refused_where_none_is_trained_on(
    tmp_path: Path, skip_bad: bool
) -> None:
    root = write_folder(tmp_path / "set", {"cat": 53, "dog": 5, "eel": 5})
    wanted = {"image_size": (8, 6), "channels": 3, "skip_bad": skip_bad, "test_fraction": 0.0}
    splits = load(root, **wanted, max_pictures=37)
    assert splits.summary["counts"] == {
        name: {c: int((part.labels == label).sum()) for label, c in enumerate(splits.class_names)}
        for name, part in (("train", splits.train), ("validation", splits.validation))
    }
    assert sum(splits.summary["counts"]["train"].values()) == 37
    with pytest.raises(
        ValueError, match=r"set: --max-pictures 1 drew no .* \(nor of 1 more\), of 3 classes; raise it to 3"
    ):
        load(root, **wanted, max_pictures=1)
    few = load(root, **wanted, max_pictures=3)
    assert len(few.train) == 3 and set(few.train.labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("skip_bad", [False, True])
def test_copies_are_warned_of_only_among_the_chosen(tmp_path: Path, skip_bad: bool) -> None:
    root = write_folder(tmp_path / "set", {"cat": 31, "dog": 31})
    for i in range(31):
        (root / "cat" / f"{i:03}.png").write_bytes((root / "dog" / f"{i:03}.png").read_bytes())
    wanted = {"image_size": (8, 6), "channels": 3, "skip_bad": skip_bad}
    assert len(load(root, **wanted).summary["warnings"]) == 31
    few = load(root, **wanted, max_pictures=11)
    names = {inspect_one(root / "cat" / f"{i:03}.png"): f"{i:03}.png" for i in range(31)}
    chosen = [names[digest] for part in (few.train, few.validation, few.test) for digest in part.digests]
    twice = sorted(name for name in set(chosen) if chosen.count(name) == 2)
    assert 0 < len(twice) < len(set(chosen))
    assert few.summary["warnings"] == [
        f"conflicting labels: identical pictures in cat and dog: cat/{name}, dog/{name}" for name in twice
    ]
    assert few.summary["notes"] == {"conflicting labels": 31}  # of the whole set


def test_bad_files_among_the_chosen_are_refused_and_others_not_looked_at(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 20, "dog": 20})
    wanted = {"image_size": (8, 6), "channels": 3, "max_pictures": 3, "seed": 1}
    few = load(root, **wanted)
    names = {digest: name for name in root.rglob("*.png") for digest in [inspect_one(name)]}
    kept = {names[digest] for part in (few.train, few.validation, few.test) for digest in part.digests}
    other = next(path for path in sorted(names.values()) if path not in kept)
    other.write_bytes(other.read_bytes()[:70])
    again = load(root, **wanted)
    assert_close(again.train.images, few.train.images, rtol=0, atol=0)
    assert again.summary["fingerprint"] != few.summary["fingerprint"]
    chosen = sorted(kept)[0]
    chosen.write_bytes(chosen.read_bytes()[:70])
    with pytest.raises(ValueError, match=r"1 of 9 files are bad .*--skip-bad trains on the rest"):
        load(root, **wanted)
    with pytest.raises(ValueError, match=r"2 of 40 files are bad"):  # too many to keep: all are looked at
        load(root, **wanted, max_memory=3 * 3 * 8 * 6 * 3 - 1)


def inspect_one(path: Path) -> str:
    return read_bytes(Entry(path.name, 0, None, path))[0].digest
