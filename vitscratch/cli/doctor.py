"""`vitscratch doctor`: the checks that should come before "it needs more data"."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vitscratch.cli.common import Common, Device, check_writable, pick_device, write_json
from vitscratch.cli.recipe import checked, for_each_recipe
from vitscratch.recipes import Recipe

if TYPE_CHECKING:
    from vitscratch.recipes.experiment import Experiment
    from vitscratch.training import Diagnosis

PICTURES = 64  # of the training part, from which the doctor takes what it needs


@dataclass(kw_only=True)
class Examine(Common):
    """Examine the model and the data of a recipe."""

    recipe: Recipe

    device: Device = "auto"
    """Where to compute."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the findings as JSON."""

    def run(self) -> int:
        check_writable(self.json)
        recipe = checked(self.recipe)
        device = pick_device(self.device)

        from vitscratch.recipes.experiment import prepare

        diagnosis = diagnose(prepare(recipe, device))
        print(diagnosis.table())
        if self.json is not None:
            write_json(diagnosis.to_json(), self.json)
        return 0 if diagnosis.passed else 1


def diagnose(experiment: "Experiment") -> "Diagnosis":
    """Run the ladder on the first training batch; the model and all random states stay as they are."""
    from vitscratch.recipes.experiment import threads
    from vitscratch.training import doctor

    images, labels = next(iter(experiment.batches("train", training=True)))
    with threads(experiment.recipe.threads):
        return doctor(
            experiment.model,
            (images[:PICTURES], labels[:PICTURES]),
            num_classes=experiment.num_classes,
            class_names=experiment.splits.class_names,
            patch_size=experiment.config.patch_size if experiment.config is not None else None,
            train_labels=experiment.splits.train.labels,
            seed=experiment.recipe.seed,
        )


Doctor = for_each_recipe(Examine)
