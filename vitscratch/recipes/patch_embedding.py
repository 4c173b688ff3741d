"""Which form of the patch embedding is faster: one linear map of every patch, or a strided convolution?

Command: `vitscratch bench patch-embedding`.
Result on 2 CPU cores (AMD EPYC, torch 2.15), linear map / convolution, median of 15 interleaved rounds; above 1 the
convolution is faster:

===========================  ===============  ==============  ==================  =================
shape                        eager inference  eager training  compiled inference  compiled training
===========================  ===============  ==============  ==================  =================
B/16, batch 1                1.58             1.30            0.86                0.84
B/16, batch 8                1.34             1.44            1.47                1.17
32 px, patch 4, batch 128    1.20             1.01            0.64                0.64
8 px, patch 2, batch 64      0.66             0.72            0.50                0.52
===========================  ===============  ==============  ==================  =================

So the library runs the convolution: it wins in eager mode wherever the patch embedding takes measurable time.
Small patches, compiled, would rather have the linear map. Not measured on a GPU yet.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vitscratch.bench import Ratio, interleaved
from vitscratch.patches import PatchEmbedding, embed_patches

# (image side, patch side, channels, width, batch)
SHAPES = [(224, 16, 3, 768, 1), (224, 16, 3, 768, 8), (32, 4, 3, 192, 128), (8, 2, 1, 96, 64)]


def measure(device: str, rounds: int) -> list[dict[str, Any]]:
    """Time both forms, interleaved, eager and compiled, forwards alone and with the backward pass."""
    rows = []
    for image, patch, channels, width, batch in SHAPES:
        layer = PatchEmbedding(image, patch, channels, width).to(device)
        images = torch.randn(batch, channels, image, image, device=device)
        weight, bias = layer.proj.weight, layer.proj.bias
        assert bias is not None

        def linear(images: Tensor, weight: Tensor = weight, bias: Tensor = bias) -> Tensor:
            return embed_patches(images, weight, bias)

        for compiled in (False, True):
            torch.compiler.reset()
            forms: dict[str, Callable[[Tensor], Tensor]] = {"linear": linear, "convolution": layer}
            if compiled:
                forms = {name: torch.compile(form) for name, form in forms.items()}
            for training in (False, True):
                steps = {name: partial(_step, form, images, training) for name, form in forms.items()}
                times = interleaved(steps, rounds, device)
                ratio = Ratio.of(times["linear"], times["convolution"])
                rows.append(
                    {
                        "shape": f"{batch} x {channels} x {image} px, patch {patch}, D {width}",
                        "mode": f"{'compiled' if compiled else 'eager'} {'training' if training else 'inference'}",
                        "linear_ms": 1e3 * statistics.median(times["linear"]),
                        "convolution_ms": 1e3 * statistics.median(times["convolution"]),
                        "ratio": ratio.median,
                        "ratio_quartiles": [ratio.low, ratio.high],
                    }
                )
    return rows


def _step(form: Callable[[Tensor], Tensor], images: Tensor, training: bool) -> None:
    with torch.set_grad_enabled(training):
        tokens = form(images)
    if training:
        tokens.sum().backward()
