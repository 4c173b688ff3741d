import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from tests.data.make import encoded, picture
from vitscratch.data import check_set, load_splits
from vitscratch.data.check import Report
from vitscratch.data.folders import Entry
from vitscratch.data.inspect import Inspection
from vitscratch.data.shortcuts import Shortcut, find_shortcuts
from vitscratch.data.traces import Traces

Write = Callable[[int], bytes]
TOGETHER = "all but file size, together"


def write_set(root: Path, classes: dict[str, Write], count: int = 12, extension: str = ".png") -> Path:
    """Noise for every class, written in the way that is given for it."""
    seed = 0
    for name, write in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:03}{extension}").write_bytes(write(seed))
            seed += 1
    return root


def told_by(report: Report, severity: str) -> list[str]:
    found = (item for item in report.findings if item.kind.startswith("shortcut") and item.severity == severity)
    return [finding.where for finding in found]


def as_jpeg(seed: int, size: tuple[int, int] = (13, 11), **options: Any) -> bytes:
    return encoded(picture(seed, size), "JPEG", **{"quality": 83, "subsampling": 0, **options})


def as_png(seed: int, size: tuple[int, int] = (13, 11), mode: str = "RGB", **options: Any) -> bytes:
    return encoded(picture(seed, size, mode), "PNG", **options)


def exif() -> bytes:
    data = Image.Exif()
    data[0x010F] = "a camera"
    return data.tobytes()


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a red bus, 20 steps")
    return info


def test_generated_png_and_real_jpeg_are_told_by_their_format_whatever_their_names(tmp_path: Path) -> None:
    report = check_set(write_set(tmp_path / "set", {"FAKE": as_png, "REAL": as_jpeg}, extension=".jpg"))
    assert told_by(report, "warning") == ["file format"]
    message = next(finding.message for finding in report.findings if finding.severity == "warning")
    assert "100.0% balanced accuracy (chance 50.0%), cross-validated on 24 pictures" in message
    assert "FAKE PNG (100%), REAL JPEG (100%). Save all pictures anew in the same way" in message
    assert report.passed and report.verdict().startswith(
        "DOUBTFUL (shortcut): 24 good pictures, 2 classes, 1 warning, "
    )
    found = {one.feature: one for one in report.shortcuts}
    assert found["file format"].accuracy == 1.0 and found["file format"].chance == 0.5
    assert "JPEG quantisation" not in found  # of JPEGs alone, and one class has none


@pytest.mark.parametrize(
    ("feature", "first", "second"),
    [
        ("JPEG quantisation", as_jpeg, lambda seed: as_jpeg(seed, quality=61)),
        ("JPEG chroma subsampling", as_jpeg, lambda seed: as_jpeg(seed, subsampling=2)),
        ("progressive JPEG", as_jpeg, lambda seed: as_jpeg(seed, progressive=True)),
        ("EXIF data", as_jpeg, lambda seed: as_jpeg(seed, exif=exif())),
        ("colour profile", as_png, lambda seed: as_png(seed, icc_profile=profile())),
        ("texts in the header", as_png, lambda seed: as_png(seed, pnginfo=text())),
        ("colour mode", as_png, lambda seed: as_png(seed, mode="L")),
        ("width", as_png, lambda seed: as_png(seed, (17, 11))),
        ("height", as_png, lambda seed: as_png(seed, (13, 7))),
    ],
)
def test_each_property_is_named_alone(feature: str, first: Write, second: Write, tmp_path: Path) -> None:
    report = check_set(write_set(tmp_path / "set", {"cat": first, "dog": second}))
    assert told_by(report, "warning") == [feature]


def test_the_quality_of_jpegs_is_said(tmp_path: Path) -> None:
    report = check_set(write_set(tmp_path / "set", {"cat": as_jpeg, "dog": lambda seed: as_jpeg(seed, quality=31)}, 8))
    found = next(one for one in report.shortcuts if one.feature == "JPEG quantisation")
    assert found.typical == {"cat": "about quality 83 (100%)", "dog": "about quality 31 (100%)"}


def test_file_sizes_are_a_note_because_they_may_be_content(tmp_path: Path) -> None:
    def smooth(seed: int) -> bytes:
        return encoded(picture(seed, (2, 2)).resize((13, 11)), "PNG")

    root = write_set(tmp_path / "set", {"clouds": smooth, "gravel": as_png})
    report = check_set(root)
    assert told_by(report, "note") == ["file size"] and told_by(report, "warning") == []
    assert "may be content" in report.findings[0].message and "bytes in the middle" in report.findings[0].message
    splits = load_splits(root, seed=0, validation_fraction=0.1, test_fraction=0.2)
    assert splits.summary["warnings"] == []


def inspections(values: Sequence[dict[str, Any]]) -> list[Inspection]:
    """Made up: what differs from the others, no two of the same bytes."""
    return [
        Inspection((), str(n), **{"size": (32, 32), "mode": "RGB", "form": "PNG", "traces": Traces(100), **value})
        for n, value in enumerate(values)
    ]


