"""From a name, a folder or a file to training, validation and test parts that share no picture."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vitscratch.data.builtin import BUILT_IN, load_built_in
from vitscratch.data.check import Progress, Report, digests, list_set, make_report, rescan, scan
from vitscratch.data.findings import layout_line
from vitscratch.data.folders import Entry, Listing
from vitscratch.data.inspect import Inspection
from vitscratch.data.pictures import MAX_PIXELS, PictureError, as_picture, open_picture
from vitscratch.data.preprocessing import Interpolation, Preprocessing, Resize
from vitscratch.data.sets import PictureFiles, Pictures, Splits
from vitscratch.data.shortcuts import shortcut_line
from vitscratch.data.splits import class_counts, divide, some

if TYPE_CHECKING:
    from PIL.Image import Image
else:
    from typing import Any as Image

MAX_MEMORY = 2 * 2**30
_DUPLICATES = ("duplicate across splits", "conflicting labels")
"""Kinds of findings that flatter a result, or spoil it."""
_DRAWN = "real pictures divided, stratified, by the seed; fakes drawn from a model of the training part"


def load_splits(
    data: str | os.PathLike[str],
    *,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
    skip_bad: bool = False,
    max_memory: int = MAX_MEMORY,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    resize: Resize = "crop",
    interpolation: Interpolation = "bilinear",
    fraction: float = 1.0,
    max_pixels: int | None = MAX_PIXELS,
    max_pictures: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Splits:
    """Training, validation and test parts of a set, every picture of which has been decoded once.

    Of a set that stays files, those that have not changed since the last time are not decoded again: what was found is
    kept in the folder "checked" of `default_data_dir`, which may be deleted at any time.

    A test (or validation) part that the set comes with is used as it is. What is missing is divided off, stratified
    and shuffled by the seed: the test part from all pictures of an undivided set, the validation part from the same or
    from the training part of a divided one. Byte-identical pictures stay together when we divide, whatever their
    class; across given parts, and with different labels, they are warnings in the summary.

    Args:
        data: "digits", "fake-digits", "cifar10", "cifar100" or "fashion-mnist"; an image folder (see `list_folder`); or
            an .npz file (see `list_npz`). A folder of such a name is meant by "./digits".
        seed: of the division, not of training: keep it when you change that one.
        validation_fraction, test_fraction: of the pictures that are divided, in [0, 1); 0 for no such part. The
            test fraction counts only for undivided sets.
        skip_bad: leave bad files out, and record them in the summary, rather than refuse the set.
        max_memory: bytes; a set that needs no more, as bytes of its size, is decoded into memory (and for a moment
            needs twice that, while it is divided); a larger one stays files.
        image_size: (height, width) in pixels; None if all pictures have the same.
        channels: 3 or 1; None: 1 if all pictures are grey.
        resize, interpolation, fraction: see `Preprocessing`.
        max_pixels: larger pictures are bad; None for no limit.
        max_pictures: keep at most so many pictures of each part, drawn by the seed (see `some`); None for all. Of the
            others the bytes are read, to find copies, but nothing is decoded, so bad ones go unnoticed. All are decoded
            where the choice depends on it (skip_bad), where size or channels are not given, or for too many to keep.
        data_dir: where files of built-in sets are, or are downloaded to.
        progress: see `check_set`.

    Raises:
        ValueError: no such set, bad files, classes that are missing, too small or of which no training picture was
            drawn, or sizes that differ.
        RuntimeError: a built-in set that is not here and cannot be downloaded.
    """
    _check_fractions(validation_fraction, test_fraction)
    prepare = _Wanted(image_size, channels, resize, interpolation, fraction)
    decode = partial(
        _decoded, wanted=prepare, skip_bad=skip_bad, max_memory=max_memory, max_pixels=max_pixels, progress=progress
    )
    undecoded: Listing | None = None
    if str(data) in BUILT_IN:
        found = load_built_in(
            str(data),
            data_dir,
            seed=seed,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
        )
        whole = _built_in(found, prepare)
    else:
        listing = list_set(Path(data))
        _refuse_layout(listing)
        if max_pictures is not None and not skip_bad and prepare.fits(3 * max_pictures, max_memory):
            undecoded = listing
        whole = decode(listing) if undecoded is None else _undecoded(listing, prepare, progress)
    parts = _divide(str(data), whole, validation_fraction, test_fraction, seed)
    _refuse_missing_classes(str(data), whole, parts)
    names, labels = whole.pictures.class_names, whole.pictures.labels
    kept, pictures = parts, whole.pictures
    if max_pictures is not None:
        kept = {name: indices[some(labels[indices], max_pictures, seed)] for name, indices in parts.items()}
        _refuse_undrawn_classes(str(data), class_counts(labels[kept["train"]], names), max_pictures)
    counts = {name: class_counts(labels[indices], names) for name, indices in kept.items()}
    chosen = torch.cat(list(kept.values())).sort().values  # no picture is in two parts
    warnings = whole.notes["warnings"]
    if undecoded is not None:
        seen = decode(replace(undecoded, entries=[undecoded.entries[number] for number in chosen]))
        pictures, warnings = seen.pictures, seen.notes["warnings"]
        kept = {name: torch.searchsorted(chosen, indices) for name, indices in kept.items()}
    elif len(chosen) < len(labels) and whole.found is not None:
        warnings = _warnings_of(chosen, *whole.found)
    summary = {
        "data": str(data),
        "how": _DRAWN if str(data) == "fake-digits" else _how(whole, parts),
        "seed": seed,
        "validation_fraction": validation_fraction,
        "test_fraction": test_fraction,
        "in_memory": isinstance(pictures, Pictures),
        "given": [name for name in parts if name in whole.given],
        "counts": counts,
        **whole.notes,
        "warnings": warnings,
    }
    train, validation, test = (
        pictures.part(kept[name]) if name in kept else None for name in ("train", "validation", "test")
    )
    assert train is not None  # no division is without it
    return Splits(train, validation, test, names, whole.preprocessing, summary)


@dataclass(frozen=True)
class _Wanted:
    """The arguments that make a Preprocessing, of which size and channels may be left to the pictures."""

    image_size: tuple[int, int] | None
    channels: int | None
    resize: Resize
    interpolation: Interpolation
    fraction: float

    def fits(self, pictures: int, memory: int) -> bool:
        """Whether so many pictures, as bytes, take no more memory; False if it is not known yet what one takes."""
        if self.image_size is None or self.channels is None:
            return False
        return pictures * self.channels * self.image_size[0] * self.image_size[1] <= memory

    def preprocessing(self, image_size: tuple[int, int], channels: int) -> Preprocessing:
        """With the pictures' size and channels where none were asked for."""
        return Preprocessing(
            self.image_size or image_size,
            self.channels or channels,
            resize=self.resize,
            interpolation=self.interpolation,
            fraction=self.fraction,
        )


