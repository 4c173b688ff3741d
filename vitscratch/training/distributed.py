"""Several processes, started by torchrun, that train one model: a thin layer over `torch.distributed`.

Each process sees its own share of each batch. With "ddp" (DistributedDataParallel) it holds the whole model and
gradients are averaged; with "fsdp" (`fully_shard`, FSDP2), for models that do not fit, it holds a share of every
block's weights, gradients and optimizer state, and a block is put together when it is needed.
Every function here also works, and costs nothing, when there is only one process.
"""

import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from torch.distributed.checkpoint.state_dict import StateDictOptions


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
        _leave_together()  # not before the first process has written everything
    finally:
        dist.destroy_process_group()


def _leave_together() -> None:
    """A barrier after which gloo's threads hold no tensor of Python's.

    They outlive the group once DistributedDataParallel was made, and let go of a tensor a moment after the call that it
    was for. Should Python end in that moment, the process would abort.
    """
    last = torch.zeros(())
    dist.all_reduce(last)
    held = weakref.ref(last)
    del last
    patience = time.monotonic() + 5  # seconds
    while held() is not None and time.monotonic() < patience:
        time.sleep(0.001)


def shard(model: nn.Module, blocks: list[nn.Module]) -> None:
    """Divide the parameters of a model, block by block, among the processes, in place; with one process, do nothing.

    They become DTensors: an optimizer has to be made afterwards, and `model_state` gives them whole.
    """
    if not is_running():
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (processes(),))
    for layer in (*blocks, model):
        fully_shard(layer, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` divided it."""
    if not is_running():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """`model.state_dict()` with whole tensors. Every process has to call it; of a sharded model only the first gets it,
    on the CPU, and the others an empty dict."""
    if not is_sharded(model):
        return model.state_dict()
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    state: dict[str, Any] = get_model_state_dict(model, options=_whole_tensors())
    return state


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`optimizer.state_dict()` with whole tensors; of a sharded model its parameters go by name instead of number."""
    if not is_sharded(model):
        return optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    return get_optimizer_state_dict(model, optimizer, options=_whole_tensors())


def load_states(
    model: nn.Module,
    model_tensors: dict[str, Any],
    optimizer: torch.optim.Optimizer | None = None,
    optimizer_tensors: dict[str, Any] | None = None,
) -> None:
    """Load what `model_state` and `optimizer_state` gave, sharded or not, with any number of processes."""
    if not is_sharded(model):
        model.load_state_dict(model_tensors)
        if optimizer is not None and optimizer_tensors is not None:
            optimizer.load_state_dict(optimizer_tensors)
        return
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    set_model_state_dict(model, model_tensors, options=_whole_tensors(broadcast=True))
    if optimizer is not None and optimizer_tensors is not None:
        set_optimizer_state_dict(model, optimizer, optimizer_tensors, options=_whole_tensors(broadcast=True))


def _whole_tensors(broadcast: bool = False) -> "StateDictOptions":
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True, broadcast_from_rank0=broadcast)


def replicate(model: nn.Module) -> nn.Module:
    """The model as it is, or wrapped so that its backward pass averages gradients over the processes."""
    if not is_running() or is_sharded(model):
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def average_gradients(model: nn.Module, now: bool) -> None:
    """Whether the next forward and backward pass of what `replicate` gave averages the gradients over the processes.

    While batches are accumulated their gradients are summed in each process, so one average, after the last, is enough.
    (It is what DistributedDataParallel's `no_sync` sets. A sharded model has no room for whole gradients: always.)
    """
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = now


def share_buffers(model: nn.Module) -> None:
    """Give the first process's buffers, such as BatchNorm's statistics, to all: each has seen other pictures."""
    if is_running():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


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
