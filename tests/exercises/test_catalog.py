"""Every exercise has a stub that fails with its first instruction, a solution that passes, and hints that give nothing
away."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exercises.students import edited
from tests.exercises.test_vision_transformer import LIBRARY
from vitscratch.exercises import EXERCISES, Exercise, Mistake
from vitscratch.exercises.files import SOLUTIONS, STUBS, exercise_of, is_stub, solution
from vitscratch.exercises.runner import Runner


@pytest.fixture(params=EXERCISES, ids=lambda one: one.name)
def exercise(request: pytest.FixtureRequest) -> Exercise:
    return request.param


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as runner:
        yield runner


def test_the_numbers_and_names_are_in_order() -> None:
    assert [one.number for one in EXERCISES] == list(range(1, len(EXERCISES) + 1))
    assert len({one.name for one in EXERCISES}) == len({one.file_name for one in EXERCISES}) == len(EXERCISES)
    assert all(one.difficulty in (1, 2, 3) and one.minutes > 0 and one.steps and one.defines for one in EXERCISES)


def test_nothing_lies_in_the_folders_that_is_no_exercise() -> None:
    names = {one.file_name for one in EXERCISES}
    assert {path.name for path in STUBS.glob("*.py")} <= names
    assert {path.name for path in SOLUTIONS.glob("*.py")} <= names


def test_the_stub_is_short_and_says_what_a_stub_says(exercise: Exercise) -> None:
    text = (STUBS / exercise.file_name).read_text()
    assert len(text.splitlines()) <= 40
    doc = ast.get_docstring(ast.parse(text)) or ""
    assert doc.startswith(f"Exercise {exercise.number}: ")
    told = dict(re.findall(r"^(\w+): {2,}(.+)$", doc, re.MULTILINE))
    assert told["Minutes"] == str(exercise.minutes) and told["Difficulty"] == f"{exercise.difficulty} of 3"
    assert told["Tutorial"] == f"tutorials/{exercise.tutorial}"
    assert told["Check"] == f"vitscratch check {exercise.file_name}"
    assert all(name in text for name in exercise.defines)


def test_the_stub_fails_with_its_first_instruction(exercise: Exercise, runner: Runner, tmp_path: Path) -> None:
    path = tmp_path / exercise.file_name
    path.write_text((STUBS / exercise.file_name).read_text())
    assert is_stub(path, exercise) and exercise_of(path) == exercise
    report = runner.check(path)
    assert report.status == "not begun", report.text()
    assert (
        report.problem is not None
        and report.problem.what == re.findall(r'NotImplementedError\(\s*"(.*)"\s*\)', path.read_text())[0]
    )
    assert report.problem.what.startswith("write ")


def test_the_solution_passes(exercise: Exercise, runner: Runner) -> None:
    report = runner.check(SOLUTIONS / exercise.file_name)
    assert report.ok, report.text()
    assert report.printed_size == 0 and report.exercise == exercise


BLOCK = """
from mlp import MLP
from torch import nn
from vitscratch import MultiHeadSelfAttention

class EncoderBlock(nn.Module):
    def __init__(self, embed_dim, num_heads, mlp_dim):
        super().__init__()
        self.a, self.b = (nn.LayerNorm(embed_dim, eps=1e-6) for _ in "ab")
        self.attn = MultiHeadSelfAttention(embed_dim, num_heads)
        self.mlp = MLP(embed_dim, mlp_dim)

    def forward(self, x):
        x = x + self.attn(self.a(x))
        return x + self.mlp(self.b(x))
"""


def test_what_is_written_and_imports_a_stub_is_not_called_not_begun(runner: Runner, tmp_path: Path) -> None:
    stub = (STUBS / "06_mlp.py").read_text()
    path = tmp_path / "07_encoder_block.py"
    path.write_text(BLOCK)
    for text, state in ((stub, "not begun"), (stub.replace("make the", "begin with the"), "not finished")):
        (tmp_path / "06_mlp.py").write_text(text)
        report = runner.check(path)
        assert report.status == "wrong" and report.problem is not None
        assert report.problem.what == f"You import mlp from 06_mlp.py, which is {state}; it should be written first."
        used, todo = report.problem.evidence.splitlines()
        assert used == "07_encoder_block.py, line 11: `self.mlp = MLP(embed_dim, mlp_dim)`"
        assert todo.startswith("06_mlp.py, to do: write MLP: ")
        assert "`from vitscratch.mlp import MLP`" in report.problem.hints[1]


MLP = """
import torch
import torch.nn.functional as F
from torch import nn

class MLP(nn.Module):
    def __init__(self, embed_dim, mlp_dim):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(embed_dim, mlp_dim), nn.Linear(mlp_dim, embed_dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))
