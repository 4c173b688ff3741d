"""All implementations on the same step, and what it cost each of them."""

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from vitscratch.bench.memory import peak_memory
from vitscratch.bench.peers import CHECKPOINTED, OURS
from vitscratch.bench.steps import DTYPES, Work, count_parameters, make_step
from vitscratch.bench.timing import Ratio, interleaved, matmul_flops


@dataclass(frozen=True)
class Row:
    """What one implementation needed, eager or compiled.

    The three MFUs are FLOP/s over a peak, in [0, 1]: the architecture's FLOPs over the peak that was measured
    (comparable between implementations), those that were executed over it (less where some are spared, more where
    some are repeated), and the architecture's over the peak that the device's maker states.
    """

    mode: str
    model: str
    parameters: int
    seconds: float
    images_per_second: float
    ratio: Ratio
    memory_bytes: int | None
    mfu: float
    executed_mfu: float
    stated_mfu: float | None


@dataclass(frozen=True)
class Bench:
    """A table of rows, the rate of matrix products (FLOP/s) that its MFUs refer to, and why rows are missing."""

    work: Work
    peak_flops: float
    stated_flops: float | None
    rows: list[Row] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and strings."""
        return asdict(self)


def measure(
    work: Work,
    peers: Sequence[str],
    *,
    modes: Sequence[str] = ("eager", "compiled"),
    rounds: int = 15,
    memory: bool = True,
    checkpointing: bool = False,
    stated_flops: float | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
    on_round: Callable[[], object] = lambda: None,
) -> Bench:
    """Run ours and the peers on the same work, interleaved, and tell what it cost.

    Args:
        work: what to do. peers: keys of `PEERS` that are installed.
        modes: "eager", "compiled" (`torch.compile` with its defaults), or both, one after the other.
        rounds: at least 2; every model takes a step in each.
        memory: also measure the peak memory of each, in processes of their own.
        checkpointing: in training, also a row for ours with activation checkpointing (eager).
        stated_flops: the peak FLOP/s that the maker states, for `Row.stated_mfu`.
        on_progress: called with a line about what happens next. on_round: called after each round of each mode.

    Raises:
        ValueError: fewer than 2 rounds, or a mode that there is not.
    """
    if rounds < 2:
        raise ValueError(f"rounds {rounds}: expected at least 2, of which quartiles can be told")
    if unknown := set(modes) - {"eager", "compiled"}:
        raise ValueError(f"mode {unknown.pop()!r} is unknown; there are eager and compiled")
    on_progress(f"matrix products in {work.dtype}")
    peak = matmul_flops(work.device, DTYPES[work.dtype])
    times: dict[tuple[str, str], list[float]] = {}
    failures: dict[str, str] = {}
    for mode in modes:
        names = [OURS, *peers, *([CHECKPOINTED] if checkpointing and work.training and mode == "eager" else [])]
        on_progress(f"{mode}: {', '.join(names)}")
        found, failed = _times(work, names, mode == "compiled", rounds, on_round)
        times |= {(mode, name): seconds for name, seconds in found.items()}
        failures |= {f"{name}, {mode}": reason for name, reason in failed.items()}
    peak = max(peak, matmul_flops(work.device, DTYPES[work.dtype]))  # in case something disturbed the first
    bench = Bench(work, peak, stated_flops, failures=failures)
    if memory:
        on_progress("peak memory, each in a process of its own")
    for (mode, name), seconds in times.items():
        peak_bytes = peak_memory(work, name, mode == "compiled") if memory else None
        bench.rows.append(_row(bench, mode, name, seconds, times[mode, OURS], peak_bytes))
    return bench


def _times(
    work: Work, names: Sequence[str], compiled: bool, rounds: int, on_round: Callable[[], object]
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of each model's steps, and why a peer has none. Ours has to run."""
    images, labels = work.batch()
    expected = (work.batch_size, work.config.num_classes)
    torch.compiler.reset()
    steps, failures = {}, {}
    for name in names:
        try:
            step = make_step(work, name, images, labels, compiled)
            if (shape := tuple(step().shape)) != expected:
                raise ValueError(f"logits of shape {shape}; expected {expected}")
            steps[name] = step
        except Exception as error:  # another project's code, which may fail in any way
            if name == OURS:
                raise
            failures[name] = (str(error) or type(error).__name__).splitlines()[0]
    times = interleaved(steps, rounds, work.device, on_round=on_round)
    steps.clear()
    gc.collect()
    return times, failures


def _row(bench: Bench, mode: str, name: str, seconds: list[float], ours: list[float], memory_bytes: int | None) -> Row:
    work, median = bench.work, statistics.median(seconds)
    return Row(
        mode=mode,
        model=name,
        parameters=count_parameters(work.config, name),
        seconds=median,
        images_per_second=work.batch_size / median,
        ratio=Ratio.of(seconds, ours),
        memory_bytes=memory_bytes,
        mfu=work.flops / median / bench.peak_flops,
        executed_mfu=work.executed_flops(name) / median / bench.peak_flops,
        stated_mfu=work.flops / median / bench.stated_flops if bench.stated_flops else None,
    )
