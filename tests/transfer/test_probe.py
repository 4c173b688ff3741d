"""Linear probes: equal to the loop that they stand for; and a sweep that chooses by validation pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from tests.transfer.test_features import noise, tiny
from vitscratch.config import TrainingConfig
from vitscratch.data import Preprocessing, make_batches
from vitscratch.training import balanced_weights, evaluate, fit
from vitscratch.transfer import extract_features, linear_probe, logistic_probe, probe, replace_head

PREPARE = Preprocessing((8, 12), 3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
CONFIG = TrainingConfig(epochs=3, learning_rate=0.05, warmup_epochs=0.7, label_smoothing=0.1, precision="fp32", seed=5)


class Frozen(nn.Module):
    """The plain loop's model: no gradients but the head's, and eval mode whatever the loop says."""

    def __init__(self, model: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        head.requires_grad_(True)

    def train(self, mode: bool = True) -> "Frozen":
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


def vit() -> nn.Module:
    return tiny(dropout=0.3)


def resnet() -> nn.Module:
    """With running statistics that differ from a batch's."""
    from torchvision.models.resnet import BasicBlock, ResNet

    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


@pytest.mark.parametrize("build", [vit, resnet])
@pytest.mark.parametrize(
    "changes",
    [{}, {"ema_decay": 0.8, "accumulate": 2, "clip_norm": 0.1, "patience": 2, "activation_checkpointing": True}],
    ids=["plain", "options"],
)
def test_the_probe_equals_the_plain_frozen_loop(build: object, changes: dict[str, object]) -> None:
    config = replace(CONFIG, **changes)
    train, validation = noise(29), noise(13)
    weights = balanced_weights(train.labels, 5)

    def new() -> tuple[nn.Module, nn.Linear]:
        torch.manual_seed(1)
        model = build()
        return model, replace_head(model, 5)

    model, head = new()
    history = fit(
        Frozen(model, head),
        make_batches(train, PREPARE, 7, seed=config.seed),
        replace(config, activation_checkpointing=False),
        validation=make_batches(validation, PREPARE, 7),
        class_weights=weights,
    )
    ours, our_head = new()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    (features, labels), of_validation = (
        extract_features(ours, make_batches(part, PREPARE, 7)) for part in (train, validation)
    )
    records = linear_probe(
        ours, features, labels, config, batch_size=7, validation=of_validation, class_weights=weights
    )
    assert_close(our_head.weight, head.weight, rtol=0, atol=1e-5)
    assert_close(our_head.bias, head.bias, rtol=0, atol=1e-5)
    images = next(iter(make_batches(validation, PREPARE, 13)))[0]
    assert_close(ours.eval()(images), model.eval()(images), rtol=1e-5, atol=1e-5)
    assert float(head.weight.detach().abs().max()) > 0.05  # it has learned something
    for one, other in zip(records, history, strict=True):
        assert_close(one.train_loss, other.train_loss, rtol=1e-5, atol=1e-5)
        assert_close(one.validation_loss, other.validation_loss, rtol=1e-5, atol=1e-5)
    for name, value in ours.state_dict().items():
        if not name.startswith(("head", "fc")):
            assert torch.equal(value, before[name]), name
    shuffled, _ = new()
    linear_probe(
        shuffled,
        features.flip(0),
        labels.flip(0),
        config,
        batch_size=7,
        validation=of_validation,
        class_weights=weights,
    )
    assert not torch.allclose(shuffled(images), model(images), atol=1e-4)  # another order would have been seen


def test_bf16_probes_equal_the_plain_loop_too() -> None:
    config, train = TrainingConfig(epochs=3, learning_rate=0.05, precision="bf16"), noise(29)
    models = [vit(), vit()]
    models[1].load_state_dict(models[0].state_dict())
    heads = [replace_head(model, 5) for model in models]
    fit(Frozen(models[0], heads[0]), make_batches(train, PREPARE, 7, seed=0), config)
    linear_probe(
        models[1], *extract_features(models[1], make_batches(train, PREPARE, 7), torch.bfloat16), config, batch_size=7
    )
    # The body saw the pictures in batches of other company, where a product may be rounded otherwise.
    assert_close(heads[1].weight, heads[0].weight, rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("changes", "width", "message"),
    [
        ({"mixup": 0.2}, 12, "mixup 0.2, cutmix 0.0: they change the pictures of every epoch"),
        ({"cutmix": 1.0}, 12, "mixup 0.0, cutmix 1.0: they change"),
        ({}, 13, "features of width 13 for a head that reads 12"),
    ],
)
def test_what_cannot_be_a_probe_is_refused(changes: dict[str, float], width: int, message: str) -> None:
    config = TrainingConfig(epochs=1, learning_rate=0.1, **changes)
    with pytest.raises(ValueError, match=message):
        linear_probe(tiny(), torch.zeros(5, width), torch.arange(5), config)


