"""The tools themselves: a small notebook without a fault passes, and every planted fault is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.tutorials.static import CHECKS, ROOT, broken_links
from tests.tutorials.test_tutorials import differences
from tutorials.execute import code_digest, execute, main, normalise

BEGINNING = """# 3 A title

**You will be able to**
- multiply

**Minutes**: 20. **Know before**: [the page](page.md#two-words), [below](#A-section)."""


def lesson() -> Any:
    """A notebook without a fault, which looks like an executed one."""
    cells = [
        new_markdown_cell(BEGINNING),
        new_markdown_cell("## A section\n\n`vitscratch.patches.patchify` in `vitscratch/patches.py`: Eq. 1.\n\n"
                          "**Before you run it:** how many?"),
        new_code_cell("from vitscratch import patchify\n\nprint(2 * 3, (2, 3))"),
        new_markdown_cell("## How this goes wrong"),
        new_code_cell("print('wrong')\nprint('again')"),
        new_markdown_cell("## Check yourself"),
        new_code_cell("assert 2 * 3 == 6"),
        new_markdown_cell("## Exercises\n\n```console\n$ vitscratch parity vit_b_32 --depth 1  # 04_attention.py\n```\n"
                          "or `vitscratch summary`"),
        new_markdown_cell("## What comes next"),
    ]  # fmt: skip
    notebook = new_notebook(cells=cells)
    for number, cell in enumerate(code(notebook), 1):
        cell.execution_count = number
    printed = ["6 (2, 3)\n", "wrong\nagain\n"]
    for cell, line in zip(code(notebook), printed, strict=False):
        cell.outputs = [new_output("stream", name="stdout", text=line)]
    drawn = new_output("display_data", data={"text/plain": "<Figure>"}, metadata={"needs_background": "light"})
    code(notebook)[1].outputs.append(drawn)
    return normalise(notebook)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page.md").write_text("# Two words!\n")
    return tmp_path


def complaints(notebook: Any, folder: Path) -> list[str]:
    return [complaint for check in CHECKS for complaint in check(notebook, folder, 3)]


def test_nothing_is_found_where_nothing_is_wrong(folder: Path) -> None:
    assert complaints(lesson(), folder) == []


def in_text(cell: int, old: str, new: str) -> Callable[[Any], None]:
    def plant(notebook: Any) -> None:
        assert old in notebook.cells[cell].source
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)

    return plant


def in_code(cell: int, old: str, new: str) -> Callable[[Any], None]:
    """As if it had been executed so."""

    def plant(notebook: Any) -> None:
        in_text(cell, old, new)(notebook)
        notebook.metadata["vitscratch"] = {"executed": code_digest(notebook)}

    return plant


def output(cell: int, **what: Any) -> Callable[[Any], None]:
    return lambda notebook: notebook.cells[cell].outputs.append(new_output(**what))


FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "another number": (in_text(0, "# 3 A", "# 4 A"), "heading of level 1"),
    "no title": (in_text(0, "# 3 A title", "3 A title"), "heading of level 1"),
    "a section is missing": (in_text(5, "## Check yourself", "Check"), "sections end with"),
    "sections in another order": (lambda n: n.cells.insert(3, n.cells.pop(5)), "sections end with"),
    "a heading that is a comment": (in_text(8, "## What comes next", "```\n## What comes next\n```"), "sections end"),
    "no minutes": (in_text(0, "**Minutes**", "Minutes"), "the beginning says"),
    "too long": (in_text(0, "20", "50"), "15 to 40 minutes, not 50"),
    "too short": (in_text(0, "20", "9"), "15 to 40 minutes, not 9"),
    "no question": (in_text(1, "**Before you run it:**", "So,"), "questions"),
    "a question at the end": (in_text(8, "next", "next\n\n**Before you run it:** what?"), "questions"),
    "nothing goes wrong": (lambda n: n.cells.pop(4), "nothing goes wrong"),
    "a check that cannot fail": (in_code(6, "assert 2 * 3 == 6", "print(2 * 3)"), "it cannot fail"),
    "no command": (in_text(7, "vitscratch", "vit"), "no command to type"),
    "executed out of order": (lambda n: n.cells[2].update(execution_count=7), "execution counts are [7, 2, 3]"),
    "not executed": (lambda n: n.cells[6].update(execution_count=None), "execution counts"),
    "edited afterwards": (in_text(2, "2 * 3", "2 * 4"), "code was changed"),
    "a comment edited afterwards": (in_text(2, "print", "print  # why\n"), "code was changed"),
    "an error": (output(4, output_type="error", ename="KeyError", evalue="1", traceback=[]), "in an error: KeyError"),
    "a warning": (output(4, output_type="stream", name="stderr", text="UserWarning: beware"), "warnings"),
    "large": (output(4, output_type="stream", name="stdout", text="a" * 400_000), "at most 400,000"),
    "metadata of an editor": (lambda n: n.metadata.update(colab={}), "more than it needs"),
    "version of Python": (lambda n: n.metadata.language_info.update(version="3.11.2"), "more than it needs"),
    "another kernel": (lambda n: n.metadata.kernelspec.update(name="my-env"), "the kernel is"),
    "another id": (lambda n: n.cells[2].update(id="7f3a"), "ids of cells"),
    "metadata of a cell": (lambda n: n.cells[2].metadata.update(collapsed=True), "have metadata"),
    "metadata of an output": (
        output(2, output_type="display_data", data={"text/plain": "1"}, metadata={"image/png": {"width": 2}}),
        "have metadata",
    ),
    "a path in the code": (in_code(2, "2 * 3", "'/home/me/a.png'"), "/home/me"),
    "a path on a Mac": (in_code(2, "2 * 3", "'/Users/me/a.png'"), "/Users/me"),
    "a path of the system": (in_code(2, "2 * 3", "'/var/a.png'"), "/var/a"),
    "a path in Colab": (in_code(2, "2 * 3", "'/content/a.png'"), "/content/a"),
    "a path in an output": (output(2, output_type="stream", name="stdout", text="in /tmp/x1"), "of one machine: '/tmp"),
    "a file of a library": (in_text(3, "wrong", "wrong in lib/site-packages/x.py"), "of one machine: 'site-packages"),
    "a drive": (in_text(3, "wrong", "wrong in C:\\data"), "of one machine"),
    "an address in memory": (
        output(2, output_type="execute_result", data={"text/plain": "<A at 0x7f3a5c0d>"}),
        "of one machine: '0x7f",
    ),
    "a name in the text": (
        in_text(1, "patches.patchify", "patches.patchfy"),
        "vitscratch.patches.patchfy is not there",
    ),
    "a module in the text": (in_text(1, "patches.patchify", "patch.patchify"), "is not there"),
    "an imported name": (in_code(2, "import patchify", "import patchfy"), "vitscratch.patchfy is not there"),
    "an imported module": (in_code(2, "from vitscratch import patchify", "import vitscratch.patch"), "is not there"),
    "an attribute": (in_code(2, "from vitscratch import patchify", "vitscratch.patchfy"), "is not there"),
    "a file": (in_text(1, "vitscratch/patches.py", "vitscratch/patch.py"), "no file vitscratch/patch.py"),
    "an exercise": (in_text(7, "04_attention.py", "04_atention.py"), "no exercise is called 04_atention.py"),
    "a command": (in_text(7, "parity", "party"), "'vitscratch party vit_b_32 --depth 1' is no command"),
    "an option": (in_text(7, "--depth", "--deep"), "--deep is no option"),
    "an option of train": (in_text(7, "parity vit_b_32 --depth 1", "train digits --epoch 1"), "--epoch is no option"),
    "a command without a prompt": (in_text(7, "$ vitscratch parity", "vitscratch party"), "'vitscratch party vit_b_32"),
    "a command that is only named": (in_text(7, "summary", "sumary"), "'vitscratch sumary' is no command"),
    "a command behind !": (in_code(2, "print(", "!vitscratch party\nprint("), "'vitscratch party' is no command"),
    "a link": (in_text(0, "page.md#two-words", "pages.md"), "the link pages.md leads nowhere"),
    "an absolute link": (in_text(0, "page.md#two-words", "/page.md"), "the link /page.md leads nowhere"),
    "a link without encryption": (in_text(0, "page.md#two-words", "http://a.org"), "leads nowhere"),
    "an anchor": (in_text(0, "#A-section", "#a-section"), "no heading #a-section in this page"),
    "an anchor of another page": (in_text(0, "#two-words", "#two"), "no heading #two in page.md"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, folder: Path) -> None:
    plant, words = FAULTS[fault]
    notebook = lesson()
    plant(notebook)
    assert words in "\n".join(complaints(notebook, folder))


def test_a_link_to_a_heading_of_another_notebook(folder: Path) -> None:
    nbformat.write(lesson(), folder / "03_a.ipynb")
    assert list(broken_links("[there](03_a.ipynb#A-section)", folder)) == []
    assert list(broken_links("[there](03_a.ipynb#B-section)", folder)) == [
        "there is no heading #B-section in 03_a.ipynb"
    ]


