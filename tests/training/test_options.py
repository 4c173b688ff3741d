"""Every option of the loop does what its docstring says, and is seen to fail when it does not."""

import itertools
import math
import warnings
from copy import deepcopy

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
    MovingAverage,
    NonFiniteLoss,
    TrainingConfig,
    activation_checkpointing,
    balanced_weights,
    best_epoch,
    choose_precision,
    fit,
    mixing,
    random_state,
    seed_everything,
    set_random_state,
    train_one_epoch,
)
from vitscratch.training.history import is_over

Batch = tuple[torch.Tensor, torch.Tensor]


def pictures(n: int = 23) -> Batch:
    labels = torch.arange(n) % 3
    return torch.randn(n, 1, 2, 2) + 3 * F.one_hot(labels, 4)[:, None].reshape(n, 1, 2, 2), labels


def linear_model() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in model.state_dict().values()])


# Gradient accumulation


def test_accumulated_batches_equal_the_big_batch() -> None:
    """Ragged on purpose: 3 + 3 + 3 + 2 pictures. A mean of batch means, or a forgotten division, would differ."""
    images, labels = pictures(11)
    small = [(images[i : i + 3], labels[i : i + 3]) for i in range(0, 11, 3)]
    one, two = linear_model().double(), linear_model().double()
    options = dict(clip_norm=0.1, label_smoothing=0.1, class_weights=torch.tensor([0.5, 1.0, 2.0]).double())
    images, small = images.double(), [(x.double(), y) for x, y in small]
    options["class_weights"] = options["class_weights"].float()
    whole = train_one_epoch(one, [(images, labels)], torch.optim.SGD(one.parameters(), lr=0.1), **options)
    parts = train_one_epoch(two, small, torch.optim.SGD(two.parameters(), lr=0.1), accumulate=4, **options)
    assert_close(weights(one), weights(two), rtol=1e-6, atol=1e-7)  # the loss is taken in float32
    assert whole.total == parts.total == 11 and whole.loss == pytest.approx(parts.loss, rel=1e-6)

    mean_of_means = linear_model().double()
    loss = sum(F.cross_entropy(mean_of_means(x).float(), y, label_smoothing=0.1) for x, y in small) / len(small)
    loss.backward()
    assert float((mean_of_means[1].weight.grad - one[1].weight.grad).abs().max()) > 1e-4


def test_the_last_group_may_be_small_and_steps_are_counted() -> None:
    images, labels = pictures(11)
    batches = [(images[i : i + 2], labels[i : i + 2]) for i in range(0, 11, 2)]  # six
    model, seen = linear_model(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    train_one_epoch(model, batches, optimizer, scheduler, accumulate=4, on_step=seen.append)
    assert seen == [4, 2] and scheduler.last_epoch == 2


# Mixed precision


def test_bf16_is_used_inside_and_float32_outside() -> None:
    model, seen = vit_nano_8(depth=1), []
    nn.init.normal_(model.head.weight)
    model.blocks[0].mlp.fc1.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    batch = (torch.randn(5, 1, 8, 8), torch.arange(5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_one_epoch(model, [batch], optimizer, precision=torch.bfloat16)
    assert seen == [torch.bfloat16]
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())


def test_bf16_follows_float32_roughly_and_not_exactly() -> None:
    grads = []
    for precision in (torch.float32, torch.bfloat16):
        torch.manual_seed(2)
        model = vit_nano_8(depth=2)
        nn.init.normal_(model.head.weight, std=0.1)
        batch = (torch.randn(5, 1, 8, 8), torch.arange(5))
        train_one_epoch(
            model, [batch], torch.optim.SGD(model.parameters(), lr=0.1), precision=precision, clip_norm=None
        )
        grads.append(model.blocks[0].mlp.fc1.weight.grad.flatten())
    assert not torch.equal(*grads)
    assert F.cosine_similarity(*grads, dim=0) > 0.99


def test_fp16_scales_the_loss_and_skips_steps_that_overflow() -> None:
    model = linear_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)  # any gradient overflows
    before = weights(model)
    train_one_epoch(model, [pictures()], optimizer, scaler=scaler, precision=torch.float16)
    assert torch.equal(weights(model), before) and scaler.get_scale() == 2.0**126

    scaled, plain = linear_model(), linear_model()
    for one, scaler in ((scaled, torch.amp.GradScaler("cpu", init_scale=1024.0)), (plain, None)):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        train_one_epoch(one, [pictures()], optimizer, scaler=scaler, clip_norm=0.1)  # clipped after unscaling
    torch.manual_seed(0)
    assert_close(weights(scaled), weights(plain), rtol=0.2, atol=0.05)


def test_clipping_sees_the_unscaled_gradient() -> None:
    ends = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        model = linear_model()
        torch.manual_seed(1)
        batch = pictures()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train_one_epoch(model, [batch], optimizer, scaler=scaler, clip_norm=0.05)
        ends.append(weights(model))
    assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)


