"""Training a pretrained model in four ways: what moves, what is counted, what is kept, and that it can be resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vitscratch import VisionTransformer
from vitscratch.config import TrainingConfig
from vitscratch.data import TensorBatches
from vitscratch.parity import awaken
from vitscratch.training import Checkpoints, Interrupted, Run, best_epoch, evaluate, read_checkpoint
from vitscratch.transfer import fine_tune, replace_head, train_all, train_head, train_last

CONFIG = TrainingConfig(epochs=3, learning_rate=1e-3, warmup_epochs=1.0)


def pretrained() -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(8, 4, 1, 5, 12, 3, 2, 20)
    awaken(model)
    replace_head(model, 3)
    return model


def batches(seed: int | None = 0) -> TensorBatches:
    generator = torch.Generator().manual_seed(7)
    labels = torch.arange(35) % 3
    images = torch.rand(35, 1, 8, 8, generator=generator) + labels[:, None, None, None]
    return TensorBatches(images, labels, 8, seed=seed, device="cpu")


def weights(model: VisionTransformer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(before: dict[str, Tensor], model: VisionTransformer) -> set[str]:
    """First words of the names of what changed; blocks with their number."""
    names = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    return {".".join(name.split(".")[: 2 if name.startswith("blocks") else 1]) for name in names}


ALL = {"cls_token", "pos_embed", "patch_embed", "blocks.0", "blocks.1", "blocks.2", "norm", "head"}


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (train_head, {"head"}),
        (lambda *given: train_last(*given, last=2), {"blocks.1", "blocks.2", "norm", "head"}),
        (train_all, ALL),
        (fine_tune, ALL),
    ],
)
def test_what_is_trained_moves_and_nothing_else(train: Any, expected: set[str]) -> None:
    model = pretrained()
    before = weights(model)
    train(model, batches(), CONFIG)
    assert moved(before, model) == expected
    assert evaluate(model, batches(None)).accuracy > 0.6  # of three classes that differ in brightness


def test_the_body_waits_for_the_head() -> None:
    model = pretrained()
    before = weights(model)
    seen: list[tuple[int, set[str]]] = []

    def look(run: Run) -> None:
        seen.append((run.epoch, moved(before, model)))
        assert [record.epoch for record in run.history] == list(range(1, run.epoch + 1))

    history = fine_tune(model, batches(), CONFIG, head_epochs=2, on_epoch=look)
    assert seen == [(1, {"head"}), (2, {"head"}), (3, ALL), (4, ALL), (5, ALL)]
    assert [record.epoch for record in history] == [1, 2, 3, 4, 5]
    assert history[0].learning_rate > 5 * CONFIG.learning_rate >= history[2].learning_rate


def test_lower_layers_learn_more_slowly() -> None:
    def change(decay: float) -> dict[str, float]:
        model = pretrained()
        before = weights(model)
        train_all(model, batches(), CONFIG, decay)
        return {name: float((model.state_dict()[name] - before[name]).abs().mean()) for name in before}

    alike, layered = change(1.0), change(0.1)
    name = "blocks.{}.attn.qkv.weight"
    assert layered[name.format(0)] < 0.05 * alike[name.format(0)]
    assert layered[name.format(2)] > 2 * layered[name.format(1)] > 4 * layered[name.format(0)]


def test_the_best_epoch_of_both_parts_is_kept() -> None:
    model, validation = pretrained(), batches(None)
    ruinous = TrainingConfig(epochs=2, learning_rate=0.3, patience=2, clip_norm=None, precision="fp32")
    after_head: dict[str, Tensor] = {}

    def keep(run: Run) -> None:
        if run.epoch == 2:
            after_head.update(weights(model))

    options: Any = dict(head_epochs=2, head_learning_rate=1e-2, validation=validation)
    history = fine_tune(model, batches(), ruinous, on_epoch=keep, layer_decay=1.0, **options)
    losses = [record.validation_loss for record in history]
    assert min(losses) == losses[1] and min(losses[2:]) > losses[1]
    assert_close(weights(model), after_head, rtol=0, atol=0)
    assert_close(evaluate(model, validation).loss, losses[1])


@pytest.mark.parametrize(("rate", "best"), [(0.3, "head"), (1e-3, "all")])
@pytest.mark.parametrize("interrupted", [False, True])
def test_best_is_of_both_parts(rate: float, best: str, interrupted: bool, tmp_path: Path) -> None:
    config = TrainingConfig(epochs=2, learning_rate=rate, clip_norm=None)
    seen: list[dict[str, Tensor]] = []
    checkpoints = Checkpoints(tmp_path / "run")

    def keep(run: Run) -> None:
        seen.append(weights(run.model))
        assert [record.part for record in run.history] == ["head", "head", "all", "all"][: run.epoch]

    def stop(run: Run) -> None:
        if interrupted and run.epoch == 3:
            checkpoints.stop.signal_number = 15

    options: Any = dict(head_epochs=2, head_learning_rate=1e-2, validation=batches(None), layer_decay=1.0)
    tuned = pretrained()
    if interrupted:
        with pytest.raises(Interrupted):
            fine_tune(tuned, batches(), config, checkpoints=checkpoints, on_step=stop, on_epoch=keep, **options)
        checkpoints, tuned = Checkpoints(tmp_path / "run"), pretrained()
    history = fine_tune(tuned, batches(), config, checkpoints=checkpoints, on_epoch=keep, **options)
    epoch = best_epoch(history, "validation_loss")
    assert epoch is not None and history[epoch - 1].part == best
    kept = read_checkpoint(tmp_path / "run" / "best.pt")
    assert kept["epoch"] == epoch
    assert_close(kept["model"], seen[epoch - 1], rtol=0, atol=0)


@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
def test_an_interrupted_run_goes_on_to_the_same_weights(epoch: int, tmp_path: Path) -> None:
    undisturbed = pretrained()
    torch.manual_seed(1)
    expected = fine_tune(undisturbed, batches(), CONFIG, checkpoints=Checkpoints(tmp_path / "one"))
    checkpoints = Checkpoints(tmp_path / "two")

    def stop(run: Run) -> None:
        if run.epoch == epoch and run.batch == 2:
            checkpoints.stop.signal_number = 15

    torch.manual_seed(1)
    with pytest.raises(Interrupted):
        fine_tune(pretrained(), batches(), CONFIG, checkpoints=checkpoints, on_step=stop)
    model = pretrained()
    torch.manual_seed(999)
    history = fine_tune(model, batches(), CONFIG, checkpoints=Checkpoints(tmp_path / "two"))
    assert_close(weights(model), weights(undisturbed), rtol=0, atol=0)
    assert [record.train_loss for record in history] == [record.train_loss for record in expected]
