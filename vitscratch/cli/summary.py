"""`vitscratch summary`: a model's layers, parameters and arithmetic."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vitscratch.cli.common import Common, check_writable, write_json


@dataclass(kw_only=True)
class Summary(Common):
    """Print torchinfo's table of a preset, and beside it the exact parameters and FLOPs."""

    preset: tyro.conf.Positional[str]
    """A name such as vit_b_16."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the exact numbers as JSON."""

    def run(self) -> int:
        import torch
        from torchinfo import summary

        from vitscratch.config import PRESETS
        from vitscratch.vit import build

        check_writable(self.json)
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is unknown; there are {', '.join(PRESETS)}")
        config = PRESETS[self.preset]
        with torch.device("meta"):  # shapes only: even H/14 takes no memory
            model = build(self.preset)
            shape = (1, config.in_channels, *model.patch_embed.image_size)
            table = summary(model, input_size=shape, depth=3, device="meta", verbose=0)
        print(table)
        costs = config.costs()
        print(f"\nExact, for one picture of {shape[2]} x {shape[3]} px ({config.num_patches} patches):\n")
        unit, scale = ("GFLOPs", 1e9) if config.flops >= 1e9 else ("MFLOPs", 1e6)
        print(f"{'part':<30}{'parameters':>15}{unit:>12}\n{'-' * 57}")
        for cost in costs:
            print(f"{cost.part:<30}{cost.parameters:>15,}{cost.flops / scale:>12.3f}")
        print(f"{'-' * 57}\n{'total':<30}{config.num_parameters:>15,}{config.flops / scale:>12.3f}\n")
        products = sum(cost.flops for cost in costs if cost.part == "blocks: attention products")
        seen = 2 * table.total_mult_adds
        print(
            f"torchinfo's mult-adds make {seen / scale:.3f} {unit} (a multiply-add is two). It sees layers, so it\n"
            f"misses the products of attention q k^T and weights v ({products / scale:.3f} {unit}), and it\n"
            "counts a linear layer once for a picture, not once for each token. Its 'Params size' leaves out the\n"
            "class token and the position embedding, which belong to no layer below the model."
        )
        if self.json is not None:
            total = {"parameters": config.num_parameters, "flops": config.flops}
            write_json({"preset": self.preset, **total, "parts": [asdict(cost) for cost in costs]}, self.json)
        return 0
