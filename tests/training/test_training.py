import math
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vitscratch import vit_nano_8
from vitscratch.data import TensorBatches
from vitscratch.training import (
    EpochRecord,
    Metrics,
    TrainingConfig,
    adamw,
    decay_groups,
    evaluate,
    fit,
    read_history,
    save_history,
    train_one_epoch,
    warmup_cosine,
)

Batch = tuple[torch.Tensor, torch.Tensor]


def separable(n: int = 23) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(n) % 3
    return torch.randn(n, 1, 2, 2) + 3 * F.one_hot(labels, 4)[:, None].reshape(n, 1, 2, 2), labels


def linear_model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


# Metrics: counts, so that batches do not matter.


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7, 23, 100])
def test_a_ragged_last_batch_changes_nothing(batch_size: int) -> None:
    torch.manual_seed(3)
    model, (images, labels) = linear_model(), separable()
    whole = model(images)
    found = evaluate(model, TensorBatches(images, labels, batch_size))
    assert (found.total, found.correct) == (23, int((whole.argmax(1) == labels).sum()))
    assert found.loss == pytest.approx(F.cross_entropy(whole, labels).item(), rel=1e-5)
    assert found.accuracy == found.correct / 23


def test_a_mean_of_batch_means_would_be_wrong_here() -> None:
    """The planted mistake: on these ragged batches it gives 0.75 for 0.9."""
    metrics, means = Metrics(), []
    for correct, total in ((9, 9), (0, 1)):
        labels = torch.zeros(total, dtype=torch.long)
        logits = torch.tensor([[1.0, 0.0]] * correct + [[0.0, 1.0]] * (total - correct))
        metrics.update(logits, labels)
        means.append(correct / total)
    assert metrics.accuracy == 0.9 != sum(means) / len(means)


def test_nothing_counted_is_nan_not_zero() -> None:
    assert math.isnan(Metrics().loss) and math.isnan(Metrics().accuracy)


def test_evaluate_uses_eval_mode_and_puts_the_mode_back() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3))
    images, labels = separable()
    for mode in (True, False):
        model.train(mode)
        first, second = (evaluate(model, [(images, labels)]).loss for _ in range(2))
        assert first == second and model.training is mode


def test_evaluate_builds_no_graph() -> None:
    model = linear_model()
    evaluate(model, [separable()])
    assert all(parameter.grad is None for parameter in model.parameters())


# One step, by hand.


