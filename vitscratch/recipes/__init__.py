"""Experiments, one file each. A recipe's class is light to import; its docstring's module says what it gave."""

from vitscratch.recipes.base import Recipe
from vitscratch.recipes.cifake import Cifake
from vitscratch.recipes.cifar10 import Cifar10, Cifar10Cpu, Cifar10Short
from vitscratch.recipes.compare_fake_digits import CompareFakeDigits
from vitscratch.recipes.comparison import Candidate, Comparison
from vitscratch.recipes.digits import Digits
from vitscratch.recipes.fake_digits import FakeDigits
from vitscratch.recipes.fake_or_real import FakeOrReal
from vitscratch.recipes.fine_tune import FineTune
from vitscratch.recipes.pictures import PicturesRecipe
from vitscratch.recipes.resnet import ResNetRecipe

__all__ = [
    "COMPARISONS",
    "RECIPES",
    "Candidate",
    "Cifake",
    "Cifar10",
    "Cifar10Cpu",
    "Cifar10Short",
    "CompareFakeDigits",
    "Comparison",
    "Digits",
    "FakeDigits",
    "FakeOrReal",
    "FineTune",
    "PicturesRecipe",
    "Recipe",
    "ResNetRecipe",
]

RECIPES: dict[str, type[Recipe]] = {
    "digits": Digits,
    "fake-digits": FakeDigits,
    "pictures": PicturesRecipe,
    "cifar10": Cifar10,
    "cifar10-short": Cifar10Short,
    "cifar10-cpu": Cifar10Cpu,
    "fine-tune": FineTune,
    "resnet": ResNetRecipe,
}

COMPARISONS: dict[str, type[Comparison]] = {
    "fake-digits": CompareFakeDigits,
    "cifake": Cifake,
    "fake-or-real": FakeOrReal,
}