@dataclass(frozen=True)
class _Whole:
    """A set before we divide it, for each picture the part it came in (None: in none), and what its files told."""

    pictures: Pictures | PictureFiles
    given: list[str | None]
    preprocessing: Preprocessing
    notes: dict[str, Any]
    found: tuple[Listing, list[Inspection]] | None = None


def _check_fractions(validation: float, test: float) -> None:
    for name, part in (("validation_fraction", validation), ("test_fraction", test)):
        if not 0.0 <= part < 1.0:
            raise ValueError(f"{name} {part} is outside [0, 1)")
    if validation + test >= 1.0:
        raise ValueError(f"validation_fraction {validation} and test_fraction {test} leave nothing to train on")


def _built_in(parts: dict[str | None, Pictures], wanted: _Wanted) -> _Whole:
    sets = list(parts.values())
    images = torch.cat([part.images for part in sets])
    given = [split for split, part in parts.items() for _ in range(len(part))]
    channels, height, width = images.shape[1:]
    preprocessing = wanted.preprocessing((height, width), channels)
    if (preprocessing.channels, *preprocessing.image_size) != (channels, height, width):
        images = torch.stack([preprocessing.pixels(as_picture(image)) for image in images])
    pictures = Pictures(images, torch.cat([part.labels for part in sets]), sets[0].class_names)
    return _Whole(pictures, given, preprocessing, {"warnings": [], "skipped": [], "files": 0})


def _undecoded(listing: Listing, wanted: _Wanted, progress: Progress | None) -> _Whole:
    """What it takes to divide a set, of which the bytes have been read and no more."""
    assert wanted.image_size is not None
    assert wanted.channels is not None
    inspections = digests(listing, progress=progress)
    report = make_report(listing, inspections)
    _refuse_bad(listing.root, report, len(inspections), skip_bad=False)
    labels = torch.tensor([entry.label for entry in listing.entries])
    paths = tuple(entry.path or Path(entry.name) for entry in listing.entries)
    pictures = PictureFiles(paths, labels, listing.class_names, tuple(found.digest for found in inspections))
    preprocessing = wanted.preprocessing(wanted.image_size, wanted.channels)
    given = [entry.split for entry in listing.entries]
    return _Whole(pictures, given, preprocessing, _notes(report, listing, inspections))


