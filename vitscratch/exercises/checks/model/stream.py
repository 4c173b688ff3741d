"""The step "encoder blocks": whether every block is called once, in order, on what the one before returned."""

from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from vitscratch.exercises.checks import assembling
from vitscratch.exercises.checks.compare import difference, same
from vitscratch.exercises.checks.model.bank import BLOCKS, MISTAKES, NUDGES
from vitscratch.exercises.checks.model.listening import Heard
from vitscratch.exercises.checks.model.trial import Trial
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.exercise import Problem


def stream_problem(trials: list[Trial], traces: list[list[Heard]]) -> Problem | None:
    """Whether every block is called once, in order, with what the one before it returned."""
    trial, heard = trials[0], traces[0]
    order, depth = [one.number for one in heard], trial.sizes["depth"]
    numbers_say = next((one for one in trials if not one.is_right()), trial).evidence()
    evidence = f"{numbers_say}\nthe blocks are called in the order {order}"
    if order in (list(range(depth - 1)), list(range(1, depth))):
        return named(MISTAKES, "vit_depth_minus_one", evidence)
    if order == list(range(len(order))) and len(order) < depth:
        what = f"You run {len(order)} of {depth} blocks; all should run, one after the other."
        hints = ("How often does the loop come round?", "A return or a break inside the loop ends it at once.")
        return replace(named(MISTAKES, "vit_depth_ignored", evidence), what=what, hints=hints)
    if len(set(order)) == 1:
        return named(MISTAKES, "vit_blocks_shared", evidence)
    if order == sorted(set(order)) and len(order) < depth:
        what = f"You leave out blocks: {len(order)} of {depth} run; all should, one after the other."
        hints = ("Which blocks does the loop come to?", "`for block in self.blocks`, without a slice or a step.")
        return replace(named(MISTAKES, "vit_depth_ignored", evidence), what=what, hints=hints)
    if order != list(range(depth)):
        return named(MISTAKES, "vit_block_order", evidence)
    numbers = trial.numbers()
    for before, after in pairwise(heard):
        if same(after.x, before.out):
            continue
        evidence = f"{numbers_say}\nblock {after.number} gets another input than block {before.number} returned: "
        evidence += difference(after.x, before.out, "input") if after.x.shape == before.out.shape else "another shape"
        for name, wrong in (
            ("vit_residual_stream_dropped", heard[0].x),
            ("enc_double_residual", before.x + before.out),
            ("vit_long_residual", heard[0].x + before.out),
            ("vit_norm_every_block", assembling.final_norm(before.out, numbers)),
            ("vit_blocks_unused", before.x),
            ("tok_pos_twice", before.out + numbers.pos if len(numbers.pos) == before.out.shape[1] else before.x),
        ):
            if same(after.x, wrong) and not (name == "vit_residual_stream_dropped" and _skipped(trial, after.x)):
                return named(MISTAKES, name, evidence)
        hints = (NUDGES[BLOCKS], "In the loop there is nothing but x = block(x).")
        what = "You do something between the blocks; each should get what the one before it returned."
        return Problem(what, evidence, BLOCKS, hints)
    return None


def _skipped(trial: Trial, x: Tensor) -> bool:
    """Whether the logits are those of the tokens before any block."""
    return same(trial.logits[1], assembling.tail(x, trial.numbers()))
