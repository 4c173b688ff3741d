import torch
from torch.testing import assert_close

from vitscratch.data import digits
from vitscratch.recipes.digits import DigitsRecipe, held_out_accuracy, split, train


def test_the_held_out_part_is_used_for_nothing() -> None:
    pictures = digits()
    data = split(pictures, 0.2, seed=0)
    assert not set(data.train_indices.tolist()) & set(data.test_indices.tolist())
    learned_from = pictures.images[data.train_indices]
    assert_close(data.train_images, (learned_from - learned_from.mean()) / learned_from.std())
    assert_close(data.test_images, (pictures.images[data.test_indices] - learned_from.mean()) / learned_from.std())


def test_two_runs_from_one_seed_are_the_same_run() -> None:
    data, recipe = split(digits(), 0.2, seed=0), DigitsRecipe(epochs=3)
    one, two = (train(recipe, data, seed=5)[0].state_dict() for _ in range(2))
    other = train(recipe, data, seed=6)[0].state_dict()
    assert_close(one, two, rtol=0, atol=0)
    assert (one["blocks.0.attn.qkv.weight"] != other["blocks.0.attn.qkv.weight"]).any()


def test_the_quickstarts_model_learns_to_read() -> None:
    """The whole recipe, on the quickstart's split. Its mean over splits and seeds: `vitscratch bench digits`."""
    data = split(digits(), 0.2, seed=0)
    model, history = train(DigitsRecipe(), data, seed=0)
    assert held_out_accuracy(model, data) >= 0.98
    assert history[0].train_loss > 1.5 > 0.5 > history[-1].train_loss
    assert torch.isfinite(model.pos_embed).all()
