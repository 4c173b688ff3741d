"""The peak memory of a step, measured in a process of its own."""

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from vitscratch.bench.steps import Work, make_step
from vitscratch.config import PRESETS

_STEPS = 3  # the first makes the optimizer's state, so the peak comes after it
_PROC = Path("/proc/self")


@dataclass(frozen=True)
class _Job:
    work: Work
    peer: str
    compiled: bool
    threads: int


def peak_memory(work: Work, peer: str, compiled: bool) -> int | None:
    """Bytes that a model takes at most in a few steps: weights, gradients, optimizer and activations together.

    On a GPU: what torch had allocated at most. On the CPU: how far the resident memory of a fresh process rose above
    what it was before the model was built, so libraries' own buffers and the allocator's waste are in it. None where
    this cannot be told: compiled on the CPU (the compiler itself takes memory), or on another kind of device.
    """
    if work.device not in ("cpu", "cuda") or (work.device == "cpu" and compiled):
        return None
    job = _Job(work, peer, compiled, torch.get_num_threads())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, job).result()


def _measure(job: _Job) -> int:
    torch.set_num_threads(job.threads)
    _load_libraries(job)
    images, labels = job.work.batch()
    before = _resident()
    step = make_step(job.work, job.peer, images, labels, job.compiled)
    if job.work.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        _forget_peak()  # of imports and of drawing the weights
    for _ in range(_STEPS):
        step()
    return torch.cuda.max_memory_allocated() if job.work.device == "cuda" else _peak() - before


def rise(step: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process rose at most while a step ran; use a fresh process."""
    before = _resident()
    _forget_peak()
    step()
    return _peak() - before


def _load_libraries(job: _Job) -> None:
    """A step of a tiny model, so that what torch and the peer's package load when first used is not counted."""
    tiny = replace(job.work, config=PRESETS["vit_nano_8"], batch_size=1)
    make_step(tiny, job.peer, *tiny.batch(), compiled=False)()


def _resident() -> int:
    return _status("VmRSS") if _PROC.exists() else _peak()


def _peak() -> int:
    if _PROC.exists():
        return _status("VmHWM")
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> None:
    if _PROC.exists():
        (_PROC / "clear_refs").write_text("5")  # Linux: the high-water mark becomes what is resident now


def _status(field: str) -> int:
    lines = (_PROC / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
