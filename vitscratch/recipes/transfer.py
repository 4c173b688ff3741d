"""What pretrained weights are worth: a few labelled pictures of each class, with them and without.

Commands: `vitscratch bench transfer --weights WEIGHTS --data FOLDER`, and `vitscratch bench transfer-digits`, which
needs no download: it pretrains on the digits 0 to 4 and transfers to 5 to 9.

Every way to train gets the same pictures, as many epochs (but the probe, which needs none), and is measured on the
same test part, which is used for nothing else. The probe sets a fifth of its pictures aside to choose its
regularisation, and then learns from all. The other ways have nothing to choose: their settings are the recipe's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Int
from torch import Tensor

from vitscratch.data import Splits, stratified_split
from vitscratch.recipes.digits import Digits
from vitscratch.recipes.experiment import Experiment, prepare
from vitscratch.recipes.fine_tune import FineTune, How
from vitscratch.training import seed_everything
from vitscratch.weights import save_model

WAYS: dict[str, tuple[How, bool]] = {  # name -> how, and whether the body is the pretrained one
    "fine-tune": ("fine-tune", True),
    "probe": ("probe", True),
    "probe of random weights": ("probe", False),
    "from scratch": ("scratch", False),
}


@dataclass(frozen=True)
class Row:
    """One training: how, from how many pictures of each class, with which seed; test accuracy in [0, 1]."""

    way: str
    per_class: int
    seed: int
    accuracy: float
    seconds: float


def measure(
    recipe: FineTune,
    splits: Splits,
    per_class: Sequence[int],
    seeds: int,
    *,
    steps: int = 200,
    device: str = "cpu",
    on_row: Callable[[Row], object] = lambda row: None,
) -> list[Row]:
    """Train in every one of `WAYS`, from every number of pictures of each class, with every seed.

    Args:
        recipe: weights and settings. `epochs` is the least; few pictures get more, up to `steps` steps.
        splits: the pictures; the training part has at least the largest number of each class.
        per_class: labelled pictures of each class, at least 5, of which the probe can set one aside.
        seeds: of the choice of pictures, the head and the order: 0, 1, ...
        on_row: called after each training.

    Raises:
        ValueError: too few pictures of a class, or no test part.
    """
    rows = []
    for seed in range(seeds):
        for number in per_class:
            few = splits.train.part(few_of_each(splits.train.labels, number, seed))
            epochs = max(recipe.epochs, math.ceil(steps / math.ceil(len(few) / recipe.batch_size)))
            for way, (how, pretrained) in WAYS.items():
                settings = replace(recipe, how=how, seed=seed, epochs=epochs)
                rows.append(_row(way, pretrained, settings, replace(splits, train=few), number, device))
                on_row(rows[-1])
    return rows


def _row(way: str, pretrained: bool, recipe: FineTune, splits: Splits, number: int, device: str) -> Row:
    first, second = stratified_split(splits.train.labels, 0.2, recipe.seed)
    if recipe.how == "probe":
        splits = replace(splits, train=splits.train.part(first), validation=splits.train.part(second))
    else:
        splits = replace(splits, validation=None)
    seed_everything(recipe.seed)
    config = recipe.model_config(len(splits.class_names))
    model = (recipe if pretrained else replace(recipe, how="scratch")).build(config).to(device)
    experiment = Experiment(recipe, splits, recipe.preprocessing(), config, model, device)
    history = experiment.fit()
    seconds = sum(record.seconds for record in history)
    return Row(way, number, recipe.seed, experiment.measure("test").accuracy, seconds)


def few_of_each(labels: Int[Tensor, " n"], number: int, seed: int) -> Int[Tensor, " few"]:
    """So many pictures of each class, drawn at random; a larger number has the smaller one's among them.

    Raises:
        ValueError: a class has fewer.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = []
    for label in labels.unique():
        mine = order[labels[order] == label]
        if len(mine) < number:
            raise ValueError(f"class {int(label)} has {len(mine)} training pictures; expected at least {number}")
        chosen.append(mine[:number])
    return torch.cat(chosen)


def transfer_digits(
    per_class: Sequence[int],
    seeds: int,
    *,
    pretraining_epochs: int = 30,
    device: str = "cpu",
    on_row: Callable[[Row], object] = lambda row: None,
) -> list[Row]:
    """Pretrain on the digits 0 to 4, and `measure` on 5 to 9.

    Result with 3 seeds (`vitscratch bench transfer-digits`): not yet measured.
    """
    whole = prepare(Digits(epochs=pretraining_epochs, validation_fraction=0.0), device)
    low, high = (_only(whole.splits, classes) for classes in (range(5), range(5, 10)))
    recipe = whole.recipe
    config = recipe.model_config(5)
    pretraining = Experiment(recipe, low, whole.preprocessing, config, recipe.build(config).to(device), device)
    pretraining.fit()
    with TemporaryDirectory() as folder:
        file = Path(folder, "digits-0-to-4.safetensors")
        save_model(file, pretraining.model, config, low.class_names, whole.preprocessing.to_dict(), {})
        tuning = FineTune(
            weights=str(file),
            data="digits",
            epochs=10,
            learning_rate=1e-3,
            flip=0.0,
            threads=1,
            validation_fraction=0.1,
        )
        return measure(tuning, high, per_class, seeds, device=device, on_row=on_row)


def _only(splits: Splits, classes: range) -> Splits:
    """The pictures of some classes, which are counted from 0."""

    def part(name: str) -> object:
        pictures = getattr(splits, name)
        if pictures is None:
            return None
        inside = torch.isin(pictures.labels, torch.tensor(classes)).nonzero()[:, 0]
        chosen = pictures.part(inside)
        names = splits.class_names[classes.start : classes.stop]
        return replace(chosen, labels=chosen.labels - classes.start, class_names=names)

    parts = {name: part(name) for name in ("train", "validation", "test")}
    return replace(splits, class_names=splits.class_names[classes.start : classes.stop], **parts)  # type: ignore[arg-type]
