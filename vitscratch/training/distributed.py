"""Several processes, started by torchrun, that train one model: a thin layer over `torch.distributed`.

Each process holds the whole model (DistributedDataParallel) and sees its own share of each batch; gradients are summed.
Every function here also works, and costs nothing, when there is only one process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def is_running() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, 0 to processes() - 1. Number 0 is the one that writes and prints."""
    return dist.get_rank() if is_running() else 0


def processes() -> int:
    """How many processes train together; 1 without torchrun."""
    return dist.get_world_size() if is_running() else 1


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the other processes if torchrun started this one, and give back the device that is this process's own.

    GPUs talk through NCCL, CPUs through gloo; counts and flags always go over gloo, so that no GPU waits for them.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # which torchrun sets
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def replicate(model: nn.Module) -> nn.Module:
    """The model as it is, or wrapped so that its backward pass averages gradients over the processes."""
    if not is_running():
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def total(count: int) -> int:
    """The sum of a count over all processes."""
    if not is_running():
        return count
    counts = torch.tensor(count)
    dist.all_reduce(counts)
    return int(counts)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in some process; all processes get the same answer at the same step."""
    return total(int(flag)) > 0


def gather(tensor: Tensor) -> list[Tensor]:
    """The tensors, all of one shape and on the CPU, of every process in order."""
    if not is_running():
        return [tensor]
    tensors = [torch.empty_like(tensor) for _ in range(processes())]
    dist.all_gather(tensors, tensor)
    return tensors


def barrier() -> None:
    """Wait until every process is here."""
    any_process(False)
