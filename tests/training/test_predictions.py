"""Kept predictions agree with what `evaluate` counts."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vitscratch.data import TensorBatches
from vitscratch.training import evaluate, predictions


def test_they_give_the_metrics_again_in_eval_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(15, 7), nn.BatchNorm1d(7), nn.Dropout(0.5), nn.Linear(7, 3)).train()
    images, labels = torch.randn(23, 1, 3, 5), torch.arange(23) % 3
    batches = TensorBatches(images, labels, 5)
    probabilities, seen = predictions(model, batches)
    assert model.training and torch.equal(seen, labels)
    assert_close(probabilities.sum(dim=1), torch.ones(23))
    metrics = evaluate(model, batches)
    assert_close(float(-probabilities.log()[torch.arange(23), labels].mean()), metrics.loss, rtol=1e-5, atol=0)
    assert int((probabilities.argmax(dim=1) == labels).sum()) == metrics.correct


def test_nothing_to_predict_is_an_error() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        predictions(nn.Linear(2, 2), [])
