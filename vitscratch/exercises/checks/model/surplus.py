"""Parameters that no equation has."""

from vitscratch.exercises.checks.model.bank import HEAD, PATCHES
from vitscratch.exercises.checks.model.trial import Trial
from vitscratch.exercises.exercise import Problem


def unused_problem(trial: Trial) -> Problem:
    """Parameters of a model whose logits are right without them."""
    names = ", ".join(trial.anatomy.surplus[:6])
    return Problem(
        "You have parameters that the logits do not depend on; there should be none.",
        f"{trial.counted()}; not needed: {names}",
        "parameters",
        ("Which of your layers does forward never call?", f"Use it where an equation needs it, or delete it: {names}."),
    )


def surplus_problem(trial: Trial) -> Problem | None:
    """Parameters that no equation has, in the step whose module they are in."""
    parts = trial.anatomy
    if not parts.surplus:
        return None
    names = ", ".join(parts.surplus[:6])
    hints = ("Which of your layers does no equation ask for?", f"Look at {names}.")
    folders = {_folder(name) for name in parts.surplus}
    beside = [(HEAD, parts.head[0]), (PATCHES, trial.projection.weight)]
    step = next((step for step, weight in beside if _folder(weight) and _folder(weight) in folders), "parameters")
    what = "You have parameters that Eq. 1 to Eq. 4 have not; there should be none."
    evidence = trial.counted()
    return Problem(what, f"{evidence}\ntoo many: {names}", step, hints)


def _folder(parameter: str) -> str:
    """Of the layer that has it: "classifier" for "classifier.0.weight"."""
    return parameter.rpartition(".")[0].rpartition(".")[0]
