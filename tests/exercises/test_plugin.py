"""`pytest --vitscratch-exercises DIR`: what a teacher runs over a class."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vitscratch.exercises import pytest_plugin

ROOT = Path(__file__).parents[2]

# The plugin in another pytest, with the small course in place of the real exercises.
COURSE = """
import vitscratch.exercises.files, vitscratch.exercises.runner
from tests.exercises.course import DOUBLE, TRIPLE
from vitscratch.exercises.runner import Limits
vitscratch.exercises.files.EXERCISES = (DOUBLE, TRIPLE)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in a folder."""
    (folder / "small_course.py").write_text(COURSE)
    command = [sys.executable, "-m", "pytest", "-p", "small_course", "-p", "vitscratch.exercises.pytest_plugin"]
    path = f"{ROOT}{os.pathsep}{folder}"
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


def write(folder: Path, double: str, triple: str | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "01_double.py").write_text(f"def double(x):\n    {double}\n")
    if triple is not None:
        (folder / "02_triple.py").write_text(f"def triple(x):\n    {triple}\n")


@pytest.mark.parametrize("ci", ["", "true"])
def test_a_table_for_each_student(ci: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", ci)  # with CI, pytest's own summary repeats each report in full
    write(tmp_path / "class" / "ada", "return 2 * x", "return 3 * x")
    write(tmp_path / "class" / "bob", "return x * x", "raise NotImplementedError('write triple')")
    write(tmp_path / "class" / "cy", "import os; os._exit(0)")
    write(tmp_path / "class" / ".git", "return 1")
    (tmp_path / "test_other.py").write_text("raise RuntimeError('a test that nobody asked for')\n")
    done = run(tmp_path, "--vitscratch-exercises", "class")
    text = done.stdout
    assert done.returncode == 1, text + done.stderr
    assert "2 passed" in text and "3 failed" in text and "nobody asked for" not in text
    tables, _, summary = text[text.index("ada: 2 of 2 right") :].partition("short test summary info")
    lines = [line.strip() for line in tables.splitlines() if line.startswith("0")]
    assert lines == [
        "01 double                     ok",
        "02 triple                     ok",
        "01 double                     wrong: squared",
        "02 triple                     not begun",
        "01 double                     wrong: the code ends the whole process: os._exit()",
    ]
    first = " - squared" if pytest.version_tuple >= (9, 0) else ""  # older ones show no message
    assert re.search(rf"FAILED .*bob: 01_double{first}", summary), text
    assert "bob: 0 of 2 right" in tables and "cy: 0 of 1 right" in tables
    assert "double(3) is 9, expected 6" in text and "ends the whole process: os._exit()" in text
    assert "Traceback" not in text and "pytest_plugin.py" not in text


def test_files_without_folders_and_a_class_that_is_right(tmp_path: Path) -> None:
    write(tmp_path / "ada", "return 2 * x", "return 3 * x")
    (tmp_path / "ada" / "double_old.py").write_text("def double(x):\n    return x\n")
    done = run(tmp_path, "--vitscratch-exercises", "ada", "-q")
    assert done.returncode == 0 and "ada: 2 of 2 right" in done.stdout and "2 passed" in done.stdout
    assert "\ndouble_old.py is not checked: 01_double.py is the file of exercise double\n" in done.stdout


def test_the_table_is_made_from_what_other_processes_send() -> None:
    """pytest-xdist sends properties as JSON does: tuples arrive as lists."""
    one = pytest_plugin._Class(Path())
    for when in ("setup", "call", "teardown"):
        sent = {"vitscratch_exercise": ["ada", "01 double ok"], "another plugin's": 1}
        report = pytest.TestReport("ada: 01", ("", None, ""), {}, "passed", None, when, user_properties=sent.items())
        one.pytest_runtest_logreport(report)
    assert one.table == {"ada": ["01 double ok"]}


@pytest.mark.parametrize(("folder", "says"), [("nowhere", "no such folder"), ("empty", "no exercise there")])
def test_wrong_usage(folder: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run(tmp_path, "--vitscratch-exercises", folder)
    assert done.returncode == 4 and f"--vitscratch-exercises {folder}: {says}" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_without_the_option_nothing_changes(tmp_path: Path) -> None:
    write(tmp_path / "ada", "return 2 * x")
    (tmp_path / "test_one.py").write_text(
        "import sys\ndef test_one():\n    assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "    assert 'vitscratch.exercises.pytest_plugin' in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "vitscratch.exercises.pytest_plugin", "-p", "no:cacheprovider", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert done.returncode == 0 and done.stdout.count("\n") <= 4 and "1 passed" in done.stdout, done.stdout


def test_the_entry_point_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"vitscratch-exercises": "vitscratch.exercises.pytest_plugin"}
