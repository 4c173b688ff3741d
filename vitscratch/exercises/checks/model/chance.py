"""Models whose logits differ from call to call in eval mode: where chance comes in."""

from types import ModuleType
from typing import Any

from torch import Tensor, nn

from vitscratch.exercises.checks.compare import same
from vitscratch.exercises.checks.model.bank import BLOCKS, MISTAKES, PATCHES, POSITION
from vitscratch.exercises.checks.model.block import block_problem
from vitscratch.exercises.checks.model.listening import Heard, trace
from vitscratch.exercises.checks.model.trial import Trial, restored
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.checks.student import differs
from vitscratch.exercises.exercise import Problem

CALLS = 24  # one block in ten of three skipped by chance shows in all but 1 of 2000 such series


def chance_problem(student: ModuleType, trial: Trial) -> Problem | None:
    """Where calls in eval mode part, if they do, be it rarely."""
    again = [trial.run(trial.images[1]) for _ in range(CALLS)]
    others = [number for number, logits in enumerate(again) if not same(logits, trial.logits[1])]
    if not others:
        return None
    evidence = differs(trial.code(), trial.logits[1], again[others[0]])
    if others[0]:
        evidence = f"{evidence.removesuffix('the second; call it several times')}at call {others[0] + 2}"
    place = _heard(trial) or _probed(trial)
    if place == BLOCKS:
        return (block_problem(student) if trial.anatomy.hooked else None) or _drawn(place, evidence)
    return named(MISTAKES, place, evidence) if place in MISTAKES else _drawn(place, evidence)


def _heard(trial: Trial) -> str:
    """Where calls part, a step or a mistake, by listening to the blocks; "" where one cannot."""
    traces = [trace(trial, 1) for _ in range(CALLS if trial.anatomy.hooked else 0)]
    if not any(traces):
        return ""
    first = next(heard for heard in traces if heard)
    for heard in traces:
        if [one.number for one in heard] != [one.number for one in first]:
            return BLOCKS
        if not same(heard[0].x, first[0].x):
            return _before_the_blocks(trial, first[0], heard[0])
        if any(not same(one.out, other.out) for one, other in zip(heard, first, strict=True)):
            return BLOCKS
    return "vit_dropout"


def _before_the_blocks(trial: Trial, one: Heard, other: Heard) -> str:
    if one.x.shape == other.x.shape and bool(((one.x == 0) != (other.x == 0)).any()):
        return "tok_dropout"
    return _place_of_tokens(trial) or "vit_pos_random_each_forward"


def _probed(trial: Trial) -> str:
    """The same by parts that are 0, whatever the blocks are."""
    if step := _place_of_tokens(trial):
        return step
    if _agree(trial, silent=True):
        return BLOCKS
    if not _agree(trial, trial.anatomy.norm[0]) or _first_layer_agrees(trial):
        return "vit_dropout"
    drawn = not _agree(trial, *_of_tokens(trial), silent=True)
    return "vit_pos_random_each_forward" if drawn else "tok_dropout"


def _first_layer_agrees(trial: Trial) -> bool:
    """Whether the layer of the first block that is called first, if it is a module, always gets the same."""
    given: list[Tensor] = []
    layers = [layer for layer in trial.anatomy.blocks[0].modules() if not any(layer.children())]

    def listen(layer: nn.Module, args: tuple[Any, ...]) -> None:
        given.extend(one for one in args[:1] if isinstance(one, Tensor))

    hooks = [layer.register_forward_pre_hook(listen) for layer in layers]
    try:
        firsts = []
        for _ in range(CALLS):
            trial.run(trial.images[1])
            firsts += given[:1]
            given.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return len(firsts) == CALLS and all(same(one, firsts[0]) for one in firsts)


def _place_of_tokens(trial: Trial) -> str:
    """The step of what is drawn before the blocks, if it changes nothing while the patches' tokens are all the same."""
    projection, table = trial.projection, trial.anatomy.table
    if _agree(trial, projection.weight, projection.bias):
        return PATCHES
    return POSITION if _agree(trial, projection.weight, projection.bias, table.pos, table.cls_pos) else ""


def _of_tokens(trial: Trial) -> tuple[str, ...]:
    return (trial.projection.weight, trial.projection.bias, *trial.anatomy.table.names)


def _agree(trial: Trial, *zero: str, silent: bool = False) -> bool:
    """Whether calls agree while these parameters are 0, or the blocks add nothing."""
    with restored(trial.model) as parameters:
        for name in filter(None, zero):
            parameters[name].zero_()
        if silent:
            trial.silence(("attn.proj", "mlp.fc2"))
        first = trial.run(trial.images[1])
        return all(same(trial.run(trial.images[1]), first) for _ in range(CALLS))


def _drawn(step: str, evidence: str) -> Problem:
    what, hint = _WHAT[step]
    name = "vit_dropout" if step == BLOCKS else None
    return Problem(what, evidence, step, ("Call it several times with the same pictures, in eval mode.", hint), name)


_WHAT = {
    PATCHES: (
        "You let chance shuffle, drop or change patches, or shuffle their positions, in eval mode, too, so that calls "
        "differ; there patch i should always become a token, with position i.",
        "Which line draws random numbers (randperm, rand, dropout) between the picture and the tokens?",
    ),
    POSITION: (
        "You let chance shuffle or drop tokens in eval mode, too, so that calls differ; there all of them should go "
        "on to the blocks, in their order.",
        "Which line draws random numbers (randperm, rand) between the tokens and the first block?",
    ),
    BLOCKS: (
        "You let chance into the blocks in eval mode, too (dropout, or a block that is skipped), so that calls differ; "
        "there they should always do the same.",
        "nn.Dropout knows of eval mode; F.dropout, scaled_dot_product_attention and your own draws have to ask "
        "self.training.",
    ),
}
