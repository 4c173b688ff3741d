"""A bad step is noticed before it touches the weights, also when the verdict comes late, as on a GPU."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vitscratch.training import Checkpoints, NonFiniteLoss, TrainingConfig, adamw, fit, read_checkpoint, train_one_epoch
from vitscratch.training import watch as watch_module
from vitscratch.training.watch import Watch


def model() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def batches(bad: int, value: float = math.nan) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ten batches of two; one number of batch `bad` (0, 1, ...) is not finite."""
    generator = torch.Generator().manual_seed(1)
    made = [(torch.randn(2, 1, 2, 2, generator=generator), torch.tensor([i % 3, (i + 1) % 3])) for i in range(10)]
    made[bad][0][1, 0, 0, 1] = value
    return made


def weights(measured: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in measured.state_dict().values()])


class Late:
    """A verdict that arrives two looks later, in place of one from a GPU."""

    def __init__(self, flag: torch.Tensor) -> None:
        self.flag, self.looks = flag.clone(), 0

    def has_arrived(self) -> bool:
        self.looks += 1
        return self.looks > 2

    def is_bad(self) -> bool:
        return bool(self.flag)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_Verdict", Late)
    create = Watch.__init__
    monkeypatch.setattr(Watch, "__init__", lambda self, optimizer: create(self, optimizer, background=True))


@pytest.mark.parametrize("bad", [0, 4, 9])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_late_verdict_still_protects_the_weights(late: None, bad: int, value: float) -> None:
    reference, watched, steps = model(), model(), []
    train_one_epoch(reference, batches(bad, 0.0)[:bad], adamw(reference, 0.1, 0.1))
    with pytest.raises(NonFiniteLoss) as caught:
        train_one_epoch(watched, batches(bad, value), adamw(watched, 0.1, 0.1), on_step=steps.append)
    assert torch.equal(weights(watched), weights(reference))
    assert torch.equal(caught.value.labels, batches(bad)[bad][1])
    assert len(steps) == bad + caught.value.steps_ago


def test_without_found_inf_the_late_verdict_would_come_too_late(late: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted mistake."""
    watched, optimizer = model(), adamw(model(), 0.1, 0.1)
    optimizer = adamw(watched, 0.1, 0.1)
    step = optimizer.step

    def forgetful() -> None:
        del optimizer.found_inf
        step()

    monkeypatch.setattr(optimizer, "step", forgetful)
    with pytest.raises(NonFiniteLoss):
        train_one_epoch(watched, batches(4), optimizer)
    assert weights(watched).isnan().any()


def test_no_void_step_gets_into_a_checkpoint(late: None, tmp_path: Path) -> None:
    watched = model()
    config = TrainingConfig(epochs=2, learning_rate=0.1)
    with pytest.raises(NonFiniteLoss, match=r"epoch 1, batch 5: .*first non-finite: the input holds 1 nan") as caught:
        fit(watched, batches(4), config, checkpoints=Checkpoints(tmp_path, seconds=0.0, overhead=math.inf))
    state = read_checkpoint(tmp_path / "last.pt")
    assert state["batch"] == 4 and math.isfinite(state["metrics"]["loss_sum"])
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert torch.equal(read_checkpoint(tmp_path / "nonfinite.pt")["labels"], caught.value.labels)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.NAdam, torch.optim.AdamW])
def test_optimizers_that_cannot_void_a_step_are_waited_for(kind: type[torch.optim.Optimizer]) -> None:
    watched = model()
    optimizer = kind(watched.parameters(), lr=0.1)
    assert not Watch(optimizer).can_void
    assert Watch(adamw(watched, 0.1, 0.1)).can_void
    train_one_epoch(watched, batches(4)[:4], optimizer)
    before = weights(watched).clone()
    with pytest.raises(NonFiniteLoss):
        train_one_epoch(watched, batches(4)[4:], optimizer)
    assert torch.equal(weights(watched), before)


def test_a_gradient_that_is_not_finite_counts_even_if_the_loss_is() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(3))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :3] + self.scale.abs().sqrt()  # whose slope at 0 is infinite times 0

    rooted = Root()
    with pytest.raises(NonFiniteLoss):
        train_one_epoch(rooted, batches(0, 0.0), torch.optim.SGD(rooted.parameters(), lr=0.1))
    assert torch.equal(rooted.scale, torch.zeros(3))


def test_fp16_may_overflow_in_the_gradient_but_not_in_the_loss() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    watched = model()
    train_one_epoch(watched, batches(0, 0.0), torch.optim.SGD(watched.parameters(), lr=0.1), scaler=scaler)
    with pytest.raises(NonFiniteLoss):
        train_one_epoch(watched, batches(3), torch.optim.SGD(watched.parameters(), lr=0.1), scaler=scaler)


def test_a_run_that_goes_on_with_another_average_is_refused(tmp_path: Path) -> None:
    fit(model(), batches(0, 0.0), TrainingConfig(epochs=1, learning_rate=0.1), checkpoints=Checkpoints(tmp_path))
    config = TrainingConfig(epochs=2, learning_rate=0.1, ema_decay=0.9)
    with pytest.raises(ValueError, match="written with another ema_decay"):
        fit(model(), batches(0, 0.0), config, checkpoints=Checkpoints(tmp_path))


def test_history_has_the_rate_of_the_optimizer_that_was_given() -> None:
    own = model()
    optimizer = torch.optim.SGD(own.parameters(), lr=0.5)
    history = fit(own, batches(0, 0.0), TrainingConfig(epochs=2, learning_rate=1e-3), optimizer=optimizer)
    assert history[0].learning_rate == pytest.approx(0.5 * 0.5 * (1 + math.cos(math.pi * 9 / 20)))


def test_a_sampler_that_wants_the_epoch_is_told() -> None:
    told: list[int] = []

    class Loader(list[Any]):
        sampler = type("Sampler", (), {"set_epoch": staticmethod(told.append)})

    fit(model(), Loader(batches(0, 0.0)), TrainingConfig(epochs=3, learning_rate=0.1))
    assert told == [0, 1, 2]
