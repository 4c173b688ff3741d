"""The steps before the first block, Eq. 1: whether it gets the tokens that it should."""

import torch
from torch import Tensor

from vitscratch.exercises.checks import assembling, prepending, projecting, tokens
from vitscratch.exercises.checks.compare import difference, same
from vitscratch.exercises.checks.model.bank import CLASS_TOKEN, MISTAKES, NUDGES, PATCHES, POSITION
from vitscratch.exercises.checks.model.listening import Heard, trace
from vitscratch.exercises.checks.model.trial import Trial, all_same, restored
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.exercise import Problem


def embedding_problem(trials: list[Trial], traces: list[list[Heard]]) -> Problem | None:
    """Whether the first block gets what Eq. 1 says."""
    expected, found = [right_starts(trial) for trial in trials], [heard[0].x for heard in traces]
    for way in range(len(expected[0])):
        if all(same(x, ways[way]) for x, ways in zip(found, expected, strict=True)):
            for trial in trials:
                trial.project = way
            return None
    trial, x, right = next((t, x, e[0]) for t, x, e in zip(trials, found, expected, strict=True) if not same(x, e[0]))
    if x.shape != right.shape:
        evidence = f"{trial.evidence()}\nthe first block gets {tuple(x.shape)}; it should get {tuple(right.shape)}"
        if x.shape[1:] == (right.shape[1] - 1, right.shape[2]) and (name := _not_in_front(trial, x)):
            return named(MISTAKES, name, evidence)
        hints = (NUDGES["parameters"], "N patches and one class token make N + 1 tokens.")
        what = "You give the blocks another number of tokens; it should be N + 1."
        return Problem(what, evidence, CLASS_TOKEN, hints)
    evidence = trial.evidence()
    short = ("vit_pos_not_on_cls",) if trial.anatomy.table.rows < right.shape[1] else ()
    if not short:
        evidence += f"\nof what the first block gets, {difference(x, right, 'tokens')}"
    if all_same(trials, found, lambda t: assembling.final_norm(right_starts(t)[t.project], t.numbers())):
        return named(MISTAKES, "vit_norm_before_blocks", evidence)
    projection = trials[0].projection
    for names, project, prepend in assembling.wrong_embeddings(projection):
        if all_same(trials, found, lambda t, f=(project, prepend): start_under(t, *f)):
            if names == ("tok_no_position",) and _used_late(trial):
                names = ("vit_pos_after_blocks",)
            if short:  # to a table that lacks a row, rows seem shifted
                names = (*short, *(name for name in names if name not in (*short, "tok_pos_shifted")))
            return projecting.hinted(named(MISTAKES, names, evidence), projection)
    if short:
        return named(MISTAKES, short, evidence)
    return _unknown_embedding(trial, x, right, evidence)


def _not_in_front(trial: Trial, x: Tensor) -> str:
    """What became of the class token, where the first block gets as many tokens as there are patches."""
    with restored(trial.model) as parameters:
        parameters[trial.anatomy.table.cls].zero_()
        without = trace(trial, 1)[0].x
    return prepending.not_in_front(x, without, trial.numbers().cls)


def _used_late(trial: Trial) -> bool:
    """Whether the logits depend on the positions, which the first block does not get."""
    with restored(trial.model) as parameters:
        for name in trial.anatomy.table.names[1:]:
            parameters[name].zero_()
        return not same(trial.run(trial.images[1]), trial.logits[1])


def start_under(trial: Trial, project: projecting.Project, prepend: assembling.Prepend) -> Tensor:
    """What the first block gets under a hypothesis."""
    return assembling.embedded(trial.images[1], trial.sizes["patch_size"], trial.numbers(), project, prepend)


def right_starts(trial: Trial) -> list[Tensor]:
    """What the first block should get, for each right order of pixels, with the parameters as they are now."""
    numbers = trial.read(trial.way)
    if len(numbers.pos) == trial.patches:  # a position short: the class token's
        numbers.pos = torch.cat([torch.zeros_like(numbers.pos[:1]), numbers.pos])
        numbers.pos[0] = float("nan")  # nothing equals it
    return [trial.start(project, numbers=numbers) for project in trial.orders]


def _unknown_embedding(trial: Trial, x: Tensor, right: Tensor, evidence: str) -> Problem:
    """Without class token and positions, the rows of the patches are the projection alone."""
    if surplus := trial.anatomy.surplus:
        owners = [type(trial.model.get_submodule(name.rpartition(".")[0])).__name__ for name in surplus]
        if all("Norm" in owner for owner in owners):
            return named(MISTAKES, "tok_norm", f"{evidence}\n{', '.join(surplus)} belong to a norm outside the blocks")
        if problem := _added(trial, evidence):
            return problem
    with restored(trial.model) as parameters:
        for name in trial.anatomy.table.names:
            parameters[name].zero_()
        alone, expected = trace(trial, 1)[0].x, right_starts(trial)
    if not any(same(alone[:, 1:], way[:, 1:]) for way in expected):
        return unknown_patches(f"{evidence}; with class token and positions at 0 they differ, too")
    return tokens.unknown(x, right, evidence)


def _added(trial: Trial, evidence: str) -> Problem | None:
    """Parameters that no equation has, if it is they alone that make a difference: at 0 all would be right."""
    heard = trace(trial, 1)[0].x
    used = [name for name in trial.anatomy.surplus if not same(_start_without(trial, name), heard)]
    if not used or not any(same(_start_without(trial, *used), way) for way in right_starts(trial)):
        return None
    names, size = ", ".join(used), trial.numbers().pos.numel()
    if all(trial.model.get_parameter(name).numel() in (size, size - trial.sizes["embed_dim"]) for name in used):
        both = f"{trial.anatomy.table.pos} and {names}"
        return named(MISTAKES, "tok_pos_twice", f"{evidence}\nthere are several tables of positions: {both}")
    return Problem(
        "You use parameters before the blocks that Eq. 1 has not; there should be projection, class token and "
        "positions alone.",
        f"{evidence}\nwith {names} at 0 it would be right",
        POSITION,
        ("What does Eq. 1 add up, and what does it put side by side?", f"Look at the lines that use {names}."),
    )


def _start_without(trial: Trial, *names: str) -> Tensor:
    """What the first block gets while these parameters are 0."""
    with restored(trial.model) as parameters:
        for name in names:
            parameters[name].zero_()
        return trace(trial, 1)[0].x


def unknown_patches(evidence: str) -> Problem:
    """No known mistake before class token and positions."""
    return Problem(
        "You make the patches' tokens in another way; each should be its patch times the weight, plus the bias.",
        evidence,
        PATCHES,
        (
            "Check the patch embedding by itself: exercise 2.",
            "Change one patch: exactly one token may change, its own.",
        ),
    )
