"""A mistake leads to a heading that is there."""

import json
import re
from pathlib import Path

import pytest

from vitscratch.exercises import EXERCISES, Exercise, Problem
from vitscratch.exercises.errors import STEP
from vitscratch.exercises.reading import where_to_read
from vitscratch.exercises.report import Report

TUTORIALS = Path(__file__).parents[2] / "tutorials"


def headings(tutorial: str) -> set[str]:
    cells = json.loads((TUTORIALS / tutorial).read_text(encoding="utf-8"))["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines()]
    return {line.lstrip("#").strip() for line in lines if line.startswith("#")}


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda one: one.name)
def test_every_mistake_leads_to_a_heading(exercise: Exercise) -> None:
    for name, mistake in exercise.load().MISTAKES.items():
        tutorial, section = where_to_read(name, exercise.name, mistake.step)
        assert (section or mistake.section) in headings(tutorial or exercise.tutorial), name


@pytest.mark.parametrize("exercise", EXERCISES[:8], ids=lambda one: one.name)
def test_every_mistake_of_the_model_has_a_place_of_its_own(exercise: Exercise) -> None:
    names = {name for name in exercise.load().MISTAKES if where_to_read(name) == ("", "")}
    assert names <= {"tok_global_name"}  # sizes: wherever they are asked for


def test_what_has_no_name_leads_to_a_heading_of_its_step(tmp_path: Path) -> None:
    for exercise in EXERCISES[10:]:
        for step in exercise.steps:
            problem = Problem("it is wrong", "1, not 2", step, ("one", "two"), None, "How this goes wrong")
            report = Report(tmp_path / exercise.file_name, exercise, "wrong", (problem,))
            tutorial, section = re.fullmatch(r'tutorials/(.*), section "(.*)"', report.tutorial).groups()  # type: ignore[union-attr]
            assert section in headings(tutorial) - {"How this goes wrong"}, (exercise.name, step)


def test_the_first_of_two_counts_and_others_are_read_in_the_exercises_own_tutorial() -> None:
    assert where_to_read("pe_no_stride + vit_softmax") == ("01_patches.ipynb", "The same layer as a convolution")
    assert where_to_read("enc_norm_unbiased") == ("04_encoder_block.ipynb", "LayerNorm, token by token")
    assert where_to_read("ts_bce", "train_step", "loss") == where_to_read("", "train_step", "mode") == ("", "One step")
    assert where_to_read("tr_zero_grad", "train_step", "gradients") == ("", "How this goes wrong")
    assert where_to_read("tr_stays_eval", "evaluate", "mode") == ("", "Measure exactly")
    assert where_to_read("", "freeze_and_replace_head", STEP) == ("", "")
    assert where_to_read("", "split", STEP) == ("", "Three parts of the pictures")
    assert where_to_read("tf_head_cpu", "freeze_and_replace_head", "head") == ("", "A new head")
    assert where_to_read("squared") == where_to_read("") == ("", "")
