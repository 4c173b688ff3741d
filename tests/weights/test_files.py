"""Files of tensors: what is read, what is refused, and that nothing in them is executed."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.weights.make import assert_same_tensors
from vitscratch.weights import read_tensors, write_tensors

TENSORS = {"a.weight": torch.randn(3, 5).T, "b": torch.randn(7, dtype=torch.float64), "c": torch.tensor(2.0).half()}
ENDINGS = [".safetensors", ".npz", ".pth", ".pt", ".bin"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_there_and_back(ending: str, tmp_path: Path) -> None:
    write_tensors(tmp_path / f"t{ending}", TENSORS)
    assert_same_tensors(read_tensors(tmp_path / f"t{ending}").tensors, TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == [f"t{ending}"]  # nothing half-written beside it


def test_the_content_counts_not_the_ending(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t.safetensors", TENSORS, {"said": "so"})
    (tmp_path / "t.safetensors").rename(tmp_path / "t.bin")
    found = read_tensors(tmp_path / "t.bin")
    assert (found.kind, found.metadata["said"]) == ("safetensors", "so")
    assert_same_tensors(found.tensors, TENSORS)


def test_the_format_before_pytorch_1_6(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "t.pth", _use_new_zipfile_serialization=False)
    assert_same_tensors(read_tensors(tmp_path / "t.pth").tensors, TENSORS)


def test_a_view_is_not_written_with_all_that_it_views(tmp_path: Path) -> None:
    whole = torch.randn(1000, 1000)
    write_tensors(tmp_path / "t.pth", {"row": whole[3]})
    assert (tmp_path / "t.pth").stat().st_size < 10_000


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_line(ending: str, part: float, tmp_path: Path) -> None:
    path = tmp_path / f"t{ending}"
    write_tensors(path, {"a": torch.randn(50, 50), "b": torch.randn(30)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=r"t\.\w+ (is empty|is incomplete|cannot be read|is none of)") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


class Code:
    """A pickle that would make a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    content = {"a": torch.ones(2), "b": Code(tmp_path / "made")}
    torch.save(content, tmp_path / "t.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"is refused: it names \w+\.mkdir, which could run code") as caught:
        read_tensors(tmp_path / "t.pth")
    assert "\n" not in str(caught.value) and not (tmp_path / "made").exists()


def test_a_pickle_in_npz_is_refused_and_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", a=np.array([Code(tmp_path / "made")], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_tensors(tmp_path / "t.npz")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>not found</html>", "is a web page"),
        (b"\n  <html>", "is a web page"),
        (b"nothing of the kind", "cannot be read|none of the kinds"),
    ],
)
@pytest.mark.parametrize("ending", [*ENDINGS, ".weights"])
def test_what_is_no_weights_is_one_line(content: bytes, message: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_or_no_tensors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.pth does not exist"):
        read_tensors(tmp_path / "no.pth")
    (tmp_path / "m.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch\x1a\x06")
    with pytest.raises(
        ValueError, match=r"m\.onnx is an ONNX program, from which nobody reads weights back; name what"
    ):
        read_tensors(tmp_path / "m.onnx")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list, not tensors by name"):
        read_tensors(tmp_path / "list.pth")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends with '\.h5'; expected \.safetensors"):
        write_tensors(tmp_path / "t.h5", TENSORS)
    with pytest.raises(ValueError, match="a is bfloat16"):
        write_tensors(tmp_path / "t.npz", {"a": torch.ones(2, dtype=torch.bfloat16)})
    assert not list(tmp_path.iterdir())
