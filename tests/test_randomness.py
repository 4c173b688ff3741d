"""One place for seeds and random states."""

import contextlib
import random

import numpy as np
import pytest
import torch

from vitscratch.randomness import derive_seed, random_state_kept


def test_close_numbers_get_unrelated_seeds() -> None:
    seeds = {derive_seed(seed, epoch, index) for seed in range(7) for epoch in range(7) for index in range(7)}
    assert len(seeds) == 7**3 and all(0 <= seed < 2**63 for seed in seeds)
    assert len({seed % 2**32 for seed in seeds}) == 7**3  # torch's CPU generator looks at 32 bits
    assert derive_seed(1, 2) == derive_seed(1, 2) != derive_seed(12)


def test_random_state_kept_seeds_all_three_generators_and_puts_them_back() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), float(np.random.rand()), random.random()

    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with random_state_kept(5):
        first = draw()
    with contextlib.suppress(KeyError), random_state_kept(5):
        assert draw() == first
        raise KeyError
    with random_state_kept(6):
        assert not set(draw()) & set(first)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1] and random.getstate() == states[2]


def test_a_gpu_that_is_not_in_use_is_not_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.manual_seed would leave a seed for it behind, which nothing puts back."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with random_state_kept(3):
        pass
    assert seeded == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_in_use_is_seeded_and_put_back() -> None:
    torch.rand((), device="cuda")
    before = torch.cuda.get_rng_state()
    drawn = []
    for _ in range(2):
        with random_state_kept(3):
            drawn.append(float(torch.rand((), device="cuda")))
        torch.rand((), device="cuda")
        torch.cuda.set_rng_state(before)
    assert drawn[0] == drawn[1] and torch.equal(torch.cuda.get_rng_state(), before)
