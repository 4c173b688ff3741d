"""Digests of what pictures are, whatever their names and times: for what is computed from them and kept."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from vitscratch.data.pictures import PictureError, read_file
from vitscratch.data.remember import file_state, remembered
from vitscratch.data.sets import PictureFiles, Pictures


def content_digest(part: Pictures | PictureFiles) -> str:
    """A digest of the pictures, in order, without their labels: of bytes in memory, or of bytes of files.

    A file is read once, and again when its size or times have changed; the same file in another place counts the same.

    Raises:
        OSError: a file that cannot be read any more.
    """
    if isinstance(part, Pictures):
        return tensor_digest(part.images)
    return _combined(_file_digests(part.paths))


def tensor_digest(tensor: Tensor) -> str:
    """A digest of a tensor's numbers, to the last bit, with their type and shape."""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    told = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)} ".encode(), digest_size=16)
    told.update(data.data)
    return told.hexdigest()


def _file_digests(paths: tuple[Path, ...]) -> list[str]:
    absolute = [path.resolve() for path in paths]
    root = os.path.commonpath([path.parent for path in absolute]) if absolute else ""
    with remembered(f"contents of {root}", {"format": 1}) as known, ThreadPoolExecutor(os.cpu_count()) as pool:
        states = [file_state(path) for path in absolute]  # before reading: what is written to meanwhile is read again
        new = [
            (path, state)
            for path, state in zip(absolute, states, strict=True)
            if not state or known.get(str(path), [None])[0] != state
        ]
        digests = pool.map(lambda one: _file_digest(one[0]), new)
        known |= {str(path): [state, digest] for (path, state), digest in zip(new, digests, strict=True)}
        return [known[str(path)][1] for path in absolute]


def _file_digest(path: Path) -> str:
    try:
        return hashlib.blake2b(read_file(path), digest_size=16).hexdigest()
    except PictureError as error:
        raise OSError(f"{path}: {error}; was it moved or changed?") from error


def _combined(digests: list[str]) -> str:
    return hashlib.blake2b(" ".join(digests).encode(), digest_size=16).hexdigest()