def test_auto_precision_looks_at_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for amx, avx in itertools.product((True, False), repeat=2):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
        assert choose_precision("auto", cpu) is (torch.bfloat16 if amx or avx else torch.float32)
    for bf16, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, bf16=bf16: bf16)
        assert choose_precision("auto", cuda) is expected
    assert choose_precision("auto", torch.device("mps")) is torch.float32
    assert choose_precision("bf16", cpu) is torch.bfloat16 and choose_precision("fp16", cuda) is torch.float16


# Moving average


def test_the_moving_average_is_its_formula() -> None:
    model = linear_model()
    average = MovingAverage(model, decay=0.9)
    expected = None
    for i in range(4):
        with torch.no_grad():
            model[1].weight.fill_(i + 1.0)
        average.update(model)
        expected = i + 1.0 if expected is None else 0.9 * expected + 0.1 * (i + 1.0)
    assert_close(average.model[1].weight, torch.full((3, 4), expected))
    assert average.updates == 4 and not average.model.training


def test_the_moving_average_copies_counters() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Flatten())
    average = MovingAverage(model, decay=0.9)
    model(torch.randn(4, 3))
    average.update(model)
    assert int(average.model[0].num_batches_tracked) == 1


def test_fit_validates_and_returns_the_average() -> None:
    images, labels = pictures()
    model = linear_model()
    config = TrainingConfig(epochs=3, learning_rate=0.3, ema_decay=0.99, precision="fp32")
    history = fit(model, TensorBatches(images, labels, 7), config, validation=[(images, labels)])
    assert history[-1].validation_loss == pytest.approx(F.cross_entropy(model(images), labels).item(), rel=1e-5)
    bare = linear_model()
    fit(bare, TensorBatches(images, labels, 7), TrainingConfig(epochs=3, learning_rate=0.3))
    assert float((weights(bare) - weights(model)).abs().max()) > 0.05


# Mixup and cutmix


def test_mixing_blends_pictures_and_labels_alike() -> None:
    images = torch.stack([torch.full((1, 4, 4), float(i)) for i in range(6)])
    labels = torch.arange(6) % 3
    for kind in ("mixup", "cutmix"):
        mix = mixing(3, **{"mixup": 0.0, "cutmix": 0.0, kind: 1.0})
        mixed, targets = mix(images, labels)
        assert mixed.shape == images.shape and targets.shape == (6, 3)
        assert_close(targets.sum(dim=1), torch.ones(6))
        share = (mixed[1].mean() - 1) / (0 - 1)  # picture 1 is blended with picture 0
        assert_close(targets[1, 0], share, rtol=0, atol=1e-5)
    assert mixing(3, 0.0, 0.0) is None and mixing(None, 0.0, 0.0) is None
    with pytest.raises(ValueError, match=r"give num_classes too"):
        mixing(None, 0.2, 0.0)