def _decoded(
    listing: Listing,
    wanted: _Wanted,
    skip_bad: bool,
    max_memory: int,
    max_pixels: int | None,
    progress: Progress | None,
) -> _Whole:
    path = listing.root
    size = wanted.image_size or _first_size(listing.entries, max_pixels)
    preprocessing = wanted.preprocessing(size, 3)
    fits = len(listing.entries) * preprocessing.channels * size[0] * size[1] <= max_memory
    if not fits and any(entry.path is None for entry in listing.entries):
        raise ValueError(f"{path}: its pictures need more memory than {max_memory:,} bytes; raise it, or use a folder")
    images = torch.empty(len(listing.entries) if fits else 0, preprocessing.channels, *size, dtype=torch.uint8)
    any_size = wanted.image_size is not None and wanted.resize != "none"

    def keep(number: int, picture: Image) -> None:
        if any_size or (picture.height, picture.width) == size:
            images[number] = preprocessing.pixels(picture)

    if fits:
        inspections = scan(
            listing.entries, max_pixels=max_pixels, channels=preprocessing.channels, progress=progress, use=keep
        )
    else:
        inspections = rescan(listing, max_pixels=max_pixels, channels=preprocessing.channels, progress=progress)
    report = make_report(listing, inspections)
    _refuse_bad(path, report, len(inspections), skip_bad)
    if not any_size:
        _refuse_other_sizes(path, report, size)
    good = [number for number, inspection in enumerate(inspections) if inspection.reason is None]
    if not good:
        raise ValueError(f"{path}: none of its {len(inspections):,} files is a good picture")
    if wanted.channels is None and all(inspections[number].is_grey for number in good):
        preprocessing, images = replace(preprocessing, channels=1, mean=(0.0,), std=(1.0,)), images[:, :1].contiguous()
    labels = torch.tensor([listing.entries[number].label for number in good])
    digests = tuple(inspections[number].digest for number in good)
    pictures: Pictures | PictureFiles
    if fits:
        kept = images if len(good) == len(images) else images[good]
        pictures = Pictures(kept, labels, listing.class_names, digests)
    else:
        paths = tuple(file for number in good if (file := listing.entries[number].path) is not None)
        pictures = PictureFiles(paths, labels, listing.class_names, digests)
    given = [listing.entries[number].split for number in good]
    found = replace(listing, entries=[listing.entries[n] for n in good]), [inspections[n] for n in good]
    return _Whole(pictures, given, preprocessing, _notes(report, listing, inspections), found)


def _refuse_layout(listing: Listing) -> None:
    errors = [finding for finding in listing.findings if finding.severity == "bad"]
    if errors:
        raise ValueError(layout_line(listing.root, errors))


def _refuse_bad(path: Path, report: Report, files: int, skip_bad: bool) -> None:
    if report.layout_errors:  # by now: one file in two splits
        raise ValueError(f"{path}: {report.layout_errors[0].message}; splits must not share a file, so remove one")
    bad = report.bad_files
    if bad and not skip_bad:
        first = "; ".join(f"{finding.where}: {finding.message}" for finding in bad[:3])
        raise ValueError(
            f"{path}: {len(bad):,} of {files:,} files are bad ({first}{'; ...' if len(bad) > 3 else ''}). "
            f"`vitscratch data check {path}` lists them; --skip-bad trains on the rest"
        )


def _refuse_other_sizes(path: Path, report: Report, size: tuple[int, int]) -> None:
    if set(report.sizes) - {(size[1], size[0])}:
        sizes = sorted(report.sizes, key=lambda size: size[0] * size[1])
        raise ValueError(
            f"{path}: pictures have {len(sizes)} sizes, {_by(sizes[0])} to {_by(sizes[-1])} px (width x height); "
            "give image_size (--image-size) and a resize that is not 'none'"
        )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]:,} x {size[1]:,}"


def _first_size(entries: Sequence[Entry], max_pixels: int | None) -> tuple[int, int]:
    """(height, width) of the first picture that can be opened."""
    for entry in entries:
        try:
            picture = open_picture(entry.read(), max_pixels=max_pixels)
        except PictureError:
            continue
        return picture.height, picture.width
    return 1, 1  # there is none, which the scan will say of each


def _groups(pictures: Pictures | PictureFiles) -> Tensor:
    """A number for each picture, the same for those that are identical."""
    numbers: dict[str, int] = {}
    return torch.tensor(
        [numbers.setdefault(digest, len(numbers)) for digest in pictures.digests] or range(len(pictures))
    )


