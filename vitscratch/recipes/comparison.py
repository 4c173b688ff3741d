"""What a comparison says: the pictures that all models share, and the models. Needs no torch until it is run."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from vitscratch.recipes.base import BUILT_IN, Recipe, absolute_weights, untouched
from vitscratch.recipes.pictures import PicturesRecipe

SHARED = (
    "data",
    "data_dir",
    "validation_fraction",
    "test_fraction",
    "split_seed",
    "skip_bad",
    "max_pictures",
    "epochs",
    "batch_size",
    "seed",
    "precision",
    "workers",
    "threads",
)
PIXELS = {"pca": "PCA + logistic regression", "svm": "RBF-SVM"}


@dataclass(frozen=True)
class Candidate:
    """A model to compare.

    Args:
        title: in tables and figures, at most 25 characters.
        recipe: trains it; of a model of pixels it says only which pictures, and in which size.
        pixels: which model of pixels it is; None for a network.
        missing: why it is left out; "" for one that can be had.
    """

    title: str
    recipe: Recipe
    pixels: Literal["pca", "svm"] | None = None
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison(ABC):
    """Several models on the same pictures, divided in the same way."""

    known: ClassVar[tuple[str, ...]]
    """Names of the models, in the order in which they are trained."""

    data: str
    """The pictures: a folder, a built-in set, or an .npz of JPEG files."""

    data_dir: Path | None = None
    """Where files of built-in sets lie, or are downloaded to; by default a cache folder in your home."""

    models: tuple[str, ...] = ()
    """Names of the models to compare; by default all."""

    validation_fraction: float = 0.2
    """Share of the pictures that is held out to choose by, if the set has no validation part."""

    test_fraction: float = 0.2
    """Share of the pictures that is held out for the very end, if the set has no test part."""

    split_seed: int = 0
    """Of these splits."""

    skip_bad: bool = False
    """Leave out files that cannot be decoded, instead of refusing the folder."""

    max_pictures: int | None = None
    """Use at most so many pictures of each part, drawn at random: for trying things out."""

    epochs: int
    """Passes over the training pictures, at most."""

    patience: int
    """Stop after this many epochs in a row without a better validation loss. The best epoch is the one kept."""

    batch_size: int
    """Pictures of a batch."""

    seed: int = 0
    """Of the initial weights, the order of the pictures and their augmentation."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the matrix products."""

    workers: int = 2
    """Processes that decode pictures when the set does not fit into memory."""

    threads: int | None = None
    """CPU threads for the networks; None leaves it to torch."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.models if name not in self.known]:
            raise ValueError(f"models: {unknown[0]!r} is unknown; there are {', '.join(self.known)}")
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name} {getattr(self, name)}: expected above 0 and below 1, as a comparison chooses by one part "
                    "and reports another"
                )
        if self.epochs < 1 or self.patience < 1:
            raise ValueError(f"epochs {self.epochs}, patience {self.patience}: expected at least 1")

    @abstractmethod
    def candidates(self) -> dict[str, Candidate]:
        """Every model that it knows, those that cannot be had included."""

    def chosen(self) -> dict[str, Candidate]:
        """The models that are asked for."""
        return {name: one for name, one in self.candidates().items() if name in (self.models or self.known)}

    @abstractmethod
    def quick(self) -> "Comparison":
        """The same, small enough to end within two minutes on two cores."""

    def absolute(self) -> "Comparison":
        """The same with paths that do not depend on the folder one is in."""
        data_dir = self.data_dir.absolute() if self.data_dir is not None else None
        data = self.data if self.data in BUILT_IN or not self.data else str(Path(self.data).absolute())
        return replace(self, data=data, data_dir=data_dir)

    def shared(self, **changes: Any) -> dict[str, Any]:
        """Fields that the recipes of all models have in common; `changes` replace some."""
        patience = changes.get("epochs", self.epochs) if self.patience >= self.epochs else self.patience
        return {name: getattr(self, name) for name in SHARED} | {"patience": patience} | changes


@dataclass(frozen=True, kw_only=True)
class PictureComparison(Comparison):
    """Photographs: models of pixels, ResNets and small ViTs in the pictures' own size, and pretrained ones at 224."""

    known = (
        *("pca", "svm", "resnet18", "resnet34", "vit", "vit-cifar10"),
        *("resnet18-224", "resnet34-224", "vit-224", "vit-224-scratch"),
    )

    data: str = ""
    """The pictures: a folder. It has to be given."""

    models: tuple[str, ...] = ()
    """Models to compare, by default all: pca, svm, resnet18, resnet34, vit, vit-cifar10, and with weights resnet18-224,
    resnet34-224, vit-224. Only by name: vit-224-scratch, to see what 224 pixels cost where no weights are at hand."""

    image_size: int = 32
    """Side in pixels to which pictures are brought, but for the pretrained models at 224."""

    epochs: int = 20
    patience: int = 5
    batch_size: int = 128

    tuning_epochs: int = 10
    """Passes of pretrained models, at most, and never more than `epochs`: one with the head alone, then so many."""

    tuning_patience: int = 2
    """Patience with pretrained models, which are soon at their best."""

    vit_weights: str = ""
    """Weights of a ViT for vit-224, such as B/16's: a file of any ecosystem, timm:NAME or hf:ORG/NAME."""

    resnet18_weights: str = ""
    """torchvision's pretrained weights for resnet18-224: a .pth file, or ResNet18_Weights.IMAGENET1K_V1."""

    resnet34_weights: str = ""
    """torchvision's pretrained weights for resnet34-224, likewise."""

    large_size: int = 224
    """Side in pixels of pictures for resnet18-224, resnet34-224 and vit-224-scratch; a ViT's weights know theirs."""

    def candidates(self) -> dict[str, Candidate]:
        """In the order of `known`."""
        from vitscratch.recipes.fine_tune import FineTune

        small = PicturesRecipe(**self.shared(), image_size=self.image_size, label_smoothing=0.0, position="sincos")
        tuning = self._tuning()
        shipped = FineTune(**tuning, weights="cifar10", image_size=self.image_size)
        large = FineTune(**{**tuning, "batch_size": min(self.batch_size, 64)}, weights=self.vit_weights)
        large = replace(large, learning_rate=1e-4)  # a body of 86 million learns from less
        tiny = replace(small, preset="vit_ti_16", image_size=self.large_size)
        asked = "vit-224-scratch" in self.models
        return {
            **{name: Candidate(title, small, pixels=name) for name, title in PIXELS.items()},  # type: ignore[arg-type]
            "resnet18": self._resnet("resnet18"),
            "resnet34": self._resnet("resnet34"),
            "vit": Candidate(f"ViT, {self.image_size} px, scratch", small),
            "vit-cifar10": Candidate(f"ViT, {self.image_size} px, CIFAR-10", shipped, missing=self._not_shipped()),
            "resnet18-224": self._pretrained_resnet("resnet18", self.resnet18_weights),
            "resnet34-224": self._pretrained_resnet("resnet34", self.resnet34_weights),
            "vit-224": Candidate("ViT, pretrained", large, missing="" if self.vit_weights else _wanting("vit-weights")),
            "vit-224-scratch": Candidate(
                f"ViT-Ti/16, {self.large_size} px, scratch", tiny, missing="" if asked else "not named in --models"
            ),
        }

    def _tuning(self) -> dict[str, Any]:
        epochs, patience = min(self.tuning_epochs, self.epochs), self.tuning_patience
        return self.shared(epochs=epochs, patience=patience)

    def _resnet(self, network: Any) -> Candidate:
        from vitscratch.recipes.resnet import ResNetRecipe

        recipe = ResNetRecipe(**self.shared(), network=network, image_size=self.image_size)
        return Candidate(f"ResNet-{network[6:]}, {self.image_size} px, scratch", recipe)

    def _pretrained_resnet(self, network: Any, weights: str) -> Candidate:
        from vitscratch.recipes.resnet import ResNetRecipe

        recipe = ResNetRecipe(**self._tuning(), network=network, image_size=self.large_size, weights=weights)
        title = f"ResNet-{network[6:]}, {self.large_size} px"
        return Candidate(title, recipe, missing="" if weights else _wanting(f"{network}-weights"))

    def _not_shipped(self) -> str:
        from vitscratch.weights import shipped_names

        return "" if "cifar10" in shipped_names() else "its weights do not come with this version"

    def quick(self) -> "PictureComparison":
        """The same, one epoch on a few hundred pictures, in small batches, so that there are some steps; unless
        somebody has set these fields."""
        most = max(32, min(200, 200 * 32**2 // self.image_size**2))  # as the work grows with the pixels
        return replace(self, **untouched(self, epochs=1, batch_size=32, max_pictures=most))

    def absolute(self) -> "PictureComparison":
        """Likewise; weights may be files, too."""
        names = ("vit_weights", "resnet18_weights", "resnet34_weights")
        files = {name: absolute_weights(getattr(self, name)) for name in names}
        return replace(super().absolute(), **files)  # type: ignore[arg-type,return-value]


def _wanting(option: str) -> str:
    return f"no --{option} given"
