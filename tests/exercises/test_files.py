"""Stubs are written once; a file is about the exercise that its name, or else what it defines, says."""

from pathlib import Path

import pytest

from vitscratch.exercises import EXERCISES
from vitscratch.exercises.files import STUBS, exercise_of, find_exercises, is_stub, write_stubs


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stubs of another course, with the real names."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    (folder / "README.md").write_text("read me")
    for exercise in EXERCISES:
        (folder / exercise.file_name).write_text(
            f"def {exercise.defines[0]}():\n    raise NotImplementedError('write')\n"
        )
    monkeypatch.setattr("vitscratch.exercises.files.STUBS", folder)
    return folder


def test_stubs_are_written_and_never_written_over(stubs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "mine"
    written, kept = write_stubs(folder)
    names = {"README.md", *(exercise.file_name for exercise in EXERCISES)}
    assert set(written) == names == {path.name for path in folder.iterdir()} and not kept
    (folder / "06_mlp.py").write_text("mine")
    (folder / "README.md").unlink()
    written, kept = write_stubs(folder)
    assert written == ["README.md"] and len(kept) == len(EXERCISES)
    assert (folder / "06_mlp.py").read_text() == "mine"
    assert (folder / "01_patchify.py").read_text() == (stubs / "01_patchify.py").read_text()


NAMES = {one.name: one for one in EXERCISES}


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("06_mlp.py", "", "mlp"),
        ("mlp.py", "class VisionTransformer: ...", "mlp"),
        ("mine.py", "class MLP: ...", "mlp"),
        ("mine.py", "class MLP: ...\nclass MultiHeadSelfAttention: ...\nclass EncoderBlock: ...", "encoder_block"),
        ("mine.py", "def evaluate(): ...\nclass VisionTransformer: ...\ndef attention(): ...", "vision_transformer"),
        ("mine.py", "def evaluate(): ...\ndef attention(): ...", "attention"),
        ("mine.py", "def evaluate(): ...\ndef train_step(): ...", "evaluate"),
        ("mine.py", "from vitscratch import MLP\nclass PatchEmbedding: ...", "patch_embedding"),
        ("mine.py", "from vitscratch import MLP", "mlp"),
        ("mine.py", "from vitscratch import VisionTransformer\ndef prepare(): ...", "freeze_and_replace_head"),
        ("mine.py", "import mine\nattention = mine.attend", "attention"),
        ("mine.py", "if True:\n    attention: object = print\nelse:\n    attention = max", "attention"),
        ("mine.py", "def freeze(): ...", "freeze_and_replace_head"),
        ("mine.py", "def outer():\n    def attention(): ...\nclass MLP:\n    def attention(): ...", "mlp"),
    ],
)
def test_the_exercise_of_a_file(file: str, text: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_text(text)
    assert exercise_of(path) == NAMES[name]


@pytest.mark.parametrize("text", ["", "def attend(): ...", "def outer():\n    def attention(): ...", "attention"])
def test_a_file_about_nothing_lists_what_it_could_be(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"mine\.py: no exercise; expected a file that defines one of patchify, .*freeze"
    ):
        exercise_of(path)


@pytest.mark.parametrize("text", ["def attention(:\n", "x = '\0'", "(" * 10_000])
def test_a_file_that_is_no_python_and_has_another_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.py: no exercise has that name.* for instance 01_patchify\.py"):
        exercise_of(path)


def test_exercises_of_a_folder(tmp_path: Path) -> None:
    for name in ("mlp.py", "06_mlp.py", "12_evaluate.py", "notes.txt", "test_it.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "a.py").write_text("def attention(): ...")
    (tmp_path / "b.py").write_text("def attention(): ...")
    (tmp_path / "m.py").write_text("class MLP: ...")
    (tmp_path / "broken.py").write_text("def (")
    found = {exercise.name: path.name for exercise, path in find_exercises(tmp_path).items()}
    assert list(found.items()) == [("attention", "a.py"), ("mlp", "06_mlp.py"), ("evaluate", "12_evaluate.py")]


@pytest.mark.parametrize("text", ["def double(:\n", "x = '\0'", "(" * 10_000, b"\xff\xfe"])
def test_what_is_no_python_is_no_stub(text: str | bytes, stubs: Path, tmp_path: Path) -> None:
    path = tmp_path / "06_mlp.py"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    assert not is_stub(path, NAMES["mlp"])
    path.write_text(f"# mine\n{(stubs / '06_mlp.py').read_text()}\n")
    assert is_stub(path, NAMES["mlp"])


def test_a_stub_is_one_whatever_stands_in_its_comments(stubs: Path, tmp_path: Path) -> None:
    path, exercise = tmp_path / "mine.py", NAMES["mlp"]
    text = (stubs / exercise.file_name).read_text()
    for content, untouched in ((f"# mine\n\n{text}", True), (text.replace("write", "wrote"), False), ("def (", False)):
        path.write_text(content)
        assert is_stub(path, exercise) == untouched


def test_readme_names_the_commands() -> None:
    text = (STUBS / "README.md").read_text()
    for words in ("vitscratch check .", "--watch", "--hint", "--solution", "vitscratch exercises list"):
        assert words in text
