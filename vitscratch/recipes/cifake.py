"""Real or generated: CIFAR-10 pictures against a generator's, in CIFAKE's layout (arXiv 2303.14126).

Command: `vitscratch compare cifake --data FOLDER`, where FOLDER has train/REAL, train/FAKE, test/REAL and test/FAKE. A
fifth of the training part is held out to choose by; the test part is as it came.

What is compared: PCA + logistic regression on pixels, a support vector machine where it is affordable, ResNet-18 and
ResNet-34 from random weights with a stem for 32 pixels, vit_nano_32 from random weights and fine-tuned from CIFAR-10
(the real pictures of CIFAKE are CIFAR-10's: its body has seen real ones of the training part, though not what is asked
here); and, with `--resnet18-weights`, `--resnet34-weights` and `--vit-weights`, pretrained models at 224 pixels,
fine-tuned: the head alone for an epoch, then everything. Without weights at hand, `--models vit vit-224-scratch` shows
what blowing 32 pixels up to 224 costs: ViT-Ti/16 from random weights beside vit_nano_32, with the same settings.

Not measured on CIFAKE itself. On a small set in its layout, CIFAR-10 pictures against ones that DCGAN and DDPM made
(1,476 to train on and 258 to test), with `--models pca svm vit vit-cifar10 vit-224-scratch --epochs 10 --threads 1`, on
one CPU core (AMD EPYC, torch 2.15, bf16), seed 0:

===============  ==========================  =======  =======================
model            test (95 % interval)        seconds  points above chance for
                                                      each minute of training
===============  ==========================  =======  =======================
vit-cifar10      70.93 % (65.11 to 76.13)         50                     24.5
svm              62.02 % (55.96 to 67.72)         14                        -
vit              61.24 % (55.17 to 66.98)         56                     11.7
vit-224-scratch  59.69 % (53.60 to 65.49)        426                      1.3
pca              55.04 % (48.94 to 60.99)        0.4                        -
===============  ==========================  =======  =======================

That is what 224 pixels cost where 32 are all there is; pretrained weights for 224 pixels were not at hand.
"""

from dataclasses import dataclass

from vitscratch.recipes.comparison import PictureComparison


@dataclass(frozen=True, kw_only=True)
class Cifake(PictureComparison):
    """Real pictures of 32 x 32 pixels against generated ones, in CIFAKE's layout (train|test/REAL|FAKE)."""
