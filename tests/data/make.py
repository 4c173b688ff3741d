"""Small pictures and folders of pictures for tests."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (13, 11), mode: str = "RGB") -> Image.Image:
    """Noise, (width, height) pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def write_folder(root: Path, counts: Mapping[str, int], size: tuple[int, int] = (13, 11), seed: int = 0) -> Path:
    """root/class/number.png, every picture another."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:03}.png").write_bytes(encoded(picture(seed, size)))
            seed += 1
    return root


def write_npz(path: Path, counts: Mapping[str, int], **changes: Any) -> Path:
    """The layout of list_npz, `counts` pictures in each part; `changes` replace arrays or, if None, drop them."""
    arrays: dict[str, Any] = {"classes": np.array(["class 0", "class 1"])}
    seed = 0
    for split, count in counts.items():
        files = [encoded(picture(seed + i), "JPEG") for i in range(count)]
        seed += count
        arrays[f"{split}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)
    arrays = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(path, **arrays)
    return path
