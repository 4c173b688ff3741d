"""Look at every picture of a set before training: decode each once, and say what is odd."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from vitscratch.data.builtin import BUILT_IN
from vitscratch.data.duplicates import duplicate_findings, groups_of_identical
from vitscratch.data.findings import Finding, Severity, layout_line
from vitscratch.data.folders import Entry, Listing, list_folder
from vitscratch.data.inspect import Inspection, inspect, read_bytes
from vitscratch.data.npz import list_npz
from vitscratch.data.pictures import MAX_PIXELS
from vitscratch.data.remember import file_state, remembered, versions
from vitscratch.data.shortcuts import Shortcut, find_shortcuts, shortcut_findings

if TYPE_CHECKING:
    from PIL.Image import Image
else:
    from typing import Any as Image

Progress = Callable[[int, int], None]
LAYOUT = ("too few classes", "class missing", "empty class", "unreadable folder", "file in two splits")
"""Kinds of bad findings about the set as a whole, which leaving out bad files does not mend."""
_CHUNK = 256  # files between two calls of progress


@dataclass(frozen=True)
class Report:
    """What a check found.

    Args:
        root: what was checked. class_names: in the order of the labels.
        counts: good pictures: split ("all" if the set is not divided) -> class -> number.
        sizes: (width, height) -> number. modes, formats: Pillow's names -> number. All of good pictures.
        findings: bad ones first, then warnings.
        shortcuts: how well properties of the files tell the class, those that do not included (`find_shortcuts`).
    """

    root: str
    class_names: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    sizes: dict[tuple[int, int], int]
    modes: dict[str, int]
    formats: dict[str, int]
    findings: tuple[Finding, ...]
    shortcuts: tuple[Shortcut, ...] = ()

    @property
    def bad_files(self) -> tuple[Finding, ...]:
        """Files that cannot be decoded or are unsafe."""
        return tuple(item for item in self.findings if item.severity == "bad" and item.kind not in LAYOUT)

    @property
    def layout_errors(self) -> tuple[Finding, ...]:
        """What is wrong with the set as a whole."""
        return tuple(item for item in self.findings if item.severity == "bad" and item.kind in LAYOUT)

    @property
    def passed(self) -> bool:
        """Whether training takes the set as it is."""
        return not self.bad_files and not self.layout_errors

    def verdict(self) -> str:
        """One line: whether training takes the set, and if not, what to do."""
        good = sum(sum(classes.values()) for classes in self.counts.values())
        number = Counter(item.severity for item in self.findings)
        tail = ", ".join((_many(good, "good picture"), _many(len(self.class_names), "class")))
        tail += (
            f", {_many(number['warning'], 'warning')}" * bool(number["warning"]) + f", {_many(number['note'], 'note')}"
        )
        warned = dict.fromkeys(item.kind for item in self.findings if item.severity == "warning")
        bad = _many(len(self.bad_files), "file")
        if self.layout_errors:
            first = ", ".join(finding.where for finding in self.bad_files[:3])
            also = f"; and {bad} that cannot be decoded ({first}{', ...' * (len(self.bad_files) > 3)})"
            line = layout_line(Path(self.root), self.layout_errors)
            return f"REFUSED: {line}{also * bool(self.bad_files)}; {tail}"
        parts = [part for part in self.counts.values() if any(part.values()) or not good]
        emptied = dict.fromkeys(name for part in parts for name, number in part.items() if not number)
        if self.bad_files and emptied:
            return f"BAD: {bad}; {tail}. Training refuses, also with --skip-bad: none is left of {', '.join(emptied)}"
        if self.bad_files:
            return f"BAD: {bad}; {tail}. Training refuses; --skip-bad trains on the rest"
        return f"DOUBTFUL ({', '.join(warned)}): {tail}. Training takes it" if warned else f"GOOD: {tail}"

    def to_json(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        sizes = {f"{width}x{height}": number for (width, height), number in self.sizes.items()}
        return {**asdict(self), "sizes": sizes, "passed": self.passed, "verdict": self.verdict()}


def _many(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 'es' if thing.endswith('s') else 's'}"


def check_set(
    path: str | os.PathLike[str],
    *,
    max_pixels: int | None = MAX_PIXELS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look at every picture of an image folder (`list_folder`) or an .npz file (`list_npz`).

    Each file is read once and decoded to the last pixel: verifying checksums alone passes pictures that break later.
    Nothing is changed.

    Args:
        path: the folder or file.
        max_pixels: larger pictures are bad, by their header, and not decoded; None for no limit.
        threads: that decode at the same time; None for one per core.
        progress: called with (done, total) now and then.

    Raises:
        ValueError: no such folder, or a file that is no such .npz.
    """
    listing = list_set(Path(path))
    inspections = scan(listing.entries, max_pixels=max_pixels, threads=threads, progress=progress)
    return make_report(listing, inspections)


def list_set(path: Path) -> Listing:
    """The pictures of a folder or an .npz file, not yet opened.

    Raises:
        ValueError: neither.
    """
    if not path.exists():
        raise ValueError(f"{path} is no folder, no .npz file and no built-in set ({', '.join(BUILT_IN)})")
    return list_npz(path) if path.suffix == ".npz" and path.is_file() else list_folder(path)


