"""Recipes: what they hold out, that they repeat, what they learn."""

from dataclasses import fields, replace

import pytest
import torch
from torch.testing import assert_close

from vitscratch.cli.recipe import recipe_from_json, recipe_name, recipe_to_json
from vitscratch.data import Pictures, digits, stratified_split
from vitscratch.recipes import RECIPES, Digits, Recipe
from vitscratch.recipes.experiment import load, prepare


def test_the_held_out_parts_are_used_for_nothing() -> None:
    experiment = prepare(Digits(validation_fraction=0.1, split_seed=3))
    splits, everything = experiment.splits, digits()
    parts = [part.images for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, parts)) == len(everything) == 1797
    together = torch.cat(parts).flatten(1)
    assert len(together.unique(dim=0)) == len(everything.images.flatten(1).unique(dim=0))
    assert_close(experiment.preprocessing.mean[0], float(splits.train.images.double().mean()), rtol=1e-6, atol=0)
    assert_close(
        experiment.preprocessing.std[0], float(splits.train.images.double().std(correction=0)), rtol=1e-5, atol=0
    )
    assert abs(experiment.preprocessing.mean[0] - float(everything.images.mean())) > 1e-6


def test_the_quickstarts_split_is_the_stratified_one_of_seed_0() -> None:
    pictures = digits()
    first, second = stratified_split(pictures.labels, 0.2, seed=0)
    splits = load(Digits(validation_fraction=0.0))
    assert splits.validation is None and isinstance(splits.test, Pictures)
    assert (len(splits.train), len(splits.test)) == (len(first), len(second)) == (1437, 360)


def test_two_runs_from_one_seed_are_the_same_run() -> None:
    def run(seed: int) -> dict[str, torch.Tensor]:
        experiment = prepare(Digits(epochs=3, seed=seed))
        experiment.fit()
        return experiment.model.state_dict()

    one, two, other = run(5), run(5), run(6)
    assert_close(one, two, rtol=0, atol=0)
    assert (one["blocks.0.attn.qkv.weight"] != other["blocks.0.attn.qkv.weight"]).any()


def test_max_pictures_limits_every_part_and_keeps_the_division() -> None:
    few, all_of_them = load(Digits(max_pictures=37)), load(Digits())
    for name in ("train", "validation", "test"):
        part, whole = getattr(few, name), getattr(all_of_them, name)
        assert len(part) == 37
        known = {tuple(image.flatten().tolist()) for image in whole.images}
        assert {tuple(image.flatten().tolist()) for image in part.images} <= known


def test_training_batches_are_augmented_and_others_are_not() -> None:
    experiment = prepare(Digits())
    (one, labels), (two, _) = (next(iter(experiment.batches("validation"))) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(labels, experiment.splits.validation.labels[:64])
    training = experiment.batches("train", training=True)
    training.set_epoch(0)
    first = next(iter(training))[0]
    training.set_epoch(1)
    assert not torch.equal(first, next(iter(training))[0])


def test_the_quickstarts_model_learns_to_read() -> None:
    """The whole recipe, on the quickstart's split. Its mean over splits and seeds: `vitscratch bench digits`."""
    experiment = prepare(Digits(validation_fraction=0.0))
    history = experiment.fit()
    assert experiment.measure("test").accuracy >= 0.98
    assert history[0].train_loss > 1.5 > 0.5 > history[-1].train_loss
    assert torch.isfinite(experiment.model.pos_embed).all()


def test_balancing_classes_reaches_the_loss() -> None:
    ends = []
    for balanced in (False, True):
        experiment = prepare(Digits(epochs=1, warmup_epochs=0.0, balance_classes=balanced))
        experiment.fit()
        ends.append(experiment.model.head.weight)
    assert not torch.equal(*ends)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_goes_to_json_and_back_and_is_explained(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe_name(recipe) == name and recipe_from_json(name, recipe_to_json(recipe)) == recipe
    assert RECIPES[name].__doc__
    config = recipe.model_config(num_classes=7)
    assert config.num_classes == 7 and config.num_parameters > 0
    assert recipe.quick().epochs <= recipe.epochs


def test_a_recipe_of_another_version_is_refused() -> None:
    values = {**recipe_to_json(Digits()), "colour": 3}
    with pytest.raises(ValueError, match="recipe digits has no colour"):
        recipe_from_json("digits", values)
    with pytest.raises(ValueError, match="recipe 'cats' is unknown; there are digits"):
        recipe_from_json("cats", {})


def test_sizes_come_from_the_preset_unless_they_are_given() -> None:
    assert Digits().picture_shape() == ((8, 8), 1)
    pictures = RECIPES["pictures"](data="x")
    assert pictures.picture_shape() == ((32, 32), 3)
    assert replace(pictures, image_size=64).model_config(5).image_size == (64, 64)
    assert {field.name for field in fields(Recipe)} <= {field.name for field in fields(Digits)}
