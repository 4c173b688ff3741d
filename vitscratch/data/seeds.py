"""Random numbers that depend on nothing but the numbers they are asked for with."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*numbers: int) -> int:
    """A seed in [0, 2**63) for a tuple of numbers, such as (seed, epoch, picture): close tuples get unrelated seeds.

    A sum would give picture 1 of epoch 0 the randomness of picture 0 of epoch 1; a hash does not.
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with the global generators of torch (CPU), numpy and Python seeded; then put all three back."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