def scan(
    entries: Sequence[Entry],
    *,
    max_pixels: int | None = MAX_PIXELS,
    channels: int = 3,
    threads: int | None = None,
    progress: Progress | None = None,
    use: Callable[[int, Image], None] | None = None,
) -> list[Inspection]:
    """Inspect every picture, in threads (Pillow decodes outside Python's lock).

    Args:
        use: called with the number of each good picture and itself, from any thread: so nothing is decoded twice.
    """

    def one(number: int) -> Inspection:
        inspection, picture = inspect(entries[number], max_pixels, channels)
        if use is not None and picture is not None:
            use(number, picture)
        return inspection

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about broken metadata: what matters of them is a finding
        return _in_threads(one, len(entries), threads, progress)


def _in_threads(
    one: Callable[[int], Inspection], files: int, threads: int | None, progress: Progress | None
) -> list[Inspection]:
    done: list[Inspection] = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for first in range(0, files, _CHUNK):
            done += pool.map(one, range(first, min(first + _CHUNK, files)))
            if progress is not None:
                progress(len(done), files)
    return done


def rescan(
    listing: Listing, *, max_pixels: int | None = MAX_PIXELS, channels: int = 3, progress: Progress | None = None
) -> list[Inspection]:
    """`scan` of files that are new or changed since the last time, by their size and times; the rest is remembered.

    Bad files are looked at every time: what could not be read yesterday may be fine today.
    """
    version = {**versions(), "max_pixels": max_pixels, "channels": channels}
    look = partial(scan, max_pixels=max_pixels, channels=channels, progress=progress)
    return _remembering(listing, str(listing.root.resolve()), version, look)


def digests(listing: Listing, *, progress: Progress | None = None) -> list[Inspection]:
    """What is known of every picture before it is decoded: whether it can be read, and a digest of its bytes.

    Likewise remembered.
    """

    def look(entries: Sequence[Entry]) -> list[Inspection]:
        return _in_threads(lambda number: read_bytes(entries[number])[0], len(entries), None, progress)

    return _remembering(listing, f"digests {listing.root.resolve()}", versions(), look)


def _remembering(
    listing: Listing, about: str, version: dict[str, Any], look: Callable[[Sequence[Entry]], list[Inspection]]
) -> list[Inspection]:
    entries = listing.entries
    # Before anything is read: a file that changes meanwhile is then looked at again the next time.
    states = [file_state(entry.path) if entry.path is not None else [] for entry in entries]
    with remembered(about, version) as known:
        rows = [known.get(entry.name, [None]) for entry in entries]
        changed = [number for number, row in enumerate(rows) if row[0] != states[number]]
        found = dict(zip(changed, look([entries[number] for number in changed]), strict=True))
        inspections = [found.get(n) or Inspection.from_row(entries[n].name, row[1]) for n, row in enumerate(rows)]
        known.clear()
        for entry, state, inspection in zip(entries, states, inspections, strict=True):
            if state and inspection.reason is None:
                known[entry.name] = [state, inspection.to_row()]
    return inspections


def make_report(listing: Listing, inspections: Sequence[Inspection]) -> Report:
    """Put together what was found in the layout, in each file and between files."""
    groups = groups_of_identical([found.digest if found.reason is None else "" for found in inspections])
    good = [(entry, found) for entry, found in zip(listing.entries, inspections, strict=True) if found.reason is None]
    shortcuts = find_shortcuts([entry for entry, _ in good], [found for _, found in good], listing.class_names)
    findings = [
        *listing.findings,
        *(finding for found in inspections for finding in found.findings),
        *duplicate_findings(listing.entries, groups, listing.class_names),
        *_of_the_other_kind(good),
        *shortcut_findings(shortcuts),
    ]
    counts = {split: {name: 0 for name in listing.class_names} for split in (listing.splits or ("all",))}
    for entry, _ in good:
        counts[entry.split or "all"][listing.class_names[entry.label]] += 1
    return Report(
        root=str(listing.root),
        class_names=listing.class_names,
        counts=counts,
        sizes=dict(Counter(found.size for _, found in good).most_common()),
        modes=dict(Counter(found.mode for _, found in good).most_common()),
        formats=dict(Counter(found.form for _, found in good).most_common()),
        findings=tuple(sorted(findings, key=lambda finding: get_args(Severity).index(finding.severity))),
        shortcuts=shortcuts,
    )


def _of_the_other_kind(good: Sequence[tuple[Entry, Inspection]]) -> list[Finding]:
    """Grey pictures among coloured ones, or the other way round."""
    grey = [found.is_grey for _, found in good]
    if sum(grey) in (0, len(grey)):
        return []
    odd, message = (True, "grey among colours") if 2 * sum(grey) <= len(grey) else (False, "colour among greys")
    return [
        Finding("note", message, entry.name, f"mode {found.mode}")
        for (entry, found), is_grey in zip(good, grey, strict=True)
        if is_grey == odd
    ]
