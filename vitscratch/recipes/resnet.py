"""A ResNet of torchvision's (arXiv 1512.03385), trained by the same loop as a ViT: what a ViT is compared with.

Command: `vitscratch train resnet --data FOLDER`, for ResNet-18 from random weights at 32 x 32 pixels;
`--network resnet34` for the larger one, `--weights FILE --image-size 224` for torchvision's pretrained weights.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vitscratch.config import ViTConfig
from vitscratch.recipes.base import Recipe, absolute_weights

if TYPE_CHECKING:
    from torch import nn

    from vitscratch.baselines import ResNet
    from vitscratch.data import Augmentation, Preprocessing
    from vitscratch.recipes.experiment import Experiment
    from vitscratch.training import EpochRecord

FORMAT = "vitscratch resnet 1"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what torchvision's weights were given


@dataclass(frozen=True, kw_only=True)
class ResNetRecipe(Recipe):
    """A ResNet of torchvision's on any folder of pictures: from random weights, or fine-tuned from pretrained ones."""

    data: str = ""
    preset: str = "vit_nano_32"  # not looked at
    image_size: int | None = 32
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_epochs: float = 1.0

    network: Literal["resnet18", "resnet34"] = "resnet18"
    """Which one."""

    channels: Literal[1, 3] = 3
    """Of the pictures: 3, or 1 for grey."""

    weights: str = ""
    """torchvision's pretrained weights: a .pth file, or a name such as ResNet18_Weights.IMAGENET1K_V1. The head learns
    alone for `head_epochs`, then everything. Without: random weights, and all of it learns at once."""

    head_epochs: int = 1
    """With pretrained weights: epochs of the head alone, before `epochs` of everything."""

    layer_decay: float = 0.5
    """With pretrained weights: each of the four stages learns so many times as fast as the one above it."""

    padding: int = 4
    """Pixels by which a picture is shifted at most, each way."""

    flip: float = 0.5
    """Probability of a mirror image; 0 where left and right matter, as in letters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size is None:
            raise ValueError("image_size None: a ResNet takes pictures of any size, so say which")
        if self.precision == "auto" and self.image_size <= 16:  # see `vitscratch.baselines.resnet`
            object.__setattr__(self, "precision", "fp32")
        if not 0 < self.layer_decay <= 1 or self.head_epochs < 1:
            raise ValueError(
                f"layer_decay {self.layer_decay}, head_epochs {self.head_epochs}: expected above 0 and at most 1, and "
                "at least 1"
            )

    @property
    def all_epochs(self) -> int:
        """Those of the head alone among them."""
        return self.epochs + self.head_epochs * bool(self.weights)

    def absolute(self) -> "ResNetRecipe":
        """Likewise; weights may be a file, too."""
        return replace(super().absolute(), weights=absolute_weights(self.weights))  # type: ignore[call-arg,return-value]

    def provenance(self) -> dict[str, Any]:
        """The network, and the weights that it began with."""
        return {"network": self.network} | ({"weights": self.weights} if self.weights else {})

    def preprocessing(self) -> "Preprocessing | None":
        """That of torchvision's weights, but for their crop of the centre, if there are any."""
        from vitscratch.data import Preprocessing

        if not self.weights or self.channels == 1:
            return None
        return Preprocessing(self.picture_shape()[0], 3, IMAGENET_MEAN, IMAGENET_STD)

    def picture_shape(self) -> tuple[tuple[int, int], int]:
        """As asked for."""
        assert self.image_size is not None
        return (self.image_size, self.image_size), self.channels

    def create(self, num_classes: int) -> "tuple[ViTConfig | None, nn.Module]":
        """The network with a new head."""
        return None, self._network(num_classes, self.weights).model

    def _network(self, num_classes: int, weights: str) -> "ResNet":
        """Small pictures get the stem that is usual for them, unless weights come with the other one."""
        from vitscratch.baselines import resnet
        from vitscratch.baselines.resnet import SMALL

        assert self.image_size is not None
        return resnet(
            self.network,
            num_classes,
            weights=weights or None,
            in_channels=self.channels,
            small_stem=self.image_size <= SMALL and not self.weights,
        )

    def augmentation(self) -> "Augmentation | None":
        """Random shift and mirror image."""
        from vitscratch.data import RandomCropFlip

        return RandomCropFlip(self.padding, self.flip) if self.padding or self.flip else None

    def fit(self, experiment: "Experiment", **options: Any) -> "list[EpochRecord]":
        """From random weights as any recipe; pretrained ones by `vitscratch.transfer.fine_tune`."""
        from vitscratch.transfer import fine_tune

        if not self.weights:
            return super().fit(experiment, **options)
        train = experiment.batches("train", training=True)
        return fine_tune(
            experiment.model, train, self, head_epochs=self.head_epochs, layer_decay=self.layer_decay, **options
        )

    def save(self, path: Path, experiment: "Experiment", provenance: dict[str, Any]) -> None:
        """Write weights (torchvision's names), the names of the classes and the preprocessing as safetensors."""
        from safetensors.torch import save

        from vitscratch.files import write_atomically

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in experiment.model.state_dict().items()}
        described = {
            "class_names": list(experiment.splits.class_names),
            "preprocessing": experiment.preprocessing.to_dict(),
            "provenance": provenance,
        }
        metadata = {name: json.dumps(value) for name, value in described.items()}
        content = save(tensors, metadata={"format": "pt", "vitscratch": FORMAT, **metadata})
        write_atomically(path, lambda file: file.write(content))

    def restore(self, path: Path) -> "tuple[nn.Module, Preprocessing, tuple[str, ...]]":
        """What `save` wrote.

        Raises:
            ValueError: there is no such file, or it is damaged or something else.
        """
        from safetensors import SafetensorError, safe_open

        from vitscratch.data import Preprocessing

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            names: Sequence[str] = json.loads(metadata["class_names"])
            preprocessing = Preprocessing.from_dict(json.loads(metadata["preprocessing"]))
            model = self._network(len(names), weights="").model
            model.load_state_dict(tensors)
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path} is refused: {reason}") from error
        return model.eval(), preprocessing, tuple(names)
