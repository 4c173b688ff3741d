"""Sets by name: what they are, where they come from, how they are read. Nothing is unpickled."""

import gzip
import hashlib
import os
import tarfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch

from vitscratch.data.download import download
from vitscratch.data.real_or_fake import real_and_fake
from vitscratch.data.remember import default_data_dir
from vitscratch.data.sets import Pictures

_CIFAR = "https://www.cs.toronto.edu/~kriz"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"


@dataclass(frozen=True)
class Source:
    """A file of a set: its name, the address it comes from, and its MD5 checksum."""

    name: str
    address: str
    md5: str


SOURCES = {
    "cifar10": (
        Source("cifar-10-binary.tar.gz", f"{_CIFAR}/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    ),
    "cifar100": (
        Source("cifar-100-binary.tar.gz", f"{_CIFAR}/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
    ),
    "fashion-mnist": tuple(
        Source(name, f"{_FASHION}/{name}", md5)
        for name, md5 in (
            ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        )
    ),
}
BUILT_IN = ("digits", "fake-digits", *SOURCES)
_FASHION_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def digits() -> Pictures:
    """Digits 0 to 9, grey, 8 x 8 pixels: the test part of UCI's optical recognition set (Alpaydin and Kaynak, 1998)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16  # scans count 0 to 16 ink dots
    return Pictures(images, torch.tensor(bunch.target), tuple("0123456789"))


def load_built_in(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> dict[str | None, Pictures]:
    """The parts of a set of `BUILT_IN`: "train" and "test", or None for one that is not divided.

    The set "fake-digits" is `digits` against what a generative model of their training part draws (`real_and_fake`),
    so it comes divided, into "train", "validation" and "test", as the last three arguments say.

    CIFAR (Krizhevsky, 2009) is read from its binary version, because the Python version would have to be unpickled;
    Fashion-MNIST (arXiv 1708.07747) from its four idx files. Checksums are compared every time.

    Args:
        data_dir: folder of these files; what is not there is downloaded to it. None: `default_data_dir()`.
        seed, validation_fraction, test_fraction: of "fake-digits" alone; see `load_splits`.

    Raises:
        RuntimeError: a file that is not there and cannot be downloaded. ValueError: one that is not what it should be.
    """
    if name == "digits":
        return {None: digits()}
    if name == "fake-digits":
        return real_and_fake(digits(), seed=seed, validation_fraction=validation_fraction, test_fraction=test_fraction)
    folder = Path(data_dir) if data_dir is not None else default_data_dir()
    files = [obtain(source, folder) for source in SOURCES[name]]
    if name == "fashion-mnist":
        arrays = [_read_idx(path) for path in files]
        return {split: _pictures(arrays[i][:, None], arrays[i + 1], _FASHION_NAMES) for split, i in _PARTS}
    return _read_cifar(files[0], coarse=1 if name == "cifar100" else 0)


_PARTS: tuple[tuple[str, int], ...] = (("train", 0), ("test", 2))


def obtain(source: Source, folder: Path) -> Path:
    """A file of a set, checked: from the folder, or downloaded to it.

    A download goes to a file of another name, which gets its own when it is complete and right; one that breaks off is
    continued by the next call. Of several processes one downloads, and the others wait for it.

    Raises:
        RuntimeError, ValueError: see `load_built_in`.
    """
    from filelock import FileLock

    path = folder / source.name
    try:
        if not path.exists():  # asked before locking too: a folder that is complete need not be writable
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{source.name}.lock"):
                if not path.exists():  # nobody has downloaded it while we waited
                    _fetch(source, path)
    except (OSError, HTTPException) as error:  # no network, disk full, broken off, wrong checksum
        raise RuntimeError(
            f"{source.name} is not in {folder} and could not be downloaded ({error}); get it from {source.address} "
            f"(MD5 {source.md5}) and put it there, or name its folder with --data-dir"
        ) from error
    if (found := _md5(path)) != source.md5:
        raise ValueError(f"{path} is not what it should be: MD5 {found}, expected {source.md5}; delete it")
    return path


def _fetch(source: Source, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    download(source.address, part)
    if (found := _md5(part)) != source.md5:
        part.unlink()
        raise OSError(f"what came has MD5 {found}")
    part.replace(path)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _read_cifar(path: Path, coarse: int) -> dict[str | None, Pictures]:
    """CIFAR's binary version: records of labels (CIFAR-100 has a coarse one first) and 3 x 32 x 32 bytes."""
    with tarfile.open(path) as archive:
        members = {Path(member.name).name: member for member in archive if member.isfile()}

        def read(name: str) -> bytes:
            file = archive.extractfile(members[name])
            assert file is not None  # it is a file
            return file.read()

        names = tuple(read("fine_label_names.txt" if coarse else "batches.meta.txt").decode().split())
        train = ["train.bin"] if coarse else [f"data_batch_{number}.bin" for number in range(1, 6)]
        parts = {"train": b"".join(map(read, train)), "test": read("test.bin" if coarse else "test_batch.bin")}
    result: dict[str | None, Pictures] = {}
    for split, data in parts.items():
        records = np.frombuffer(data, np.uint8).reshape(-1, coarse + 1 + 3 * 32 * 32)
        images = records[:, coarse + 1 :].reshape(-1, 3, 32, 32)
        result[split] = _pictures(images, records[:, coarse], names)
    return result


def _read_idx(path: Path) -> np.ndarray:
    """An idx file of bytes: two zeros, type 8, the number of dimensions, their sizes, the data."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is no idx file of bytes: it begins with {data[:4]!r}")
    sizes = np.frombuffer(data, ">u4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(*sizes)


def _pictures(images: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> Pictures:
    return Pictures(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)), names)
