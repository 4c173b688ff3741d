"""Labels and batches that cannot be trained on: one line of ours, and no step taken."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from vitscratch.training import TrainingConfig, evaluate, fit, train_one_epoch
from vitscratch.training.inputs import gpu_labels_explained

Batch = tuple[torch.Tensor, torch.Tensor]
ONCE = TrainingConfig(epochs=1, learning_rate=0.1)


def model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5))


def labelled(*labels: Any, dtype: torch.dtype = torch.int64) -> Batch:
    return torch.randn(len(labels), 1, 2, 3), torch.tensor(labels, dtype=dtype)


def train(net: nn.Module, batches: list[Batch]) -> None:
    train_one_epoch(net, batches, torch.optim.SGD(net.parameters(), lr=0.1))


def mixed(net: nn.Module, batches: list[Batch]) -> None:
    fit(net, batches, TrainingConfig(epochs=1, learning_rate=0.1, mixup=0.5), num_classes=5)


USES: dict[str, Callable[[nn.Module, list[Batch]], Any]] = {
    "fit": lambda net, batches: fit(net, batches, ONCE),
    "validation": lambda net, batches: fit(net, [labelled(0, 1)], ONCE, validation=batches),
    "evaluate": evaluate,
    "train_one_epoch": train,
    "mixup": mixed,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (labelled(0, 5, 1), "label 5 does not go with 5 logits; expected 0 to 4: count classes from 0, or build the"),
        (labelled(3, -1, 7), "label -1 does not go with 5 logits"),
        (labelled(3, -100, 1), "label -100 does not go with 5 logits"),  # which cross_entropy would leave out
        (labelled(0.0, 1.0, dtype=torch.float32), "labels are torch.float32 (2,); expected class numbers, torch.int64"),
        (labelled([1], [2]), "labels are torch.int64 (2, 1); expected class numbers, torch.int64 (2,)"),
    ],
)
def test_labels_that_are_no_class_numbers_are_named(use: str, batch: Batch, message: str) -> None:
    net = model()
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        USES[use](net, [batch])
    assert "\n" not in str(caught.value)


def test_the_batches_before_the_bad_one_count_and_it_takes_no_step() -> None:
    net, twin = model(), model()
    twin.load_state_dict(net.state_dict())
    good = labelled(0, 1, 4)
    train(twin, [good])
    with pytest.raises(ValueError, match="label 9"):
        train(net, [good, labelled(0, 9)])
    for one, two in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_outputs_that_are_no_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("the model returned (3, 1, 2, 5); expected logits (pictures, ")):
        evaluate(nn.Linear(3, 5), [labelled(0, 1, 2)])


class Endless(IterableDataset[Batch]):
    def __iter__(self) -> Iterator[Batch]:
        yield labelled(0, 1)


@pytest.mark.parametrize(
    ("batches", "kind"),
    [((batch for batch in [labelled(0, 1)]), "generator"), (DataLoader(Endless(), batch_size=None), "DataLoader")],
)
def test_batches_without_a_length_are_refused(batches: Any, kind: str) -> None:
    unchecked = inspect.unwrap(fit)  # beartype would forestall the message
    with pytest.raises(ValueError, match=f"train is a {kind} without a length; expected batches that can be counted"):
        unchecked(model(), batches, ONCE)
    with pytest.raises(ValueError, match=f"validation is a {kind} without a length"):
        unchecked(model(), [labelled(0, 1)], ONCE, validation=batches)


def test_what_a_gpu_says_of_labels_is_translated_and_nothing_else() -> None:
    with pytest.raises(ValueError, match="most likely a label outside 0 to classes - 1"), gpu_labels_explained():
        raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ...")
    with pytest.raises(RuntimeError, match="something else"), gpu_labels_explained():
        raise RuntimeError("something else")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_labels_on_the_cpu_are_checked_for_a_gpu() -> None:
    with pytest.raises(ValueError, match="label 5 does not go with 5 logits"):
        train(model().cuda(), [labelled(0, 5)])
    with pytest.raises(ValueError, match=re.escape("labels are torch.float32 (2,)")):
        train(model().cuda(), [(labelled(0, 5)[0], torch.zeros(2, device="cuda"))])
