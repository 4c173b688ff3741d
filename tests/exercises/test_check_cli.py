"""`vitscratch exercises` and `vitscratch check` as a student types them."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.exercises import course
from tests.exercises.course import DOUBLE, HALVE, TRIPLE, Course
from vitscratch.cli import main
from vitscratch.cli.check import _touched
from vitscratch.exercises import EXERCISES, check
from vitscratch.exercises.files import SOLUTIONS, STUBS, find_exercises
from vitscratch.exercises.runner import Runner

_end_runner = course._end_runner
STUB = "def {}(x):\n    raise NotImplementedError('write {}: what it says')\n"


class Shared(Runner):
    """The runner that all tests share, which goes on after the command."""

    def __new__(cls) -> Runner:
        return course.runner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The stubs of a small course, as `exercises new` wrote them."""
    monkeypatch.setattr("vitscratch.exercises.runner.Runner", Shared)
    monkeypatch.setattr(Runner, "__exit__", lambda *_: None)
    monkeypatch.setattr("vitscratch.exercises.files.EXERCISES", (DOUBLE, TRIPLE))
    for name in ("STUBS", "SOLUTIONS"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(f"vitscratch.exercises.files.{name}", tmp_path / name)
    for one in (DOUBLE, TRIPLE):
        (tmp_path / "STUBS" / one.file_name).write_text(STUB.format(one.name, one.name))
        (tmp_path / "SOLUTIONS" / one.file_name).write_text(f"def {one.name}(x):\n    return x * {one.number + 1}\n")
    (tmp_path / "STUBS" / "README.md").write_text("read me")
    assert main(["exercises", "new", str(tmp_path / "mine")]) == 0
    return tmp_path / "mine"


def solve(folder: Path, *exercises: Course) -> None:
    for one in exercises:
        (folder / one.file_name).write_text((folder.parent / "SOLUTIONS" / one.file_name).read_text())


def test_new_says_what_it_kept(folder: Path, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    (folder / DOUBLE.file_name).write_text("mine")
    assert main(["exercises", "new", str(folder)]) == 0
    kept, written = capsys.readouterr().out.splitlines()
    assert kept == "kept as they are: README.md, 01_double.py, 02_triple.py" and "0 files written" in written
    assert (folder / DOUBLE.file_name).read_text() == "mine"


def test_new_where_a_file_is(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert main(["exercises", "new", str(tmp_path / "file")]) == 2
    assert f"DIR {tmp_path / 'file'} is a file; expected a folder" in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture) -> None:
    assert main(["exercises", "list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["exercise", "defines", "minutes", "difficulty", "tutorial"]
    assert [line.split()[:2] for line in lines] == [[f"{one.number:02}", one.name] for one in EXERCISES]
    last = [[str(one.minutes), "*" * one.difficulty, one.tutorial] for one in EXERCISES]
    assert [line.split()[-3:] for line in lines] == last


def test_a_new_folder_is_not_begun(folder: Path, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert main(["check", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("01 double                     not begun")
    assert lines[1] == "  to do   write double: what it says"
    assert lines[-3:] == ["02 triple                     not begun", "", "0 of 2 right"]


def test_a_folder_up_to_the_first_that_is_wrong(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    (folder / DOUBLE.file_name).write_text("def double(x):\n    return x * x\n")
    (folder / TRIPLE.file_name).write_text("def triple(x):\n    return x\n")
    assert main(["check", str(folder), "--json", str(tmp_path / "out.json")]) == 1
    printed = capsys.readouterr().out
    assert "wrong: squared" in printed and printed.splitlines()[-3:] == [
        "02 triple                     not checked", "", "0 of 2 right"
    ]  # fmt: skip
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["passed"] is False and [one["status"] for one in found["files"]] == ["wrong", "not checked"]
    solve(folder, DOUBLE)
    assert main(["check", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "01 double                     ok" and lines[-1] == "1 of 2 right"
    assert lines[1].startswith("02 triple                     wrong") and "  WRONG   3 is wrong" in lines
    solve(folder, TRIPLE)
    assert main(["check", str(folder), "--json", str(tmp_path / "out.json")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 right"
    assert json.loads((tmp_path / "out.json").read_text())["passed"] is True


def test_one_that_is_not_begun_stops_nothing(folder: Path, capsys: pytest.CaptureFixture) -> None:
    solve(folder, TRIPLE)
    capsys.readouterr()
    assert main(["check", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("01 double                     not begun") and "write double" in lines[1]
    assert lines[-3:] == ["02 triple                     ok", "", "1 of 2 right"]
    (folder / TRIPLE.file_name).write_text("def triple(x):\n    return x\n")
    assert main(["check", str(folder), "--solution"]) == 1
    printed = capsys.readouterr().out
    assert "write double" in printed and "3 is wrong" in printed and "return x * 3" in printed


def test_hints_and_then_the_solution(folder: Path, capsys: pytest.CaptureFixture) -> None:
    path = folder / DOUBLE.file_name
    path.write_text("def double(x):\n    return x * x\n")

    def printed(*options: str) -> str:
        capsys.readouterr()
        assert main(["check", str(path), *options]) == 1
        return capsys.readouterr().out

    assert "twice?" not in printed()
    assert "1 of 2: twice?" in (first := printed("--hint")) and "not times itself" not in first
    assert "2 of 2: not times itself" in printed("--hint", "--json", str(folder / "out.json"))
    (found,) = json.loads((folder / "out.json").read_text())["files"]
    assert found["problem"]["hints"] == ["twice?", "not times itself"]
    assert "there are no more; --solution" in (last := printed("--hint")) and "return x * 2" not in last
    assert "return x * 2" in printed("--solution")


def test_a_hint_that_cannot_be_remembered_says_so(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / DOUBLE.file_name).write_text("def double(x):\n    return x * x\n")
    says = "cannot be written to, so the next hint will be this one again"
    assert main(["check", str(folder / DOUBLE.file_name), "--hint"]) == 1
    assert says not in capsys.readouterr().out
    (folder / ".vitscratch.json").unlink()
    (folder / ".vitscratch.json").mkdir()
    for options, told in ((["--hint"], True), ([], False)):
        assert main(["check", str(folder / DOUBLE.file_name), *options]) == 1
        assert (f"({folder} {says})" in capsys.readouterr().out) == told


def test_stubs_go_nowhere_without_a_name_and_names_are_quoted(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = folder / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    capsys.readouterr()
    assert main(["exercises", "new", ""]) == 2
    assert "DIR is empty; expected the name of a folder" in capsys.readouterr().err and not list(empty.iterdir())
    assert main(["exercises", "new", "with space é"]) == 0
    assert "then `vitscratch check 'with space é'`" in capsys.readouterr().out
    assert main(["exercises", "new", "."]) == 0 and (empty / "README.md").exists()


def test_one_file(folder: Path, capsys: pytest.CaptureFixture) -> None:
    solve(folder, TRIPLE)
    (folder / TRIPLE.file_name).rename(folder.parent / "mine.py")
    capsys.readouterr()
    assert main(["check", str(folder.parent / "mine.py")]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["  right   0 stays 0", "  right   3 becomes 9"]
    assert main(["check", str(folder.parent / "mine.py"), "--solution"]) == 0
    assert "return x * 3" in capsys.readouterr().out


def test_of_a_right_one_among_others_what_it_printed_is_shown(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / DOUBLE.file_name).write_text("print('hello')\ndef double(x):\n    return 2 * x\n")
    capsys.readouterr()
    assert main(["check", str(folder)]) == 1
    printed = capsys.readouterr().out
    assert "01 double                     ok" in printed and "hello" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "no such file or folder"),
        (["empty"], "no exercise in this folder; `vitscratch exercises new empty` writes them"),
        (["empty/notes.txt"], "no exercise has that name"),
        (["empty/x.py"], "expected a file that defines one of double, triple"),
        (["mine", "--json", "nowhere/out.json"], "--json nowhere/out.json: expected a file in a folder that exists"),
        (
            ["01_double.py"],
            "01_double.py: no such file or folder; did you mean `vitscratch check SOLUTIONS/01_double.py`?",
        ),
        (["."], ".: no exercise in this folder; did you mean `vitscratch check SOLUTIONS`?"),
        (["mine", "--hnit"], "--hnit is no option here; nearest: --hint"),
        (["--bogus"], "--bogus is no option here"),
        (["--hnit", "mine"], "--hnit is no option here; nearest: --hint"),
        (["mine", "yours"], "yours is one word too many"),
        (["my folder"], "`vitscratch exercises new 'my folder'` writes them"),
    ],
)
def test_wrong_usage(
    arguments: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("empty").mkdir()
    Path("my folder").mkdir()
    Path("empty/notes.txt").write_text("dear diary")
    capsys.readouterr()
    if "x.py" in arguments[0]:
        Path("empty/x.py").write_text("def half(x): ...")
    assert main(["check", *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_watch_goes_on_when_one_is_right(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    todo = [DOUBLE, TRIPLE]

    def save(_: float) -> None:  # what a student does while the command waits
        solve(folder, todo.pop(0))

    monkeypatch.setattr(time, "sleep", save)
    assert main(["check", str(folder / DOUBLE.file_name), "--watch"]) == 0
    rounds = capsys.readouterr().out.split("waiting for a file to be saved")
    assert len(rounds) == 3 and not todo
    assert "write double" in rounds[0] and "0 of 2 right" in rounds[0]
    assert "01 double                     ok" in rounds[1] and "write triple" in rounds[1]
    assert rounds[2].rstrip().endswith("2 of 2 right")


def test_watch_checks_again_what_may_import_the_file_that_changed(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = folder / "helper.py"
    helper.write_text("def twice(x):\n    return x\n")
    (folder / DOUBLE.file_name).write_text("from helper import twice as double\n")
    (folder / TRIPLE.file_name).write_text("def triple(x):\n    return x\n")
    capsys.readouterr()
    todo = [
        lambda: helper.write_text("def twice(x):\n    return 2 * x\n"),  # the first is right now
        lambda: helper.write_text("def twice(x):\n    return 2 * x * x\n"),  # and now it is wrong again
        lambda: solve(folder, DOUBLE, TRIPLE),
    ]
    monkeypatch.setattr(time, "sleep", lambda _: todo.pop(0)())
    assert main(["check", str(folder), "--watch"]) == 0
    rounds = capsys.readouterr().out.split("waiting for a file to be saved")
    lines = [[line[30:] for line in one.splitlines() if line[:3] in ("01 ", "02 ")] for one in rounds]
    assert [[line.partition("  (")[0] for line in one] for one in lines] == [
        ["wrong", "not checked"], ["ok", "wrong"], ["wrong", "not checked"], ["ok", "ok"]
    ]  # fmt: skip
    assert not todo


def test_watch_checks_again_only_what_may_be_other_than_it_was() -> None:
    def stamps(**times: int) -> dict[Path, tuple[int, int]]:
        return {Path(name): (time, 1) for name, time in times.items()}

    paths, before = [Path("b"), Path("a"), Path("c")], stamps(a=1, b=1, c=1, helper=1)
    assert _touched(paths, before, before | stamps(a=2)) == [Path("a"), Path("c")]
    assert _touched(paths, before, before | stamps(c=2)) == [Path("c")]
    for now in (before | stamps(c=2, helper=2), before | stamps(new=1), stamps(a=1, b=1, c=1)):
        assert _touched(paths, before, now) == paths


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["pipe.py", "patchify.py", "folder"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        os.mkfifo(path / "pipe.py")
        says = f"{path}: no exercise in this folder"
    else:
        os.mkfifo(path)
        says = f"{path} is no regular file; expected a file of Python"
    assert main(["check", str(path)]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_watch_checks_again_what_was_saved_and_nothing_that_was_right(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(exercise: Course, factor: int) -> None:  # always as many bytes
        (folder / exercise.file_name).write_text(f"def {exercise.name}(x):\n    return x * {factor}\n")

    checked, check = [], Runner.check
    monkeypatch.setattr(Runner, "check", lambda runner, path, *rest: checked.append(path) or check(runner, path, *rest))
    save(DOUBLE, 2)
    save(TRIPLE, 2)
    saved = iter([(DOUBLE, 9), (DOUBLE, 2), (TRIPLE, 3)])
    monkeypatch.setattr(time, "sleep", lambda _: save(*next(saved)))
    assert main(["check", str(folder), "--watch"]) == 0
    assert [path.name[:2] for path in checked] == ["01", "02", "01", "01", "02", "02"]


def test_watch_goes_on_when_files_are_deleted_renamed_and_added(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    double, triple = folder / DOUBLE.file_name, folder / TRIPLE.file_name
    for path in (double, triple):
        path.write_text("def double(x): return x\ndef triple(x): return x\n")
    capsys.readouterr()

    def nothing() -> None:
        """Time goes by."""

    todo: list[Callable[[], object]] = [
        double.unlink, nothing, nothing,  # deleted: for a second it may be an editor's doing
        lambda: double.write_text("def double(x): return 2 * x\n"),  # new
        lambda: triple.rename(folder / "mine.py"), nothing, nothing,  # renamed: another file is the exercise's
        lambda: (folder / "mine.py").write_text("def triple(x): return 3 * x\n"),
    ]  # fmt: skip
    monkeypatch.setattr(time, "sleep", lambda _: todo.pop(0)())
    assert main(["check", str(folder), "--watch"]) == 0
    assert not todo
    rounds = capsys.readouterr().out.split("waiting for a file to be saved")
    said = [[line[:35].strip() for line in one.splitlines() if line[:3] in ("01 ", "02 ")] for one in rounds]
    first, second = "01 double                     ", "02 triple                     "
    right, wrong, later = first + "ok", second + "wrong", second + "not c"
    assert said == [[first + "wrong", later], [wrong], [right, wrong], [right, wrong], [right, second + "ok"]]


def test_watch_waits_for_a_folder_that_was_deleted(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def back() -> None:
        folder.mkdir()
        solve(folder, DOUBLE, TRIPLE)

    looks = iter([lambda: shutil.rmtree(folder), int, int, int, back])
    monkeypatch.setattr(time, "sleep", lambda _: next(looks)())
    capsys.readouterr()
    assert main(["check", str(folder), "--watch"]) == 0
    assert f"{folder}: no such file or folder" in capsys.readouterr().out and next(looks, None) is None


def test_a_second_file_of_an_exercise_is_told(folder: Path, capsys: pytest.CaptureFixture) -> None:
    solve(folder, DOUBLE, TRIPLE)
    (folder / "01_double_old.py").write_text("def double(x): return x\n")
    (folder / "triple.py").write_text("def triple(x): return x\n")
    (folder / "notes.py").write_text("notes = 1\n")
    capsys.readouterr()
    assert main(["check", str(folder)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "not checked" in line]
    assert told == [
        f"01_double_old.py is not checked: {DOUBLE.file_name} is the file of exercise double",
        f"triple.py is not checked: {TRIPLE.file_name} is the file of exercise triple",
    ]


def test_an_older_file_beside_the_only_one_is_told(folder: Path, capsys: pytest.CaptureFixture) -> None:
    solve(folder, DOUBLE)
    (folder / TRIPLE.file_name).unlink()
    shutil.copyfile(folder / DOUBLE.file_name, folder / "01_double_old.py")
    told = f"01_double_old.py is not checked: {DOUBLE.file_name} is the file of exercise double"
    capsys.readouterr()
    assert main(["check", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == told
    assert main(["check", str(folder / DOUBLE.file_name)]) == 0
    assert told not in capsys.readouterr().out


def test_watch_of_a_file_does_not_go_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(_: float) -> None:
        raise AssertionError("it waits for the exercise before")

    monkeypatch.setattr(time, "sleep", waits)
    solve(folder, TRIPLE)
    assert main(["check", str(folder / TRIPLE.file_name), "--watch"]) == 0


def test_watch_ends_by_ctrl_c(folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        (folder / DOUBLE.file_name).unlink()  # as editors do for a moment
        monkeypatch.setattr(time, "sleep", leave)

    def leave(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert main(["check", str(folder), "--watch"]) == 130
    assert "stopped by Ctrl-C" in capsys.readouterr().err


def test_what_a_terminal_cannot_write(folder: Path) -> None:
    """In a process of its own: an ASCII terminal, and a student's letters."""
    path = folder / "ü.py"
    path.write_text("def patchify(:\n")
    done = subprocess.run(
        [sys.executable, "-m", "vitscratch", "check", str(path)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 2 and b"no exercise has that name" in done.stderr and b"Traceback" not in done.stderr
    path.rename(folder / "patchify.py")
    (folder / "patchify.py").write_text("größe = (\n")
    done = subprocess.run(
        [sys.executable, "-m", "vitscratch", "check", str(folder / "patchify.py")],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 1 and rb"gr\xf6\xdfe = (" in done.stdout and not done.stderr


def test_the_real_folders_are_those_of_the_catalog() -> None:
    assert STUBS.is_dir() and SOLUTIONS.is_dir() and HALVE not in find_exercises(SOLUTIONS)


@pytest.fixture
def undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What importing a student's file changes is put back."""
    for name in ("path", "meta_path", "argv"):
        monkeypatch.setattr(sys, name, [*getattr(sys, name)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in ("mlp", "encoder_block"):
        sys.modules.pop(name, None)


def typed(path: Path, line: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `exercises try` shows for a line."""
    before = torch._tensor_str.PRINT_OPTS.precision
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{line}\nexit()\n"))
    try:
        assert main(["exercises", "try", str(path)]) == 0
    finally:
        torch.set_printoptions(precision=before)
        sys.modules.pop("patchify", None)
    return str(capsys.readouterr().out)


@pytest.mark.usefixtures("undone")
def test_try_gives_the_numbers_that_a_check_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlp = "from torch import nn\n\nclass MLP(nn.Sequential):\n    def __init__(self, embed_dim, mlp_dim):\n"
    mlp += "        super().__init__(nn.Linear(embed_dim, mlp_dim), nn.ReLU(), nn.Linear(mlp_dim, embed_dim))\n"
    (tmp_path / "06_mlp.py").write_text(mlp)
    mine = tmp_path / "my block.py"
    mine.write_text(
        "from mlp import MLP\nfrom torch import nn\nfrom vitscratch import MultiHeadSelfAttention\n\n"
        "class EncoderBlock(nn.Module):\n    def __init__(self, embed_dim, num_heads, mlp_dim):\n"
        "        super().__init__()\n        self.a, self.b = (nn.LayerNorm(embed_dim, eps=1e-6) for _ in 'ab')\n"
        "        self.attn = MultiHeadSelfAttention(embed_dim, num_heads)\n"
        "        self.mlp = MLP(embed_dim, mlp_dim)\n\n"
        "    def forward(self, x):\n        x = x + self.attn(self.a(x))\n        return x + self.mlp(self.b(x))\n"
    )
    report = check(mine)
    assert report.problem is not None and report.mistake == "mlp_relu"
    assert f"(to see it yourself: vitscratch exercises try '{mine}')" in report.text()
    expression, number = re.match(r"(.*) is (\S+); it should be", report.problem.evidence).groups()  # type: ignore[union-attr]
    shown = typed(mine, expression, capsys, monkeypatch)
    assert f"tensor({number[:-1]}" in shown  # without the last digit, which is rounded


@pytest.mark.usefixtures("undone")
def test_try_gives_the_pixels_that_a_check_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "01_patchify.py"
    mine.write_text(
        "from einops import rearrange\n\ndef patchify(images, patch_size):\n    p = patch_size\n"
        "    return rearrange(images, 'b c (r p) (s q) -> b (s r) (c p q)', p=p, q=p)\n"
    )
    report = check(mine)
    assert report.problem is not None and report.mistake == "pe_column_major"
    assert f"(to see it yourself: vitscratch exercises try {mine})" in report.text()
    expression, number = re.match(r"(.*) is (\d+); it should be", report.problem.evidence).groups()  # type: ignore[union-attr]
    assert f"tensor({number}." in typed(mine, expression, capsys, monkeypatch)


@pytest.mark.parametrize("name", ["notes.py", "[0-9]*.py", "**"])
def test_no_other_file_is_suggested(
    name: str, folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    for path in (Path("notes.py"), folder / "notes.py"):
        path.write_text("x = 1\n")
    capsys.readouterr()
    assert main(["check", f"elsewhere/{name}"]) == 2 and main(["check", f"mine/no{name}"]) == 2
    assert capsys.readouterr().err.count("no such file or folder; `vitscratch exercises new DIR` makes one\n") == 2


def test_what_is_to_do_is_that_of_the_earliest_tutorial(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitscratch.exercises.files.EXERCISES", (replace(DOUBLE, tutorial="09_late.ipynb"), TRIPLE))
    capsys.readouterr()
    assert main(["check", str(folder)]) == 1
    first, second, to_do, *_ = capsys.readouterr().out.splitlines()
    assert first == "01 double                     not begun" and second.startswith("02 triple  ")
    assert to_do.startswith("  to do   write triple")
    assert main(["check", str(folder), "--solution"]) == 1
    assert "return x * 3" in capsys.readouterr().out  # of the same one


def test_a_path_typed_one_folder_too_far_down(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    capsys.readouterr()
    assert main(["check", f"{folder.name}/{DOUBLE.file_name}"]) == 2
    assert f"did you mean `vitscratch check {DOUBLE.file_name}`?" in capsys.readouterr().err


@pytest.mark.usefixtures("undone")
def test_where_to_type_what_a_check_says_to_try(tmp_path: Path) -> None:
    mine = tmp_path / "10_weight_conversion.py"
    mine.write_text("def convert_torchvision(state_dict):\n    return dict(state_dict)\n")
    text = check(mine).text()
    assert ". Try it: from " in text and f"(to see it yourself: vitscratch exercises try {mine})" in text


@pytest.mark.parametrize(
    ("line", "says"), [("1 / 0", "ZeroDivisionError: division by zero"), ("exit(0)", "SystemExit: 0")]
)
@pytest.mark.usefixtures("undone")
def test_try_of_a_file_that_fails(line: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "06_mlp.py"
    path.write_text(f"from torch import nn\n{line}\nclass MLP(nn.Module): ...\n")
    assert main(["exercises", "try", str(path)]) == 2
    assert f"cannot be imported: {says}; `vitscratch check" in capsys.readouterr().err


def test_try_with_an_option_that_is_none(capsys: pytest.CaptureFixture) -> None:
    assert main(["exercises", "try", "--bogus"]) == 2
    assert capsys.readouterr().err.startswith("vitscratch: --bogus is no option here")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("{name}", "."),
        ("{name}/1_double.py", "01_double.py"),
        ("01_double", "01_double.py"),
        ("duoble.py", "01_double.py"),
        ("../{name}x", "../{name}"),
        ("../../nowhere/{name}", "."),
    ],
)
def test_a_path_that_is_not_there_is_looked_for_nearby(
    typed: str, meant: str, folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    capsys.readouterr()
    assert main(["check", typed.format(name=folder.name)]) == 2
    assert f"did you mean `vitscratch check {meant.format(name=folder.name)}`?" in capsys.readouterr().err


def test_a_path_with_nothing_like_it_nearby(folder: Path, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert main(["check", "quite-another"]) == 2
    assert "`vitscratch exercises new DIR` makes one" in capsys.readouterr().err


def test_there_is_no_hint_on_what_is_not_begun_and_that_is_said(folder: Path, capsys: pytest.CaptureFixture) -> None:
    says = "hint    hints are about what is there: write something, and check it"
    assert main(["check", str(folder)]) == 1 and says not in capsys.readouterr().out
    for _ in range(2):
        assert main(["check", str(folder), "--hint"]) == 1 and capsys.readouterr().out.count(says) == 1


def test_try_says_what_lies_nearby(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert main(["exercises", "try", DOUBLE.file_name]) == 2
    assert f"{DOUBLE.file_name}: no such file; did you mean SOLUTIONS/{DOUBLE.file_name}?" in capsys.readouterr().err
    assert main(["exercises", "try", "quite-another"]) == 2
    assert "quite-another: no such file\n" in capsys.readouterr().err
