"""`vitscratch lr-find`: which learning rate to begin with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vitscratch.cli.common import Common, Device, check_writable, pick_device, write_json
from vitscratch.cli.recipe import for_each_recipe, recipe_name
from vitscratch.recipes import Recipe


@dataclass(kw_only=True)
class FindRate(Common):
    """Raise the learning rate step by step, watch the loss, and suggest one."""

    recipe: Recipe

    out: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None
    """The plot; by default lr-find-RECIPE.png."""

    smallest: float = 1e-6
    """First learning rate."""

    largest: float = 1.0
    """Last learning rate, if the loss has not diverged before."""

    steps: int = 100
    """Steps between them."""

    device: Device = "auto"
    """Where to compute."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write rates and losses as JSON."""

    def run(self) -> int:
        out = self.out if self.out is not None else Path(f"lr-find-{recipe_name(self.recipe)}.png")
        check_writable(self.json)
        check_writable(out, "--out")
        device = pick_device(self.device)

        from vitscratch import plots
        from vitscratch.recipes.experiment import prepare, threads
        from vitscratch.training import lr_find

        experiment = prepare(self.recipe, device)
        with threads(self.recipe.threads):
            found = lr_find(
                experiment.model,
                experiment.batches("train", training=True),
                smallest=self.smallest,
                largest=self.largest,
                steps=self.steps,
                weight_decay=self.recipe.weight_decay,
                seed=self.recipe.seed,
            )
        plots.learning_rate_range(found).savefig(out, dpi=110)
        print(f"{f'{found.suggestion:.2g}: ' if found.suggestion else ''}{found.reason}")
        print(f"{out}: the curve")
        if self.json is not None:
            write_json({name: getattr(found, name) for name in ("suggestion", "reason", "rates", "losses")}, self.json)
        return 0


LrFind = for_each_recipe(FindRate)
