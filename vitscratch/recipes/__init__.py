"""Experiments, one file each. A recipe's class is light to import; its docstring's module says what it gave."""

from vitscratch.recipes.base import Recipe
from vitscratch.recipes.cifar10 import Cifar10, Cifar10Cpu, Cifar10Short
from vitscratch.recipes.digits import Digits
from vitscratch.recipes.fake_digits import FakeDigits
from vitscratch.recipes.fine_tune import FineTune
from vitscratch.recipes.pictures import PicturesRecipe

__all__ = [
    "RECIPES",
    "Cifar10",
    "Cifar10Cpu",
    "Cifar10Short",
    "Digits",
    "FakeDigits",
    "FineTune",
    "PicturesRecipe",
    "Recipe",
]

RECIPES: dict[str, type[Recipe]] = {
    "digits": Digits,
    "fake-digits": FakeDigits,
    "pictures": PicturesRecipe,
    "cifar10": Cifar10,
    "cifar10-short": Cifar10Short,
    "cifar10-cpu": Cifar10Cpu,
    "fine-tune": FineTune,
}
