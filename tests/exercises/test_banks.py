"""The bank of mistakes: every entry is complete and belongs to a step of its exercise."""

import pytest

from vitscratch.exercises import EXERCISES

NAMES = ("patchify", "patch_embedding", "tokens", "vision_transformer", "position_interpolation", "weight_conversion")


@pytest.mark.parametrize("name", NAMES)
def test_mistakes_belong_to_their_exercise(name: str) -> None:
    exercise = next(exercise for exercise in EXERCISES if exercise.name == name)
    for key, mistake in exercise.load().MISTAKES.items():
        assert mistake.name == key and mistake.step in exercise.steps, (key, mistake.step)
        assert len(set(mistake.hints)) == len(mistake.hints) >= 2 and mistake.what.endswith((".", ")"))
