import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from torchvision.transforms import v2

from tests.data.make import encoded, picture
from vitscratch.data import (
    Chain,
    Cutout,
    FileBatches,
    PictureFiles,
    Pictures,
    Preprocessing,
    RandomAffine,
    RandomCropFlip,
    TensorBatches,
    make_batches,
    open_picture,
)

PREPARE = Preprocessing((11, 7), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
BATCHWISE = Chain(RandomCropFlip(2), RandomAffine(10.0, 1.0, 0.1), Cutout(3))
PICTUREWISE = v2.Compose([v2.RandomResizedCrop((11, 7)), v2.RandomHorizontalFlip(), v2.ColorJitter(0.5)])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{i}.png" for i in range(23)]
    for i, path in enumerate(paths):
        path.write_bytes(encoded(picture(i, (13 + i % 3, 17))))
    return paths


def batches(files: list[Path], **options: object) -> FileBatches:
    options = {"seed": 3, "augment": BATCHWISE, "workers": 0, "pin_memory": False, **options}
    return FileBatches(files, torch.arange(23), PREPARE, 5, **options)


def test_they_are_the_batches_of_the_same_pictures_in_memory(files: list[Path]) -> None:
    images = torch.stack([PREPARE.pixels(open_picture(path)) for path in files])
    memory = {"mean": PREPARE.mean, "std": PREPARE.std}
    for seed, augment in ((3, BATCHWISE), (3, None), (None, None)):
        from_memory = TensorBatches(images, torch.arange(23), 5, seed=seed, augment=augment, **memory)
        from_files = batches(files, seed=seed, augment=augment)
        for _ in range(2):
            assert_close(list(from_files), list(from_memory), rtol=0, atol=1e-6)


@pytest.mark.parametrize("augment", [BATCHWISE, PICTUREWISE], ids=["batchwise", "picturewise"])
def test_workers_and_starts_make_no_difference(files: list[Path], augment: object) -> None:
    here, there = batches(files, augment=augment), batches(files, augment=augment, workers=2)
    first, second = list(here), list(here)
    assert sorted(torch.cat([labels for _, labels in first]).tolist()) == list(range(23))
    again = {int(label): image for images, labels in second for image, label in zip(images, labels, strict=True)}
    for images, labels in first:  # the same pictures, augmented anew
        for image, label in zip(images, labels, strict=True):
            assert not torch.equal(image, again[int(label)])
    assert_close(list(there), first, rtol=0, atol=0)
    assert_close(list(there), second, rtol=0, atol=0)  # the same workers, the next epoch
    for one in (here, there):
        one.set_epoch(1, start=3)
        assert_close(list(one), second[3:], rtol=0, atol=0)
        one.set_epoch(0)
        next(iter(one))  # begun and left
        one.set_epoch(1)
        assert_close(list(one), second, rtol=0, atol=0)


@pytest.mark.parametrize("augment", [BATCHWISE, PICTUREWISE], ids=["batchwise", "picturewise"])
def test_processes_share_the_batches_of_one(files: list[Path], augment: object) -> None:
    shares = [batches(files, augment=augment, rank=rank, processes=7) for rank in range(7)]
    for (images, labels), *parts in zip(batches(files, augment=augment), *shares, strict=True):
        for rank, (part, part_labels) in enumerate(parts):
            assert part.shape[1:] == (3, 11, 7)
            assert_close(part, images[rank::7], rtol=0, atol=0)
            assert_close(part_labels, labels[rank::7], rtol=0, atol=0)


def test_no_global_random_state_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process without the type checker of these tests, which draws from Python's generator."""
    code = """
        import random, sys
        from pathlib import Path
        import numpy, torch
        from torchvision.transforms import v2
        from tests.data.make import encoded, picture
        from vitscratch.data import FileBatches, Preprocessing, RandomCropFlip, TensorBatches

        def state():
            return torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate()

        files = [Path(sys.argv[1]) / f"{i}.png" for i in range(7)]
        for i, path in enumerate(files):
            path.write_bytes(encoded(picture(i)))
        before = state()
        labels, prepare = torch.arange(7), Preprocessing((5, 3), 3)
        for workers in (0, 2):
            list(FileBatches(files, labels, prepare, 2, seed=1, augment=v2.RandomResizedCrop((5, 3)), workers=workers))
            list(FileBatches(files, labels, prepare, 2, workers=workers))
        list(TensorBatches(torch.zeros(7, 3, 5, 3), labels, 2, seed=1, augment=RandomCropFlip(1)))
        assert state() == before
    """
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_broke_meanwhile_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        path.write_bytes(encoded(picture(i)))
    broken = FileBatches(paths, torch.arange(3), PREPARE, 2, workers=workers, pin_memory=False)
    assert len(list(broken)) == 2
    paths[2].write_bytes(b"")
    try:
        list(broken)
        message = "no error"
    except OSError as error:  # pytest.raises would keep the workers alive, through the traceback
        message = str(error)
    assert message == f"{paths[2]}: empty: 0 bytes; was it changed? `vitscratch data check` looks at all files"


def test_a_second_iteration_ends_the_first(files: list[Path]) -> None:
    one = batches(files)
    first = iter(one)
    next(first)
    assert len(list(one)) == 5
    with pytest.raises(RuntimeError, match="another iteration of the same FileBatches has begun"):
        next(first)


def test_what_does_not_fit_is_refused(files: list[Path]) -> None:
    with pytest.raises(ValueError, match="2 files, 3 labels"):
        FileBatches(files[:2], torch.arange(3), PREPARE, 2)
    with pytest.raises(ValueError, match="augment without a seed"):
        batches(files, seed=None)
    with pytest.raises(ValueError, match="workers -1"):
        batches(files, workers=-1)
    with pytest.raises(ValueError, match=r"the transform made \(3, 5, 5\); expected size \(11, 7\)"):
        list(batches(files, augment=v2.RandomResizedCrop(5)))


def test_make_batches_takes_what_the_part_needs(files: list[Path]) -> None:
    labels, names = torch.arange(23), tuple(map(str, range(23)))
    images = torch.stack([PREPARE.pixels(open_picture(path)) for path in files])
    in_files = PictureFiles(tuple(files), labels, names)
    in_memory = Pictures(images, labels, names)
    one = make_batches(in_files, PREPARE, 5, seed=1, augment=BATCHWISE, workers=0, rank=1, processes=2)
    other = make_batches(in_memory, PREPARE, 5, seed=1, augment=BATCHWISE, rank=1, processes=2)
    assert isinstance(one, FileBatches) and isinstance(other, TensorBatches)
    assert_close(list(one), list(other), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"picture by picture, on files; load the set with max_memory=0"):
        make_batches(in_memory, PREPARE, 5, seed=1, augment=PICTUREWISE)