def tried(values: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Shortcut]:
    """One sequence for each class."""
    entries = [Entry(f"{c}/{n}", c, None) for c, own in enumerate(values) for n in range(len(own))]
    found = inspections([value for own in values for value in own])
    return {one.feature: one for one in find_shortcuts(entries, found, [f"class {c}" for c in range(len(values))])}


def png(number: int) -> list[dict[str, Any]]:
    return [{"form": "PNG"}] * number


def jpeg(number: int) -> list[dict[str, Any]]:
    return [{"form": "JPEG"}] * number


def test_chance_is_no_shortcut_in_a_small_set() -> None:
    """20 pictures, eight properties drawn at random, twelve times."""
    for seed in range(12):
        draw = random.Random(seed)
        values = [
            {
                "form": draw.choice(["JPEG", "PNG"]),
                "size": (draw.randint(20, 90), draw.choice([32, 64, 96])),
                "mode": draw.choice(["RGB", "RGB", "L"]),
                "traces": Traces(draw.randint(900, 9000), exif=draw.random() < 0.3, texts=draw.randint(0, 2)),
            }
            for _ in range(20)
        ]
        found = tried([values[:10], values[10:]])
        assert len(found) == 8, sorted(found)
        assert not any(one.severity for one in found.values()), (seed, found)


@pytest.mark.parametrize(
    ("first", "second", "tells"),
    [
        (png(7), jpeg(7), None),  # too few to be sure
        (png(8), jpeg(8), True),
        (png(10), [*jpeg(9), *png(1)], True),
        (png(10), [*jpeg(8), *png(2)], False),
        (png(8), jpeg(300), True),
        ([*png(60), *jpeg(40)], [*png(40), *jpeg(60)], False),
        ([*png(1060), *jpeg(940)], [*png(940), *jpeg(1060)], False),  # beyond chance, but of no use: 53 %
        ([*png(1200), *jpeg(800)], [*png(800), *jpeg(1200)], True),
    ],
)
def test_how_much_is_enough(first: list[dict[str, Any]], second: list[dict[str, Any]], tells: bool | None) -> None:
    found = tried([first, second])
    assert tells is None if not found else (found["file format"].severity == "warning") is tells


def test_several_classes_and_the_odd_one_is_named() -> None:
    found = tried([*([jpeg(21)] * 4), png(21)])["file format"]
    assert found.severity == "warning" and found.chance == pytest.approx(0.2)
    assert found.accuracy == pytest.approx(0.4, abs=0.05)  # that class always, and one in four of the rest
    assert found.classes() == "class 0 JPEG (100%), class 4 PNG (100%), class 1 JPEG (100%) and so on"


def test_properties_that_tell_only_together() -> None:
    same, other = [(20, 20), (30, 30)], [(20, 30), (30, 20)]
    found = tried([[{"size": size} for size in sizes * 40] for sizes in (same, other)])
    assert found["width"].severity is None and found["height"].severity is None
    assert found[TOGETHER].severity == "warning" and found[TOGETHER].accuracy > 0.95


def test_a_large_class_is_sampled_and_a_copy_is_no_other_picture(tmp_path: Path) -> None:
    assert tried([png(5000), jpeg(60)])["file format"].pictures == 2060
    copies = write_set(tmp_path / "set", {"cat": lambda seed: as_png(seed % 7), "dog": as_jpeg}, 20)
    assert check_set(copies).shortcuts == ()  # seven cats


def test_only_training_pictures_are_looked_at(tmp_path: Path) -> None:
    write_set(tmp_path / "set" / "train", {"cat": as_png, "dog": as_png})
    write_set(tmp_path / "set" / "test", {"cat": as_png, "dog": as_jpeg}, 43)
    assert told_by(check_set(tmp_path / "set"), "warning") == []


@pytest.mark.parametrize("max_memory", [2**30, 0])
def test_loading_warns_in_one_line_also_from_memory_of_an_earlier_run(
    max_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write_set(tmp_path / "set", {"FAKE": as_png, "REAL": lambda seed: as_jpeg(seed, exif=exif())})
    for _ in range(2):
        splits = load_splits(root, seed=0, validation_fraction=0.2, test_fraction=0.2, max_memory=max_memory)
        (line,) = splits.summary["warnings"]
        assert "\n" not in line and line.startswith("shortcut: without a look at the pictures, file format tells")
        assert "FAKE PNG (100%), REAL JPEG (100%); so does EXIF data" in line
        assert f"`vitscratch data check {root}`" in line


def test_traces_survive_json() -> None:
    traces = Traces(23, (5, 7), "4:2:0", True, True, False, 3)
    assert Traces.from_row(json.loads(json.dumps(traces.to_row()))) == traces
