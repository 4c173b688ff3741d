"""Models of pixels: what they learn, what they say that they left out, and that validation alone chooses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.testing import assert_close

from vitscratch.baselines import LeftOut, PixelModel, Trial, fit_pca_logistic, fit_rbf_svm, pixels
from vitscratch.data import TensorBatches, load_splits


def made(count: int, seed: int, curved: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (count, 2, 3, 5) whose class is a linear function of them, or (curved) of their length."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 2, 3, 5, generator=generator)
    if curved:
        return images, (images.flatten(1).norm(dim=1) > 5.4).long()
    images[:, 0] *= 5
    return images, torch.bucketize(images[:, 0, 1, 2].clone(), torch.tensor([-2.0, 2.0]))


def batches(count: int, seed: int, curved: bool = False) -> TensorBatches:
    return TensorBatches(*made(count, seed, curved), batch_size=37)


def fit(**options: object) -> PixelModel:
    return fit_pca_logistic(batches(301, 0), batches(101, 1), **({"num_classes": 3, "seed": 0} | options))


def test_it_is_scikit_learns_pipeline() -> None:
    model = fit(components=(2, 7, 30), monitor="validation_accuracy")
    train, validation = made(301, 0), made(101, 1)
    for trial, number in zip(model.trials, (2, 7, 30), strict=True):
        pipeline = make_pipeline(StandardScaler(), PCA(number), LogisticRegression(max_iter=1000))
        pipeline.fit(train[0].flatten(1).double(), train[1])
        expected = pipeline.predict_proba(validation[0].flatten(1).double())
        loss = -np.log(expected[np.arange(101), validation[1]]).mean()
        assert trial.setting == f"{number} components" and trial.converged
        assert trial.validation_loss == pytest.approx(loss, rel=1e-3)
        assert trial.validation_accuracy == pytest.approx((expected.argmax(1) == validation[1].numpy()).mean())
        if trial == model.chosen:
            found = model.probabilities(validation[0])
            assert_close(found, torch.from_numpy(expected).float(), rtol=0, atol=1e-3)
            assert found.dtype == torch.float32
    assert model.chosen.setting == "30 components" and model.chosen.validation_accuracy > 0.8
    assert model.notes == () and model.parameters == 33 * 30 + 3 * 31


def test_what_was_not_possible_is_said() -> None:
    model = fit()
    assert [trial.setting for trial in model.trials] == [f"{number} components" for number in (2, 5, 10, 20)]
    assert model.notes == ("50 and 100 components left out: there are only 30",)
    few = fit_pca_logistic(batches(11, 0), batches(11, 0), num_classes=3, seed=0, components=(11, 12))
    assert few.notes == ("12 components left out: there are only 11",)
    with pytest.raises(ValueError, match=r"components .31,.: 301 pictures of 30 values have 30"):
        fit(components=(31,))


def test_a_solver_that_did_not_converge_is_said_and_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    model = fit(components=(2, 20), max_iter=3)
    assert [trial.converged for trial in model.trials] == [False, False]
    assert model.notes[1] == "the solver did not converge in 3 steps with 20 components"
    assert not [warning for warning in recwarn if "converge" in str(warning.message)]


@pytest.mark.parametrize(("monitor", "setting"), [("validation_loss", "b"), ("validation_accuracy", "a")])
def test_what_is_monitored_chooses_and_the_first_of_equals_is_kept(monitor: str, setting: str) -> None:
    a, b = Trial("a", 0.7, 0.9, True), Trial("b", 0.5, 0.8, True)
    fitted = [(a, None, None), (b, None, None), (replace(a, setting="c"), None, None)]
    assert pixels._best(fitted, monitor)[0].setting == setting


def test_a_class_without_a_training_picture_gets_probability_0() -> None:
    images, labels = made(89, 0)
    keep = labels != 1
    train = TensorBatches(images[keep], labels[keep], 37)
    model = fit_pca_logistic(train, batches(31, 1), num_classes=4, seed=0, components=(5,))
    found = model.probabilities(images)
    assert found.shape == (89, 4) and (found[:, [1, 3]] == 0).all() and (found[:, [0, 2]] > 0).any(dim=0).all()
    assert_close(found.sum(dim=1), torch.ones(89))
    assert np.isfinite(model.chosen.validation_loss)


def test_pictures_that_do_not_fit_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_VALUES", 30 * 60)
    images = torch.arange(101.0).view(101, 1, 1, 1).expand(101, 2, 3, 5)
    rows, labels, notes = pixels._read(TensorBatches(images, torch.arange(101), 37))
    assert labels.tolist() == list(range(0, 101, 2)) and rows[:, 7].tolist() == labels.tolist()
    assert notes == ["uses 51 of 101 pictures: more do not fit into memory"]


def test_thinned_out_validation_pictures_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_VALUES", 30 * 97)
    for fit_one in (fit_pca_logistic, fit_rbf_svm):
        model = fit_one(batches(71, 0), batches(199, 1), num_classes=3, seed=0)
        assert isinstance(model, PixelModel)
        assert "uses 67 of 199 validation pictures: more do not fit into memory" in model.notes


def test_the_svm_sees_what_no_plane_separates() -> None:
    train, validation = batches(401, 0, curved=True), batches(199, 1, curved=True)
    plane = fit_pca_logistic(train, validation, num_classes=2, seed=0)
    svm = fit_rbf_svm(train, validation, num_classes=2, seed=0)
    assert isinstance(svm, PixelModel) and [trial.setting for trial in svm.trials] == ["C 1", "C 10"]
    assert svm.chosen.validation_accuracy > plane.chosen.validation_accuracy + 0.1
    images, labels = made(199, 1, curved=True)
    found = svm.probabilities(images)
    assert_close(found.sum(dim=1), torch.ones(199))
    assert float((found.argmax(dim=1) == labels).double().mean()) == svm.chosen.validation_accuracy
    assert svm.parameters % 30 == 0 and svm.notes == ()


def test_on_fake_digits_the_svm_is_not_turned_round_by_their_order() -> None:
    """Fakes come digit by digit: in unshuffled folds each is of digits that the others do not have, where the sign of
    the distance says nothing, and the sigmoid turns the classes round (17 % right)."""
    splits = load_splits("fake-digits", seed=0, validation_fraction=0.2, test_fraction=0.2)
    train, validation = (TensorBatches(part.images, part.labels, 64) for part in (splits.train, splits.validation))
    model = fit_rbf_svm(train, validation, num_classes=2, seed=0)
    assert isinstance(model, PixelModel) and min(trial.validation_accuracy for trial in model.trials) > 0.85


def test_an_svm_that_is_not_affordable_is_left_out_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_SVM_WORK", 10**5)
    left_out = fit_rbf_svm(batches(101, 0), batches(11, 1), num_classes=3, seed=0)
    assert left_out == LeftOut("RBF-SVM", "too many pictures: 101² x 30 values is 3.1e+05, and the limit 1.0e+05")
    monkeypatch.undo()
    images, _ = made(50, 0)
    rare = TensorBatches(images, torch.where(torch.arange(50) < 3, 0, 1), 37)
    reason = "a class has 3 training pictures; its probabilities need at least 5"
    assert fit_rbf_svm(rare, rare, num_classes=2, seed=0) == LeftOut("RBF-SVM", reason)
