"""`vitscratch finetune`: pretrained weights, and a folder of pictures of one's own."""

from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from vitscratch.cli.common import check_writable, with_interval, write_json
from vitscratch.cli.progress import say
from vitscratch.cli.recipe import checked, recipe_name, recipe_to_json
from vitscratch.cli.run_folder import CONFIG, RunFolder, is_first_process, read_run
from vitscratch.cli.train import Resume, Start
from vitscratch.files import write_atomically
from vitscratch.recipes import FineTune

SCRATCH, TABLE, NUMBERS = "scratch", "comparison.md", "comparison.json"


def _options() -> Any:
    """The recipe without `weights` and `data`, which are no options here, and unchecked (see `checked`)."""
    hidden: list[Any] = [
        (name, Annotated[str, tyro.conf.Suppress], field(default=value))
        for name, value in (("weights", ""), ("data", ""), ("preset", FineTune.preset), ("position", FineTune.position))
    ]
    rate = Annotated[float, tyro.conf.arg(aliases=["--lr"])]
    hidden.append(("learning_rate", rate, field(default=FineTune.learning_rate)))
    options: Any = make_dataclass(
        FineTune.__name__,
        hidden,
        bases=(FineTune,),
        frozen=True,
        kw_only=True,
        namespace={"__post_init__": lambda self: None, "__doc__": FineTune.__doc__},
    )
    return options


Options = _options()


@dataclass(kw_only=True)
class Finetune(Start):
    """Train a pretrained model on pictures of yours. The run's folder is like any other: `train --resume`, `evaluate`
    and `predict` know it."""

    weights: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WEIGHTS")]
    """cifar10, the weights that come with the package (for 32 pixels); a file of weights of any ecosystem, the name of
    torchvision's, timm:NAME, or hf:ORG/NAME."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """A folder of pictures with one folder for each class, a built-in set, or an .npz of JPEG files."""

    compare: bool = False
    """Then train the same model from random weights, for as many epochs, and show both in a table. Run the same
    command again if it was interrupted."""

    recipe: Annotated[Any, tyro.conf.arg(name="")] = field(default_factory=Options)

    def run(self) -> int:
        check_writable(self.json)
        recipe = FineTune(**{**vars(checked(self.recipe)), "weights": self.weights, "data": self.data})
        out = self.out if self.out is not None else Path("runs") / recipe_name(recipe)
        code = self._carry_out(recipe, out)
        if code or not self.compare:
            return code
        epochs = max(recipe.epochs, recipe.all_epochs)
        say(f"\nThe same from random weights, for {epochs} epochs:")
        code = self._carry_out(replace(recipe, how="scratch", epochs=epochs), out / SCRATCH)
        return code or _tell(out, self.json)

    def _carry_out(self, recipe: FineTune, out: Path) -> int:
        """Train by a recipe; with --compare go on where an earlier try of the same stopped."""
        common: Any = dict(doctor=self.doctor, tensorboard=self.tensorboard, json=self.json, debug=self.debug)
        if self.compare and (out / CONFIG).exists():
            there = read_run(out).recipe
            wanted = recipe.absolute().quick() if self.quick else recipe.absolute()
            if recipe_to_json(there) == recipe_to_json(wanted):
                return Resume(path=out, device=self.device, **common).run()
        return Start(recipe=recipe, device=self.device, out=out, quick=self.quick, **common).run()


def _tell(out: Path, json: Path | None) -> int:
    """The table of both runs, printed and written into the folder, and its numbers also to a path."""
    if not is_first_process():
        return 0
    runs = {"pretrained": read_run(out), "from scratch": read_run(out / SCRATCH)}
    rows = []
    for name, run in runs.items():
        assert isinstance(run.recipe, FineTune) and run.metrics is not None
        rows.append({"model": name, "how": run.recipe.how, **run.metrics})
    lines = ["| model | how | epochs | seconds | validation accuracy | test accuracy |", "|---|---|---|---|---|---|"]
    for row in rows:
        accuracies = [
            f"{row['validation_accuracy']:.2%} of {row['validation_total']:,}" if "validation_total" in row else "-",
            with_interval(row["test_correct"], row["test_total"]) if "test_total" in row else "-",
        ]
        lines.append(
            f"| {row['model']} | {row['how']} | {row['epochs']} | {row['seconds']:.0f} | {' | '.join(accuracies)} |"
        )
    text = "\n".join([*lines, "", _caveat(*runs.values())])
    write_atomically(out / TABLE, lambda file: file.write(f"{text}\n"), "w")
    for path in (out / NUMBERS, *([json] if json is not None else [])):
        write_json(rows, path)
    say(f"\n{text}\n{out}: {TABLE}, {NUMBERS}")
    return 0


def _caveat(pretrained: RunFolder, scratch: RunFolder) -> str:
    """What the table compares, and what it does not show."""
    recipe = pretrained.recipe
    assert isinstance(recipe, FineTune)
    first, second = ((run.metrics or {})["epochs"] for run in (pretrained, scratch))
    if recipe.how == "probe":
        epochs = f"the probe looked at each picture once, without augmentation; from scratch had {second} epochs"
    else:
        epochs = f"both had {first} epochs" if first == second else f"they had {first} and {second} epochs"
    return (
        f"One run of each, with seed {recipe.seed}: another seed gives other numbers. Same pictures, same division; "
        f"{_settings(recipe)}; {epochs}. From scratch, more epochs or another learning rate may do better."
    )


def _settings(recipe: FineTune) -> str:
    """What the two runs of a comparison have in common beside the pictures, and what they have not."""
    if recipe.how == "probe":
        return (
            "the probe's regularisation was chosen on the validation pictures, which flatters its accuracy there, and "
            "nothing else was tuned"
        )
    blocks = f"each block learned {recipe.layer_decay:g} times as fast as the one above it"
    rates = {
        "head": ["the head alone learned, ten times as fast"],
        "last-n": ["only the last blocks and the head learned"],
        "fine-tune": ["the head first learned alone, ten times as fast"],
    }.get(recipe.how, [])
    if recipe.how in ("last-n", "full", "fine-tune") and recipe.layer_decay != 1:
        rates.append(blocks)
    same = "same settings, tuned for neither"
    return f"{same}, but in the pretrained model {', and '.join(rates)}" if rates else same
