"""Real or generated, offline: four models tell scans of handwritten digits from ones that a model has drawn.

Command: `vitscratch compare fake-digits`.
The pictures are those of `vitscratch train fake-digits`; what is compared: PCA + logistic regression, a support vector
machine, ResNet-18 with a stem for small pictures, and a ViT of two by two patches.

Result with seed 0 (720 test pictures; the last column with `--robust`; McNemar between the best two: p = 0.42):

=========================  ==========  ==============  =========  ==========================  =======
model                      parameters  kept            validated  test (95 % interval)        JPEG 95
=========================  ==========  ==============  =========  ==========================  =======
RBF-SVM                        59,776  C 10            95.83 %    96.39 % (94.76 to 97.52)    68.5 %
ResNet-18                  11,168,706  epoch 15 of 15  95.28 %    97.22 % (95.75 to 98.19)    96.8 %
ViT                           338,114  epoch 33 of 40  93.06 %    90.56 % (88.20 to 92.48)    90.6 %
PCA + logistic regression       1,493  20 components   53.75 %    53.61 % (49.96 to 57.22)    52.1 %
=========================  ==========  ==============  =========  ==========================  =======

Device and time: one CPU core (AMD EPYC, torch 2.15), in processor time: 5 s for an epoch of the
ResNet, 0.5 s for one of the ViT; two minutes in all on an idle core.
"""

from dataclasses import dataclass, replace

from vitscratch.recipes.base import untouched
from vitscratch.recipes.comparison import PIXELS, Candidate, Comparison
from vitscratch.recipes.fake_digits import FakeDigits
from vitscratch.recipes.resnet import ResNetRecipe


@dataclass(frozen=True, kw_only=True)
class CompareFakeDigits(Comparison):
    """Real handwritten digits against generated ones: models of pixels, a ResNet and a ViT, offline, in minutes."""

    known = ("pca", "svm", "resnet18", "vit")

    data: str = "fake-digits"
    """The pictures; another set of grey pictures of 8 x 8 pixels would do."""

    models: tuple[str, ...] = ()
    """Models to compare, by default all: pca, svm, resnet18, vit."""

    epochs: int = 40
    patience: int = 40
    batch_size: int = 64
    threads: int | None = 1

    resnet_epochs: int = 15
    """Passes of the ResNet, at most: it learns from fewer, and each takes longer."""

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
        """The same, two epochs on a few hundred pictures, unless somebody has set these fields."""
        return replace(self, **untouched(self, epochs=2, max_pictures=500))
