"""Times that can be compared on a machine that is never quite idle."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

# A measurement shorter than this is mostly the clock, the scheduler and the first kernel's launch.
SHORTEST_SECONDS = 0.02


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    device: str = "cpu",
    warm_up: int = 2,
    on_round: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each step in each round; in a round every step runs, and every second round runs backwards.

    A disturbance then hits neighbours alike, and nobody always comes after the same one. Compare round by round
    (`Ratio`): a machine that slows down during the measurement changes the times, but hardly their ratios.

    Args:
        steps: what to run, by name; very short ones are repeated within a round, all equally often.
        rounds: at least 1; these are counted.
        device: "cpu", "cuda" or "mps"; the clock waits for it.
        warm_up: rounds before the clock runs, in which compilers compile and memory is claimed; at least 1.
        on_round: called after each counted round, for progress.
    """
    if rounds < 1 or warm_up < 1:
        raise ValueError(f"rounds {rounds}, warm-up {warm_up}: expected at least 1 of each")
    for _ in range(warm_up):
        slowest = max(_seconds(step, 1, device) for step in steps.values())
    repeats = max(1, round(SHORTEST_SECONDS / slowest))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds):
        for name in list(steps)[:: 1 if i % 2 == 0 else -1]:
            times[name].append(_seconds(steps[name], repeats, device) / repeats)
        on_round()
    return times


def _seconds(step: Callable[[], object], repeats: int, device: str) -> float:
    synchronize(device)
    started = time.perf_counter()
    for _ in range(repeats):
        step()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given; the CPU always has."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


@dataclass(frozen=True)
class Ratio:
    """Time of one over time of the other, round by round: the median of rounds, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, theirs: Sequence[float], ours: Sequence[float]) -> "Ratio":
        """Above 1 where ours is faster. Seconds of the same rounds, at least two."""
        ratios = [other / mine for other, mine in zip(theirs, ours, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(median, low, high)


def matmul_flops(device: str, dtype: torch.dtype, repeats: int = 5) -> float:
    """The device's rate in large square matrix products, FLOP/s: the best of several sizes and runs.

    What a model could reach at most if it were nothing but such products.
    """
    best = 0.0
    for side in (4096, 8192, 16384) if device == "cuda" else (1024, 2048):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        seconds = interleaved({"product": lambda a=a, b=b: a @ b}, repeats, device)["product"]  # type: ignore[misc]
        best = max(best, 2 * side**3 / min(seconds))
    return best
