"""Files of tensors: .safetensors, PyTorch's (.pth, .pt, .bin) and NumPy's .npz. Nothing in them is executed."""

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitscratch.files import write_atomically

# Where checkpoints keep the weights, the better ones first: an average or a teacher before what was trained.
_NESTS = (
    "model_ema",
    "state_dict_ema",
    "teacher",
    "target_encoder",
    "model",
    "state_dict",
    "net",
    "student",
    "encoder",
)
_KINDS = ".safetensors, .pth, .pt, .bin or .npz"


@dataclass(frozen=True)
class TensorFile:
    """What a file holds: tensors by name, the text in its header, what was done to find them, and its kind."""

    tensors: dict[str, Tensor]
    kind: str
    metadata: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_tensors(path: Path) -> TensorFile:
    """Read a file by what is in it, whatever its name ends with.

    Tensors stay on disk until they are used where the format allows it (safetensors, PyTorch's zip format). Of a
    checkpoint, the weights are taken from "model", "state_dict", "teacher", "model_ema" or the like; a note says so.

    Raises:
        ValueError: there is no such file, or it is damaged, or no weights, or would have to execute code: one line.
    """
    kind = _kind(path)
    try:
        if kind == "safetensors":
            return _read_safetensors(path)
        return _read_npz(path) if kind == "npz" else _read_torch(path)
    except _damages() as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{path} is refused: it names {code[1]}, which could run code; whoever made it can save "
                "model.state_dict() alone, or safetensors"
            ) from error
        reason = "no weights in it" if isinstance(error, pickle.UnpicklingError) else str(error) or "it ends too early"
        reason = reason.splitlines()[0].rstrip(".")
        raise ValueError(f"{path} cannot be read as {kind}: {reason}; repeat a download that was damaged") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors in the format that the file's name ends with; a reader sees the old file or the whole new one.

    Args:
        path: ends with .safetensors, .npz, .pth, .pt or .bin. metadata: text for the header of .safetensors; the
            other formats have none.

    Raises:
        ValueError: another ending, or bfloat16 for .npz, which does not know it. OSError: it cannot be written.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        from safetensors.torch import save

        content = save(whole, metadata={"format": "pt", **(metadata or {})})
        write_atomically(path, lambda file: file.write(content))
    elif path.suffix == ".npz":
        import numpy as np

        if halves := [name for name, tensor in whole.items() if tensor.dtype == torch.bfloat16]:
            raise ValueError(f"{path}: {halves[0]} is bfloat16, which .npz does not know; expected float32 or float16")
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in whole.items()}
        write_atomically(path, lambda file: np.savez(file, **arrays))
    elif path.suffix in (".pth", ".pt", ".bin"):
        # A view (q of a packed qkv) would be written with all that it is a view of.
        write_atomically(path, lambda file: torch.save({name: tensor.clone() for name, tensor in whole.items()}, file))
    else:
        raise ValueError(f"{path} ends with {path.suffix!r}; expected {_KINDS}")


def _kind(path: Path) -> str:
    """safetensors, npz or torch, from the first bytes."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    with path.open("rb") as file:
        start = file.read(512)
    text = start.lstrip().lower()
    for found, what in (
        (not start, "is empty; download it again"),
        (
            start.startswith(b"version https://git-lfs"),
            "is a Git LFS pointer, not the weights; `git lfs pull` gets them",
        ),
        (text.startswith((b"<!doctype", b"<html", b"<?xml")), "is a web page, not weights; the download went wrong"),
    ):
        if found:
            raise ValueError(f"{path} {what}")
    if start.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is incomplete: the end of the archive is missing; download it again")
        with zipfile.ZipFile(path) as archive:
            return "npz" if all(name.endswith(".npy") for name in archive.namelist()) else "torch"
    if start[8:9] == b"{":
        return "safetensors"
    if start.startswith(b"\x80") or path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".tar"):
        return "torch"
    if path.suffix == ".onnx":
        raise ValueError(f"{path} is an ONNX program, from which nobody reads weights back; name what it was made from")
    raise ValueError(f"{path} is none of the kinds of file that weights come in; expected {_KINDS}")


def _damages() -> tuple[type[Exception], ...]:
    from safetensors import SafetensorError

    archive = (zipfile.BadZipFile, pickle.UnpicklingError, EOFError)
    return (SafetensorError, *archive, RuntimeError, OSError, KeyError, TypeError, ValueError)


def _read_safetensors(path: Path) -> TensorFile:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        return TensorFile(tensors, "safetensors", file.metadata() or {})


def _read_npz(path: Path) -> TensorFile:
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return TensorFile({name: torch.from_numpy(arrays[name]) for name in arrays.files}, "npz")


def _read_torch(path: Path) -> TensorFile:
    # Command lines (Namespace) lie beside the weights in Meta's checkpoints; they are attributes and nothing else.
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of old pickles; one that cannot be read is an error anyway
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    notes: list[str] = []
    while isinstance(content, Mapping) and (nests := _nests(content)):
        left = [str(name) for name in content if name != nests[0]]
        notes.append(f"weights taken from {nests[0]!r}" + (f" (beside it: {', '.join(left[:5])})" if left else ""))
        content = content[nests[0]]
    if not isinstance(content, Mapping):
        raise TypeError(f"it holds a {type(content).__name__}, not tensors by name")
    tensors = {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    if other := [str(name) for name in content if str(name) not in tensors]:
        notes.append(f"left aside, no tensors: {', '.join(other[:5])}")
    return TensorFile(tensors, "torch", notes=tuple(notes))


def _nests(content: Mapping[Any, Any]) -> list[str]:
    """Names, best first, behind which there are further tensors by name."""
    return [name for name in _NESTS if isinstance(content.get(name), Mapping) and content[name]]
