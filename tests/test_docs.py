"""Every snippet and every command in README, docs and CONTRIBUTING is run, and every link leads somewhere."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from vitscratch.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        texts = [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]
        found += [(f"{page.name}:{i}", text) for i, text in enumerate(texts)]
    return found


def commands() -> list[str]:
    """Lines after a `$` in console blocks, without their comments, each once."""
    lines = [line[2:].split("  #")[0].strip() for _, text in blocks("console") for line in text.splitlines()
             if line.startswith("$ ")]  # fmt: skip
    inline = re.findall(r"`((?:vitscratch|make) [^`]+)`", "\n".join(page.read_text() for page in PAGES))
    return sorted({*lines, *inline})


@pytest.mark.parametrize(("where", "code"), blocks("python"), ids=[where for where, _ in blocks("python")])
def test_python_runs(where: str, code: str) -> None:
    exec(compile(code, where, "exec"), {"__name__": "__main__"})


# What makes a command short enough for a test; the work itself is the same.
SHORTER = {
    "vitscratch --help": None,  # tests/cli/test_cli.py runs it
    "vitscratch quickstart": None,  # tests/cli/test_cli.py runs it, and looks at what it leaves
    "vitscratch bench train": None,  # the same
    "vitscratch bench infer": None,  # the same
    "vitscratch bench digits": None,  # the same
    "vitscratch bench patch-embedding": None,  # the same
    "vitscratch bench": None,  # tests/cli/test_bench.py
    **dict.fromkeys(  # tests/cli/test_train.py runs them
        [f"vitscratch {name}" for name in ("train", "evaluate", "predict", "doctor", "lr-find")]
    ),
    "vitscratch compare": None,  # tests/cli/test_compare.py runs it
    "vitscratch explain": None,  # tests/cli/test_explain.py runs it
    "vitscratch demo": None,  # tests/cli/test_demo.py runs it
    "vitscratch finetune": None,  # tests/cli/test_finetune.py runs it
    "vitscratch convert": None,  # tests/cli/test_convert.py runs it
    "vitscratch data": None,  # tests/cli/test_data_cli.py runs check and show
    "vitscratch exercises": None,  # tests/exercises/test_check_cli.py runs them
    "vitscratch check": None,  # the same
    "vitscratch parity": ["--depth", "1", "--batch-size", "1"],
    "vitscratch summary": [],
}


@pytest.mark.parametrize("command", commands())
def test_command_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = shlex.split(command)
    if program == "make":
        if shutil.which("make") is None:
            pytest.skip("make is not installed")
        targets = [argument for argument in arguments if "=" not in argument]
        done = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif program == "vitscratch":
        known = [prefix for prefix in SHORTER if command.startswith(prefix)]
        assert known, f"say in SHORTER how a test runs {command!r}"
        if (extra := SHORTER[known[0]]) is not None:
            monkeypatch.chdir(tmp_path)
            kept = _without("--depth", arguments) if "--depth" in extra else arguments
            assert main([*kept, *extra]) == 0
    elif command == "pip install -e '.[test]'":
        assert "\ntest = [" in (ROOT / "pyproject.toml").read_text()  # `make test` runs this very line
        assert "--editable '.[test]'" in (ROOT / "Makefile").read_text()
    elif "pytest" in arguments or program == "pytest":
        for argument in arguments:
            if argument.startswith("tests"):
                assert (ROOT / argument).exists()
    elif program == "source":
        assert arguments == [".venv/bin/activate"]  # what make makes
    elif program == "git":
        assert arguments[0] == "clone"
    else:
        assert program == "cd", f"no test knows how to run {command!r}"


def _without(option: str, arguments: list[str]) -> list[str]:
    if option not in arguments:
        return arguments
    at = arguments.index(option)
    return arguments[:at] + arguments[at + 2 :]


def test_commands_are_found() -> None:
    found = commands()
    assert {"make quickstart", "make test", "make check", "pytest -n auto", "vitscratch parity vit_b_16"} <= set(found)
    assert len(blocks("python")) >= 3


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`((?:vitscratch|tests|docs)/[\w./]+)`", page.read_text()):
        assert (ROOT / name).exists(), name


def test_the_number_of_planted_mistakes_is_stated_rightly() -> None:
    from tests.parity.test_mistakes import MISTAKES

    pages = [*PAGES, ROOT / "CHANGELOG.md"]
    stated = [int(n) for page in pages for n in re.findall(r"(\d+)\s+mistakes", page.read_text())]
    assert stated and set(stated) == {len(MISTAKES)}