def figure(shade: int) -> str:
    import base64
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (31, 17), shade).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def shown(text: str, shade: int | None = None) -> Any:
    """A notebook of one cell that printed something and drew something."""
    cell = new_code_cell("f()", outputs=[new_output("stream", name="stdout", text=text)], id="c01")
    if shade is not None:
        cell.outputs.append(new_output("display_data", data={"image/png": figure(shade), "text/plain": "<Figure>"}))
    return new_notebook(cells=[cell])


@pytest.mark.parametrize(
    ("stored", "new"),
    [
        (shown("loss 0.6931, 12 of 1,000"), shown("loss -6.9e-01, 9 of 1,000")),
        (shown("tensor([ 0.5, -1.2])\n"), shown("tensor([-0.25,  nan])\n")),
        (shown("took 3 s", 100), shown("took 12 s", 103)),
    ],
)
def test_what_may_differ(stored: Any, new: Any) -> None:
    assert differences(stored, new) == []


@pytest.mark.parametrize(
    ("stored", "new", "words"),
    [
        (shown("right"), shown("wrong"), "'right' is stored, 'wrong' comes out"),
        (shown("shape (2, 3)"), shown("shape (3, 2)"), "(3, 2)"),
        (shown("torch.Size([2, 3])"), shown("torch.Size([2, 4])"), "[2, 4]"),
        (shown("as before", 200), shown("as before"), "image/png"),
        (shown("as before"), shown("as before", 200), "image/png"),
        (shown("as before", 200), shown("as before", 100), "does not look like"),
    ],
)
def test_what_may_not_differ(stored: Any, new: Any, words: str) -> None:
    assert words in "\n".join(differences(stored, new))


def test_executing_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good files are rewritten, and a bad one stays as it was; the next one is executed all the same."""
    fresh = new_notebook(
        cells=[
            new_markdown_cell("# A"),
            new_code_cell(
                "import os, sys\nprint(1)\nsys.stdout.flush()\nprint(2)\n"
                "assert not os.listdir()\nopen('a', 'w').close()"
            ),
            new_code_cell("import vitscratch\nsys.modules['vitscratch'].__version__"),
        ],
        metadata={"colab": {}},
    )
    bad = new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("# divides\nx / 0")])
    paths = [tmp_path / "1.ipynb", tmp_path / "2.ipynb"]
    for notebook, path in zip((bad, fresh), paths, strict=True):
        nbformat.write(notebook, path)
    before = paths[0].read_bytes()

    assert main([str(path) for path in paths]) == 1

    assert paths[0].read_bytes() == before
    said = capsys.readouterr()
    assert "1.ipynb: cell 2 (it begins '# divides'): ZeroDivisionError: division by zero" in said.err
    assert "2.ipynb: " in said.out and sorted(path.name for path in tmp_path.iterdir()) == ["1.ipynb", "2.ipynb"]
    done = nbformat.read(paths[1], as_version=4)
    assert [cell.execution_count for cell in code(done)] == [1, 2] and "colab" not in done.metadata
    assert [out.text for out in code(done)[0].outputs] == ["1\n2\n"]
    assert done.metadata.vitscratch.executed == code_digest(fresh)


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.ipynb")]) == 1
    assert capsys.readouterr().err.startswith("none.ipynb: ")


def test_what_cannot_be_stored_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(notebook: Any, path: Path) -> None:
        raise OSError("no space left on the disk")

    monkeypatch.setattr("tutorials.execute.execute", lambda notebook: notebook)
    monkeypatch.setattr("tutorials.execute.store", full)
    paths = [tmp_path / "1.ipynb", tmp_path / "2.ipynb"]
    for path in paths:
        nbformat.write(lesson(), path)
    assert main([str(path) for path in paths]) == 1
    assert capsys.readouterr().err == "1.ipynb: no space left on the disk\n"


def test_the_given_notebook_stays_as_it_was_and_nothing_of_the_users_takes_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    startup = tmp_path / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "mine.py").write_text("of_mine = 1\n")
    (tmp_path / "vitscratch.py").write_text("")  # another one of that name
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ours = str(ROOT / "vitscratch" / "__init__.py")
    source = f"from importlib.util import find_spec\nfind_spec('vitscratch').origin == {ours!r}, 'of_mine' in dir()"
    notebook = new_notebook(cells=[new_code_cell(source, execution_count=5)])
    assert code(execute(notebook))[0].outputs[0].data["text/plain"] == "(True, False)"
    assert notebook.cells[0].execution_count == 5 and notebook.cells[0].outputs == []
