"""What the loop itself costs: an epoch of `fit` beside the same steps written out by hand.

Command: `vitscratch bench loop`.
NOT YET MEASURED on an idle machine.
"""

import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F

from vitscratch.config import PRESETS, TrainingConfig
from vitscratch.data import TensorBatches
from vitscratch.recipes.experiment import threads
from vitscratch.training import adamw, fit
from vitscratch.vit import VisionTransformer


def measure(device: str, rounds: int, pictures: int = 1437, batch_size: int = 64) -> dict[str, Any]:
    """Time both on the digits model, turn by turn, on one CPU thread; ratio: time by hand / time of fit."""
    config = TrainingConfig(epochs=1, learning_rate=1e-3)
    images, labels = torch.rand(pictures, 1, 8, 8), torch.arange(pictures) % 10
    times: dict[str, list[float]] = {"by hand": [], "fit": []}

    def by_hand(model: VisionTransformer, batches: TensorBatches) -> None:
        optimizer = adamw(model, config.learning_rate, config.weight_decay)
        model.train()
        for x, y in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    with threads(1):
        for i in range(rounds + 1):
            for name in sorted(times, reverse=i % 2 == 0):
                model = VisionTransformer.from_config(PRESETS["vit_nano_8"]).to(device)
                batches = TensorBatches(images, labels, batch_size, seed=0, device=device)
                started = time.perf_counter()
                if name == "fit":
                    fit(model, batches, config)
                else:
                    by_hand(model, batches)
                if device.startswith("cuda"):
                    torch.cuda.synchronize()
                if i:  # the first round warms up
                    times[name].append(time.perf_counter() - started)
    ratios = [hand / ours for hand, ours in zip(times["by hand"], times["fit"], strict=True)]
    return {
        "by_hand_s": statistics.median(times["by hand"]),
        "fit_s": statistics.median(times["fit"]),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
        "images_per_second": pictures / statistics.median(times["fit"]),
    }
