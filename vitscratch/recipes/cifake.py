"""Real or generated: CIFAR-10 pictures against a generator's, in CIFAKE's layout (arXiv 2303.14126).

Command: `vitscratch compare cifake --data FOLDER`, where FOLDER has train/REAL, train/FAKE, test/REAL and test/FAKE. A
fifth of the training part is held out to choose by; the test part is as it came.

What is compared: PCA + logistic regression on pixels, a support vector machine where it is affordable, ResNet-18 and
ResNet-34 from random weights with a stem for 32 pixels, vit_nano_32 from random weights and fine-tuned from CIFAR-10
(the real pictures of CIFAKE are CIFAR-10's: its body has seen real ones of the training part, though not what is asked
here); and, with `--resnet18-weights`, `--resnet34-weights` and `--vit-weights`, pretrained models at 224 pixels,
fine-tuned: the head alone for an epoch, then everything. Without weights at hand, `--models vit vit-224-scratch` shows
what blowing 32 pixels up to 224 costs: ViT-Ti/16 from random weights beside vit_nano_32, with the same settings.

Device, time and result: not measured on CIFAKE. `--quick` on another set in its layout took less than a minute of
processor time with `--robust`, and its accuracy means nothing.
"""

from dataclasses import dataclass

from vitscratch.recipes.comparison import PictureComparison


@dataclass(frozen=True, kw_only=True)
class Cifake(PictureComparison):
    """Real pictures of 32 x 32 pixels against generated ones, in CIFAKE's layout (train|test/REAL|FAKE)."""
