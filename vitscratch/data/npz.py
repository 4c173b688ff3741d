"""Sets of JPEG pictures in one .npz file."""

import zipfile
from pathlib import Path

import numpy as np

from vitscratch.data.findings import Finding, readable
from vitscratch.data.folders import Entry, Listing


def list_npz(path: Path) -> Listing:
    """Find the pictures of an .npz file, which holds a training and a test part.

    For each part ("train", "test"): `train_jpeg` (uint8: all JPEG files, one after another), `train_offsets`
    (n + 1 whole numbers: picture i is the bytes from offset i to offset i + 1) and `train_labels` (n whole numbers,
    places in `classes`). `classes` holds the names (text). Nothing is unpickled.
    A class that a part lacks is a finding.

    Raises:
        ValueError: another layout, or no readable .npz.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = tuple(str(name) for name in arrays["classes"])
            listing = Listing(path, names, ("train", "test"))
            for split in listing.splits:
                data, offsets, labels = (arrays[f"{split}_{key}"] for key in ("jpeg", "offsets", "labels"))
                _check_part(path, split, data, offsets, labels, len(names))
                listing.findings += [
                    Finding("bad", "class missing", f"{split}/{readable(name)}", f"no {split} picture of {name!r}")
                    for label, name in enumerate(names)
                    if label not in labels
                ]
                view = memoryview(np.ascontiguousarray(data).data)
                listing.entries += [
                    Entry(f"{split}[{i}]", int(labels[i]), split, data=view[int(offsets[i]) : int(offsets[i + 1])])
                    for i in range(len(labels))
                ]
    except KeyError as error:
        raise ValueError(f"{path}: array {error} is missing; see vitscratch.data.npz for the layout") from error
    except (OSError, zipfile.BadZipFile, EOFError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as an .npz file: {error}") from error
    return listing


def _check_part(
    path: Path, split: str, data: np.ndarray, offsets: np.ndarray, labels: np.ndarray, classes: int
) -> None:
    for name, fine, wanted in (
        ("jpeg", data.dtype == np.uint8 and data.ndim == 1, "a row of uint8"),
        ("labels", labels.dtype.kind in "iu" and labels.ndim == 1, "a row of whole numbers"),
        ("labels", not labels.size or (labels.min() >= 0 and labels.max() < classes), f"numbers of {classes} classes"),
        ("offsets", offsets.dtype.kind in "iu" and offsets.shape == (len(labels) + 1,), "one more than labels"),
        ("offsets", not (np.diff(offsets.astype(np.int64)) < 0).any(), "in order"),
        ("offsets", offsets.size and offsets[0] >= 0 and offsets[-1] <= data.size, "inside the data"),
    ):
        if not fine:
            raise ValueError(f"{path}: {split}_{name} should be {wanted}; see vitscratch.data.npz for the layout")
