"""How the learning rate changes over a run."""

import math


def warmup_cosine(step: int, warmup_steps: int, total_steps: int) -> float:
    """Factor on the peak learning rate: up in a straight line, then down along half a cosine to 0.

    Steps are optimizer steps, counted from 0. The first step already has 1 / warmup_steps of the peak (a step
    with a rate of 0 would be wasted); step `warmup_steps` has all of it, step `total_steps` would have 0.

    Args:
        step: in [0, total_steps].
        warmup_steps: in [0, total_steps].
        total_steps: at least 1.
    """
    if not 0 <= warmup_steps <= total_steps or total_steps < 1:
        raise ValueError(f"warmup_steps {warmup_steps} and total_steps {total_steps}: expected 0 <= warm-up <= total")
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
