"""Two processes on this CPU train as one does: same batches, same weights, every picture counted once."""

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from vitscratch import vit_nano_8
from vitscratch.data import TensorBatches
from vitscratch.training import (
    Checkpoints,
    TrainingConfig,
    distributed,
    evaluate,
    fit,
    seed_everything,
    train_one_epoch,
)

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed part"),
    # On a busy machine torch's own threads once ended a process: "malloc(): unaligned tcache chunk detected".
    pytest.mark.flaky(reruns=2, only_rerun="ended by a signal"),
]

COUNT, BATCH = 29, 7  # the last batch holds one picture: a share of it is empty


def train(config: TrainingConfig, folder: Path | None = None, stop_after: int | None = None) -> dict[str, Any]:
    """One process's part of a run; what it ends with."""
    torch.set_num_threads(1)
    seed_everything(0)
    model = vit_nano_8(embed_dim=12, depth=2, mlp_dim=24).double()
    pictures = torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    share = {"rank": distributed.rank(), "processes": distributed.processes()}
    batches = TensorBatches(pictures, torch.arange(COUNT) % 10, BATCH, seed=3, **share)
    validation = TensorBatches(pictures, torch.arange(COUNT) % 10, BATCH, **share)
    checkpoints = Checkpoints(folder, seconds=0.0, overhead=float("inf")) if folder else None
    steps = 0

    class Stop(Exception):
        pass

    def on_step(run: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == stop_after:
            raise Stop

    try:
        history = fit(model, batches, config, validation=validation, checkpoints=checkpoints, on_step=on_step)
    except Stop:
        history = []
    counted = evaluate(model, validation).over_processes()
    return {
        "weights": torch.cat(
            [getattr(p, "full_tensor", lambda p=p: p)().detach().flatten() for p in model.parameters()]
        ),
        "losses": torch.tensor([[record.train_loss, record.validation_loss] for record in history]),
        "counted": (counted.total, counted.correct, [total for _, total in counted.per_class]),
        "written": sorted(path.name for path in folder.iterdir()) if folder and distributed.rank() == 0 else [],
    }


def _process(
    rank: int, processes: int, port: int, out: str, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    with distributed.process_group("cpu") as device:
        assert device == "cpu" and distributed.is_running() and distributed.processes() == processes
        torch.save(work(*arguments), Path(out) / f"{rank}.pt")


def together(processes: int, out: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run work in so many processes, joined as torchrun joins them; what each gave back."""
    out.mkdir()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.test_distributed"])
    children = [
        context.Process(target=_process, args=(rank, processes, port, str(out), work, arguments))
        for rank in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    codes = [child.exitcode for child in children]
    assert all(code is None or code >= 0 for code in codes), f"ended by a signal: {codes}"
    assert codes == [0] * processes
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(processes)]


FOUR_EPOCHS = TrainingConfig(epochs=4, learning_rate=1e-3, label_smoothing=0.1, clip_norm=0.5)  # 20 steps


def test_two_processes_follow_one_on_the_same_batches(tmp_path: Path) -> None:
    alone = train(FOUR_EPOCHS)
    for found in together(2, tmp_path / "two", train, FOUR_EPOCHS):
        assert_close(found["weights"], alone["weights"], rtol=0, atol=1e-6)
        assert_close(found["losses"], alone["losses"], rtol=0, atol=1e-6)
        assert found["counted"] == alone["counted"]
        assert found["counted"][0] == COUNT and found["counted"][2] == [3] * 9 + [2]


def test_three_processes_with_accumulation_and_averaging(tmp_path: Path) -> None:
    config = TrainingConfig(epochs=2, learning_rate=1e-3, accumulate=2, ema_decay=0.8, patience=2)
    alone = train(config)
    for found in together(3, tmp_path / "three", train, config):
        assert_close(found["weights"], alone["weights"], rtol=0, atol=1e-6)
        assert_close(found["losses"], alone["losses"], rtol=0, atol=1e-6)


def count_averages(accumulate: int) -> dict[str, int]:
    """How often gradients travel in an epoch of 5 batches."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    torch.set_num_threads(1)
    travelled = 0

    def hook(state, bucket):  # type: ignore[no-untyped-def]  # torch reads annotations, and wants its own
        nonlocal travelled
        travelled += 1
        return default_hooks.allreduce_hook(None, bucket)

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    replica = distributed.replicate(model)
    replica.register_comm_hook(None, hook)
    batches = [(torch.randn(3, 1, 8, 8), torch.arange(3)) for _ in range(5)]
    train_one_epoch(replica, batches, torch.optim.SGD(model.parameters(), lr=0.1), accumulate=accumulate)
    return {"travelled": travelled}


def test_gradients_travel_once_for_each_step(tmp_path: Path) -> None:
    assert together(2, tmp_path / "two", count_averages, 2) == [{"travelled": 3}] * 2  # steps of 2, 2 and 1 batches


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    alone, folder = train(FOUR_EPOCHS), tmp_path / "run"
    folder.mkdir()
    first = together(2, tmp_path / "first", train, FOUR_EPOCHS, folder, 8)  # killed in the middle of the second epoch
    assert first[0]["written"] == ["best.pt", "last.pt"] or "last.pt" in first[0]["written"]
    then = together(3, tmp_path / "then", train, FOUR_EPOCHS, folder, 6)
    assert not torch.equal(then[0]["weights"], first[0]["weights"])
    finally_alone = train(FOUR_EPOCHS, folder)
    assert_close(finally_alone["weights"], alone["weights"], rtol=0, atol=1e-6)
    assert_close(finally_alone["losses"], alone["losses"], rtol=0, atol=1e-6)


def test_a_sharded_model_follows_a_whole_one_and_resumes(tmp_path: Path) -> None:
    sharded = replace(FOUR_EPOCHS, parallel="fsdp", patience=4)
    alone, folder = train(replace(FOUR_EPOCHS, patience=4)), tmp_path / "run"
    assert_close(train(sharded)["weights"], alone["weights"], rtol=0, atol=0)  # one process: nothing to divide
    folder.mkdir()
    together(2, tmp_path / "first", train, sharded, folder, 8)
    for found in together(3, tmp_path / "then", train, sharded, folder):
        assert_close(found["weights"], alone["weights"], rtol=0, atol=1e-6)
        assert_close(found["losses"], alone["losses"], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="fsdp goes without ema_decay"):
        train(replace(sharded, ema_decay=0.9))


def test_without_torchrun_nothing_is_distributed() -> None:
    with distributed.process_group("cpu") as device:
        assert device == "cpu" and not distributed.is_running()
    assert (distributed.rank(), distributed.processes(), distributed.total(5)) == (0, 1, 5)
    assert distributed.any_process(True) and not distributed.any_process(False)
    model = torch.nn.Linear(2, 2)
    assert distributed.replicate(model) is model


def test_no_process_leaves_while_a_thread_holds_its_last_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """As gloo's threads do, for a moment; when Python ends in that moment, the process aborts."""
    held: list[torch.Tensor] = []

    def all_reduce(tensor: torch.Tensor) -> None:
        held.append(tensor)
        threading.Timer(0.05, held.clear).start()

    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    distributed._leave_together()
    assert not held
