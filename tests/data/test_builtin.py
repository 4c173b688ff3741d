"""Small files of the very formats; no network."""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import threading
import urllib.error
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vitscratch.data import builtin, load_splits
from vitscratch.data.builtin import SOURCES, Source, load_built_in


def cifar(coarse: int, names: str, files: dict[str, int]) -> bytes:
    """A CIFAR archive with `files` of so many records; picture i of a file has label i % 2 and all bytes i."""
    contents = {names: b"ant\nbee\n\n"}
    for name, count in files.items():
        records = np.zeros((count, coarse + 1 + 3072), np.uint8)
        records[:, 0] = 19  # CIFAR-100's coarse label: not what is learned
        records[:, coarse] = np.arange(count) % 2
        records[:, coarse + 1 :] = np.arange(count)[:, None]
        records[:, coarse + 1 + 1024 + 3] = 201  # green, row 0, column 3
        contents[name] = records.tobytes()
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(f"folder/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes())


CIFAR10 = {**{f"data_batch_{i}.bin": 4 for i in range(1, 6)}, "test_batch.bin": 6}
FILES = {
    "cifar10": [cifar(0, "batches.meta.txt", CIFAR10)],
    "cifar100": [cifar(1, "fine_label_names.txt", {"train.bin": 20, "test.bin": 6})],
    "fashion-mnist": [
        idx(np.arange(20 * 28 * 28, dtype=np.uint64).reshape(20, 28, 28).astype(np.uint8)),
        idx((np.arange(20) % 10).astype(np.uint8)),
        idx(np.ones((10, 28, 28), np.uint8)),
        idx(np.arange(10, dtype=np.uint8)),
    ],
}


def known(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[Source, bytes]]:
    """Let the checksums of a set be those of the small files."""
    sources = [
        Source(source.name, source.address, hashlib.md5(data).hexdigest())
        for source, data in zip(SOURCES[name], FILES[name], strict=True)
    ]
    monkeypatch.setitem(SOURCES, name, tuple(sources))
    return list(zip(sources, FILES[name], strict=True))


def files(folder: Path) -> list[str]:
    """All but locks, which the system may leave."""
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str, path: Path) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(builtin, "download", fail)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_from_its_binary_version(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source, data in known(monkeypatch, name):
        (tmp_path / source.name).write_bytes(data)
    parts = load_built_in(name, tmp_path)
    train, test = parts["train"], parts["test"]
    assert train.images.shape == (20, 3, 32, 32) and test.images.shape == (6, 3, 32, 32)
    assert train.images.dtype == torch.uint8 and train.class_names == ("ant", "bee")
    assert_close(train.labels, torch.arange(20) % 2)
    values = torch.arange(20) % (4 if name == "cifar10" else 20)  # the files of CIFAR-10 in their order
    assert_close(train.images[:, 2, 31, 31].long(), values)
    assert (train.images[:, 1, 0, 3] == 201).all() and not (train.images[:, 0] == 201).any()
    splits = load_splits(name, seed=0, validation_fraction=0.2, test_fraction=0.0, data_dir=tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [16, 4, 6]


def test_fashion_mnist_is_read_from_its_idx_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source, data in known(monkeypatch, "fashion-mnist"):
        (tmp_path / source.name).write_bytes(data)
    parts = load_built_in("fashion-mnist", tmp_path)
    assert parts["train"].images.shape == (20, 1, 28, 28) and parts["test"].labels.tolist() == list(range(10))
    expected = torch.arange(20 * 28 * 28).reshape(20, 1, 28, 28) % 256
    assert_close(parts["train"].images.long(), expected)
    assert parts["train"].class_names[9] == "Ankle boot"


def test_a_wrong_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, "cifar10")
    monkeypatch.setattr(builtin, "download", lambda address, path: path.write_bytes(b"a login page"))
    with pytest.raises(RuntimeError, match=r"could not be downloaded .what came has MD5"):
        load_built_in("cifar10", tmp_path / "new")
    assert files(tmp_path / "new") == []


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((source, data),) = known(monkeypatch, "cifar10")
    calls: list[int] = []

    def download(address: str, path: Path) -> None:
        there = path.stat().st_size if path.exists() else 0
        calls.append(there)
        with path.open("ab") as file:
            file.write(data[there : there + len(data) // 2 + 1])
        if there == 0:
            raise OSError("broken off")

    monkeypatch.setattr(builtin, "download", download)
    with pytest.raises(RuntimeError, match=r"could not be downloaded .broken off"):
        load_built_in("cifar10", tmp_path / "new")
    for _ in range(2):
        assert len(load_built_in("cifar10", tmp_path / "new")["train"]) == 20
    assert files(tmp_path / "new") == [source.name]
    assert calls == [0, len(data) // 2 + 1]  # and not downloaded a third time


PROCESS = """
import sys
from pathlib import Path
from vitscratch.data.builtin import Source, obtain
name, address, md5, folder = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
print(obtain(Source(name, address, md5), Path(folder)).stat().st_size)
"""


def test_of_several_processes_one_downloads(tmp_path: Path) -> None:
    data, asked = bytes(range(251)) * 997, []

    class Slow(BaseHTTPRequestHandler):
        """Holds the last half back, so that a second request would come in between."""

        def do_GET(self) -> None:
            asked.append(self.headers.get("Range"))
            if len(asked) > 1:
                second.set()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            second.wait(0.5)
            self.wfile.write(data[len(data) // 2 :])

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    second = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever).start()
    address = f"http://127.0.0.1:{server.server_port}/x"
    command = [sys.executable, "-c", PROCESS, "x.gz", address, hashlib.md5(data).hexdigest(), str(tmp_path / "new")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        for process in processes:  # all at once, when the imports are over
            process.stdin.write("\n")
            process.stdin.flush()
        found = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
        server.shutdown()
        server.server_close()
    assert [output for output, _ in found] == [f"{len(data)}\n"] * 2, found
    assert asked == [None] and files(tmp_path / "new") == ["x.gz"]


def test_a_complete_folder_need_not_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source, data in known(monkeypatch, "cifar10"):
        (tmp_path / source.name).write_bytes(data)
    load_built_in("cifar10", tmp_path)
    assert len(list(tmp_path.iterdir())) == 1  # not even a lock


def test_offline_one_line_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        load_built_in("cifar10", tmp_path)
    message = str(error.value)
    for part in ("cifar-10-binary.tar.gz is not in", str(tmp_path), "no network here", "https://", "--data-dir"):
        assert part in message
    assert SOURCES["cifar10"][0].md5 in message and "\n" not in message


def test_a_file_of_other_contents_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / SOURCES["cifar100"][0].name
    path.write_bytes(b"\x80\x04 not what it should be")
    with pytest.raises(
        ValueError, match=r"is not what it should be: MD5 \w{32}, expected 03b5dce01913d631647c71ecec9e9"
    ):
        load_built_in("cifar100", tmp_path)
    assert path.exists()


def test_an_idx_file_of_another_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"\0\0\x0d\x01" + bytes(8)))
    with pytest.raises(ValueError, match="no idx file of bytes"):
        builtin._read_idx(tmp_path / "x.gz")


def test_checksums_are_those_that_torchvision_knows() -> None:
    from torchvision.datasets import FashionMNIST

    assert [(source.name, source.md5) for source in SOURCES["fashion-mnist"]] == FashionMNIST.resources
    assert all(source.address == FashionMNIST.mirrors[0] + source.name for source in SOURCES["fashion-mnist"])


def test_files_are_kept_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert builtin.default_data_dir() == Path("/somewhere/vitscratch/data")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert builtin.default_data_dir() == Path.home() / ".cache/vitscratch/data"
