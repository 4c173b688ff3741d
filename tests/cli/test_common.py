"""What several commands share."""

import ast
from io import BytesIO
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

import vitscratch.cli
from vitscratch.cli.common import save_figure


class Killed(Figure):
    """The process ends when a part of the picture is written."""

    def savefig(self, fname: BytesIO, **_: object) -> None:
        fname.write(b"\x89PNG")
        raise KeyboardInterrupt


def test_a_figure_is_drawn_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_figure(Figure((2, 3)), path)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size == (220, 330)
    old = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        save_figure(Killed(), path)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_no_command_draws_into_a_file_that_may_be_somebodys() -> None:
    found = {
        path.name: [
            node.lineno for node in ast.walk(ast.parse(path.read_text())) if getattr(node, "attr", "") == "savefig"
        ]
        for path in Path(vitscratch.cli.__file__).parent.glob("*.py")
    }
    assert [name for name, lines in found.items() if lines] == ["common.py"] and len(found["common.py"]) == 1
