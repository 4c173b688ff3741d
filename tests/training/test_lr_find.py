import copy
import inspect
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from tests.training.test_doctor import assert_same, everything
from vitscratch.training import LRRange, adamw, lr_find

Batch = tuple[Tensor, Tensor]


def learnable(n: int = 30) -> Batch:
    """Pictures whose class is a bright pixel."""
    labels = torch.arange(n) % 3
    return 0.3 * torch.randn(n, 1, 2, 2) + 2 * F.one_hot(labels, 4)[:, None].reshape(n, 1, 2, 2), labels


def in_batches(images: Tensor, labels: Tensor, size: int = 7) -> list[Batch]:
    return list(zip(images.split(size), labels.split(size), strict=True))


class Small(nn.Module):
    """Dropout, statistics and a frozen part: whatever could leave a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.bn, self.head = nn.Linear(4, 11), nn.BatchNorm1d(11), nn.Linear(11, 3)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn(self.hidden(self.frozen(images.flatten(1)))).relu()
        return self.head(F.dropout(x, 0.1, self.training))


def test_the_rates_grow_exponentially_and_the_losses_are_those_of_training() -> None:
    batches = in_batches(*learnable())
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    found = lr_find(model, batches, smallest=1e-4, largest=1e-1, steps=13, weight_decay=0.3, clip_norm=0.2)
    assert found.rates[0] == 1e-4 and found.rates[-1] == pytest.approx(1e-1) and len(found.rates) == 13
    ratios = [b / a for a, b in zip(found.rates, found.rates[1:], strict=False)]
    assert ratios == pytest.approx([10 ** (3 / 12)] * 12)

    reference, losses = copy.deepcopy(model), []
    optimizer = adamw(reference, 1.0, 0.3)
    for step, rate in enumerate(found.rates):
        images, labels = batches[step % len(batches)]  # 5 batches for 13 steps: they begin again
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = F.cross_entropy(reference(images), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.2)
        optimizer.step()
    assert_close(torch.tensor(found.losses), torch.tensor(losses))


def test_the_running_mean_is_corrected_for_its_start() -> None:
    found = lr_find(Small(), in_batches(*learnable()), steps=12, largest=1e-5)
    weights = torch.tensor([0.9**i for i in range(12)])
    expected = sum(w * loss for w, loss in zip(weights.flip(0), found.losses, strict=True)) / weights.sum()
    assert found.smoothed[-1] == pytest.approx(float(expected)) and found.smoothed[0] == pytest.approx(found.losses[0])


def test_a_rate_is_suggested_that_learns() -> None:
    torch.manual_seed(2)
    images, labels = learnable(60)
    model = Small()
    found = lr_find(model, in_batches(images, labels, 12), steps=60)
    lowest = found.rates[found.smoothed.index(min(found.smoothed))]
    assert found.suggestion == lowest / 10 and 1e-3 < found.suggestion <= 1e-1
    assert f"a tenth of {lowest:.1e}" in found.reason
    optimizer = adamw(model, found.suggestion, 0.0)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.5 * math.log(3)


def test_it_stops_where_the_loss_diverges() -> None:
    images, labels = learnable()
    found = lr_find(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), in_batches(images, labels), largest=1e4, steps=100)
    assert found.diverged and len(found.rates) == len(found.losses) == len(found.smoothed) < 100
    best = min(found.smoothed)
    assert found.smoothed[-1] > 4 * max(best, 0.05 * found.smoothed[0])
    assert all(loss <= 4 * max(min(found.smoothed[: i + 1]), 0.05 * found.smoothed[0])
               for i, loss in enumerate(found.smoothed[:-1]))  # fmt: skip


def test_a_loss_that_is_not_finite_ends_it() -> None:
    images, labels = learnable()
    batches = in_batches(images, labels)
    batches[3] = (batches[3][0] / 0, batches[3][1])
    found = lr_find(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), batches)
    assert found.diverged and len(found.losses) == 4
    first = lr_find(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), batches[3:])
    assert (first.suggestion, len(first.losses)) == (None, 1) and "very first loss is not finite" in first.reason


class Shuffled(nn.Module):
    """Cannot learn: its logits say nothing about the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, images: Tensor) -> Tensor:
        return self.bias + 0.01 * torch.randn(len(images), 3)


def test_no_rate_is_suggested_when_the_loss_never_falls() -> None:
    images, _ = learnable(300)
    labels = torch.randint(3, (300,))
    batches = in_batches(images, labels, 60)
    found = lr_find(Shuffled(), batches, steps=100)
    assert found.suggestion is None and "the loss never fell" in found.reason
    short = lr_find(Shuffled(), batches, steps=99)
    assert short.suggestion is None
    assert short.reason == "the loss fell too little to tell: 99 steps are few, try 100 or more"


def test_a_result_is_printed_short() -> None:
    found = LRRange((1e-4,) * 500, (2.0,) * 500, (2.0,) * 500, 1e-3, "a tenth of 1.0e-02", False)
    assert repr(found) == "LRRange(suggestion=0.001, reason='a tenth of 1.0e-02', 500 steps)"


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_the_precision_is_that_of_the_products_and_learns_as_well(precision: torch.dtype) -> None:
    torch.manual_seed(2)
    seen: set[torch.dtype] = set()

    class Watched(Small):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            seen.add(logits.dtype)
            return logits

    model, batches = Watched(), in_batches(*learnable(60), 12)
    exact, rounded = (lr_find(model, batches, steps=60, precision=dtype) for dtype in (torch.float32, precision))
    assert seen == {torch.float32, precision} and exact.losses != rounded.losses
    assert rounded.suggestion is not None and exact.suggestion is not None
    # With copies of the weights from the first step the loss would not fall at all.
    assert min(rounded.smoothed) == pytest.approx(min(exact.smoothed), rel=0.2)
    assert not torch.is_autocast_enabled("cpu")


