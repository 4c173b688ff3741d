"""What a recipe says, and what follows from it: pictures, model and batches. Needs no torch until it is run."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vitscratch.config import PRESETS, TrainingConfig, ViTConfig

if TYPE_CHECKING:
    from torch import nn

    from vitscratch.data import Augmentation, Preprocessing
    from vitscratch.recipes.experiment import Experiment
    from vitscratch.training import EpochRecord
    from vitscratch.vit import VisionTransformer


BUILT_IN = ("digits", "fake-digits", "cifar10", "cifar100", "fashion-mnist")  # what `data` may name


def untouched(settings: Any, **values: Any) -> dict[str, Any]:
    """Those of the values that belong to fields with their default: what somebody has set is his to say."""
    defaults = {field.name: field.default for field in fields(settings)}
    return {name: value for name, value in values.items() if getattr(settings, name) == defaults[name]}


def absolute_weights(weights: str) -> str:
    """The path of a file from the root; what else names weights stays, and so does the name of shipped ones."""
    from vitscratch.weights import shipped_names

    is_file = weights not in ("", *shipped_names()) and Path(weights).exists()
    return str(Path(weights).absolute()) if is_file else weights


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainingConfig):
    """An experiment in numbers. Together with the pictures it decides the result."""

    data: str
    """The pictures: a folder (FOLDER/class/*.jpg or FOLDER/{train,val,test}/class/*.jpg), a built-in set (digits,
    fake-digits, cifar10, cifar100, fashion-mnist), or an .npz of JPEG files."""

    data_dir: Path | None = None
    """Where files of built-in sets lie, or are downloaded to; by default a cache folder in your home."""

    validation_fraction: float = 0.1
    """Share of the pictures that is held out to watch the training, if the set has no validation part."""

    test_fraction: float = 0.2
    """Share of the pictures that is held out for the very end, if the set has no test part."""

    split_seed: int = 0
    """Of these splits."""

    skip_bad: bool = False
    """Train without the files that cannot be decoded, instead of refusing the folder."""

    preset: str
    """The model's size: a name that `vitscratch summary` knows."""

    image_size: int | None = None
    """Side in pixels to which pictures are brought; by default the preset's."""

    position: Literal["normal", "sincos"] = "normal"
    """How the learned position embeddings start: at N(0, 0.02), or as sines and cosines (`init_weights`)."""

    batch_size: int = 64
    """Pictures of a batch, over all processes together."""

    workers: int = 2
    """Processes that decode pictures when the set does not fit into memory; 0 decodes in the loop."""

    max_pictures: int | None = None
    """Use at most so many pictures of each part, drawn at random: for trying things out. Of a
    folder only these are decoded, unless bad files are skipped."""

    threads: int | None = None
    """CPU threads to compute with; None leaves it to torch."""

    def __post_init__(self) -> None:
        if self.warmup_epochs >= self.epochs >= 1:  # somebody wants a short run: warm up for a fifth of it
            object.__setattr__(self, "warmup_epochs", self.epochs / 5)
        super().__post_init__()
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is unknown; there are {', '.join(PRESETS)}")
        for name, number, least in (
            ("batch_size", self.batch_size, 1),
            ("workers", self.workers, 0),
            ("max_pictures", self.max_pictures, 1),
            ("threads", self.threads, 1),
            ("image_size", self.image_size, 1),
        ):
            if number is not None and number < least:
                raise ValueError(f"{name} {number}: expected at least {least}")

    def quick(self) -> "Recipe":
        """The same, small enough to end within two minutes on two cores, unless somebody has set these fields."""
        return replace(self, **untouched(self, epochs=1, max_pictures=2000, compile=False))

    def absolute(self) -> "Recipe":
        """The same with paths that do not depend on the folder one is in."""
        data_dir = self.data_dir.absolute() if self.data_dir is not None else None
        data = self.data if self.data in BUILT_IN or not self.data else str(Path(self.data).absolute())
        return replace(self, data=data, data_dir=data_dir)

    def provenance(self) -> dict[str, Any]:
        """What else to say of the origin of a model that is trained so; "notes" are printed, too."""
        return {}

    def learns(self, config: ViTConfig) -> str:
        """A line on what of a model is trained; "" if that is everything, and goes without saying."""
        return ""

    @property
    def all_epochs(self) -> int:
        """How many records `fit` returns at most."""
        return self.epochs

    def preprocessing(self) -> "Preprocessing | None":
        """How pictures have to be prepared, where weights say so; None: by the training part's statistics."""
        return None

    def picture_shape(self) -> tuple[tuple[int, int], int]:
        """(height, width) in pixels and channels of the pictures that the model takes."""
        preset = PRESETS[self.preset]
        size = self.image_size if self.image_size is not None else preset.image_size
        return (size, size) if isinstance(size, int) else size, preset.in_channels

    def model_config(self, num_classes: int) -> ViTConfig:
        """Architecture of the model for so many classes."""
        return replace(PRESETS[self.preset], image_size=self.picture_shape()[0], num_classes=num_classes)

    def build(self, config: ViTConfig) -> "VisionTransformer":
        """A fresh model, from torch's random state."""
        from vitscratch.vit import VisionTransformer, init_weights

        model = VisionTransformer.from_config(config)
        init_weights(model, position=self.position)
        return model

    def create(self, num_classes: int) -> "tuple[ViTConfig | None, nn.Module]":
        """A fresh model for so many classes, and its architecture: None for a model that is none of ours."""
        config = self.model_config(num_classes)
        return config, self.build(config)

    def save(self, path: Path, experiment: "Experiment", provenance: dict[str, Any]) -> None:
        """Write the experiment's model, with all that a prediction needs."""
        from vitscratch.weights import save_model

        assert experiment.config is not None
        names, preprocessing = experiment.splits.class_names, experiment.preprocessing.to_dict()
        save_model(path, experiment.model, experiment.config, names, preprocessing, provenance)  # type: ignore[arg-type]

    def restore(self, path: Path) -> "tuple[nn.Module, Preprocessing, tuple[str, ...]]":
        """What `save` wrote: the model, in eval mode, its preprocessing, and the names of its classes.

        Raises:
            ValueError: there is no such file, or it is damaged or something else.
        """
        from vitscratch.data import Preprocessing
        from vitscratch.weights import load_model

        saved = load_model(path)
        return saved.model, Preprocessing.from_dict(saved.preprocessing), saved.class_names

    def augmentation(self) -> "Augmentation | None":
        """What happens to training pictures, at random; None for nothing."""
        return None

    def fit(self, experiment: "Experiment", **options: Any) -> "list[EpochRecord]":
        """Train the experiment's model on its training part; options as for `vitscratch.training.fit`."""
        from vitscratch.training import fit

        return fit(experiment.model, experiment.batches("train", training=True), self, **options)
