"""Picture files in class folders: what belongs to which class and split."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vitscratch.data.findings import Finding, readable
from vitscratch.data.pictures import EXTENSIONS, read_file

SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_CLUTTER = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "lost+found"}


@dataclass(frozen=True)
class Entry:
    """One picture to be read.

    Args:
        name: relative to the set, for messages. label: number of its class.
        split: "train", "validation" or "test" if the set is already divided, else None.
        path: of the file; None for a picture that is not in a file of its own. data: its bytes then.
    """

    name: str
    label: int
    split: str | None
    path: Path | None = None
    data: memoryview | None = None

    def read(self) -> bytes:
        """The bytes of the file.

        Raises:
            PictureError: it cannot be read.
        """
        if self.path is not None:
            return read_file(self.path)
        return bytes(self.data or b"")


@dataclass
class Listing:
    """The pictures of a set, before any is opened, and what is odd about how they are laid out."""

    root: Path
    class_names: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    entries: list[Entry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def list_folder(root: Path) -> Listing:
    """Find the pictures of an image folder.

    Two layouts: `root/class/*.jpg`, and `root/{train,val,test}/class/*.jpg` ("valid" and "validation" are also read
    as val; val and test may be absent). The second is meant where there is a folder "train" that holds folders and
    no pictures. Classes are numbered in the order of their names.

    A picture is a file whose extension is one of `EXTENSIONS`; it belongs to the class folder it lies in, at any
    depth. Names that begin with a dot, and the clutter of operating systems, are passed over. Anything else is a
    finding: other files in class folders, pictures outside them, folders beside the splits, empty classes, classes
    missing in a split, links to a folder that contains the link (not followed; other links are).

    Raises:
        ValueError: no folder, or two folders for one split.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; expected one with a folder of pictures for each class")
    listing = Listing(root)
    found = _folders_by_split(listing)
    names = sorted({name for classes in found.values() for name in classes})
    listing.class_names, listing.splits = tuple(names), tuple(split for split in found if split is not None)
    for split, classes in found.items():
        for label, name in enumerate(names):
            if name not in classes:
                others = next(other for other in found if other is not None and name in found[other])
                message = f"class {readable(name)!r} is in {others} but not in {split}"
                listing.findings.append(Finding("bad", "class missing", readable(f"{split}/{name}"), message))
                continue
            before = len(listing.entries)
            for path in _files(listing, classes[name], (_identity(root),)):
                if path.suffix.lower() in EXTENSIONS:
                    listing.entries.append(Entry(relative(listing, path), label, split, path))
                else:
                    _note(listing, "ignored", path, "not a picture, by its extension")
            if len(listing.entries) == before:
                message = "no pictures in this class folder"
                listing.findings.append(Finding("bad", "empty class", relative(listing, classes[name]), message))
    if len(names) < 2:
        listing.findings.append(Finding("bad", "too few classes", ".", _too_few(listing, found)))
    return listing


def relative(listing: Listing, path: Path) -> str:
    """The path as it is named in messages."""
    return readable(path.relative_to(listing.root))


def _folders_by_split(listing: Listing) -> dict[str | None, dict[str, Path]]:
    """Split -> class -> folder; the only split is None where the set is not divided yet."""
    folders = _folders(listing.root)
    train = next((path for path in folders if SPLITS.get(path.name.lower()) == "train"), None)
    divided = train is not None and bool(_folders(train)) and not _pictures(train)
    if not divided:
        _note_pictures(listing, listing.root)
        return {None: {path.name: path for path in folders}}
    found: dict[str | None, dict[str, Path]] = {}
    for path in folders:
        split = SPLITS.get(path.name.lower())
        if split is None:
            _note(listing, "unused folder", path, "a folder beside train that is neither val nor test")
        elif split in found:
            raise ValueError(f"{listing.root} has two folders for {split} ({readable(path.name)} is one); keep one")
        else:
            found[split] = {inner.name: inner for inner in _folders(path)}
            _note_pictures(listing, path)
    _note_pictures(listing, listing.root)
    order = [split for split in ("train", "validation", "test") if split in found]
    return {split: found[split] for split in order}


def _too_few(listing: Listing, found: dict[str | None, dict[str, Path]]) -> str:
    names = [readable(name) for name in listing.class_names]
    message = f"class folders found: {', '.join(names) or 'none'}; expected at least two"
    for classes in found.values():
        for path in classes.values():
            if len(_folders(path)) > 1:
                return f"{message}. Did you mean {readable(path)}?"
    return message


def _files(listing: Listing, folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Files in a folder at any depth, in the order of their names; `above` are the folders that contain it."""
    try:
        identity = _identity(folder)
        inside = _visible(folder)
    except OSError as error:
        listing.findings.append(
            Finding("bad", "unreadable folder", relative(listing, folder), f"cannot be listed: {error.strerror}")
        )
        return
    if identity in above:
        _note(listing, "link loop", folder, "a link to a folder that contains it; not followed")
        return
    for path in inside:
        if path.is_dir():
            yield from _files(listing, path, (*above, identity))
        else:
            yield path


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in _CLUTTER)


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _pictures(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix.lower() in EXTENSIONS and not path.is_dir()]


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _note(listing: Listing, kind: str, path: Path, message: str) -> None:
    listing.findings.append(Finding("note", kind, relative(listing, path), message))


def _note_pictures(listing: Listing, folder: Path) -> None:
    for path in _pictures(folder):
        _note(listing, "ignored", path, "a picture outside any class folder")
