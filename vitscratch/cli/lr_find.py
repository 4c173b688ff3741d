"""`vitscratch lr-find`: which learning rate to begin with."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vitscratch.cli.common import Common, Device, check_png, check_writable, pick_device, save_figure, write_json
from vitscratch.cli.data import file_progress
from vitscratch.cli.recipe import checked, for_each_recipe, recipe_name
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
    """Steps between them, a batch each; at least 10, and fewer than 100 may be too few to tell."""

    device: Device = "auto"
    """Where to compute."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write rates and losses (null where not finite) as JSON."""

    def run(self) -> int:
        recipe = checked(self.recipe)
        out = self.out if self.out is not None else Path(f"lr-find-{recipe_name(recipe)}.png")
        check_writable(self.json)
        check_png(out)
        device = pick_device(self.device)

        import torch

        from vitscratch import plots
        from vitscratch.recipes.experiment import prepare, threads
        from vitscratch.training import choose_precision, lr_find

        with file_progress("pictures") as loading:
            experiment = prepare(recipe, device, loading)
        with threads(recipe.threads):
            found = lr_find(
                experiment.model,
                experiment.batches("train", training=True),
                smallest=self.smallest,
                largest=self.largest,
                steps=self.steps,
                weight_decay=recipe.weight_decay,
                clip_norm=recipe.clip_norm,
                precision=choose_precision(recipe.precision, torch.device(device)),
                seed=recipe.seed,
            )
        save_figure(plots.learning_rate_range(found), out)
        print(f"{f'{found.suggestion:.2g}: ' if found.suggestion else ''}{found.reason}")
        print(f"{out}: the curve")
        if self.json is not None:
            losses = [loss if math.isfinite(loss) else None for loss in found.losses]  # JSON has no infinity
            numbers = {"suggestion": found.suggestion, "reason": found.reason, "rates": found.rates, "losses": losses}
            write_json(numbers, self.json)
        return 0


LrFind = for_each_recipe(FindRate)