def test_a_loss_that_still_falls_at_the_end_says_so() -> None:
    found = lr_find(Small(), in_batches(*learnable(60), 20), largest=1e-2, steps=60)
    assert found.suggestion == pytest.approx(1e-3) and "still falling" in found.reason


class WithEpochs:
    """Batches that know epochs, as those of `vitscratch.data`."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        self.calls.append((epoch, start))

    def __iter__(self) -> Any:
        return iter(in_batches(*learnable()))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, None])
def test_nothing_is_left_behind_even_by_an_interruption(
    error: type[BaseException] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = Small(), learnable()
    F.cross_entropy(model(given[0]), given[1]).backward()
    model.hidden.eval()
    batches = WithEpochs()
    if error is not None:
        monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: (_ for _ in ()).throw(error))
    before = everything(model, given)
    if error is None:
        inspect.unwrap(lr_find)(model, batches, steps=10)
    else:
        with pytest.raises(error):
            inspect.unwrap(lr_find)(model, batches, steps=10)
    assert_same(everything(model, given), before)
    assert batches.calls == [(0, 0), (0, 0)]


def test_the_order_of_a_data_loader_is_as_if_it_had_not_been_looked_at() -> None:
    images, labels = learnable()
    dataset = torch.utils.data.TensorDataset(images, labels)
    loader, twin = (
        torch.utils.data.DataLoader(dataset, 7, shuffle=True, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    model = Small()
    lr_find(model, loader, steps=12)
    for (one, _), (other, _) in zip(loader, twin, strict=True):
        assert torch.equal(one, other)
    torch.manual_seed(6)
    expected = [int(label[0]) for _, label in torch.utils.data.DataLoader(dataset, 7, shuffle=True)]
    torch.manual_seed(6)
    loader = torch.utils.data.DataLoader(dataset, 7, shuffle=True)  # draws from the global generator
    lr_find(model, loader, steps=12)
    assert [int(label[0]) for _, label in loader] == expected


def test_the_same_seed_gives_the_same_test() -> None:
    model, batches = Small(), in_batches(*learnable())
    one, other, third = (lr_find(model, batches, steps=20, seed=seed) for seed in (1, 1, 2))
    assert one == other and one.losses != third.losses, "dropout is drawn from the seed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smallest": 0.0}, "expected 0 < smallest < largest"),
        ({"largest": 1e-7}, "expected 0 < smallest < largest"),
        ({"steps": 9}, "steps 9: expected .* 10 steps or more"),
    ],
)
def test_impossible_ranges_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lr_find(Small(), in_batches(*learnable()), **options)


def test_no_batches_and_nothing_to_learn_are_refused() -> None:
    with pytest.raises(ValueError, match="batches are empty, or used up"):
        lr_find(Small(), [])
    with pytest.raises(ValueError, match="batches are empty, or used up"):
        lr_find(Small(), iter(in_batches(*learnable())))  # a generator cannot begin again
    with pytest.raises(ValueError, match="every parameter of the model is frozen"):
        lr_find(Small().requires_grad_(False), in_batches(*learnable()))


def test_random_states_of_all_kinds_are_seeded_within() -> None:
    seen: list[float] = []

    class Draws(Small):
        def forward(self, images: Tensor) -> Tensor:
            seen.extend([random.random(), float(np.random.rand()), torch.rand(()).item()])
            return super().forward(images)

    for _ in range(2):
        lr_find(Draws(), in_batches(*learnable()), steps=10, seed=4)
    assert seen[:30] == seen[30:] and len(set(seen)) == 30


def test_the_figure_shows_what_was_found() -> None:
    from vitscratch import plots

    rates, losses, smoothed = (1e-4, 1e-3, 1e-2, 1e-1), (2.0, 1.0, 0.5, math.inf), (2.0, 1.4, 0.9, math.inf)
    figure = plots.learning_rate_range(LRRange(rates, losses, smoothed, 1e-3, "a tenth of 1.0e-02", True))
    (axes,) = figure.axes
    assert list(axes.lines[1].get_ydata()) == list(smoothed) and list(axes.lines[1].get_xdata()) == list(rates)
    assert (axes.lines[2].get_xdata()[0], axes.lines[2].get_ydata()[0]) == (1e-2, 0.9)
    assert axes.lines[3].get_xdata()[0] == 1e-3 and axes.get_xscale() == "log" and axes.get_ylim() == (0, 3.0)
    assert "4 steps, stopped where it diverged" in axes.get_title()
    flat = plots.learning_rate_range(
        LRRange(rates[:1], (math.nan,), (math.nan,), None, "the loss never fell: look", True)
    )
    assert flat.axes[0].texts[0].get_text() == "no suggestion: the loss never fell"


def test_the_schedule_is_drawn_step_by_step() -> None:
    from vitscratch import plots

    (axes,) = plots.schedule(10, 110, 0.02).axes
    rates = list(axes.lines[0].get_ydata())
    assert len(rates) == 110 and max(rates) == 0.02 and rates[0] == pytest.approx(0.002)
    assert rates[60] == pytest.approx(0.01) and len(axes.patches) == 1
    assert len(plots.schedule(0, 5, 1.0).axes[0].patches) == 0
