"""Execute tutorials in place: `make tutorials` does all, `python tutorials/execute.py FILE ...` some.

Every notebook runs from its first cell to its last, in a kernel of its own and in an empty folder. What is stored has
no times, no paths and no settings of an editor in it, so that a diff shows what changed and nothing else.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from vitscratch.files import write_atomically

HERE = Path(__file__).resolve().parent
SECONDS_PER_CELL = 600  # a loop without end; a chapter takes less than that as a whole


def execute(notebook: NotebookNode) -> NotebookNode:
    """Run all cells and return the notebook with their outputs, in the form in which it is stored.

    Raises:
        RuntimeError: a cell failed; the message names it.
    """
    done = nbformat.from_dict(notebook)
    at = [0]  # the cell that is running
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as settings:
        client = NotebookClient(
            done,
            timeout=SECONDS_PER_CELL,
            kernel_name="python3",
            record_timing=False,
            store_widget_state=False,
            extra_arguments=["--log-level=ERROR"],  # of the kernel: it has a word to say on its own connection
            resources={"metadata": {"path": folder}},
            on_cell_start=lambda cell, cell_index: at.__setitem__(0, cell_index),
        )
        # The library beside this folder, whatever is installed; and none of the user's start-up files.
        path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
        # One thread: models this small gain nothing from a second, and on a busy machine the two wait for each other.
        env = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path, "IPYTHONDIR": settings}
        try:
            client.execute(env=env)
        except Exception as error:  # also that the kernel died, or that time was up
            source = done.cells[at[0]].source.strip().partition("\n")[0]
            what = str(error).strip() or "the kernel was stopped"
            if isinstance(error, CellExecutionError):
                what = f"{error.ename}: {error.evalue}"
            raise RuntimeError(f"cell {at[0] + 1} (it begins {source!r}): {what}") from error
    return normalise(done)


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Leave in an executed notebook nothing but text, code, outputs, and a digest of the code that made them."""
    for number, cell in enumerate(notebook.cells, 1):
        cell.id, cell.metadata = f"c{number:02}", {}
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    notebook.nbformat_minor = 5
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "vitscratch": {"executed": code_digest(notebook)},
        }
    )
    return notebook


def code_digest(notebook: NotebookNode) -> str:
    """A digest of all code: whoever edits a cell and does not execute the notebook again is found out."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]


def _joined(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Outputs without metadata; what was printed is one piece, however many the kernel happened to send."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if "metadata" in output:
            output.metadata = {}
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def store(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def main(arguments: Sequence[str]) -> int:
    """Execute the files, or all of this folder; 1 if one failed, and that one stays as it was."""
    paths = [Path(argument) for argument in arguments] or sorted(HERE.glob("[0-9]*.ipynb"))
    failed = False
    for path in paths:
        start = time.perf_counter()
        try:
            done = execute(nbformat.read(path, as_version=4))
            nbformat.validate(done)
            store(done, path)
        except (RuntimeError, OSError, nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
            failed = True
            print(f"{path.name}: {error}", file=sys.stderr)
            if not isinstance(error.__cause__, CellExecutionError):
                return 1  # a full disk, or the kernel was stopped, which is what Ctrl-C looks like from here
        else:
            print(f"{path.name}: {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1000:.0f} kB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