def test_fit_mixes_if_told_to() -> None:
    images, labels = pictures()
    plain, mixed = linear_model(), linear_model()
    fit(plain, [(images, labels)], TrainingConfig(epochs=5, learning_rate=0.1), num_classes=3)
    fit(mixed, [(images, labels)], TrainingConfig(epochs=5, learning_rate=0.1, mixup=0.8, cutmix=1.0), num_classes=3)
    assert not torch.equal(weights(plain), weights(mixed))


# Activation checkpointing


def test_activation_checkpointing_keeps_less_and_gives_the_same_gradients() -> None:
    def run(checkpointing: bool) -> tuple[list[torch.Tensor], int]:
        torch.manual_seed(6)
        model, kept = vit_nano_8(depth=3, dropout=0.1), []
        nn.init.normal_(model.head.weight)
        images = torch.randn(5, 1, 8, 8)

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor.numel())
            return tensor

        def step() -> None:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                loss = model(images).logsumexp(dim=1).sum()
            forward = sum(kept)
            loss.backward()
            kept[:] = [forward]

        if checkpointing:
            with activation_checkpointing(model):
                step()
        else:
            step()
        return [p.grad for p in model.parameters()], kept[0]

    (plain, all_kept), (again, few_kept) = run(False), run(True)
    for one, two in zip(plain, again, strict=True):
        assert torch.equal(one, two)  # dropout drew the same
    assert few_kept < all_kept / 2  # the last of three blocks keeps what it needs


def test_activation_checkpointing_leaves_the_model_as_it_was() -> None:
    model = vit_nano_8(depth=2)
    config = TrainingConfig(epochs=1, learning_rate=1e-3, activation_checkpointing=True)
    fit(model, [(torch.randn(3, 1, 8, 8), torch.arange(3))], config)
    assert all("forward" not in vars(block) for block in model.blocks)
    with pytest.raises(ValueError, match="no list of equal blocks"), activation_checkpointing(linear_model()):
        pass
    counting = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(3)])
    with pytest.raises(ValueError, match="BatchNorm would count each batch twice"), activation_checkpointing(counting):
        pass


# Compiling


def test_fit_compiles_the_model_and_returns_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    model = linear_model()
    fit(model, [pictures()], TrainingConfig(epochs=2, learning_rate=0.1, compile=True))
    assert compiled == [model]


# Early stopping


def record(epoch: int, loss: float, accuracy: float = 0.5) -> EpochRecord:
    return EpochRecord(epoch, 1e-3, 1.0, 0.5, loss, accuracy, 1.0, 100.0, 0.0)


def test_best_epoch_is_the_first_of_equals_and_never_nan() -> None:
    history = [record(i + 1, loss, accuracy) for i, (loss, accuracy) in enumerate(
        [(math.nan, 0.1), (0.9, 0.7), (0.5, 0.6), (0.5, 0.9), (0.8, 0.9)]
    )]  # fmt: skip
    assert best_epoch(history, "validation_loss") == 3
    assert best_epoch(history, "validation_accuracy") == 4
    assert best_epoch([record(1, math.nan)], "validation_loss") is None and best_epoch([], "validation_loss") is None


@pytest.mark.parametrize(
    ("losses", "patience", "stops_after"),
    [
        ([1.0, 0.9, 0.95, 0.92, 0.8], 2, 4),
        ([1.0, 0.9, 0.95, 0.89, 0.95, 0.95, 0.95], 3, 7),
        ([1.0, 1.0, 1.0], 2, 3),  # equal is not better
        ([1.0, 2.0], 1, 2),
        ([5.0, 4.0, 3.0], 1, None),
        ([math.nan, math.nan, math.nan], 2, 2),
    ],
)
def test_patience(losses: list[float], patience: int, stops_after: int | None) -> None:
    history = [record(i + 1, loss) for i, loss in enumerate(losses)]
    stops = [i for i in range(len(losses) + 1) if is_over(history[:i], "validation_loss", patience)]
    assert (stops[0] if stops else None) == stops_after
    assert not is_over(history, "validation_loss", None)


