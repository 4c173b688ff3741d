"""The benchmark's arithmetic, on made-up times, and its machinery on tiny models. Nothing here depends on speed."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vitscratch import ViTConfig
from vitscratch.bench import OURS, PEERS, Ratio, build_peer, interleaved, measure, timing
from vitscratch.bench import compare as comparing
from vitscratch.bench import peers as peers_module
from vitscratch.bench.memory import peak_memory
from vitscratch.bench.peers import CHECKPOINTED
from vitscratch.bench.steps import Work, count_parameters, make_step
from vitscratch.parity import awaken

# 12 pixels, patches of 4: 10 tokens with the class token. Squares, for torchvision.
TINY = ViTConfig(12, 4, 3, 7, embed_dim=15, depth=3, num_heads=3, mlp_dim=29)
INFER, TRAIN = Work(TINY, training=False, batch_size=5), Work(TINY, training=True, batch_size=5)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only moves when a step says so."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    return clock


def test_interleaved_counts_the_rounds_and_runs_every_second_one_backwards(clock: SimpleNamespace) -> None:
    ran: list[str] = []

    def step(name: str, seconds: float) -> None:
        ran.append(name)
        clock.now += seconds * len(ran)  # the machine slows down

    steps = {"a": lambda: step("a", 1.0), "b": lambda: step("b", 2.0)}
    rounds: list[int] = []
    times = interleaved(steps, rounds=3, warm_up=2, on_round=lambda: rounds.append(len(ran)))
    assert rounds == [6, 8, 10]
    assert ran == list("abababbaab")
    assert times == {"a": [5.0, 8.0, 9.0], "b": [12.0, 14.0, 20.0]}


def test_short_steps_are_repeated_equally_often_and_timed_apiece(clock: SimpleNamespace) -> None:
    ran: list[str] = []

    def step(name: str, seconds: float) -> None:
        ran.append(name)
        clock.now += seconds

    steps = {"a": lambda: step("a", 0.001), "b": lambda: step("b", 0.002)}
    times = interleaved(steps, rounds=2, warm_up=1)
    assert ran[2:] == ["a"] * 10 + ["b"] * 20 + ["a"] * 10  # 20 ms of the slower one
    assert times == {"a": pytest.approx([0.001] * 2), "b": pytest.approx([0.002] * 2)}


def test_ratio_is_taken_round_by_round() -> None:
    theirs, ours = [2.0, 30.0, 3.0, 5.0, 9.0], [1.0, 10.0, 2.0, 5.0, 1.0]
    assert Ratio.of(theirs, ours) == Ratio(median=2.0, low=1.5, high=3.0)  # of 2, 3, 1.5, 1 and 9
    assert Ratio.of(ours, theirs).median == 0.5
    with pytest.raises(ValueError, match="shorter"):
        Ratio.of(theirs, ours[:4])


def test_matmul_rate_counts_two_operations_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []

    def randn(*shape: int, device: str) -> Tensor:
        sides.append(shape[0])
        return torch.zeros(1)

    monkeypatch.setattr(timing.torch, "randn", randn)
    monkeypatch.setattr(timing, "interleaved", lambda steps, *rest: {name: [1.0, 0.5] for name in steps})
    assert timing.matmul_flops("cpu", torch.float32) == 2 * max(sides) ** 3 / 0.5  # the best run counts


@pytest.mark.parametrize("training", [False, True])
def test_executed_flops_are_those_counted_by_running(training: bool) -> None:
    work = replace(INFER, training=training)
    images, labels = work.batch()
    for peer in (OURS, "timm", CHECKPOINTED) if training else (OURS, "timm"):
        model = build_peer(peer, work.config).train(training)
        for block in model.blocks:  # torch's counter knows the products of the readable form
            block.attn.fused = block.attn.fused_attn = False
        with FlopCounterMode(display=False) as counter:
            logits = model(images)
            if training:
                nn.functional.cross_entropy(logits, labels).backward()
        assert counter.get_total_flops() == work.executed_flops(peer), peer
    assert TRAIN.flops == 3 * INFER.flops == 15 * TINY.flops


def test_rows_hold_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([4e12, 5e12])
    monkeypatch.setattr(comparing, "matmul_flops", lambda *arguments: next(rates))
    monkeypatch.setattr(
        comparing,
        "interleaved",
        lambda steps, rounds, device, on_round: {
            OURS: [0.5, 0.25, 0.5],
            "torchvision": [1.0, 1.0, 0.75],
            "timm": [0.5] * 3,
        },
    )
    bench = measure(INFER, ["torchvision", "timm"], modes=["eager"], rounds=3, memory=False, stated_flops=10e12)
    ours, torchvision, timm = bench.rows
    assert bench.peak_flops == 5e12  # the better of two measurements
    assert (ours.seconds, ours.images_per_second, ours.ratio) == (0.5, 10.0, Ratio(1.0, 1.0, 1.0))
    assert (torchvision.seconds, torchvision.images_per_second) == (1.0, 5.0)
    assert torchvision.ratio == Ratio(2.0, 1.75, 3.0)  # of 2, 4 and 1.5
    assert timm.ratio == Ratio(1.0, 1.0, 1.5)
    flops = 5 * TINY.flops
    assert ours.mfu == pytest.approx(flops / 0.5 / 5e12) and ours.stated_mfu == pytest.approx(flops / 0.5 / 10e12)
    assert ours.executed_mfu == pytest.approx(5 * TINY.executed_flops / 0.5 / 5e12)
    assert ours.executed_mfu < ours.mfu
    assert torchvision.executed_mfu == torchvision.mfu == pytest.approx(flops / 1.0 / 5e12)
    assert ours.parameters == torchvision.parameters == timm.parameters == TINY.num_parameters
    assert ours.memory_bytes is None
    assert bench.to_json()["rows"][1]["ratio"] == {"median": 2.0, "low": 1.75, "high": 3.0}


@pytest.mark.parametrize("work", [INFER, TRAIN, replace(TRAIN, dtype="bf16")], ids=["infer", "train", "train bf16"])
def test_a_real_measurement(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)  # compiling is tried in test_without_hook.py
    monkeypatch.setattr(comparing, "matmul_flops", lambda *arguments: 1e12)
    bench = measure(work, ["torchvision", "timm"], rounds=2, memory=False, checkpointing=True)
    names = [OURS, "torchvision", "timm", *([CHECKPOINTED] if work.training else [])]
    assert [(row.mode, row.model) for row in bench.rows] == [
        *(("eager", name) for name in names),
        *(("compiled", name) for name in names if name != CHECKPOINTED),
    ]
    assert bench.failures == {}
    assert all(row.seconds > 0 and row.ratio.low <= row.ratio.median <= row.ratio.high for row in bench.rows)
    assert all(row.stated_mfu is None and row.mfu > 0 for row in bench.rows)


def test_a_training_step_is_adamws_and_an_inference_step_leaves_no_graph() -> None:
    torch.manual_seed(0)
    model = build_peer(OURS, TINY).train()
    images, labels = TRAIN.batch()
    offsets = [name for name, p in model.named_parameters() if p.dim() < 2 or name in ("cls_token", "pos_embed")]
    decayed = [p for name, p in model.named_parameters() if name not in offsets]
    spared = {"params": [p for name, p in model.named_parameters() if name in offsets], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([{"params": decayed}, spared], lr=1e-4, weight_decay=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    step = make_step(TRAIN, OURS, images, labels, compiled=False)
    step()
    step()
    assert_close(step().detach(), model(images).detach(), rtol=0, atol=1e-5)
    assert make_step(INFER, OURS, images, labels, compiled=False)().is_inference()


def test_a_peer_that_fails_gets_no_row_and_ours_may_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "matmul_flops", lambda *arguments: 1e12)
    monkeypatch.setitem(PEERS, "timm", lambda config: nn.Sequential(nn.Flatten(), nn.Linear(432, 6)))
    bench = measure(INFER, ["torchvision", "timm"], modes=["eager"], rounds=2, memory=False)
    assert [row.model for row in bench.rows] == [OURS, "torchvision"]
    assert bench.failures == {"timm, eager": "logits of shape (5, 6); expected (5, 7)"}
    monkeypatch.setattr(peers_module.VisionTransformer, "forward", lambda self, images: images.fail())
    with pytest.raises(AttributeError):
        measure(INFER, [], modes=["eager"], rounds=2, memory=False)


def test_both_loads_give_the_same_model_and_rise_counts_what_they_take(tmp_path: Path) -> None:
    from vitscratch.bench.loading import _Load, _peak

    config = replace(TINY, embed_dim=768, num_heads=12, mlp_dim=3072, depth=1)
    path = tmp_path / "weights.pth"
    torch.save(build_peer("torchvision", config).state_dict(), path)
    theirs = _peak(_Load("torchvision", config, path, True), _Load("torchvision", config, path, False))
    assert theirs > 1.5 * 4 * config.num_parameters  # drawn, and read: 27 MB each


@pytest.mark.parametrize("name", ["transformers", "vit-pytorch"])
def test_optional_peers_have_our_sizes(name: str) -> None:
    pytest.importorskip(name.replace("-", "_"), reason=f"{name} is not installed (pip install 'vitscratch[bench]')")
    config = replace(TINY, embed_dim=16, num_heads=2)
    model = build_peer(name, config)
    assert model(torch.randn(2, 3, 12, 12)).shape == (2, 7)
    if name == "transformers":
        assert count_parameters(config, name) == config.num_parameters
        assert model.model.config._attn_implementation == "sdpa"


def test_checkpointing_changes_no_gradient_and_keeps_the_last_block_short() -> None:
    models = [build_peer(name, TINY) for name in (OURS, CHECKPOINTED)]
    found = []
    for model in models:
        awaken(model)
        logits = model.train()(TRAIN.batch()[0])
        found.append([logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))])
    assert_close(found[1], found[0], rtol=0, atol=0)


def test_memory_of_training_is_more_than_of_inference() -> None:
    """In processes of their own: weights alone against weights, gradients and two moments; 27 MB each."""
    config = replace(TINY, embed_dim=768, num_heads=12, mlp_dim=3072, depth=1)
    infer, train = (
        peak_memory(Work(config, training, batch_size=1), OURS, compiled=False) for training in (False, True)
    )
    assert infer is not None and train is not None
    weights = 4 * config.num_parameters
    assert 0.9 * weights < infer < 2 * weights and 3.6 * weights < train < 6 * weights
    assert peak_memory(Work(config, True, batch_size=1), OURS, compiled=True) is None  # cannot be told on the CPU


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: measure(INFER, [], rounds=1), ValueError, "rounds 1: expected at least 2"),
        (lambda: measure(INFER, [], modes=["fast"]), ValueError, "mode 'fast' is unknown; there are eager and comp"),
        (lambda: interleaved({}, rounds=0), ValueError, "rounds 0, warm-up 2: expected at least 1 of each"),
        (lambda: build_peer("keras", TINY), ValueError, "peer 'keras' is unknown; there are torchvision, timm"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"timm is not installed; pip install 'vitscratch\[bench\]' brings it"):
        build_peer("timm", TINY)
