from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from torchvision.transforms import v2

from tests.data.make import picture, write_folder, write_npz
from vitscratch.data import Preprocessing, RandomCropFlip, augmented_views, choose_examples


def test_examples_come_from_all_classes_and_by_the_seed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 9, "dog": 9, "eel": 1})
    chosen = choose_examples(root, 7, seed=0)
    assert chosen.labels.tolist() == [0, 0, 0, 1, 1, 1, 2] and chosen.class_names == ("cat", "dog", "eel")
    again, other = choose_examples(root, 7, seed=0), choose_examples(root, 7, seed=1)
    assert [p.tobytes() for p in again.pictures] == [p.tobytes() for p in chosen.pictures]
    assert [p.tobytes() for p in other.pictures] != [p.tobytes() for p in chosen.pictures]
    assert len(choose_examples(root, 99, seed=0).pictures) == 19


def test_bad_files_are_passed_over(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"cat": 1, "dog": 2})
    (root / "cat" / "000.png").write_bytes(b"")
    chosen = choose_examples(root, 5, seed=0)
    assert chosen.labels.tolist() == [1, 1] and chosen.passed_over == ("cat/000.png: empty: 0 bytes",)
    for path in (root / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="no picture that can be opened"):
        choose_examples(root, 5, seed=0)


def test_examples_are_of_the_training_part(tmp_path: Path) -> None:
    chosen = choose_examples(write_npz(tmp_path / "x.npz", {"train": 2, "test": 8}), 9, seed=0)
    assert chosen.labels.tolist() == [0, 1]
    assert {p.size for p in choose_examples("digits", 3, seed=0).pictures} == {(8, 8)}


def test_views_are_what_a_model_sees() -> None:
    prepare, pictures = Preprocessing((11, 13), 3), [picture(i) for i in range(3)]
    plain = augmented_views(pictures, prepare, None, 2, seed=0)
    assert plain.shape == (3, 2, 3, 11, 13)
    assert_close(plain[2, 1], prepare.to_tensor(pictures[2]))
    moved = augmented_views(pictures, prepare, RandomCropFlip(3), 4, seed=0)
    assert len(moved.flatten(2).unique(dim=1)[0]) == 4
    assert_close(augmented_views(pictures, prepare, RandomCropFlip(3), 4, seed=0), moved)
    state = torch.get_rng_state()
    transformed = augmented_views(pictures, prepare, v2.RandomResizedCrop((11, 13)), 4, seed=0)
    assert len(transformed.flatten(2).unique(dim=1)[0]) == 4 and torch.equal(torch.get_rng_state(), state)
