"""Seeds, and the state of every random generator that a training step or a transform may draw from."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python's, NumPy's and torch's global generators.

    The same seed gives the same bits on a CPU with the same number of threads and the same versions. On a GPU some
    kernels add in the order in which threads finish: `deterministic` forbids those (torch raises if there is no other).
    Never promised: the same bits on another kind of machine, with another version or another batch size.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # every device's
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def derive_seed(*numbers: int) -> int:
    """A seed in [0, 2**63) for a tuple of numbers, such as (seed, epoch, picture): close tuples get unrelated seeds.

    A sum would give picture 1 of epoch 0 the randomness of picture 0 of epoch 1; a hash does not.
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def random_state_kept(seed: int) -> Iterator[None]:
    """Seed the global generators (torch's on every device in use, NumPy's, Python's) and put them back afterwards."""
    cuda = torch.cuda.is_initialized()
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also queue seeds for a GPU not yet in use
        if cuda:
            torch.cuda.manual_seed_all(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def random_state() -> dict[str, Any]:
    """The state of the global generators, in numbers and tensors only."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.tensor(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch_random_state(),
    }


def torch_random_state() -> Tensor:
    """torch's generators of this process as bytes: the CPU's, then the GPU's if one is in use."""
    on_gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return torch.cat([torch.get_rng_state(), *on_gpu])


def set_torch_random_state(state: Tensor) -> None:
    """Put torch's generators back into a state that `torch_random_state` gave."""
    on_cpu, on_gpu = state.split([size := len(torch.get_rng_state()), len(state) - size])
    torch.set_rng_state(on_cpu)
    if len(on_gpu) and torch.cuda.is_available():
        torch.cuda.set_rng_state(on_gpu)


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators back into a state that `random_state` gave, perhaps in another process."""
    random.setstate(state["python"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    set_torch_random_state(state["torch"])
