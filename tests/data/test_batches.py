import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vitscratch.data import Chain, Cutout, Preprocessing, RandomAffine, RandomCropFlip, TensorBatches

AUGMENT = Chain(RandomCropFlip(2), RandomAffine(10.0, 1.0, 0.1), Cutout(3))


def batches(batch_size: int = 5, **options: object) -> TensorBatches:
    images = torch.randint(0, 256, (23, 3, 7, 11), generator=torch.Generator().manual_seed(1)).byte()
    options = {"seed": 3, "augment": AUGMENT, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), **options}
    return TensorBatches(images, torch.arange(23), batch_size, **options)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 50])
@pytest.mark.parametrize("seed", [None, 3])
def test_every_picture_comes_once_in_every_epoch(batch_size: int, seed: int | None) -> None:
    images, labels = torch.arange(23.0).reshape(23, 1, 1, 1), torch.arange(23)
    batches = TensorBatches(images, labels, batch_size, seed=seed)
    for _ in range(2):
        epoch = list(batches)
        assert len(epoch) == len(batches) and all(len(x) == batch_size for x, _ in epoch[:-1])
        for x, y in epoch:
            assert_close(x.flatten().long(), y)
        assert sorted(torch.cat([y for _, y in epoch]).tolist()) == list(range(23))


def test_order_changes_from_epoch_to_epoch_and_repeats_for_a_seed() -> None:
    def orders(seed: int | None) -> list[list[int]]:
        batches = TensorBatches(torch.zeros(23, 1, 1, 1), torch.arange(23), 5, seed=seed)
        return [torch.cat([y for _, y in batches]).tolist() for _ in range(2)]

    first, second = orders(1)
    assert first != second and orders(1) == [first, second] and orders(2) != [first, second]
    assert orders(None) == [list(range(23))] * 2


def test_an_epoch_is_a_function_of_seed_and_epoch_alone() -> None:
    assert_close(list(batches()), list(batches()), rtol=0, atol=0)
    one = batches()
    first, second, third = list(one), list(one), list(one)
    torch.manual_seed(99)
    other = batches()
    other.set_epoch(2)
    assert_close(list(other), third, rtol=0, atol=0)
    other.set_epoch(1)
    assert_close(list(other), second, rtol=0, atol=0)
    assert_close(list(other), third, rtol=0, atol=0)  # and then the next
    again = {int(y): x for images, labels in second for x, y in zip(images, labels, strict=True)}
    for images, labels in first:  # the same pictures, augmented anew
        for x, y in zip(images, labels, strict=True):
            assert not torch.equal(x, again[int(y)])


@pytest.mark.parametrize("start", range(6))
def test_an_epoch_can_begin_in_the_middle(start: int) -> None:
    whole, rest = batches(), batches()
    whole.set_epoch(4)
    rest.set_epoch(4, start=start)
    assert_close(list(rest), list(whole)[start:], rtol=0, atol=0)
    assert_close(list(rest), list(whole), rtol=0, atol=0)  # epoch 5, from its beginning


def test_two_iterations_at_a_time_do_not_mix() -> None:
    one = batches()
    first = iter(one)
    next(first)
    second = list(one)
    other = batches()
    assert_close(list(first), list(other)[1:], rtol=0, atol=0)
    assert_close(second, list(other), rtol=0, atol=0)


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_share_the_batches_of_one(processes: int) -> None:
    shares = [batches(rank=rank, processes=processes) for rank in range(processes)]
    assert {len(share) for share in shares} == {len(batches())}
    for (images, labels), *parts in zip(batches(), *shares, strict=True):
        for rank, (part, part_labels) in enumerate(parts):
            assert part.shape[1:] == (3, 7, 11)
            assert_close(part, images[rank::processes], rtol=0, atol=0)
            assert_close(part_labels, labels[rank::processes], rtol=0, atol=0)
    assert any(len(images) == 0 for images, _ in shares[-1]) == (processes > 3)  # the last batch has 3 pictures


def test_iterating_leaves_global_random_states_alone() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    list(batches())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    # Python's generator: tests/data/test_files.py, where no type checker draws from it.


def test_bytes_become_floats_and_are_normalised() -> None:
    plain = batches(seed=None, augment=None)
    expected = (plain.images.double() / 255 - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1).double()) / torch.tensor(
        [0.2, 0.3, 0.4]
    ).double().view(3, 1, 1)
    images = torch.cat([images for images, _ in plain])
    assert images.dtype == torch.float32 and plain.images.dtype == torch.uint8
    assert_close(images.double(), expected, rtol=0, atol=1e-6)
    prepare = Preprocessing((7, 11), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    assert_close(prepare.normalise(plain.images.float().mul(1 / 255)), images, rtol=0, atol=0)
    same = batches(seed=None, augment=None, mean=(0.5,), std=(0.25,))
    assert_close(torch.cat([x for x, _ in same]), (plain.images.float() / 255 - 0.5) / 0.25, rtol=1e-6, atol=1e-6)


def test_batches_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="3 images, 4 labels, batch_size 2"):
        TensorBatches(torch.zeros(3, 1, 1, 1), torch.zeros(4), 2)
    with pytest.raises(ValueError, match="batches of at least 1"):
        TensorBatches(torch.zeros(3, 1, 1, 1), torch.zeros(3), 0)
    with pytest.raises(ValueError, match="augment without a seed"):
        batches(seed=None)
    with pytest.raises(ValueError, match="expected both or neither"):
        batches(mean=None)
    with pytest.raises(ValueError, match="2 values of mean or std for pictures of 3 channels"):
        batches(mean=(0.1, 0.2))
    with pytest.raises(ValueError, match=r"images are torch.int64; expected uint8"):
        TensorBatches(torch.zeros(3, 1, 1, 1).long(), torch.zeros(3), 2)
    with pytest.raises(ValueError, match="rank 2 of 2 processes"):
        batches(rank=2, processes=2)
    for epoch, start in ((-1, 0), (0, 6), (0, -1)):
        with pytest.raises(ValueError, match=r"expected an epoch from 0 on and a start in 0..5"):
            batches().set_epoch(epoch, start)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_batches_are_the_same_and_wait_for_nothing() -> None:
    here, there = batches(), batches(device="cuda")
    for (x, y), (u, v) in zip(here, there, strict=True):
        assert u.device.type == v.device.type == "cuda"
        assert_close(u.cpu(), x, rtol=1e-5, atol=1e-5)
        assert_close(v.cpu(), y)
    iterator = iter(there)
    next(iterator)  # moves the order of the epoch
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(iterator)) == len(there) - 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
