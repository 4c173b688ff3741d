"""Every tutorial runs from a clean kernel, and what is stored in it belongs to it."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.tutorials.static import CHECKS, ROOT, broken_links, headings, minutes, of_kind, prose, text
from tutorials.execute import execute
from vitscratch.exercises import EXERCISES, Exercise

FOLDER = ROOT / "tutorials"
CHAPTERS = (
    "01_patches",
    "02_tokens",
    "03_attention",
    "04_encoder_block",
    "05_vit_b_16",
    "06_training",
    "07_small_data",
    "08_transfer",
    "09_real_or_generated",
    "10_looking_inside",
    "11_faster",
    "12_shipping",
)
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d*)?(?:e[-+]?\d+)?%?|\b(?:nan|inf)\b")
SHAPE = re.compile(r"[\[(]\d+(?:, \d+)+,?[\])]")


def read(chapter: str) -> Any:
    return nbformat.read(FOLDER / f"{chapter}.ipynb", as_version=4)


def test_these_are_all() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(CHAPTERS)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_nothing_is_wrong_with_the_file(chapter: str) -> None:
    notebook, number = read(chapter), int(chapter[:2])
    nbformat.validate(notebook)
    assert [complaint for check in CHECKS for complaint in check(notebook, FOLDER, number)] == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_it_runs_and_says_what_is_stored(chapter: str) -> None:
    stored = read(chapter)
    assert list(differences(stored, execute(stored))) == []


def differences(stored: Any, new: Any) -> list[str]:
    """Cells whose new outputs are not those that are stored: the kinds, the words, the shapes, the look of figures.

    Other numbers may differ, because the order of a sum differs from one machine to another; so may the choice of
    pictures of which a model is equally sure, and what a library of another version warns of (no warning is stored).
    """
    found = []
    for cell, again in zip(of_kind(stored, "code"), of_kind(new, "code"), strict=True):
        before, after = look(cell["outputs"]), look(again["outputs"])
        if [kind for kind, _ in before] != [kind for kind, _ in after]:
            found.append(f"cell {cell['id']}: {[k for k, _ in before]} is stored, {[k for k, _ in after]} comes out")
            continue
        for (kind, old), (_, fresh) in zip(before, after, strict=True):
            if isinstance(old, str) and old != fresh:
                found.append(f"cell {cell['id']}: {old!r} is stored, {fresh!r} comes out")
            elif not isinstance(old, str) and np.abs(old - fresh).mean() > 0.1:
                found.append(f"cell {cell['id']}: the stored figure ({kind}) does not look like the one that comes out")
    return found


def look(outputs: list[Any]) -> list[tuple[str, Any]]:
    """What of a cell's outputs is the same on every machine, each with its kind."""
    pieces: list[tuple[str, Any]] = []
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] != "stderr":
            pieces.append((output["name"], words(output["text"])))
        for kind, data in sorted(output.get("data", {}).items()):
            if kind == "image/png":  # shrunk until fonts and the last digits no longer count
                picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("L").resize((24, 24))
                pieces.append((kind, np.asarray(picture) / 255))
            elif kind.startswith("text/"):
                pieces.append((kind, words(data)))
    return pieces


def words(printed: str) -> str:
    """Text without its numbers, but with those that are a shape: two or more whole ones in brackets."""
    parts = SHAPE.split(printed)
    shapes = [*SHAPE.findall(printed), ""]
    without = "".join(NUMBER.sub("#", part) + shape for part, shape in zip(parts, shapes, strict=True))
    return " ".join(re.sub(r"\s*#\s*", "#", without).split())  # a minus sign moves what stands beside it


@pytest.mark.parametrize("exercise", EXERCISES, ids=[exercise.name for exercise in EXERCISES])
def test_a_mistake_names_a_section_that_is_there(exercise: Exercise) -> None:
    sections = {title for _, title in headings(prose(read(Path(exercise.tutorial).stem)))}
    for mistake in exercise.load().MISTAKES.values():
        assert mistake.section in sections, f"{mistake.name}: no section {mistake.section!r} in {exercise.tutorial}"


@pytest.mark.parametrize("exercise", EXERCISES, ids=[exercise.name for exercise in EXERCISES])
def test_a_tutorial_names_the_exercises_that_it_leads_to(exercise: Exercise) -> None:
    assert exercise.file_name in text(read(Path(exercise.tutorial).stem))


def test_the_list_names_all_with_their_minutes() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert list(broken_links(page, FOLDER)) == []
    rows = re.findall(r"^\| (\d+) \| \[[^]]+\]\((\w+)\.ipynb\) \| (\d+) \|", page, re.MULTILINE)
    assert rows == [(str(i), name, str(minutes(read(name)))) for i, name in enumerate(CHAPTERS, 1)]
