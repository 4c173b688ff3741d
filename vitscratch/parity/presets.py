"""A preset beside torchvision's model of the same size, from awake weights to a report."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from vitscratch.config import PRESETS
from vitscratch.parity.compare import compare
from vitscratch.parity.names import pair_parameters
from vitscratch.parity.references import torchvision_twin
from vitscratch.parity.report import Report
from vitscratch.parity.weights import awaken, copy_parameters
from vitscratch.vit import VisionTransformer

# How far two right implementations may lie apart: (atol, rtol). Both compute the same sums in another order.
# float64 leaves no room for a mistake. float32 and bfloat16 do: their tolerances are several times what was seen
# with B/16 (tests/parity/test_presets.py), and an epsilon of 1e-5 can hide in them.
TOLERANCES = {"float64": (1e-10, 0.0), "float32": (0.0, 2e-5), "bfloat16": (0.0, 0.2)}


@dataclass(frozen=True)
class PresetParity:
    """The outcome for one preset: the report at the depth that was run, and the mapping at full depth."""

    preset: str
    dtype: str
    depth: int
    full_depth: int
    parameters_mapped: int
    parameter_count: int
    mapped_exactly_once: bool
    report: Report

    @property
    def passed(self) -> bool:
        """Values, gradients, shapes, and every parameter mapped exactly once each way."""
        return self.report.passed and self.mapped_exactly_once

    def describe_mapping(self) -> str:
        """One line: what is known of the parameters at full depth, and what of values if fewer blocks were run."""
        verb = "are mapped exactly once each way, with equal shapes" if self.mapped_exactly_once else "DO NOT MAP"
        line = f"at full depth {self.parameters_mapped} tensors, {self.parameter_count:,} parameters, {verb}"
        if self.depth < self.full_depth:
            line += f"; values and gradients were compared on {self.depth} of {self.full_depth} blocks"
        return line

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and strings."""
        return {
            "preset": self.preset,
            "reference": f"torchvision {_torchvision_version()}",
            "dtype": self.dtype,
            "depth": self.depth,
            "full_depth": self.full_depth,
            **self.report.to_json(),
            "parameters_mapped": self.parameters_mapped,
            "passed": self.passed,
        }


def check_preset(
    preset: str, depth: int | None = None, dtype: str = "float64", batch_size: int = 1, seed: int = 0
) -> PresetParity:
    """Compare a preset with torchvision's: names and shapes at full depth, values and gradients at `depth`.

    Args:
        preset: a key of `PRESETS`.
        depth: blocks to run, 1 to the preset's; all by default.
        dtype: a key of `TOLERANCES`.
        batch_size: pictures of noise. seed: of weights and pictures.

    Raises:
        ValueError: a preset, dtype, depth or batch size that there is not.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is unknown; there are {', '.join(PRESETS)}")
    if dtype not in TOLERANCES:
        raise ValueError(f"dtype {dtype!r} has no tolerance; there are {', '.join(TOLERANCES)}")
    full = PRESETS[preset]
    depth = full.depth if depth is None else depth
    if not 1 <= depth <= full.depth or batch_size < 1:
        raise ValueError(
            f"depth {depth}, batch size {batch_size}: {preset} takes 1 to {full.depth} blocks and at least 1 picture"
        )
    with torch.device("meta"):  # shapes without memory
        ours, (theirs, mapping) = VisionTransformer.from_config(full), torchvision_twin(full)
    pairs = pair_parameters(ours, theirs, mapping)
    our_shapes = {name: parameter.shape for name, parameter in ours.named_parameters()}
    their_shapes = {name: parameter.shape for name, parameter in theirs.named_parameters()}
    once = sorted(pair.ours for pair in pairs) == sorted(our_shapes)
    once = once and sorted(pair.theirs[0] for pair in pairs) == sorted(their_shapes)
    once = once and all(our_shapes[pair.ours] == their_shapes[pair.theirs[0]] for pair in pairs)

    config = replace(full, depth=depth)
    ours, (theirs, mapping) = VisionTransformer.from_config(config), torchvision_twin(config)
    kind = getattr(torch, dtype)
    ours, theirs = ours.to(kind).eval(), theirs.to(kind).eval()
    awaken(ours, seed)
    copy_parameters(ours, theirs, mapping)
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, config.in_channels, *ours.patch_embed.image_size)
    images = torch.randn(shape, generator=generator, dtype=torch.float64).to(kind)
    atol, rtol = TOLERANCES[dtype]
    return PresetParity(
        preset=preset,
        dtype=dtype,
        depth=depth,
        full_depth=full.depth,
        parameters_mapped=len(pairs),
        parameter_count=sum(shape.numel() for shape in our_shapes.values()),
        mapped_exactly_once=once,
        report=compare(ours, theirs, images, mapping, atol=atol, rtol=rtol, seed=seed),
    )


def _torchvision_version() -> str:
    import torchvision

    return str(torchvision.__version__)
