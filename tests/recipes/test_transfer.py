"""What pretrained weights are worth: the same few pictures for every way, and a test part that nobody learns from."""

from collections import Counter
from typing import Any

import pytest
import torch

from vitscratch.recipes import FineTune
from vitscratch.recipes.digits import Digits
from vitscratch.recipes.experiment import prepare
from vitscratch.recipes.transfer import WAYS, _only, few_of_each, transfer_digits


def test_few_of_each_are_nested_and_balanced() -> None:
    labels = torch.tensor([0, 1, 2] * 11 + [2] * 7)
    many, few = few_of_each(labels, 7, seed=1), few_of_each(labels, 3, seed=1)
    assert Counter(labels[many].tolist()) == {0: 7, 1: 7, 2: 7}
    assert set(few.tolist()) < set(many.tolist()) and len(set(many.tolist())) == 21
    assert set(few_of_each(labels, 3, seed=2).tolist()) != set(few.tolist())
    with pytest.raises(ValueError, match="class 0 has 11 training pictures; expected at least 12"):
        few_of_each(labels, 12, seed=0)


def test_digits_are_divided_by_class_and_counted_from_0() -> None:
    splits = prepare(Digits(validation_fraction=0.0)).splits
    high = _only(splits, range(5, 10))
    assert high.class_names == ("5", "6", "7", "8", "9")
    assert high.validation is None and high.test is not None and splits.test is not None
    expected = splits.test.labels[splits.test.labels >= 5] - 5
    assert torch.equal(high.test.labels, expected)


def test_every_way_is_measured_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[int] = []
    given = FineTune.fit

    def counted(self: FineTune, *arguments: Any, **options: Any) -> Any:
        history = given(self, *arguments, **options)
        epochs.append(len(history))
        return history

    monkeypatch.setattr(FineTune, "fit", counted)
    rows = transfer_digits((5,), 1, pretraining_epochs=5)
    assert len(epochs) == len(WAYS) and len(set(epochs)) == 1
    assert [(row.way, row.per_class, row.seed) for row in rows] == [(way, 5, 0) for way in WAYS]
    assert min(row.accuracy for row in rows) > 0.3  # five classes
    assert len({row.accuracy for row in rows}) > 1