def test_fit_stops_early_and_keeps_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scripted validation curve: the best epoch is the second, and its weights are the ones returned."""
    from vitscratch.training import loop

    images, labels = pictures()
    model, curve, after_epoch = linear_model(), iter([0.9, 0.4, 0.6, 0.5, 0.1]), []

    def scripted(measured: nn.Module, batches: object, precision: torch.dtype) -> Metrics:
        after_epoch.append(weights(measured))
        metrics = Metrics()
        metrics.load_state_dict(
            {"total": 1, "loss_sum": torch.tensor(next(curve)), "counts": torch.zeros(2, 3, dtype=torch.long)}
        )
        return metrics

    monkeypatch.setattr(loop, "evaluate", scripted)
    config = TrainingConfig(epochs=9, learning_rate=0.3, patience=2)
    history = fit(model, [(images, labels)], config, validation=[(images, labels)])
    assert [round(r.validation_loss, 3) for r in history] == [0.9, 0.4, 0.6, 0.5]
    assert best_epoch(history, "validation_loss") == 2
    assert torch.equal(weights(model), after_epoch[1]) and not torch.equal(weights(model), after_epoch[-1])


# Class weights and metrics per class


def test_balanced_weights_let_every_class_count_the_same() -> None:
    labels = torch.tensor([0] * 7 + [1] * 2 + [2])
    found = balanced_weights(labels, 3)
    assert_close(found[labels].mean(), torch.tensor(1.0))
    assert_close(found * torch.bincount(labels), torch.full((3,), 10 / 3))
    with pytest.raises(ValueError, match=r"classes \[3\] have no training picture"):
        balanced_weights(labels, 4)


def test_class_weights_scale_each_pictures_loss() -> None:
    images, labels = pictures(8)
    factor = torch.tensor([0.5, 1.0, 2.0])
    model, reference = linear_model(), linear_model()
    train_one_epoch(
        model, [(images, labels)], torch.optim.SGD(model.parameters(), lr=0.1), clip_norm=None, class_weights=factor
    )
    (factor[labels] * F.cross_entropy(reference(images), labels, reduction="none")).mean().backward()
    assert_close(model[1].weight.grad, reference[1].weight.grad)


def test_metrics_count_each_class() -> None:
    metrics = Metrics()
    logits = torch.eye(4)[torch.tensor([0, 1, 1, 2, 0, 3, 3])]
    labels = torch.tensor([0, 1, 2, 2, 1, 3, 3])
    metrics.update(logits[:5], labels[:5])
    metrics.update(logits[5:], labels[5:])
    assert metrics.per_class == [(1, 1), (1, 2), (1, 2), (2, 2)]
    assert (metrics.correct, metrics.total, metrics.accuracy) == (5, 7, 5 / 7)
    assert Metrics().per_class == []


def test_metrics_do_not_drift_over_many_batches() -> None:
    """A sum in float32 stops growing at 2**24 pictures of loss 1; this one does not."""
    metrics = Metrics()
    metrics.load_state_dict(
        {"total": 2**25, "loss_sum": torch.tensor(2.0**25, dtype=torch.float64), "counts": torch.zeros(2, 2).long()}
    )
    metrics.update(torch.tensor([[0.0, math.log(math.e - 1)]]), torch.tensor([0]))
    assert metrics.state_dict()["loss_sum"] == pytest.approx(2.0**25 + 1, abs=1e-6)


# Nothing makes the device wait


def test_no_step_reads_a_value_from_the_device() -> None:
    """On the meta device there are no values: whatever reads one (item, a printed loss, an if) raises."""
    model = vit_nano_8(depth=2).to("meta")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    batches = [(torch.empty(5, 1, 8, 8), torch.zeros(5, dtype=torch.long))] * 3
    average = MovingAverage(model, 0.9)
    average.update(model)
    metrics = train_one_epoch(model, batches, optimizer, scheduler, label_smoothing=0.1, accumulate=2, average=average)
    assert metrics.total == 15
    with pytest.raises(RuntimeError, match="meta"):
        metrics.loss  # noqa: B018  (the planted read)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: counts its synchronisations")
def test_no_step_makes_a_gpu_wait() -> None:
    from vitscratch.training import adamw

    model = vit_nano_8(depth=2).cuda()
    optimizer, average = adamw(model, 1e-3, 0.1), MovingAverage(model, 0.9)
    batches = [(torch.randn(5, 1, 8, 8, device="cuda"), torch.arange(5, device="cuda"))] * 5
    train_one_epoch(model, batches, optimizer, average=average)  # first use allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches[0][0].add_(0)
        for precision, scaler in ((torch.bfloat16, None), (torch.float16, torch.amp.GradScaler("cuda"))):
            steps: list[int] = []
            try:
                train_one_epoch(
                    model, batches, optimizer, precision=precision, scaler=scaler, average=average, on_step=steps.append
                )
            except RuntimeError:  # the wait for the last verdicts, when the steps are over
                assert len(steps) == 5
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Losses that are not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_that_very_step(bad: float) -> None:
    images, labels = pictures(12)
    images[9] = bad  # in the third batch of four
    model, seen = linear_model(), []
    batches = [(images[i : i + 4], labels[i : i + 4]) for i in range(0, 12, 4)]
    reference = linear_model()
    train_one_epoch(reference, batches[:2], torch.optim.SGD(reference.parameters(), lr=0.1))
    with pytest.raises(NonFiniteLoss) as caught:
        train_one_epoch(model, batches, torch.optim.SGD(model.parameters(), lr=0.1), on_step=seen.append)
    assert seen == [1, 1] and torch.equal(weights(model), weights(reference))
    assert torch.equal(caught.value.labels, labels[8:])


def test_a_fused_optimizer_leaves_the_weights_alone_when_told_so() -> None:
    """What keeps a bad step from the weights on a GPU, where the verdict comes later."""
    from vitscratch.training import adamw

    model = linear_model()
    optimizer = adamw(model, 0.1, 0.1)
    for found, moved in ((0.0, True), (1.0, False)):
        before = weights(model)
        model(pictures()[0]).sum().backward()
        optimizer.found_inf = torch.tensor(found)
        optimizer.step()
        assert torch.equal(weights(model), before) is not moved


# Adam with weight decay


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam])
def test_adam_with_weight_decay_is_explained(kind: type[torch.optim.Optimizer]) -> None:
    model = linear_model()
    with pytest.warns(UserWarning, match=r"weight_decay=0.1\) adds the decay to the gradient.* gone in 7 steps"):
        train_one_epoch(model, [pictures()], kind(model.parameters(), lr=3e-3, weight_decay=0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_one_epoch(model, [pictures()], kind(model.parameters(), lr=3e-3))
        train_one_epoch(model, [pictures()], torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1))
        train_one_epoch(model, [pictures()], torch.optim.SGD(model.parameters(), lr=3e-3, weight_decay=0.1))


# Seeds


def test_random_states_come_back_for_every_generator() -> None:
    import random

    import numpy as np

    def draw() -> list[float]:
        return [
            random.random(),
            random.gauss(0, 1),
            float(np.random.rand()),
            float(np.random.randn()),
            float(torch.rand(())),
        ]

    seed_everything(7)
    random.gauss(0, 1)
    np.random.randn()  # both keep a second number for the next call
    state = deepcopy(random_state())
    first = draw()
    draw()
    set_random_state(state)
    assert draw() == first
    seed_everything(7)
    again = draw()
    seed_everything(8)
    assert draw() != again


def test_deterministic_is_told_to_torch() -> None:
    try:
        seed_everything(0, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        seed_everything(0)
    assert not torch.are_deterministic_algorithms_enabled()
