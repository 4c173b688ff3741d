"""Pretrained weights from a file into a model: ours beside torchvision's builder and `load_state_dict`."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from vitscratch.bench.memory import rise
from vitscratch.bench.peers import OURS, build_peer
from vitscratch.bench.timing import Ratio, interleaved
from vitscratch.config import ViTConfig

THEIRS = "torchvision"
_TINY = ViTConfig(32, 16, 3, 2, embed_dim=192, depth=1, num_heads=3, mlp_dim=64)  # of a width whose heads are known


@dataclass(frozen=True)
class _Load:
    """Load a file into a new model, and perhaps classify a picture."""

    who: str
    config: ViTConfig
    file: Path
    picture: bool

    def __call__(self) -> None:
        model: nn.Module
        if self.who == OURS:
            from vitscratch.weights import build_from

            model = build_from(self.file).model
        else:
            model = build_peer(THEIRS, self.config).eval()
            model.load_state_dict(torch.load(self.file, weights_only=True))
        if self.picture:
            side = self.config.image_size
            with torch.inference_mode():
                model(torch.zeros(1, self.config.in_channels, side, side))  # type: ignore[arg-type]


def measure(config: ViTConfig, rounds: int, on_round: Callable[[], object] = lambda: None) -> list[dict[str, Any]]:
    """Time and peak memory of loading a file of torchvision's weights, alone and with a first picture.

    A file that is mapped is read when its numbers are first needed: only with the picture have both read everything.
    The file, with random numbers, is written to a temporary folder; it stays in the system's cache.

    Args:
        config: an architecture that torchvision has, too. rounds: at least 2. on_round: called after each.

    Returns:
        A row each for loading and for loading with a picture: median seconds and peak bytes of both, ratio of times.
    """
    rows = []
    with TemporaryDirectory() as folder:
        file, tiny = Path(folder) / "weights.pth", Path(folder) / "tiny.pth"
        torch.save(build_peer(THEIRS, config).state_dict(), file)
        torch.save(build_peer(THEIRS, _TINY).state_dict(), tiny)
        for picture in (False, True):
            steps = {who: _Load(who, config, file, picture) for who in (OURS, THEIRS)}
            times = interleaved(steps, rounds, on_round=on_round)
            ratio = Ratio.of(times[THEIRS], times[OURS])
            rows.append(
                {
                    "what": "load and one picture" if picture else "load",
                    "seconds": {who: sorted(times[who])[rounds // 2] for who in times},
                    "ratio": ratio.median,
                    "ratio_quartiles": [ratio.low, ratio.high],
                    "peak_bytes": {who: _peak(step, _Load(who, _TINY, tiny, True)) for who, step in steps.items()},
                }
            )
    return rows


def _peak(load: _Load, before: _Load) -> int:
    """Of a fresh process that has loaded a tiny model before, so that what libraries load at first is not counted."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_prepare, before, torch.get_num_threads()).result()
        return pool.submit(rise, load).result()


def _prepare(load: _Load, threads: int) -> None:
    torch.set_num_threads(threads)
    load()