def test_one_epoch_is_the_written_out_sequence() -> None:
    images, labels = separable()
    batches = [(images[:10], labels[:10]), (images[10:], labels[10:])]
    torch.manual_seed(1)
    ours, reference = linear_model(), linear_model()
    reference.load_state_dict(ours.state_dict())
    optimizer = torch.optim.AdamW(ours.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    metrics = train_one_epoch(ours, batches, optimizer, scheduler, clip_norm=0.1, label_smoothing=0.1)

    expected, loss_sum = torch.optim.AdamW(reference.parameters(), lr=0.1), 0.0
    for step, (x, y) in enumerate(batches):
        expected.param_groups[0]["lr"] = 0.1 * 0.5**step
        for parameter in reference.parameters():
            parameter.grad = None
        logits = reference(x)
        loss_sum += F.cross_entropy(logits, y, reduction="sum").item()
        F.cross_entropy(logits, y, label_smoothing=0.1).backward()
        norm = torch.cat([parameter.grad.flatten() for parameter in reference.parameters()]).norm()
        assert norm > 0.1, "clipping has something to do"
        for parameter in reference.parameters():
            parameter.grad *= 0.1 / (norm + 1e-6)
        expected.step()
    for mine, other in zip(ours.parameters(), reference.parameters(), strict=True):
        assert_close(mine, other, rtol=1e-5, atol=1e-6)
    assert metrics.total == 23 and metrics.loss == pytest.approx(loss_sum / 23, rel=1e-5)
    assert scheduler.last_epoch == 2  # in steps, not epochs


def test_gradients_do_not_pile_up() -> None:
    images, labels = separable()
    model = linear_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    train_one_epoch(model, [(images, labels)] * 2, optimizer, clip_norm=None)
    twice = [parameter.grad.clone() for parameter in model.parameters()]
    train_one_epoch(model, [(images, labels)], optimizer, clip_norm=None)
    for two, one in zip(twice, model.parameters(), strict=True):
        assert_close(two, one.grad)


def test_training_mode_is_on_during_training() -> None:
    seen: list[bool] = []
    model = linear_model().eval()
    model.register_forward_hook(lambda layer, inputs, output: seen.append(layer.training))
    train_one_epoch(model, [separable()], torch.optim.SGD(model.parameters(), lr=0.1))
    assert seen == [True]


# fit


def test_fit_learns_records_and_calls_back() -> None:
    images, labels = separable()
    records: list[EpochRecord] = []
    model = linear_model()
    history = fit(
        model,
        TensorBatches(images, labels, 5, seed=0),
        TrainingConfig(epochs=30, learning_rate=0.1, warmup_epochs=2.0, precision="fp32"),
        validation=[(images, labels)],
        on_epoch=lambda run: records.append(run.history[-1]),
    )
    assert records == history and [record.epoch for record in history] == list(range(1, 31))
    assert history[-1].validation_accuracy == 1.0 and history[-1].train_loss < history[0].train_loss
    assert history[-1].validation_loss == pytest.approx(evaluate(model, [(images, labels)]).loss)
    rates = [record.learning_rate for record in history]
    assert rates.index(max(rates)) in (1, 2) and rates[-1] < 1e-3


def test_fit_without_validation_says_nan() -> None:
    images, labels = separable()
    history = fit(linear_model(), [(images, labels)], TrainingConfig(epochs=1, learning_rate=0.1))
    assert math.isnan(history[0].validation_loss) and math.isnan(history[0].validation_accuracy)


def test_fit_is_repeatable() -> None:
    def run() -> nn.Module:
        torch.manual_seed(4)
        model, (images, labels) = linear_model(), separable()
        fit(model, TensorBatches(images, labels, 5, seed=1), TrainingConfig(epochs=3, learning_rate=0.1))
        return model

    for one, two in zip(run().parameters(), run().parameters(), strict=True):
        assert_close(one, two, rtol=0, atol=0)


def test_fit_refuses_nothing_to_do() -> None:
    config = TrainingConfig(epochs=1, learning_rate=0.1)
    with pytest.raises(ValueError, match="train has no batches"):
        fit(linear_model(), [], config)
    with pytest.raises(ValueError, match="validation has no batches"):
        fit(linear_model(), [separable()], config, validation=[])
    with pytest.raises(ValueError, match="patience 2 needs validation pictures"):
        fit(linear_model(), [separable()], TrainingConfig(epochs=1, learning_rate=0.1, patience=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup_epochs": 3.0}, "warmup_epochs 3.0: expected 0 to epochs, 2"),
        ({"epochs": 0}, "epochs 0: expected at least 1"),
        ({"accumulate": 0}, "accumulate 0: expected at least 1"),
        ({"patience": 0}, "patience 0: expected at least 1"),
        ({"learning_rate": 0.0}, "learning_rate 0.0: expected a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate nan"),
        ({"weight_decay": -0.1}, "weight_decay -0.1: expected 0 or more"),
        ({"mixup": math.nan}, "mixup nan: expected 0 or more"),
        ({"label_smoothing": 1.0}, "label_smoothing 1.0: expected 0 or more, and below 1"),
        ({"ema_decay": 1.0}, "ema_decay 1.0: expected 0 or more, and below 1"),
        ({"clip_norm": 0.0}, "clip_norm 0.0: expected above 0, or None"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainingConfig(**{"epochs": 2, "learning_rate": 0.1, **settings})


# Optimizer and schedule


def test_decay_spares_norms_biases_tokens_and_positions() -> None:
    model = vit_nano_8(depth=1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in decay_groups(model, 0.3))
    assert [group["weight_decay"] for group in decay_groups(model, 0.3)] == [0.3, 0.0]
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert decayed == {"patch_embed.proj.weight", "head.weight", *(f"blocks.0.{layer}.weight" for layer in layers)}
    assert decayed | spared == set(names.values()) and not decayed & spared
    assert {"cls_token", "pos_embed", "norm.weight", "head.bias"} <= spared


def test_decay_groups_of_torchvisions_vit_spare_the_same() -> None:
    from vitscratch import PRESETS
    from vitscratch.parity import pair_parameters, torchvision_twin

    theirs, mapping = torchvision_twin(PRESETS["vit_nano_8"])
    ours = vit_nano_8()
    to_theirs = {pair.ours: pair.theirs[0] for pair in pair_parameters(ours, theirs, mapping)}
    our_names = {id(p): to_theirs[name] for name, p in ours.named_parameters()}
    their_names = {id(p): name for name, p in theirs.named_parameters()}
    for mine, other in zip(decay_groups(ours, 0.1), decay_groups(theirs, 0.1), strict=True):
        assert {our_names[id(p)] for p in mine["params"]} == {their_names[id(p)] for p in other["params"]}


def test_frozen_parameters_are_left_to_themselves() -> None:
    model = vit_nano_8(depth=1)
    model.patch_embed.requires_grad_(False)
    held = {id(p) for group in decay_groups(model, 0.1) for p in group["params"]}
    assert not held & {id(p) for p in model.patch_embed.parameters()}


def test_adamw_keeps_an_idle_weight_and_adam_with_decay_does_not() -> None:
    """Seed of the mistake: Adam(weight_decay=0.1) takes an idle weight of 0.02 to 0 in seven steps."""

    def after_steps(optimizer: type[torch.optim.Optimizer], steps: int) -> float:
        weight = nn.Parameter(torch.full((1, 1), 0.02))
        step = optimizer([weight], lr=3e-3, weight_decay=0.1)
        for _ in range(steps):
            weight.grad = torch.zeros_like(weight)
            step.step()
        return weight.item()

    assert after_steps(torch.optim.AdamW, 10) > 0.99 * 0.02
    assert after_steps(torch.optim.Adam, 7) < 0.1 * 0.02
    assert isinstance(adamw(linear_model(), 1e-3, 0.1), torch.optim.AdamW)


def test_warmup_cosine_is_the_curve_it_says() -> None:
    factors = [warmup_cosine(step, 10, 110) for step in range(111)]
    assert factors[0] == 0.1 and factors[9] == factors[10] == 1.0
    assert factors[60] == pytest.approx(0.5) and factors[110] == pytest.approx(0.0)
    assert factors[:10] == sorted(factors[:10]) and factors[10:] == sorted(factors[10:], reverse=True)
    assert warmup_cosine(0, 0, 5) == 1.0
    assert warmup_cosine(2, 5, 5) == pytest.approx(0.6)  # nothing but warm-up


@pytest.mark.parametrize(("warmup", "total"), [(-1, 10), (11, 10), (0, 0)])
def test_warmup_cosine_refuses_impossible_lengths(warmup: int, total: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= warm-up <= total"):
        warmup_cosine(0, warmup, total)


def test_history_is_csv(tmp_path) -> None:  # type: ignore[no-untyped-def]
    record = EpochRecord(1, 1e-3, 2.3, 0.1, float("nan"), float("nan"), 0.5, 300.0, 0.25)
    save_history([record], tmp_path / "history.csv")
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines == [
        "epoch,learning_rate,train_loss,train_accuracy,validation_loss,validation_accuracy,seconds,"
        "images_per_second,data_wait",
        "1,0.001,2.3,0.1,nan,nan,0.5,300.0,0.25",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
    (again,) = read_history(tmp_path / "history.csv")
    assert math.isnan(again.validation_loss) and replace(
        again, validation_loss=0.0, validation_accuracy=0.0
    ) == replace(record, validation_loss=0.0, validation_accuracy=0.0)
    parts = [
        replace(record, part="head", validation_loss=0.1, validation_accuracy=1 / 3),
        replace(record, epoch=2, part="all"),
    ]
    save_history(parts, tmp_path / "history.csv")
    assert read_history(tmp_path / "history.csv")[0] == parts[0]
    assert [line.split(",")[-1] for line in (tmp_path / "history.csv").read_text().splitlines()] == [
        "part",
        "head",
        "all",
    ]


def test_a_small_vit_learns_a_batch_by_heart() -> None:
    """The last rung of every ladder: a model that cannot overfit one batch has a mistake, not too little data."""
    images, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    config = TrainingConfig(epochs=100, learning_rate=3e-3, weight_decay=0.0)
    history = fit(vit_nano_8(depth=2), [(images, labels)], config)
    assert history[0].train_loss == pytest.approx(math.log(10), abs=1e-4)
    assert history[-1].train_loss < 0.01 and history[-1].train_accuracy == 1.0
