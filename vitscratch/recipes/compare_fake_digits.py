"""Real or generated, offline: four models tell scans of handwritten digits from ones that a model has drawn.

Command: `vitscratch compare fake-digits`.
The pictures are those of `vitscratch train fake-digits`; what is compared: PCA + logistic regression, a support vector
machine, ResNet-18 with a stem for small pictures, and a ViT of two by two patches.

Time and result: not measured yet.
"""

from dataclasses import dataclass, replace

from vitscratch.recipes.comparison import PIXELS, Candidate, Comparison
from vitscratch.recipes.fake_digits import FakeDigits
from vitscratch.recipes.resnet import ResNetRecipe


@dataclass(frozen=True, kw_only=True)
class CompareFakeDigits(Comparison):
    """Real handwritten digits against generated ones: models of pixels, a ResNet, and a ViT, in minutes, offline."""

    known = ("pca", "svm", "resnet18", "vit")

    data: str = "fake-digits"
    """The pictures; another set of grey pictures of 8 x 8 pixels would do."""

    epochs: int = 40
    patience: int = 40
    batch_size: int = 64
    threads: int | None = 1

    resnet_epochs: int = 15
    """The same for the ResNet, which learns faster and computes longer."""

    def candidates(self) -> dict[str, Candidate]:
        """In the order of `known`."""
        vit = FakeDigits(**self.shared())
        epochs = min(self.resnet_epochs, self.epochs)
        resnet = ResNetRecipe(**self.shared(epochs=epochs), image_size=8, channels=1, padding=0, flip=0.0)
        return {
            **{name: Candidate(title, vit, pixels=name) for name, title in PIXELS.items()},  # type: ignore[arg-type]
            "resnet18": Candidate("ResNet-18", resnet),
            "vit": Candidate("ViT", vit),
        }

    def quick(self) -> "CompareFakeDigits":
        """The same, two epochs on a few hundred pictures."""
        return replace(self, epochs=min(self.epochs, 2), max_pictures=min(self.max_pictures or 500, 500))
