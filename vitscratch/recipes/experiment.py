"""A recipe carried out: its pictures loaded, its model built, trained, measured and saved."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitscratch.config import ViTConfig
from vitscratch.data import (
    EpochBatches,
    Preprocessing,
    Splits,
    load_splits,
    make_batches,
)
from vitscratch.data.load import MAX_MEMORY
from vitscratch.recipes.base import Recipe
from vitscratch.training import (
    Checkpoints,
    EpochRecord,
    Metrics,
    Run,
    balanced_weights,
    choose_precision,
    distributed,
    evaluate,
    seed_everything,
)
from vitscratch.transfer import LogisticProbe

Part = Literal["train", "validation", "test"]


@dataclass
class Experiment:
    """A recipe with its pictures and its model.

    Args:
        recipe, splits: the settings and the pictures.
        preprocessing: with mean and std of the training part.
        config, model: architecture (None if the model is none of ours), and the model on its device.
        device: "cpu", "cuda", "cuda:1", ...
        notes: what `fit` has to say beside its records.
        probe: what `fit` found, if it was a probe and no training for epochs.
        provenance: the recipe's, of the time when the model was built: its files may change while it is trained.
    """

    recipe: Recipe
    splits: Splits
    preprocessing: Preprocessing
    config: ViTConfig | None
    model: nn.Module
    device: str
    notes: list[str] = field(default_factory=list)
    probe: LogisticProbe | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Length of the logits."""
        return len(self.splits.class_names)

    @property
    def parameters(self) -> int:
        """How many the model has."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def batches(self, part: Part, training: bool = False) -> EpochBatches:
        """Batches of one part: for training shuffled and augmented, else in order and as they are.

        Raises:
            ValueError: the set has no such part.
        """
        pictures = getattr(self.splits, part)
        if pictures is None:
            raise ValueError(f"{self.recipe.data} has no {part} part; see --{part}-fraction")
        return make_batches(
            pictures,
            self.preprocessing,
            self.recipe.batch_size,
            seed=self.recipe.seed if training else None,
            augment=self.recipe.augmentation() if training else None,
            device=self.device,
            workers=self.recipe.workers,
            rank=distributed.rank(),
            processes=distributed.processes(),
        )

    def fit(
        self,
        checkpoints: Checkpoints | None = None,
        on_step: Callable[[Run], None] | None = None,
        on_epoch: Callable[[Run], None] | None = None,
    ) -> list[EpochRecord]:
        """Train the model as the recipe says."""
        weights: Tensor | None = None
        if self.recipe.balance_classes:
            weights = balanced_weights(self.splits.train.labels, self.num_classes).to(self.device)
        with threads(self.recipe.threads):
            return self.recipe.fit(
                self,
                validation=self.batches("validation") if self.splits.validation is not None else None,
                num_classes=self.num_classes,
                class_weights=weights,
                checkpoints=checkpoints,
                on_step=on_step,
                on_epoch=on_epoch,
            )

    def measure(self, part: Part) -> Metrics:
        """Loss and accuracy of the model on one part, every picture counted once over all processes."""
        with threads(self.recipe.threads):
            precision = choose_precision(self.recipe.precision, torch.device(self.device))
            return evaluate(self.model, self.batches(part), precision).over_processes()


Progress = Callable[[int, int], None]  # files that are done, and all of them


def load(
    recipe: Recipe,
    progress: Progress | None = None,
    max_memory: int = MAX_MEMORY,
    preprocessing: Preprocessing | None = None,
) -> Splits:
    """The pictures of a recipe, divided as it says, and in its size, or in that of a preprocessing.

    Args:
        max_memory, progress: see `load_splits`.

    Raises:
        ValueError: there are none, or they cannot be used.
    """
    if not recipe.data:
        raise ValueError("this recipe needs pictures of yours: --data FOLDER, with one folder for each class in it")
    wanted = preprocessing or recipe.preprocessing() or Preprocessing(*recipe.picture_shape())
    return load_splits(
        recipe.data,
        seed=recipe.split_seed,
        validation_fraction=recipe.validation_fraction,
        test_fraction=recipe.test_fraction,
        skip_bad=recipe.skip_bad,
        image_size=wanted.image_size,
        channels=wanted.channels,
        resize=wanted.resize,
        interpolation=wanted.interpolation,
        fraction=wanted.fraction,
        max_memory=max_memory,
        max_pictures=recipe.max_pictures,
        data_dir=recipe.data_dir,
        progress=progress,
    )


def normalised(recipe: Recipe, splits: Splits) -> Preprocessing:
    """How pictures are prepared: as the recipe says, else with mean and std of the training part."""
    if (preprocessing := recipe.preprocessing()) is not None:
        return preprocessing
    statistics = splits.statistics(sample=10_000)
    return replace(splits.preprocessing, mean=statistics.mean, std=statistics.std)


def prepare(
    recipe: Recipe, device: str = "cpu", progress: Progress | None = None, splits: Splits | None = None
) -> Experiment:
    """Load the pictures, unless `splits` has them, seed everything and build the model."""
    splits = load(recipe, progress) if splits is None else splits
    preprocessing = normalised(recipe, splits)
    seed_everything(recipe.seed, recipe.deterministic)
    config, model = recipe.create(len(splits.class_names))
    if distributed.rank():  # the same weights everywhere, but other dropout
        torch.manual_seed(recipe.seed + distributed.rank())
    return Experiment(recipe, splits, preprocessing, config, model.to(device), device, provenance=recipe.provenance())


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Compute with so many CPU threads meanwhile; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
