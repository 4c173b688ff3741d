"""What the loop itself costs: an epoch of `fit` beside the same steps written out by hand.

Command: `vitscratch bench loop`.
Result on one thread of 2 CPU cores (AMD EPYC, torch 2.15): 97.3 % of the speed by hand (quartiles 96.6 % to 99.7 %).
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from vitscratch.bench import Ratio, interleaved
from vitscratch.config import PRESETS, TrainingConfig
from vitscratch.data import TensorBatches
from vitscratch.recipes.experiment import threads
from vitscratch.training import adamw, fit
from vitscratch.vit import VisionTransformer

CONFIG = TrainingConfig(epochs=1, learning_rate=1e-3)


def measure(device: str, rounds: int, pictures: int = 1437, batch_size: int = 64) -> dict[str, Any]:
    """Time both on the quickstart's model and as many pictures, on one CPU thread as there.

    Returns:
        Median seconds of each, pictures a second, and the ratio time by hand / time of fit: the share of the bare
        loop's speed that is left.
    """
    images, labels = torch.rand(pictures, 1, 8, 8), torch.arange(pictures) % 10
    models = [VisionTransformer.from_config(PRESETS["vit_nano_8"]).to(device) for _ in range(2)]
    batches = TensorBatches(images, labels, batch_size, seed=0, device=device)
    steps: dict[str, Callable[[], object]] = {
        "by hand": partial(_by_hand, models[0], batches),
        "fit": partial(fit, models[1], batches, CONFIG),
    }
    with threads(1):
        times = interleaved(steps, rounds, device)
    ratio = Ratio.of(times["by hand"], times["fit"])
    return {
        "by_hand_s": statistics.median(times["by hand"]),
        "fit_s": statistics.median(times["fit"]),
        "images_per_second": pictures / statistics.median(times["fit"]),
        "ratio": ratio.median,
        "ratio_quartiles": [ratio.low, ratio.high],
    }


def _by_hand(model: VisionTransformer, batches: TensorBatches) -> None:
    optimizer = adamw(model, CONFIG.learning_rate, CONFIG.weight_decay)
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