def blobs(count: int, classes: int, noise: float, width: int = 11) -> tuple[Tensor, Tensor]:
    """Clouds around fixed centres, with scales from 0.001 to 1000, an offset and a column that is constant."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(count) % classes
    features = centres[labels] + noise * torch.randn(count, width)
    features = features * torch.logspace(-3, 3, width) + 5
    features[:, 4] = 2.5
    return features, labels


@pytest.mark.parametrize("classes", [2, 5])
def test_the_sweep_agrees_with_scikit_learn_and_refits(classes: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, validation, test = (blobs(count, classes, 1.5) for count in (61, 47, 37))
    found = logistic_probe(*train, *validation, strengths=(10.0, 0.001, 0.1))
    assert [c for c, _, _ in found.tried] == [0.001, 0.1, 10.0]
    for c, accuracy, loss in found.tried:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000)).fit(*map(np.asarray, train))
        assert accuracy == pytest.approx(model.score(*map(np.asarray, validation)))
        expected = F.nll_loss(torch.tensor(model.predict_log_proba(validation[0].numpy())), validation[1])
        assert loss == pytest.approx(float(expected), abs=1e-3)
    together = (torch.cat(pair) for pair in zip(train, validation, strict=True))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=found.c, max_iter=5000)).fit(
        *map(np.asarray, together)
    )
    logits = F.linear(test[0].double(), found.weight.double(), found.bias.double())
    assert found.weight.dtype == torch.float32 and found.weight.shape == (classes, 11)
    assert_close(logits.softmax(dim=1), torch.tensor(model.predict_proba(test[0].numpy())).double(), rtol=0, atol=2e-3)


def test_the_best_of_the_validation_pictures_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training pictures whose labels are half wrong: the strongest fit to them is not the best."""
    torch.manual_seed(2)
    features, labels = blobs(100, 2, 1.0, width=60)
    wrong = torch.where(torch.rand(100) < 0.3, 1 - labels, labels)
    validation = blobs(400, 2, 1.0, width=60)
    found = logistic_probe(features, wrong, *validation)
    best = max(accuracy for _, accuracy, _ in found.tried)
    assert dict((c, accuracy) for c, accuracy, _ in found.tried)[found.c] == best > found.tried[-1][1]
    assert found.c < probe.STRENGTHS[-1]


def test_the_probe_fits_the_head() -> None:
    train, validation = noise(29), noise(13)
    model = tiny()
    parts = [extract_features(model, make_batches(part, PREPARE, 7)) for part in (train, validation)]
    found = logistic_probe(*parts[0], *parts[1])
    replace_head(model, 5).load_state_dict(found.state_dict())
    result = evaluate(model, make_batches(train, PREPARE, 7))
    logits = F.linear(parts[0][0], found.weight, found.bias)
    assert result.correct == int((logits.argmax(dim=1) == train.labels).sum())


def test_doubts_are_said() -> None:
    train, validation = blobs(61, 5, 0.3), blobs(47, 5, 0.3)
    hurried = logistic_probe(*train, *validation, strengths=(0.1, 1000.0, 10.0), max_steps=3)
    assert "c = 10: the solver did not converge in 3 steps" in hurried.notes
    only = logistic_probe(*train, *validation, strengths=(1.0,))
    assert only.c == 1.0 and only.notes == ()
    edge = logistic_probe(*blobs(61, 5, 9.0), *blobs(47, 5, 9.0), strengths=(1e-9, 1e-8))
    assert any(note.startswith("the best c, 1e-0") and note.endswith("tried") for note in edge.notes)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 2, 2], {}, r"training pictures of classes 0, 1, \.\.\. are \[1, 0, 2\]; expected at least two classes"),
        ([0, 1, 1], {}, r"are \[1, 2, 0\]"),  # a validation picture has class 2
        ([0, 1, 2], {"strengths": (1.0, 0.0)}, r"strengths \(1.0, 0.0\), max_steps 2000: expected numbers above 0"),
        ([0, 1, 2], {"strengths": ()}, r"strengths \(\), max_steps 2000"),
        ([0, 1, 2], {"max_steps": 0}, "max_steps 0"),
    ],
)
def test_what_cannot_be_swept_is_refused(labels: list[int], options: dict[str, object], message: str) -> None:
    features = torch.randn(3, 4)
    with pytest.raises(ValueError, match=message):
        logistic_probe(features, torch.tensor(labels), features, torch.tensor([0, 1, 2]), **options)
