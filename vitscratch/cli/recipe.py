"""Commands that work on a recipe: `vitscratch train digits --epochs 3`, with every field of the recipe as an option."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, make_dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from vitscratch.recipes import COMPARISONS, RECIPES, Comparison, Recipe

Kind = TypeVar("Kind", Recipe, Comparison)


def for_each_recipe(command: type, recipes: Mapping[str, type[Any]] = RECIPES) -> Any:
    """The type of a subcommand with one sub-subcommand for each recipe: options of `command`, then of the recipe.

    Args:
        command: a dataclass whose field `recipe` gets the recipe.
        recipes: a dataclass for each name.
    """
    return reduce(or_, (_for_one(command, name, recipe) for name, recipe in recipes.items()))


def _for_one(command: type, name: str, recipe: type[Any]) -> Any:
    rate = {"learning_rate": Annotated[float, tyro.conf.arg(aliases=["--lr"])]}
    here = {
        "__post_init__": lambda self: None,
        "__doc__": recipe.__doc__,
        "__annotations__": rate if hasattr(recipe, "learning_rate") else {},
    }
    unchecked: Any = type(recipe.__name__, (recipe,), here)
    both = make_dataclass(
        f"{command.__name__}{recipe.__name__}", [("recipe", unchecked, unchecked())], bases=(command,), kw_only=True
    )
    both.__doc__ = recipe.__doc__
    return Annotated[both, tyro.conf.subcommand(name), tyro.conf.OmitArgPrefixes]


def checked(recipe: Kind) -> Kind:
    """The recipe of a command. Its fields are checked only here, and not while arguments are read, so that what is
    wrong with them is said in one line.

    Raises:
        ValueError: a field makes no sense.
    """
    kinds: dict[str, Any] = {kind.__name__: kind for kind in (*RECIPES.values(), *COMPARISONS.values())}
    found: Kind = kinds[type(recipe).__name__](**{field.name: getattr(recipe, field.name) for field in fields(recipe)})
    return found


def recipe_name(recipe: Recipe | Comparison) -> str:
    """Its name on the command line."""
    kinds: list[tuple[str, type]] = [*RECIPES.items(), *COMPARISONS.items()]
    return next(name for name, kind in kinds if type(recipe).__name__ == kind.__name__)


def shortened(recipe: Recipe | Comparison) -> str:
    """What --quick has made of it."""
    return f" (--quick: --epochs {recipe.epochs}, --max-pictures {recipe.max_pictures})"


def differences(there: Mapping[str, Any], recipe: Recipe | Comparison, most: int = 3) -> str:
    """Which settings of a recipe are others than those of a config.json; "" if none are."""
    here = json.loads(json.dumps(recipe_to_json(recipe)))  # JSON has no tuples
    found = [f"{name} {there.get(name)}, not {here[name]}" for name in here if there.get(name) != here[name]]
    return "; ".join(found[:most]) + f"; and {len(found) - most} more" * (len(found) > most)


def recipe_to_json(recipe: Recipe | Comparison) -> dict[str, Any]:
    """Every field, ready for config.json."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(recipe).items()}


def recipe_from_json(name: str, values: dict[str, Any]) -> Recipe:
    """Back from `recipe_to_json`.

    Raises:
        ValueError: a recipe or field that this version does not know.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is unknown; there are {', '.join(RECIPES)}")
    kind = RECIPES[name]
    assert is_dataclass(kind)
    if unknown := set(values) - {field.name for field in fields(kind)}:
        raise ValueError(f"recipe {name} has no {', '.join(sorted(unknown))}; was it written by another version?")
    values = {key: Path(value) if key == "data_dir" and value is not None else value for key, value in values.items()}
    return kind(**values)
