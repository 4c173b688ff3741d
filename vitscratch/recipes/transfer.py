"""What pretrained weights are worth: a few labelled pictures of each class, with them and without.

Commands: `vitscratch bench transfer --weights WEIGHTS --data FOLDER`, and `vitscratch bench transfer-digits`, which
needs no download: it pretrains on the digits 0 to 4 and transfers to 5 to 9.

Every way to train gets the same pictures, the same augmentation and as many epochs, and is measured on the same test
part, which is used for nothing else. The weights of the last epoch count. Learning rates (from scratch another than
with pretrained weights) and the length of the pretraining were chosen on a validation part of the digits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Int
from torch import Tensor

from vitscratch.data import Splits
from vitscratch.recipes.digits import Digits
from vitscratch.recipes.experiment import Experiment, prepare
from vitscratch.recipes.fine_tune import FineTune, How
from vitscratch.training import seed_everything
from vitscratch.weights import save_model

WAYS: dict[str, tuple[How, bool]] = {  # name -> how, and whether the body is the pretrained one
    "fine-tune": ("fine-tune", True),
    "frozen body, new head": ("head", True),
    "frozen random body": ("head", False),
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
    scratch_rate: float = 1e-3,
    steps: int = 200,
    device: str = "cpu",
    on_row: Callable[[Row], object] = lambda row: None,
) -> list[Row]:
    """Train in every one of `WAYS`, from every number of pictures of each class, with every seed.

    Args:
        recipe: weights and settings. `epochs` is the least; few pictures get more, up to `steps` steps.
        splits: the pictures; the training part has at least the largest number of each class.
        per_class: labelled pictures of each class, at least 1.
        scratch_rate: learning rate from scratch; `recipe` has that of the others. steps: see `recipe`.
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
                rate = scratch_rate if how == "scratch" else recipe.learning_rate
                first = recipe.head_epochs if how == "fine-tune" else 0  # its epochs count the second part alone
                settings = replace(recipe, how=how, seed=seed, epochs=epochs - first, learning_rate=rate)
                rows.append(
                    _row(way, pretrained, settings, replace(splits, train=few, validation=None), number, device)
                )
                on_row(rows[-1])
    return rows


def _row(way: str, pretrained: bool, recipe: FineTune, splits: Splits, number: int, device: str) -> Row:
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

    Result with 3 seeds (`vitscratch bench transfer-digits`, a minute on one CPU core; mean and range of the test
    accuracy):

    =====================  ========================  ========================  ========================
    labelled, each class   5                         10                        30
    =====================  ========================  ========================  ========================
    fine-tune              84.8 % (82.8 to 87.8)     88.3 % (86.1 to 91.1)     92.8 % (89.4 to 95.6)
    frozen body, new head  73.5 % (70.6 to 76.7)     72.8 % (71.1 to 75.0)     75.4 % (73.9 to 76.1)
    frozen random body     59.6 % (58.9 to 60.6)     62.4 % (62.2 to 62.8)     68.7 % (66.1 to 72.8)
    from scratch           78.1 % (76.1 to 79.4)     81.9 % (73.3 to 86.7)     88.7 % (85.6 to 92.8)
    =====================  ========================  ========================  ========================

    Five digits teach too little to be left as it is: a frozen body is worse than a fresh model. As a start it helps.
    """
    whole = prepare(Digits(epochs=pretraining_epochs, validation_fraction=0.0), device)
    low, high = (_only(whole.splits, classes) for classes in (range(5), range(5, 10)))
    recipe = whole.recipe
    config = recipe.model_config(5)
    model = recipe.build(config).to(device)
    Experiment(recipe, low, whole.preprocessing, config, model, device).fit()
    with TemporaryDirectory() as folder:
        file = Path(folder, "digits-0-to-4.safetensors")
        save_model(file, model, config, low.class_names, whole.preprocessing.to_dict(), {})
        tuning = FineTune(
            weights=str(file), data="digits", learning_rate=2e-3, layer_decay=1.0, flip=0.0, threads=1, precision="fp32"
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
