"""What several commands share."""

import ast
from io import BytesIO
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

import vitscratch.cli
from vitscratch.cli.common import check_writable, save_figure


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


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    check_writable(None)
    check_writable(tmp_path / "new.json")
    bad = [tmp_path, tmp_path / "nowhere" / "new.json"]
    if Path("/proc/self").is_dir():  # where even root, who may write everywhere, can make no file
        bad.append(Path("/proc/new.json"))
    for path in bad:
        with pytest.raises(ValueError, match="expected a file in a folder that exists and is writable"):
            check_writable(path, "--out")
    assert not list(tmp_path.iterdir())


def test_no_command_draws_into_a_file_that_may_be_somebodys() -> None:
    found = {
        path.name: [
            node.lineno for node in ast.walk(ast.parse(path.read_text())) if getattr(node, "attr", "") == "savefig"
        ]
        for path in Path(vitscratch.cli.__file__).parent.glob("*.py")
    }
    assert [name for name, lines in found.items() if lines] == ["common.py"] and len(found["common.py"]) == 1
