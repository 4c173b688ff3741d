"""What can be said of a notebook without running it: each check returns its complaints, one line each.

A notebook is what `nbformat.read` returns; the folder, where its relative links begin.
"""

import ast
import importlib
import io
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import nbformat

from tutorials.execute import code_digest
from vitscratch.cli import _parse
from vitscratch.exercises import EXERCISES

Notebook = Any
ROOT = Path(__file__).parent.parent.parent
LAST_SECTIONS = ["How this goes wrong", "Check yourself", "Exercises", "What comes next"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
QUESTION = "**Before you run it:**"
# Home and temporary folders, drives, addresses in memory.
MACHINE = re.compile(
    r"(?<![\w.:/])/(?:home|root|tmp|Users|usr|var|opt|mnt|content|work)/|\b[A-Z]:\\|\b0x[0-9a-f]{6,}|site-packages"
)


def of_kind(notebook: Notebook, kind: str) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def text(notebook: Notebook) -> str:
    return "\n\n".join(cell["source"] for cell in of_kind(notebook, "markdown"))


def prose(notebook: Notebook) -> str:
    """All text, without blocks of code."""
    return FENCED.sub("", text(notebook))


def headings(page: str) -> list[tuple[int, str]]:
    return [(len(marks), title.strip()) for marks, title in re.findall(r"^(#+) (.+)$", FENCED.sub("", page), re.M)]


def python_of(cell: Any) -> str:
    """A code cell without IPython's own lines, `%magic` and `!command`."""
    return "\n".join(line for line in cell["source"].splitlines() if not line.lstrip().startswith(("%", "!")))


def section(notebook: Notebook, title: str) -> list[Any]:
    """The cells from a heading of level 2 up to the next one."""
    cells, inside = [], False
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown" and (found := [t for n, t in headings(cell["source"]) if n == 2]):
            inside = title in found
        if inside:
            cells.append(cell)
    return cells


def shape(notebook: Notebook, folder: Path, number: int) -> Iterator[str]:
    """One shape for all chapters: its beginning, its headings, its questions, a wrong version that runs, a check."""
    found = headings(prose(notebook))
    titles = [title for level, title in found if level == 1]
    if len(titles) != 1 or not titles[0].startswith(f"{number} ") or found[0][0] != 1:
        yield f"the one heading of level 1 comes first and is '# {number} Title', not {titles}"
    sections = [title for level, title in found if level == 2]
    if sections[-4:] != LAST_SECTIONS or len(sections) < 5:
        yield f"sections end with {LAST_SECTIONS} after some of the chapter's own; they are {sections}"
    beginning = prose(notebook).split("\n## ")[0]
    places = [beginning.find(f"**{word}**") for word in ("You will be able to", "Minutes", "Know before")]
    if -1 in places or places != sorted(places):
        yield "the beginning says, in this order: **You will be able to**, **Minutes**, **Know before**"
    if not 15 <= minutes(notebook) <= 40:
        yield f"a chapter takes 15 to 40 minutes, not {minutes(notebook)}"
    pairs = list(zip(notebook["cells"], [*notebook["cells"][1:], {"cell_type": "nothing"}], strict=True))
    asks = [
        after["cell_type"] for cell, after in pairs if cell["cell_type"] == "markdown" and QUESTION in cell["source"]
    ]
    if not asks or set(asks) != {"code"}:
        yield f"questions ({QUESTION}) stand in the cell before the code that answers them; after them come {asks}"
    code = {title: "\n".join(c["source"] for c in section(notebook, title) if c["cell_type"] == "code")
            for title in LAST_SECTIONS}  # fmt: skip
    if not code["How this goes wrong"]:
        yield "nothing goes wrong in 'How this goes wrong': it runs the wrong version"
    if "assert" not in code["Check yourself"]:
        yield "'Check yourself' has no assert: it cannot fail"
    if not any("vitscratch " in cell["source"] for cell in section(notebook, "Exercises")):
        yield "'Exercises' names no command to type"


def minutes(notebook: Notebook) -> int:
    """What the beginning says under **Minutes**, or 0."""
    stated = re.search(r"\*\*Minutes\*\*\D{0,3}(\d+)", notebook["cells"][0]["source"])
    return int(stated[1]) if stated else 0


def outputs(notebook: Notebook, folder: Path, number: int) -> Iterator[str]:
    """The stored outputs are those of the stored code, run once from top to bottom, and nothing went wrong in it."""
    cells = of_kind(notebook, "code")
    counts = [cell["execution_count"] for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        yield f"execution counts are {counts}, not 1, 2, 3 ...: make tutorials"
    if notebook["metadata"].get("vitscratch", {}).get("executed") != code_digest(notebook):
        yield "code was changed after the outputs were made: make tutorials"
    for cell in cells:
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                yield f"cell {cell['id']} ended in an error: {output['ename']}"
            if output.get("name") == "stderr":
                yield f"cell {cell['id']} shows warnings or a progress bar: {output['text'][:60]!r}"


def small(notebook: Notebook, folder: Path, number: int) -> Iterator[str]:
    size = len(nbformat.writes(nbformat.from_dict(notebook)))
    if size > 400_000:
        yield f"{size:,} bytes; a notebook has at most 400,000: smaller figures, a lower dpi"


def minimal(notebook: Notebook, folder: Path, number: int) -> Iterator[str]:
    """Nothing in the file that a diff would show without anybody having changed anything."""
    metadata = notebook["metadata"]
    known = {"kernelspec", "language_info", "vitscratch"}
    if metadata.keys() - known or metadata.get("language_info") != {"name": "python"}:
        yield f"metadata has more than it needs: {dict(metadata)}; make tutorials"
    if metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is 'python3'; make tutorials"
    names = [cell.get("id") for cell in notebook["cells"]]
    if names != [f"c{i:02}" for i in range(1, len(names) + 1)]:
        yield f"ids of cells are not c01, c02 ...: {names}; make tutorials"
    extra = [cell["id"] for cell in notebook["cells"] if cell["metadata"]]
    extra += [cell["id"] for cell in of_kind(notebook, "code") for out in cell["outputs"] if out.get("metadata")]
    if extra:
        yield f"cells {extra} or their outputs have metadata; make tutorials"


def portable(notebook: Notebook, folder: Path, number: int) -> Iterator[str]:
    """No path and no address of the machine on which somebody executed it."""
    for cell in notebook["cells"]:
        pieces = [cell["source"]]
        for output in cell.get("outputs", []):
            pieces += [output.get("text", ""), *[v for k, v in output.get("data", {}).items() if k.startswith("text/")]]
        for piece in pieces:
            if found := MACHINE.search(piece):
                yield f"cell {cell['id']} names something of one machine: {piece[found.start() :][:40]!r}"


def exists(dotted: str) -> bool:
    """Whether `vitscratch.x.y` is a module, or a name (or a name of a name) in one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for name in parts[end:]:
            if not hasattr(thing, name):
                return False
            thing = getattr(thing, name)
        return True
    return False


def names(notebook: Notebook, folder: Path, number: int) -> Iterator[str]:
    """Names of the library, in code and in text, are spelled as the library spells them."""
    written = text(notebook)
    wanted = set(re.findall(r"`(vitscratch(?:\.\w+)+)", written))
    for cell in of_kind(notebook, "code"):
        for node in ast.walk(ast.parse(python_of(cell))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "vitscratch":
                wanted |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names if alias.name.split(".")[0] == "vitscratch"}
            elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("vitscratch."):
                wanted.add(ast.unparse(node))
    yield from (f"{name} is not there" for name in sorted(wanted) if not exists(name))
    for path in sorted(set(re.findall(r"`((?:vitscratch|tests|docs|tutorials)/[\w./]+)`", written))):
        if not (ROOT / path).exists():
            yield f"there is no file {path}"
    known = {exercise.file_name for exercise in EXERCISES}
    for name in sorted(set(re.findall(r"\b\d\d_\w+\.py\b", written)) - known):
        yield f"no exercise is called {name}"


def commands(notebook: Notebook, folder: Path, number: int) -> Iterator[str]:
    """`vitscratch COMMAND --option` in text, in console blocks and behind `!` is a command, with these options."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            blocks = "\n".join(block for _, block in FENCED.findall(cell["source"]))
            found += re.findall(r"`(vitscratch [^`]+)`", FENCED.sub("", cell["source"]))
            found += re.findall(r"^(?:\$ )?(vitscratch .+)$", blocks, re.MULTILINE)
        else:
            found += re.findall(r"^!(vitscratch .+)$", cell["source"], re.MULTILINE)
    for command in dict.fromkeys(line.split("  #")[0].strip() for line in found):
        if (problem := usage_problem(shlex.split(command)[1:])) is not None:
            yield f"{command!r} is no command: {problem}"


def usage_problem(arguments: list[str]) -> str | None:
    """What the command line says of a command without running it; where text only names one, its arguments may lack."""
    if arguments[0] == "train" and "--resume" in arguments:
        return None  # rewritten before it is parsed; tests/cli/test_train.py runs it
    problem, _ = parse(arguments)
    if problem is not None and not any(word.startswith("-") for word in arguments):
        _, usage = parse([*arguments, "--help"])
        if usage.startswith(f"usage: vitscratch {' '.join(arguments)} "):
            return None
    return problem


def parse(arguments: list[str]) -> tuple[str | None, str]:
    """What is wrong, or None; and all that was printed."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            _parse(arguments)
    except SystemExit as end:
        printed = " ".join(said.getvalue().split())
        return (printed[:200] if end.code else None), printed
    except ValueError as error:
        return str(error), ""
    return None, ""


def links(notebook: Notebook, folder: Path, number: int) -> Iterator[str]:
    yield from broken_links(prose(notebook), folder)


def broken_links(page: str, folder: Path) -> Iterator[str]:
    """Links to files that are not there, and to headings that no page has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        if target.startswith(("https://", "attachment:")):
            continue
        file, _, anchor = target.partition("#")
        if file.startswith("/") or "://" in file or not (folder / file).exists():
            yield f"the link {target} leads nowhere"
        elif anchor and anchor not in anchors(folder / file if file else page):
            yield f"there is no heading #{anchor} in {file or 'this page'}"


def anchors(page: Path | str) -> set[str]:
    """Anchors of headings: Jupyter's in a notebook (spaces become hyphens), GitHub's in a page (letters small)."""
    if isinstance(page, Path) and page.suffix != ".ipynb":
        titles = [title for _, title in headings(page.read_text(encoding="utf-8"))]
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    written = page if isinstance(page, str) else prose(nbformat.read(page, as_version=4))
    return {title.replace(" ", "-") for _, title in headings(written)}


CHECKS: tuple[Callable[[Notebook, Path, int], Iterator[str]], ...] = (
    shape,
    outputs,
    small,
    minimal,
    portable,
    names,
    commands,
    links,
)
