"""A linear probe on features that are computed once, beside the loop that computes them again in every epoch.

Command: `vitscratch bench probe`.
Over ten epochs the body computes a tenth of what it does in the plain loop, so on equal batches a first probe would
be a little less than ten times as fast. Features take smaller batches on a CPU, which are faster there; a training
step has to keep its own. A second probe, which finds the features on disk, is faster by far more.

Device and result: one CPU core (AMD EPYC with AVX-512 BF16, torch 2.15, bf16), 500 digits: 10.7 times as fast
(quartiles 10.5 to 11.0), 109 times from the cache, in two runs alike.
"""

import statistics
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vitscratch.bench import Ratio, interleaved
from vitscratch.config import TrainingConfig
from vitscratch.data import Pictures, Preprocessing, Splits, make_batches
from vitscratch.recipes.digits import Digits
from vitscratch.recipes.experiment import load, threads
from vitscratch.training import choose_precision, evaluate, fit
from vitscratch.transfer import cached_features, freeze, linear_probe, replace_head
from vitscratch.vit import build

BATCH_SIZE = 64


def measure(
    device: str, rounds: int, model: str = "vit_nano_32", epochs: int = 10, max_pictures: int | None = None
) -> dict[str, Any]:
    """Time three ways to a head for a frozen body of random weights, on digits in the model's size and one CPU thread.

    The plain loop shows the body every picture in every epoch. The probe computes features and trains the head on
    them. The probe again finds the features on disk, as the second of two runs does.

    Args:
        device: "cpu", "cuda" or "mps". rounds: at least 2. model: a preset. epochs: at least 1.
        max_pictures: at most so many of each part; None for all (1,437 to train on, 360 held out).

    Returns:
        For each way its median seconds, the ratio time of the plain loop / its time, and the accuracy on the held-out
        part; and the largest difference of a weight from the plain loop's.
    """
    recipe = Digits(validation_fraction=0.0, preset=model, max_pictures=max_pictures)
    splits = _in_size(load(recipe), *recipe.picture_shape())
    found = splits.statistics()
    work = _Work(splits, replace(splits.preprocessing, mean=found.mean, std=found.std), device, epochs)
    torch.manual_seed(recipe.seed)
    body = build(model, num_classes=len(splits.class_names)).to(device)
    models = {name: deepcopy(body) for name in ("plain loop", "probe", "probe again")}
    with TemporaryDirectory() as kept, threads(1):
        steps = {
            "plain loop": partial(work.plain, models["plain loop"]),
            "probe": partial(work.probe, models["probe"]),
            "probe again": partial(work.probe, models["probe again"], Path(kept)),
        }
        times = interleaved(steps, rounds, device, warm_up=1)
        accuracies = {name: work.accuracy(trained) for name, trained in models.items()}
    heads = [trained.head.weight.detach() for trained in models.values()]
    return {
        "model": model,
        "epochs": epochs,
        "pictures": len(splits.train),
        "difference": max(float((head - heads[0]).abs().max()) for head in heads),
        "rows": [
            {"way": name, "accuracy": accuracies[name], **_compared(times["plain loop"], seconds)}
            for name, seconds in times.items()
        ],
    }


def _compared(plain: list[float], seconds: list[float]) -> dict[str, Any]:
    ratio = Ratio.of(plain, seconds)
    return {
        "seconds": statistics.median(seconds),
        "ratio": ratio.median,
        "ratio_quartiles": [ratio.low, ratio.high],
    }


class _Work:
    """The two forms of the same training. Each call begins with a new head."""

    def __init__(self, splits: Splits, preprocessing: Preprocessing, device: str, epochs: int) -> None:
        self.splits, self.preprocessing, self.device = splits, preprocessing, device
        self.config = TrainingConfig(epochs=epochs, learning_rate=1e-2)
        self.precision = choose_precision(self.config.precision, torch.device(device))

    def plain(self, model: nn.Module) -> None:
        """Every picture through the body in every epoch."""
        replace_head(model, len(self.splits.class_names))
        batches = make_batches(
            self.splits.train, self.preprocessing, BATCH_SIZE, seed=self.config.seed, device=self.device
        )
        freeze(model)
        fit(model, batches, self.config)

    def probe(self, model: nn.Module, folder: Path | None = None) -> None:
        """Every picture through the body once, or not at all if the folder has the features; None: a new folder."""
        if folder is None:
            with TemporaryDirectory() as new:
                return self.probe(model, Path(new))
        replace_head(model, len(self.splits.class_names))
        found = cached_features(model, self.splits.train, self.preprocessing, self.precision, folder=folder)
        linear_probe(model, found.features, found.labels, self.config, batch_size=BATCH_SIZE)

    def accuracy(self, model: nn.Module) -> float:
        """On the held-out part."""
        assert self.splits.test is not None
        batches = make_batches(self.splits.test, self.preprocessing, BATCH_SIZE, device=self.device)
        return evaluate(model, batches, self.precision).accuracy


def _in_size(splits: Splits, size: tuple[int, int], channels: int) -> Splits:
    """The digits enlarged, each pixel to a block if the sides are multiples, and as grey RGB if the model wants it."""

    def enlarged(part: Any) -> Pictures:
        assert isinstance(part, Pictures)
        images = F.interpolate(part.images, size).expand(-1, channels, -1, -1).contiguous()
        return replace(part, images=images)

    preprocessing = Preprocessing(size, channels)
    return replace(splits, train=enlarged(splits.train), test=enlarged(splits.test), preprocessing=preprocessing)
