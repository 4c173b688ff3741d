"""`vitscratch parity`: prove a preset equal to torchvision's model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vitscratch.cli.common import Common, check_writable, write_json

# Above this many parameters, values and gradients are compared on the first few blocks unless --depth says
# otherwise: ViT-H/14 in float64, twice, with gradients, needs 20 GB.
LARGE = 150_000_000
LARGE_DEPTH = 4


@dataclass(kw_only=True)
class Parity(Common):
    """Run a preset beside torchvision's model with the same random weights, forwards and backwards, and compare
    every layer. Exit code 1 if they diverge anywhere."""

    presets: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[PRESET ...]")] = ("vit_b_16",)
    """Names such as vit_b_16, or "all" for every one."""

    dtype: Literal["float64", "float32", "bfloat16"] = "float64"
    """Arithmetic of both models. float64 tells a mistake from rounding; the tolerance follows the dtype."""

    depth: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Blocks to compare; by default all, and 4 for models above 150 million parameters."""

    batch_size: int = 2
    """Pictures (of noise) to feed."""

    seed: int = 0
    """Of the weights and the pictures."""

    fold: bool = False
    """One line for each block."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write everything as JSON."""

    def run(self) -> int:
        from vitscratch.config import PRESETS
        from vitscratch.parity.presets import check_preset

        check_writable(self.json)
        names = list(PRESETS) if self.presets == ("all",) else list(self.presets)
        if unknown := [name for name in names if name not in PRESETS]:
            raise ValueError(f"preset {unknown[0]!r} is unknown; there are {', '.join(PRESETS)}, and all")
        results: list[dict[str, Any]] = []
        for name in names:
            config = PRESETS[name]
            depth = self.depth
            if depth is None:
                depth = LARGE_DEPTH if config.num_parameters > LARGE else config.depth
            print(f"{name} against torchvision, {self.dtype}, {depth} of {config.depth} blocks ...", flush=True)
            result = check_preset(name, depth, self.dtype, self.batch_size, self.seed)
            report = result.report.folded() if self.fold else result.report
            print(f"\n{report.table()}\n(values, gradients: largest difference; reference: shape of its output)\n")
            print(f"{name}: {result.report.verdict()}")
            print(f"{name}: {result.describe_mapping()}\n", flush=True)
            results.append(result.to_json())
        if self.json is not None:
            write_json(results, self.json)
        return 0 if all(result["passed"] for result in results) else 1
