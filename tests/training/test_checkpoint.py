"""A run is never lost: killed at any moment, on a full disk, beside damaged or hostile files."""

import errno
import math
import multiprocessing
import os
import pickle
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from vitscratch import vit_nano_8
from vitscratch.data import TensorBatches
from vitscratch.training import (
    Checkpoints,
    Interrupted,
    TrainingConfig,
    fit,
    read_checkpoint,
    seed_everything,
    stop_on_signals,
    write_checkpoint,
)

# Everything that has a state: dropout, moving average, mixup, accumulation, a ragged last batch, the best weights.
CONFIG = TrainingConfig(
    epochs=3, learning_rate=1e-3, warmup_epochs=1.0, ema_decay=0.9, mixup=0.4, cutmix=1.0, accumulate=2, patience=3
)


def train(folder: Path | None, config: TrainingConfig = CONFIG, loader: str = "", stop: Any = None) -> torch.Tensor:
    """A small run with a checkpoint after every step; gives back all weights as one vector."""
    torch.set_num_threads(1)
    seed_everything(config.seed)
    model = vit_nano_8(embed_dim=12, depth=2, mlp_dim=24, dropout=0.1)
    pictures = torch.randn(59, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(59) % 10
    batches: Any = TensorBatches(pictures, labels, 7, seed=3)
    if loader:
        generator = torch.Generator().manual_seed(2) if loader == "own generator" else None
        batches = DataLoader(TensorDataset(pictures, labels), 7, shuffle=True, generator=generator)
    checkpoints = Checkpoints(folder, seconds=0.0, overhead=math.inf, stop=stop) if folder else None
    fit(model, batches, config, validation=[(pictures, labels)], num_classes=10, checkpoints=checkpoints)
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


@pytest.fixture(scope="module")
def uninterrupted() -> torch.Tensor:
    return train(None)


class Killed(Exception):
    """Stands for SIGKILL: nothing of the program may run after it."""


def test_saving_changes_nothing(uninterrupted: torch.Tensor, tmp_path: Path) -> None:
    assert torch.equal(train(tmp_path), uninterrupted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt", "previous.pt"]
    assert torch.equal(train(tmp_path), uninterrupted)  # resuming what is finished gives the same again


@pytest.mark.parametrize("loader", ["", "global generator", "own generator"])
def test_a_run_killed_after_every_few_steps_ends_with_the_same_bits(
    loader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, steps, kills = train(None, loader=loader), 0, 0
    after_step = Checkpoints.after_step

    def killing(self: Checkpoints, run: Any) -> None:
        nonlocal steps
        steps += 1
        if steps % 4 == 3:
            raise Killed  # before this step is saved: it has to be done again
        after_step(self, run)

    monkeypatch.setattr(Checkpoints, "after_step", killing)
    while True:
        try:
            found = train(tmp_path, loader=loader)
            break
        except Killed:
            kills += 1
    assert kills > 5 and torch.equal(found, expected)


def test_a_state_that_is_not_saved_would_be_noticed(
    uninterrupted: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted mistakes: whatever is left out of the checkpoint, other weights come out."""
    from vitscratch.training.run import Run

    full, load = Run.state_dict, Run.load_state_dict
    for part in ("model", "average", "optimizer", "scheduler", "batch", "random", "epoch"):
        folder = tmp_path / part
        folder.mkdir()
        steps = 0

        def stopping(self: Checkpoints, run: Any) -> None:
            nonlocal steps
            steps += 1
            if steps == 8:  # in the middle of the second epoch
                self.save(run)
                raise Killed

        def forgetful(self: Run, state: dict[str, Any], part: str = part) -> None:
            load(self, {**state, part: full(self)[part]})  # this part starts afresh

        with monkeypatch.context() as planted:
            planted.setattr(Checkpoints, "after_step", stopping)
            with pytest.raises(Killed):
                train(folder)
            planted.setattr(Run, "load_state_dict", forgetful)
            assert not torch.equal(train(folder), uninterrupted), part


@pytest.mark.parametrize("moment", range(8))
def test_a_kill_while_a_checkpoint_is_written_loses_nothing(
    moment: int, uninterrupted: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each system call that writing makes, `finally` clauses not run: as SIGKILL would."""
    calls, armed = 0, True

    def dying(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls, armed
            calls += 1
            if armed and calls == 40 + moment:
                armed = False
                monkeypatch.setattr(Path, "unlink", lambda *arguments, **options: None)  # nothing is tidied up
                raise Killed
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(os, "fsync", dying(os.fsync))
    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    with pytest.raises(Killed):
        train(tmp_path)
    monkeypatch.undo()
    assert torch.equal(train(tmp_path), uninterrupted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt", "previous.pt"]


def test_a_kill_beside_a_damaged_checkpoint_loses_nothing(
    uninterrupted: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The good previous.pt must not be pushed out by a damaged last.pt before a new last.pt is there."""
    train(tmp_path)
    (tmp_path / "last.pt").write_bytes(b"damaged")
    replace = Path.replace

    def dying(path: Path, target: Path) -> None:
        replace(path, target)
        if path.name == "last.pt" or target.name == "last.pt":
            raise Killed

    with monkeypatch.context() as killing:
        killing.setattr(Path, "replace", dying)
        killing.setattr(Path, "unlink", lambda *arguments, **options: None)
        with pytest.raises(Killed):
            train(tmp_path)
    assert torch.equal(train(tmp_path), uninterrupted)


def _in_a_process(folder: str) -> None:
    train(Path(folder))


def test_sigkill_at_random_moments(uninterrupted: torch.Tensor, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.test_checkpoint", "torchvision.transforms.v2"])
    chance, kills, patience = random.Random(0), 0, 0.1
    while True:
        process = context.Process(target=_in_a_process, args=(str(tmp_path),))
        process.start()
        process.join(chance.uniform(0.01, patience))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills, patience = kills + 1, 1.05 * patience  # so that a slow machine gets there too
    assert process.exitcode == 0 and kills >= 1
    assert torch.equal(train(tmp_path), uninterrupted), f"after {kills} kills"


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_and_saved(
    number: signal.Signals, uninterrupted: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, run: (saved.append((run.epoch, run.batch)), save(self, run)))
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
        timer.start()
        with pytest.raises(Interrupted) as caught:
            train(tmp_path, TrainingConfig(epochs=500, learning_rate=1e-3), stop=stop)
    assert caught.value.signal_number == number and signal.getsignal(number) is before
    state = read_checkpoint(tmp_path / "last.pt")
    assert (state["epoch"], state["batch"]) == saved[-1]


def test_the_second_signal_acts_at_once() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# Files that cannot be trusted


def some_state() -> dict[str, Any]:
    return {"model": {"weight": torch.randn(70, 30)}, "epoch": 3}


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def a_list(path: Path) -> None:
    torch.save([1, 2], path)


class Malicious:
    """Unpickled, it would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def malicious_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Malicious(path.with_name("executed"))))


def malicious_archive(path: Path) -> None:
    torch.save({"format": "vitscratch checkpoint 1", "model": Malicious(path.with_name("executed"))}, path)


BROKEN = [truncated, half, flipped, empty, foreign, a_list, malicious_pickle, malicious_archive]


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_spoilt_checkpoint_is_refused_with_one_line_and_nothing_is_executed(spoil: Any, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_checkpoint(some_state(), path)
    spoil(path)
    with pytest.raises(ValueError, match=r"last\.pt is refused: .") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_the_malicious_files_would_have_executed(tmp_path: Path) -> None:
    for number, spoil in enumerate((malicious_pickle, malicious_archive)):
        path = tmp_path / str(number) / "last.pt"
        path.parent.mkdir()
        spoil(path)
        if spoil is malicious_pickle:
            pickle.loads(path.read_bytes())
        else:
            torch.load(path, weights_only=False)
        assert (path.parent / "executed").exists()


@pytest.mark.parametrize("spoil", BROKEN)
def test_the_previous_checkpoint_takes_over_and_is_named(
    spoil: Any, uninterrupted: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path)
    spoil(tmp_path / "last.pt")
    known: list[Checkpoints] = []
    create = Checkpoints.__init__
    monkeypatch.setattr(
        Checkpoints, "__init__", lambda self, *args, **options: (known.append(self), create(self, *args, **options))[1]
    )
    assert torch.equal(train(tmp_path), uninterrupted)
    assert known[0].resumed_from == tmp_path / "previous.pt"
    assert len(known[0].refused) == 1 and "last.pt is refused" in known[0].refused[0]
    assert not (tmp_path / "executed").exists()


def test_no_checkpoint_left_is_said_and_nothing_is_overwritten(tmp_path: Path) -> None:
    train(tmp_path)
    for name in ("last.pt", "previous.pt"):
        (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"last\.pt is refused.*no other checkpoint is left in .*: remove the file"):
        train(tmp_path)
    assert (tmp_path / "last.pt").read_bytes() == b"junk"


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    other, batch = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (torch.randn(3, 1, 8, 8), torch.arange(3))
    with pytest.raises(ValueError, match=r"last\.pt belongs to another model") as caught:
        fit(other, [batch], CONFIG, validation=[batch], num_classes=10, checkpoints=Checkpoints(tmp_path))
    assert "\n" not in str(caught.value)


# A full disk


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    write_checkpoint({"epoch": 1}, path)
    good = path.read_bytes()
    with monkeypatch.context() as full:
        full.setattr(
            os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
        )
        with pytest.raises(OSError, match="No space left on device"):
            write_checkpoint(some_state(), path)
    assert path.read_bytes() == good and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_write_that_fails_midway_says_why(tmp_path: Path) -> None:
    """The device that is always full, under the name of the temporary file."""
    path = tmp_path / "last.pt"
    (tmp_path / "last.pt.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        write_checkpoint({"model": torch.randn(500, 500)}, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("began_with", [True, False])
def test_a_run_goes_on_in_the_precision_it_began_with(
    began_with: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a machine where "auto" would mean another."""

    def fast_bf16(answer: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: answer)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)

    ends = []
    for kill, moves in ((False, False), (True, False), (True, True)):
        fast_bf16(began_with)
        folder = tmp_path / f"{kill} {moves}"
        folder.mkdir()
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        config = TrainingConfig(epochs=3, learning_rate=0.1)
        images = torch.randn(21, 3, 2, 2)
        batches = TensorBatches(images, torch.arange(21) % 3, 4, seed=0)
        initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}

        def stop(run: Any) -> None:
            if run.epoch == 2:
                raise Killed

        if kill:
            with pytest.raises(Killed):
                fit(
                    model,
                    batches,
                    config,
                    checkpoints=Checkpoints(folder, seconds=0.0, overhead=math.inf),
                    on_epoch=stop,
                )
            model.load_state_dict(initial)
        fast_bf16(began_with is not moves)
        fit(model, batches, config, checkpoints=Checkpoints(folder))
        ends.append(model[1].weight.detach().clone())
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])