def _notes(report: Report, listing: Listing, inspections: Sequence[Inspection]) -> dict[str, Any]:
    kinds = (*_DUPLICATES, "duplicate", "ignored", "unused folder")
    found = Counter(finding.kind for finding in report.findings if finding.kind in kinds)
    told = hashlib.blake2b(digest_size=16)
    for entry, inspection in zip(listing.entries, inspections, strict=True):
        told.update(f"{entry.name}\0{entry.label}\0{entry.split}\0{inspection.digest}\n".encode())
    return {
        "warnings": _warnings(report, listing),
        "notes": dict(found),
        "files": len(inspections),  # those that were skipped included
        "skipped": [f"{finding.where}: {finding.message}" for finding in report.bad_files],
        "fingerprint": told.hexdigest(),  # of names, labels and bytes: another one is another set
    }


def _warnings(report: Report, listing: Listing) -> list[str]:
    return [
        *_unused(report, listing),
        *(f"{finding.kind}: {finding.message}" for finding in report.findings if finding.kind in _DUPLICATES),
        *filter(None, [shortcut_line(report.shortcuts, report.root)]),
    ]


def _warnings_of(chosen: Tensor, listing: Listing, inspections: Sequence[Inspection]) -> list[str]:
    """As if there were no other pictures."""
    alone = replace(listing, entries=[listing.entries[number] for number in chosen])
    return _warnings(make_report(alone, [inspections[number] for number in chosen]), alone)


def _unused(report: Report, listing: Listing) -> list[str]:
    """A warning where a folder may be the part that is missing, under another name."""
    folders = [finding.where for finding in report.findings if finding.kind == "unused folder"]
    missing = [split for split in ("test", "validation") if split not in listing.splits]
    if missing == ["validation"]:  # which a second test part is not
        folders = [folder for folder in folders if not folder.lower().startswith("test")]
    if not folders or not missing:
        return []
    name = "test" if missing[0] == "test" else "val"
    return [f"no {missing[0]} part; folders beside train that are not used: {', '.join(folders)}; call it {name}"]


def _divide(data: str, whole: _Whole, validation_fraction: float, test_fraction: float, seed: int) -> dict[str, Tensor]:
    """Numbers of the pictures of each part."""
    labels, groups, names = whole.pictures.labels, _groups(whole.pictures), whole.pictures.class_names
    parts: dict[str, Tensor] = {
        split: torch.tensor([number for number, given in enumerate(whole.given) if given == split])
        for split in ("train", "validation", "test")
        if split in whole.given
    }
    if not parts:
        parts["train"] = torch.arange(len(labels))
        if test_fraction > 0:
            with _named(data, "test"):
                parts["train"], parts["test"] = divide(labels, groups, test_fraction, seed, names)
            validation_fraction /= 1 - test_fraction  # of what is left
    if "validation" not in parts and validation_fraction > 0:
        train = parts["train"]
        with _named(data, "validation"):
            first, second = divide(labels[train], groups[train], validation_fraction, seed, names)
        parts["train"], parts["validation"] = train[first], train[second]
    return {split: parts[split] for split in ("train", "validation", "test") if split in parts}


@contextmanager
def _named(data: str, part: str) -> Iterator[None]:
    """Say which part it is that cannot be divided off."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{data}: no {part} part can be divided off: {error}; or --{part}-fraction 0") from error


def _refuse_missing_classes(data: str, whole: _Whole, parts: dict[str, Tensor]) -> None:
    for split, indices in parts.items():
        counts = class_counts(whole.pictures.labels[indices], whole.pictures.class_names)
        if missing := [name for name, count in counts.items() if count == 0]:
            raise ValueError(f"{data}: the {split} part has no picture of class {missing[0]!r}, which others have")


def _refuse_undrawn_classes(data: str, counts: dict[str, int], max_pictures: int) -> None:
    if undrawn := [name for name, count in counts.items() if count == 0]:
        more = f" (nor of {len(undrawn) - 1:,} more)" if len(undrawn) > 1 else ""
        raise ValueError(
            f"{data}: --max-pictures {max_pictures:,} drew no training picture of class {undrawn[0]!r}{more}, of "
            f"{len(counts):,} classes; raise it to {len(counts):,} or more"
        )


def _how(whole: _Whole, parts: dict[str, Tensor]) -> str:
    given = [split for split in parts if split in whole.given]
    made = [split for split in parts if split not in given and (given or split != "train")]
    said = f"{', '.join(given)} as given" if given else "undivided set"
    return f"{said}; {' and '.join(made)} divided off, stratified, by the seed" if made else said