"""
ORIGIN = "mlp, imported from 06_mlp.py, is wrong by itself: check that first"
MODEL = edited(
    LIBRARY, ("class VisionTransformer", "from encoder_block import EncoderBlock\n\nclass VisionTransformer")
)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (("F.gelu", "F.relu"), "wrong: mlp_relu"),
        (("return self.fc2(F.gelu(self.fc1(x)))", "return torch.relu(self.fc2(F.gelu(self.fc1(x))))"), "wrong"),
        (("return self.fc2(F.gelu(self.fc1(x)))", "return x + self.fc2(F.gelu(self.fc1(x)))"), "enc_double_residual"),
        (("self.fc2(F.gelu(self.fc1(x)))", "self.fc2(F.gelu(self.fc1(x)))[:, :2]"), "07_encoder_block.py, line 15:"),
        (("self.fc2(F.gelu(self.fc1(x)))", "self.fc2(F.gelu(self.fc2(x)))"), "06_mlp.py, line 12: `return"),
    ],
)
def test_an_imported_file_that_is_wrong_by_itself_is_named(
    edit: tuple[str, str], says: str, runner: Runner, tmp_path: Path
) -> None:
    (tmp_path / "06_mlp.py").write_text(edited(MLP, edit))
    (tmp_path / "07_encoder_block.py").write_text(BLOCK)
    (tmp_path / "08_vision_transformer.py").write_text(MODEL)
    for name in ("07_encoder_block.py", "08_vision_transformer.py"):
        text = runner.check(tmp_path / name).text()
        assert says in text and text.count(ORIGIN) == 1, text


def test_of_a_known_mistake_in_an_imported_file_the_section_is_named(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "mlp.py").write_text(edited(MLP, ("F.gelu", "F.relu")))
    path = tmp_path / "07_encoder_block.py"
    path.write_text(BLOCK)
    text = runner.check(path).text()
    assert "wrong: mlp_relu" in text and "mlp, imported from mlp.py, is wrong by itself: check that first" in text
    assert 'tutorials/04_encoder_block.ipynb, section "The MLP"' in text


@pytest.mark.parametrize(
    ("end", "told"), [("raise SystemExit", True), ("__import__('os')._exit(3)", False), ("print('much')", False)]
)
def test_the_problem_stands_however_the_check_of_an_imported_file_ends(
    end: str, told: bool, runner: Runner, tmp_path: Path
) -> None:
    here = "def forward(self, x):"  # exercise 6 alone has tokens of this width
    text = edited(MLP, (here, f"{here}\n        if x.shape[-1] == 13:\n            {end}"))
    (tmp_path / "06_mlp.py").write_text(text)
    path = tmp_path / "07_encoder_block.py"
    path.write_text(edited(BLOCK, ("return x + self.mlp", "return self.mlp")))
    report = runner.check(path)
    assert report.mistake == "enc_no_mlp_residual" and report.printed == "", report.text()
    assert (ORIGIN in report.text()) == told


def test_an_imported_file_that_is_right_is_not_named(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "06_mlp.py").write_text(MLP)
    path = tmp_path / "07_encoder_block.py"
    for edit in (("x = x + self.attn", "x = self.attn"), ("x + self.mlp(self.b(x))", "x + self.mlp(self.b(y))")):
        path.write_text(edited(BLOCK, edit))
        report = runner.check(path)
        assert report.status == "wrong" and "by itself" not in report.text()


def test_a_mistake_beside_what_is_imported_names_no_other_file(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "07_encoder_block.py").write_text("from vitscratch import EncoderBlock\n")
    path = tmp_path / "08_vision_transformer.py"
    path.write_text(edited(MODEL, ("nn.LayerNorm(embed_dim, eps=1e-6)", "nn.LayerNorm(embed_dim)")))
    report = runner.check(path)
    assert report.mistake == "enc_eps_1e-5" and report.problem is not None and report.problem.step == "final norm"
    assert "by itself" not in report.text()


def test_the_solution_is_shown_as_code(exercise: Exercise) -> None:
    text = solution(exercise)
    for name in exercise.defines:
        assert re.search(rf"^(def|class) {name}\b", text, re.MULTILINE)
    compile(text, exercise.file_name, "exec")


def test_the_solution_says_what_of_it_is_extra() -> None:
    where, note, *_ = solution(EXERCISES[7]).splitlines()
    assert where == "# vitscratch/vit.py" and note.startswith("# ")
    assert note.endswith("from_config, one_query, pool, dropout and the checks of sizes are the library's extras.")
    assert solution(EXERCISES[6]).splitlines()[1] == ""


def test_every_mistake_has_hints_and_none_gives_the_code(exercise: Exercise) -> None:
    checks = exercise.load()
    bank: dict[str, Mistake] = checks.MISTAKES
    code = {line.strip() for line in solution(exercise).splitlines() if "=" in line or "return" in line}
    assert bank and all(name == mistake.name for name, mistake in bank.items())
    unnamed: dict[str, Mistake] = getattr(checks, "OTHERWISE", {})
    for mistake in (*bank.values(), *unnamed.values()):
        assert len(mistake.hints) >= 2 and all(hint.strip() for hint in mistake.hints), mistake.name
        assert len(set(mistake.hints)) == len(mistake.hints), mistake.name
        assert mistake.step in exercise.steps, f"{mistake.name}: {mistake.step}"
        assert mistake.what.strip()
        for hint in mistake.hints:
            assert not any(len(line) > 12 and line in hint for line in code), f"{mistake.name}: {hint}"


def test_the_table_of_the_tutorials_says_which_exercises_are_whose() -> None:
    text = (Path(__file__).parents[2] / "tutorials" / "README.md").read_text()
    rows = {file: cells for file, cells in re.findall(r"\]\((\d\d_\w+\.ipynb)\) \|.*\| ([\d, -]+) \|\n", text)}
    assert len(rows) == 12
    for tutorial, cells in rows.items():
        of_it = [str(one.number) for one in EXERCISES if one.tutorial == tutorial]
        assert cells == (", ".join(of_it) or "-"), tutorial
