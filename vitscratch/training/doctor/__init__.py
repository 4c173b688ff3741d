"""The ladder of checks that comes before "it needs more data"."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitscratch.randomness import random_state_kept
from vitscratch.training.doctor import batch_checks, learning_checks, model_checks
from vitscratch.training.doctor.case import Case, Failure, Outcome, Skip, one_line, wake
from vitscratch.training.doctor.report import Diagnosis, Result

__all__ = ["LADDER", "Diagnosis", "Result", "Rung", "doctor"]


@dataclass(frozen=True)
class Rung:
    """One check, the checks without whose success it says nothing, and whether it runs on a woken copy."""

    name: str
    check: Callable[[Case], Outcome]
    needs: tuple[str, ...] = ()
    awake: bool = False


LADDER = (
    Rung("pictures", batch_checks.pictures),
    Rung("normalised", batch_checks.normalised, ("pictures",)),
    Rung("registered", model_checks.registered),
    Rung("modes", model_checks.modes),
    Rung("logits", model_checks.logits, ("pictures",)),
    Rung("batch_sizes", model_checks.batch_sizes, ("logits",)),
    Rung("labels", batch_checks.labels, ("logits",)),
    Rung("classes", batch_checks.classes, ("labels",)),
    Rung("first_loss", learning_checks.first_loss, ("labels", "batch_sizes")),
    Rung("repeatable", model_checks.repeatable, ("batch_sizes",), awake=True),
    Rung("probabilities", model_checks.probabilities, ("batch_sizes",), awake=True),
    Rung("neighbours", model_checks.neighbours, ("repeatable",), awake=True),
    Rung("picture_used", model_checks.picture_used, ("repeatable",), awake=True),
    Rung("positions", model_checks.positions, ("picture_used",), awake=True),
    Rung("gradients", learning_checks.gradients, ("batch_sizes",), awake=True),
    Rung("overfits", learning_checks.overfits, ("labels", "batch_sizes"), awake=True),
)


def doctor(
    model: nn.Module,
    batch: Sequence[Any],
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    patch_size: int | tuple[int, int] | None = None,
    train_labels: Tensor | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Look for the mistakes that make a model train badly, or not at all, without a word.

    Everything happens on copies of the model: its parameters, buffers, gradients, mode and hooks, the batch, and
    every random state stay as they are. Some checks need weights that hide nothing, so they run on a copy whose
    parameters were all moved a little (a zero head is fine, and hides everything behind it). Sources: Karpathy,
    "A Recipe for Training Neural Networks" (2019), and mistakes found in published code.

    Args:
        model: any module that returns logits (b, classes) for images (b, c, H, W); fresh or pretrained.
        batch: (images, labels) as the training loop gets them, without mixup; 16 pictures are plenty.
        num_classes: default: the number of logits. class_names: one name for each class, for the messages.
        patch_size: pixels, for shuffling patches; default: the first convolution's, if it cuts patches.
        train_labels: (n,) all training labels: without them a missing class cannot be noticed.
        steps: most steps for learning a few pictures by heart. Default: what arithmetic of some seconds allows, at
            most 160; for a model of ViT-B's size on a CPU these are 5, too few to reach zero, and the result says so.
        seed: of the noise pictures, at least 0.

    Returns:
        A result for every check, in the order of the ladder; mend the first failure first.

    Raises:
        ValueError: a batch that is no pair, without pictures, or class_names that are not num_classes.
    """
    if len(batch) != 2 or not len(batch[0]):
        raise ValueError(f"batch has {len(batch)} parts; expected (images, labels) with at least one picture")
    if class_names is not None and num_classes not in (None, len(class_names)):
        raise ValueError(f"num_classes {num_classes} but {len(class_names)} class_names; give one for each class")
    device = next(model.parameters(), torch.empty(0)).device
    with (
        random_state_kept(seed),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        images, labels = (part.to(device) if isinstance(part, Tensor) else part for part in batch)
        classes = len(class_names) if class_names is not None else num_classes
        case = Case(model, images, labels, classes, class_names, patch_size, train_labels, steps)
        return Diagnosis(tuple(_climb(case)), tuple(case.notes))


def _climb(case: Case) -> list[Result]:
    results: dict[str, Result] = {}
    awake = False
    for rung in LADDER:
        if rung.awake and not awake:
            case.model, awake = case.fresh_copy(), True
            wake(case.model, case.noise(case.probes) if results["batch_sizes"].status == "passed" else None)
        results[rung.name] = _step(rung, case, results)
    return list(results.values())


def _step(rung: Rung, case: Case, results: dict[str, Result]) -> Result:
    for need in rung.needs:
        if results[need].status != "passed":
            return Result(rung.name, "skipped", f"says nothing while {need!r} has not passed")
    try:
        evidence, numbers = rung.check(case)
    except Failure as failure:
        return failure.result(rung.name)
    except Skip as skip:
        return Result(rung.name, "skipped", str(skip))
    except torch.OutOfMemoryError as error:
        return Result(rung.name, "skipped", f"out of memory: {one_line(error)}")
    except Exception as error:
        meaning = "the model cannot do something that a plain one can: run in this mode, on these pictures, be copied"
        return Result(rung.name, "failed", f"stopped by {one_line(error)}", meaning, "run that step by itself", {})
    return Result(rung.name, "passed", evidence, numbers=numbers)
