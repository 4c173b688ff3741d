import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.make import encoded, picture, write_folder, write_npz
from vitscratch.data import check_set, load_splits
from vitscratch.data.check import Report


def smooth(seed: int, mode: str = "RGB") -> Image.Image:
    """More like a photograph than noise is: what the middle of a JPEG file holds is the middle of the picture."""
    return picture(seed, (9, 7)).resize((97, 89), Image.Resampling.BICUBIC).convert(mode)


def png_of(width: int, height: int) -> bytes:
    """A PNG file that says it is of this size, and is small."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def bad_files() -> dict[str, bytes]:
    jpeg, progressive = encoded(smooth(1), "JPEG"), encoded(smooth(1), "JPEG", progressive=True)
    png, gif, bmp, tiff = (encoded(smooth(2), form) for form in ("PNG", "GIF", "BMP", "TIFF"))
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    end, noise = b"\xff\xd9", random.Random(0).randbytes(400)
    restarts = encoded(smooth(3), "JPEG", restart_marker_rows=1)
    dropped = restarts.replace(b"\xff\xd1", b"", 1)
    second = restarts.index(b"\xff\xd1") + 9  # the decoder finds its way again at the next restart
    strayed = restarts[:second] + b"\xff\x02" + restarts[second:]
    return {
        "empty.jpg": b"",
        "html.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "text.png": b"just some notes\n" * 20,
        "json.jpg": b'{"error": "forbidden"}',
        "pickle.jpg": b"\x80\x04\x95" + noise,
        "zip.png": b"PK\x03\x04" + noise,
        "noise.jpg": noise,
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "half.jpg": jpeg[: len(jpeg) // 2],
        "most.jpg": jpeg[:-20],
        "no_end.jpg": jpeg[:-2],
        "header.jpg": jpeg[:200],
        "half_and_end.jpg": jpeg[: len(jpeg) // 2] + end,
        "most_and_end.jpg": jpeg[: len(jpeg) * 4 // 5] + end,
        "zeros.jpg": jpeg[: len(jpeg) // 2] + bytes(len(jpeg) - len(jpeg) // 2),
        "second_header.jpg": jpeg[: len(jpeg) // 2] + encoded(smooth(4), "JPEG"),
        "marker.jpg": jpeg[: len(jpeg) * 3 // 4] + b"\xff\x02" + jpeg[len(jpeg) * 3 // 4 :],
        "marker_that_is_read_over.jpg": jpeg[: len(jpeg) * 3 // 4] + b"\xff\x01" + jpeg[len(jpeg) * 3 // 4 :],
        "restart_lost.jpg": dropped,
        "marker_between_restarts.jpg": strayed,
        "progressive.jpg": progressive[: len(progressive) // 2],
        "progressive_and_end.jpg": progressive[:-30] + end,
        "half.png": png[: len(png) // 2],
        "flipped.png": bytes(flipped),
        "half.gif": gif[: len(gif) // 2],
        "half_and_end.gif": gif[: len(gif) // 2] + b"\0;",
        "half.bmp": bmp[: len(bmp) // 2],
        "half.tif": tiff[: len(tiff) // 2],
        "half.webp": encoded(smooth(2), "WEBP")[:-60],
        "half.ppm": encoded(smooth(2), "PPM")[:-60],
        "float.tif": encoded(Image.fromarray(np.ones((5, 7), np.float32)), "TIFF"),
        "bomb.png": png_of(30_000, 30_000),
        "huge.png": png_of(2**31 - 1, 2**31 - 1),
        "bomb.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0" + struct.pack("<HH", 9, 9) + b";",
    }


def odd_files() -> dict[str, tuple[bytes, str]]:
    """What works, and the kind of note that it should get."""
    wide = Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7) * 1800)
    frames = {"save_all": True, "append_images": [smooth(6)]}
    return {
        "png.jpg": (encoded(smooth(10)), "wrong extension"),
        "jpeg.PNG": (encoded(smooth(11), "JPEG"), "wrong extension"),
        "cmyk.jpg": (encoded(smooth(12, "CMYK"), "JPEG"), "CMYK"),
        "grey.jpg": (encoded(smooth(13, "L"), "JPEG"), "grey among colours"),
        "rgba.png": (encoded(smooth(14, "RGBA")), "transparent"),
        "palette.png": (encoded(smooth(15, "P"), transparency=3), "transparent"),
        "wide.png": (encoded(wide), "16-bit"),
        "wide.tiff": (encoded(wide.rotate(180), "TIFF"), "16-bit"),
        "two.gif": (encoded(smooth(16), "GIF", **frames), "several pictures"),
        "two.png": (encoded(smooth(17), "PNG", **frames), "several pictures"),
        "more.jpg": (encoded(smooth(18), "JPEG") + b"and more", "trailing data"),
        "exif.jpg": (encoded(smooth(19), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff" + b"x" * 50), "broken EXIF"),
        "exif2.jpg": (encoded(smooth(20), "JPEG", exif=b"Exif\0\0garbage"), "broken EXIF"),
        "long.png": (encoded(picture(21, (90, 5))), "very long"),
        "cut.png": (encoded(smooth(22))[:-12], "no end marker"),
    }


def fine_files() -> dict[str, bytes]:
    """What has looked like one of the above to somebody."""
    half_grey = smooth(30)
    half_grey.paste((128, 128, 128), (0, 40, 97, 89))
    thumbnail = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + encoded(smooth(31), "JPEG")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    return {
        "grey_end.jpg": encoded(half_grey, "JPEG"),
        "grey_end_progressive.jpg": encoded(half_grey, "JPEG", progressive=True),
        "grey_all.jpeg": encoded(Image.new("RGB", (97, 89), (128, 128, 128)), "JPEG"),
        "progressive.jpg": encoded(smooth(32), "JPEG", progressive=True),
        "restarts.jpg": encoded(smooth(33), "JPEG", restart_marker_rows=1),
        "thumbnail.jpg": encoded(smooth(34), "JPEG", exif=thumbnail),
        "comment.jpg": encoded(smooth(35), "JPEG", comment=b"\xff\xd9\xff\xda"),
        "profile.jpg": encoded(smooth(36), "JPEG", icc_profile=b"\xff\xd9" * 40_000),
        "best.jpg": encoded(smooth(37), "JPEG", quality=100, subsampling=0),
        "worst.jpg": encoded(smooth(38), "JPEG", quality=1),
        "rotated.jpg": encoded(smooth(39), "JPEG", exif=rotated),
        "tiny.jpg": encoded(Image.new("RGB", (3, 2), (128, 128, 128)), "JPEG"),
        "noise.png": encoded(picture(40)),
        "palette.gif": encoded(smooth(41), "GIF"),
        "lossless.webp": encoded(smooth(42), "WEBP", lossless=True),
    }


def kinds(report: Report, where: str, severity: str) -> set[str]:
    return {f.kind for f in report.findings if f.where == where and f.severity == severity}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_folder(tmp_path_factory.mktemp("planted") / "set", {"cat": 3, "dog": 5}, (97, 89))
    for name, data in {**bad_files(), **{name: data for name, (data, _) in odd_files().items()}}.items():
        (root / "cat" / name).write_bytes(data)
    for name, data in fine_files().items():
        (root / "dog" / name).write_bytes(data)
    return root


def test_every_bad_file_is_found_and_no_other_is_accused(planted: Path) -> None:
    report = check_set(planted)
    assert {finding.where for finding in report.bad_files} == {f"cat/{name}" for name in bad_files()}
    assert not report.layout_errors and not report.passed
    good = 3 + len(odd_files())
    assert report.counts == {"all": {"cat": good, "dog": 5 + len(fine_files())}}
    assert report.verdict().startswith(f"BAD: {len(bad_files())} files; ") and "--skip-bad" in report.verdict()
    assert [f.severity for f in report.findings] == sorted(f.severity for f in report.findings)


@pytest.mark.parametrize("name", odd_files())
def test_what_is_odd_is_noted(planted: Path, name: str) -> None:
    report = check_set(planted)
    assert odd_files()[name][1] in kinds(report, f"cat/{name}", "note")


def test_what_is_fine_is_left_alone(planted: Path) -> None:
    report = check_set(planted, threads=3)
    assert not [finding for finding in report.findings if finding.where.startswith("dog/")]


def test_the_limit_on_pixels_is_an_argument(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 1, "dog": 1}, (97, 89))
    assert check_set(root, max_pixels=97 * 89).passed
    report = check_set(root, max_pixels=97 * 89 - 1)
    assert [finding.kind for finding in report.findings] == ["too large"] * 2


def test_counts_sizes_and_pixels_are_told(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"train/cat": 3, "train/dog": 2, "valid/cat": 1, "valid/dog": 1}, (13, 11))
    (root / "train" / "dog" / "x.jpg").write_bytes(encoded(picture(99, (7, 5)), "JPEG"))
    seen: list[tuple[int, int]] = []
    report = check_set(root, progress=lambda done, total: seen.append((done, total)))
    assert report.counts == {"train": {"cat": 3, "dog": 3}, "validation": {"cat": 1, "dog": 1}}
    assert report.sizes == {(13, 11): 7, (7, 5): 1}
    assert report.modes == {"RGB": 8} and report.formats == {"PNG": 7, "JPEG": 1}
    assert report.verdict() == "GOOD: 8 good pictures, 2 classes, 0 notes" and seen == [(8, 8)]
    assert report.to_json()["sizes"] == {"13x11": 7, "7x5": 1}


def test_duplicates_are_told_apart(tmp_path: Path) -> None:
    classes = {"train/cat": 5, "train/dog": 5, "test/cat": 2, "test/dog": 2}
    root = write_folder(tmp_path / "set", classes)

    def copy(source: str, target: str) -> None:
        (root / target).write_bytes((root / source).read_bytes())

    copy("train/cat/000.png", "train/cat/a.png")
    copy("train/cat/001.png", "train/dog/b.png")
    copy("train/dog/002.png", "test/dog/c.png")
    copy("train/dog/003.png", "test/cat/d.png")
    for name in ("x", "y"):
        (root / "train" / "cat" / f"{name}.png").write_bytes(b"")  # broken alike is not the same picture
    report = check_set(root)
    found = {(f.where, f.kind): f.message for f in report.findings if f.severity != "bad"}
    assert set(found) == {
        ("train/cat/000.png", "duplicate"),
        ("train/cat/001.png", "conflicting labels"),
        ("train/dog/002.png", "duplicate across splits"),
        ("train/dog/003.png", "duplicate across splits"),
        ("train/dog/003.png", "conflicting labels"),
    }
    assert found["train/cat/001.png", "conflicting labels"].endswith(": train/cat/001.png, train/dog/b.png")
    warned = [finding.kind for finding in report.findings if finding.severity == "warning"]
    assert warned == ["duplicate across splits"] * 2
    for name in ("x", "y"):
        (root / "train" / "cat" / f"{name}.png").unlink()
    doubt = "DOUBTFUL (duplicate across splits): 18 good pictures, 2 classes, 2 warnings, 3 notes. Training takes it"
    assert check_set(root).verdict() == doubt and check_set(root).passed


def test_empty_classes_and_bad_files_are_named_together(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 3, "dog": 3, "orchid": 0})
    (root / "cat" / "001.png").write_bytes(b"")
    hint = f"{root}/orchid: no pictures in this class folder; fill it, or move it out of the way"
    tail = "5 good pictures, 3 classes, 0 notes"
    assert check_set(root).verdict() == f"REFUSED: {hint}; and 1 file that cannot be decoded (cat/001.png); {tail}"
    (root / "cat" / "001.png").unlink()
    assert check_set(root).verdict() == f"REFUSED: {hint}; {tail}"
    write_folder(root, {"a rose": 0})
    both = f"{root}/a rose, {root}/orchid: no pictures in these; fill them, or move them out of the way"
    assert check_set(root).verdict().startswith(f"REFUSED: {both}; 5 good pictures")


def test_a_class_of_bad_files_is_not_trained_on_by_skipping_them(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 3, "dog": 3, "eel": 1})
    (root / "eel" / "000.png").write_bytes(b"")
    assert check_set(root).verdict().endswith("Training refuses, also with --skip-bad: none is left of eel")
    (root / "eel" / "001.png").write_bytes(encoded(picture(60)))
    assert check_set(root).verdict().endswith("Training refuses; --skip-bad trains on the rest")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_one_file_in_two_splits_is_an_error(tmp_path: Path, link: object) -> None:
    root = write_folder(tmp_path / "set", {"train/cat": 3, "train/dog": 3, "test/cat": 2, "test/dog": 2})
    link(root / "train/cat/000.png", root / "test/cat/linked.png")
    report = check_set(root)
    assert [f.kind for f in report.layout_errors] == ["file in two splits"] and not report.bad_files
    assert report.verdict().startswith(f"REFUSED: {root}: one file, by links: train/cat/000.png, test/cat/linked.png")


def test_links_that_lead_nowhere_or_in_circles(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 2, "dog": 2})
    (root / "cat" / "circle.png").symlink_to("circle.png")
    (root / "cat" / "nowhere.png").symlink_to("gone.png")
    (root / "dog" / "up").symlink_to(root)
    elsewhere = write_folder(tmp_path / "other", {"more": 3}, seed=50)
    (root / "dog" / "more").symlink_to(elsewhere / "more")
    report = check_set(root)
    assert {f.where for f in report.bad_files} == {"cat/circle.png", "cat/nowhere.png"}
    assert [(f.where, f.kind) for f in report.findings if f.severity == "note"] == [("dog/up", "link loop")]
    assert report.counts["all"] == {"cat": 2, "dog": 5}


def test_an_npz_is_checked_too(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz", {"train": 6, "test": 4})
    assert check_set(path).counts == {"train": {"class 0": 3, "class 1": 3}, "test": {"class 0": 2, "class 1": 2}}
    with np.load(path) as arrays:
        data, offsets = arrays["train_jpeg"].copy(), arrays["train_offsets"]
    data[offsets[2] : offsets[2] + 9] = 0
    report = check_set(write_npz(path, {"train": 6, "test": 4}, train_jpeg=data))
    assert [f.where for f in report.bad_files] == ["train[2]"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": None}, "train_labels"),
        ({"classes": None}, "classes"),
        ({"train_labels": np.full(6, 2)}, "train_labels should be numbers of 2 classes"),
        ({"train_labels": np.zeros(6)}, "train_labels should be a row of whole numbers"),
        ({"train_offsets": np.arange(6)}, "train_offsets should be one more than labels"),
        ({"train_offsets": np.array([0, 5, 4, 6, 7, 8, 9])}, "train_offsets should be in order"),
        ({"train_offsets": np.arange(7) * 10**6}, "train_offsets should be inside the data"),
        ({"train_jpeg": np.zeros((2, 900), np.uint8)}, "train_jpeg should be a row of uint8"),
        ({"classes": np.array([print, "b"], dtype=object)}, r"cannot be read|pickle"),
    ],
)
def test_an_npz_of_another_layout_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    path = write_npz(tmp_path / "x.npz", {"train": 6, "test": 4}, **changes)
    with pytest.raises(ValueError, match=message):
        check_set(path)


def test_a_class_that_a_part_of_an_npz_lacks_is_found_by_the_check_and_refused(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz", {"train": 6, "test": 3}, test_labels=np.zeros(3, np.uint8))
    report = check_set(path)
    assert [(error.kind, error.where) for error in report.layout_errors] == [("class missing", "test/class 1")]
    assert not report.passed and report.verdict().startswith(f"REFUSED: {path}: no test picture of 'class 1'; ")
    with pytest.raises(ValueError, match=r"x.npz: no test picture of 'class 1'$"):
        load_splits(path, seed=0, validation_fraction=0.0, test_fraction=0.0)


def test_an_npz_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no zip at all")
    with pytest.raises(ValueError, match=r"x.npz cannot be read as an .npz file|allow_pickle"):
        check_set(tmp_path / "x.npz")
