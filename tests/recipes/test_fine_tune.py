"""The recipe that fine-tunes: what it builds from the weights, and what each way to train changes."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from vitscratch.config import ViTConfig
from vitscratch.data import Preprocessing
from vitscratch.parity import awaken, torchvision_twin
from vitscratch.recipes import FineTune
from vitscratch.recipes.experiment import prepare
from vitscratch.recipes.fine_tune import How
from vitscratch.training import Checkpoints, Interrupted
from vitscratch.vit import VisionTransformer
from vitscratch.weights import NormedHead, PreLogitsHead, save_model

CONFIG = ViTConfig(8, 4, 1, 7, embed_dim=12, depth=3, num_heads=2, mlp_dim=20)
PREPROCESSING = Preprocessing((8, 8), 1, mean=(0.3,), std=(0.4,))


@pytest.fixture
def weights(tmp_path: Path) -> str:
    model = VisionTransformer.from_config(CONFIG)
    awaken(model)
    path = tmp_path / "pretrained.safetensors"
    save_model(path, model, CONFIG, [f"class {i}" for i in range(7)], PREPROCESSING.to_dict(), {})
    return str(path)


def recipe(weights: str, how: How = "fine-tune") -> FineTune:
    return FineTune(weights=weights, data="digits", how=how, epochs=1, max_pictures=97, threads=1)


def test_body_and_preprocessing_are_the_weights_and_the_head_is_new(weights: str) -> None:
    experiment = prepare(recipe(weights))
    assert experiment.preprocessing == PREPROCESSING
    assert experiment.config == replace(CONFIG, num_classes=10)
    awake = VisionTransformer.from_config(CONFIG)
    awaken(awake)
    state = experiment.model.state_dict()
    for name, tensor in awake.state_dict().items():
        if name.startswith("head."):
            assert (state[name] == 0).all() and len(state[name]) == 10
        else:
            assert_close(state[name], tensor, rtol=0, atol=0)
    scratch = prepare(recipe(weights, "scratch"))
    assert scratch.config == experiment.config
    assert not torch.equal(scratch.model.pos_embed, experiment.model.pos_embed)


def test_another_picture_size(weights: str) -> None:
    experiment = prepare(replace(recipe(weights), image_size=12))
    assert experiment.preprocessing == replace(PREPROCESSING, image_size=(12, 12))
    images, _ = next(iter(experiment.batches("train")))
    assert images.shape[1:] == (1, 12, 12) and experiment.model(images).shape[1] == 10


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("probe", "The head alone is fitted, to features that are computed once: 130 of 3,982 parameters."),
        ("head", "The head alone learns: 130 of 3,982 parameters."),
        ("last-n", "The last 2 blocks, the norm after them and the head learn: 2,522 of 3,982 parameters."),
        ("full", "Everything learns, lower blocks more slowly: all 3,982 parameters."),
        ("fine-tune", "The head alone learns for 3 epochs: 130 of 3,982 parameters; then everything, for 1."),
        ("scratch", "Everything learns, from random weights: all 3,982 parameters."),
    ],
)
def test_what_learns_is_said_and_changes_nothing(weights: str, how: How, line: str) -> None:
    experiment = prepare(replace(recipe(weights, how), head_epochs=3))
    before, state = torch.get_rng_state(), experiment.model.state_dict()
    assert experiment.recipe.learns(experiment.config) == line
    assert torch.equal(before, torch.get_rng_state()) and all(
        tensor.requires_grad for tensor in experiment.model.parameters()
    )
    assert sum(tensor.numel() for tensor in state.values()) == 3982


@pytest.mark.parametrize(
    ("how", "moved", "records"),
    [
        ("probe", {"head"}, 1),
        ("head", {"head"}, 1),
        ("last-n", {"head", "norm", "blocks.1", "blocks.2"}, 1),
        ("full", None, 1),
        ("fine-tune", None, 2),
        ("scratch", None, 1),
    ],
)
def test_each_way_changes_what_it_says(weights: str, how: How, moved: set[str] | None, records: int) -> None:
    experiment = prepare(recipe(weights, how))
    before = {name: tensor.clone() for name, tensor in experiment.model.state_dict().items()}
    history = experiment.fit()
    assert len(history) == experiment.recipe.all_epochs == records
    after = experiment.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if moved is None:
        assert changed == set(before)
    else:
        assert {".".join(name.split(".")[: 2 if "blocks" in name else 1]) for name in changed} == moved


def test_the_probe_reports_what_chose_its_regularisation(weights: str) -> None:
    experiment = prepare(replace(recipe(weights, "probe"), precision="fp32"))
    (record,) = experiment.fit()
    train, validation = experiment.measure("train"), experiment.measure("validation")
    assert record.train_accuracy == pytest.approx(train.accuracy)
    assert record.train_loss == pytest.approx(train.loss, rel=1e-4)
    assert 0.2 < record.validation_accuracy <= validation.accuracy  # the head that is kept has seen these pictures


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"last": 0}, "last 0, head_epochs 1: expected at least 1"),
        ({"layer_decay": 1.5}, "layer_decay 1.5: expected above 0, at most 1"),
        ({"how": "probe", "validation_fraction": 0.0}, "validation_fraction is 0"),
        ({"how": "probe", "mixup": 0.5}, "mixup 0.5 has no effect in a probe; leave it out, or use how head"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FineTune(**settings)  # type: ignore[arg-type]


def test_weights_have_to_be_named() -> None:
    with pytest.raises(ValueError, match="this recipe needs pretrained weights"):
        prepare(FineTune(data="digits", weights=""))


def test_a_probe_stops_when_asked(weights: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.stop.signal_number = 2
    with pytest.raises(Interrupted):
        prepare(replace(recipe(weights, "probe"), seed=3)).fit(checkpoints)


def test_a_pre_logits_layer_stays_with_the_old_classes(tmp_path: Path) -> None:
    model = VisionTransformer.from_config(replace(CONFIG, num_classes=10))
    model.head = PreLogitsHead(12, 5, 10)  # type: ignore[assignment]
    path = tmp_path / "pre_logits.safetensors"
    config = replace(CONFIG, num_classes=10)
    save_model(path, model, config, [f"class {i}" for i in range(10)], PREPROCESSING.to_dict(), {})
    head = prepare(recipe(str(path))).model.head
    assert isinstance(head, torch.nn.Linear) and head.weight.shape == (10, 12)


def test_a_norm_after_the_mean_belongs_to_the_body(tmp_path: Path) -> None:
    config, path = replace(CONFIG, num_classes=10, pool="mean"), tmp_path / "normed.safetensors"
    model = VisionTransformer.from_config(config)
    model.norm, model.head = torch.nn.Identity(), NormedHead(12, 10)  # type: ignore[assignment]
    torch.nn.init.normal_(model.head.norm.weight)  # type: ignore[arg-type, union-attr]
    save_model(path, model, config, [f"class {i}" for i in range(10)], PREPROCESSING.to_dict(), {})
    new = prepare(recipe(str(path))).model
    torch.testing.assert_close(new.head.norm.weight, model.head.norm.weight, rtol=0, atol=0)
    assert not new.head.linear.weight.any()
    scratch = prepare(replace(recipe(str(path)), how="scratch")).model  # the same model at random
    assert scratch.state_dict().keys() == new.state_dict().keys()
    assert scratch.head.norm.weight.eq(1).all() and not scratch.head.linear.weight.any()


def test_what_was_assumed_of_the_weights_is_told(tmp_path: Path) -> None:
    theirs = torchvision_twin(replace(CONFIG, in_channels=3, embed_dim=64, num_heads=1))[0]
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    tuned = replace(recipe(str(tmp_path / "theirs.pth")), image_size=16, num_heads=1)
    notes = tuned.provenance()["notes"]
    digest = hashlib.sha256((tmp_path / "theirs.pth").read_bytes()).hexdigest()
    assert tuned.provenance()["weights_sha256"] == digest
    assert any("pos_embed: 2 x 2 -> 4 x 4" in note for note in notes) and len(notes) > 1
    assert replace(tuned, how="scratch").provenance() == {"how": "scratch"}


def test_weights_that_were_written_anew_are_read_anew(weights: str) -> None:
    """Under the same name, by the same recipe; what a run began with stays what it says."""
    tuned, file = recipe(weights), Path(weights)
    first, second = hashlib.sha256(file.read_bytes()).hexdigest(), replace(CONFIG, depth=2)
    experiment = prepare(tuned)
    save_model(
        file,
        VisionTransformer.from_config(second),
        second,
        [f"class {i}" for i in range(7)],
        replace(PREPROCESSING, mean=(0.7,)).to_dict(),
        {},
    )
    assert experiment.provenance["weights_sha256"] == first
    again = prepare(tuned)
    assert again.config.depth == 2 and again.preprocessing.mean == (0.7,)
    assert again.provenance["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest() != first


def test_a_config_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    theirs = torchvision_twin(replace(CONFIG, in_channels=3, embed_dim=64, num_heads=1))[0]
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    tuned = replace(recipe(str(tmp_path / "theirs.pth")), num_heads=1)
    before = tuned.provenance()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json"):
        tuned.preprocessing()
    (tmp_path / "config.json").unlink()
    assert tuned.provenance() == before
