"""Tokens so small that eps matters: what only they show."""

from functools import partial

import torch
from torch import Tensor

from vitscratch.exercises.checks import assembling, reference
from vitscratch.exercises.checks.assembling import Numbers
from vitscratch.exercises.checks.compare import difference, draw, same
from vitscratch.exercises.checks.model.bank import BLOCKS, MISTAKES, NORM, NUDGES, of_the_norm
from vitscratch.exercises.checks.model.running import model_code
from vitscratch.exercises.checks.model.trial import Trial, restored
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.checks.student import drawn
from vitscratch.exercises.exercise import Problem


def tiny_problem(trial: Trial) -> Problem | None:
    """Tokens of deviation 1e-3 show every eps: the final norm's with silent blocks, then the blocks', told first."""
    after, tail = _after_silent_blocks(trial)
    if tail is None:
        return after
    silent: tuple[str, ...]
    for silent in ((), ("attn.proj",)):
        seen, start, numbers = run_tiny(trial, silent)
        blocks = partial(assembling.encoded, start, numbers, trial.sizes["num_heads"])
        if same(seen, tail(blocks(), numbers)):
            continue
        evidence = _tiny_evidence(trial, silent, seen, trial.logits_of(start, numbers))
        for flag in (*reference.NORMALISED, *reference.NORM1, *reference.NORM2):
            if same(seen, tail(blocks(frozenset({flag})), numbers)):
                return named(MISTAKES, reference.mistake_name(flag), evidence)
        return Problem(_TINY, evidence, BLOCKS, (NUDGES[BLOCKS], "eps is 1e-6."))
    return after


_TINY = "Your norm gives other numbers where tokens are small; it should be LayerNorm with eps 1e-6."


def _after_silent_blocks(trial: Trial) -> tuple[Problem | None, assembling.Tail | None]:
    """What is wrong after the blocks, and what is computed there; None for what nobody knows."""
    silent = ("attn.proj", "mlp.fc2")
    seen, start, numbers = run_tiny(trial, silent)
    right = assembling.tail(start, numbers)
    if same(seen, right):
        return None, assembling.tail
    evidence = _norm_evidence(trial, numbers) or _tiny_evidence(trial, silent, seen, right)
    for names, tail in assembling.wrong_tails():
        if same(seen, tail(start, numbers)):
            return of_the_norm(named(MISTAKES, names, evidence)), tail
    return Problem(_TINY, evidence, NORM, (NUDGES[NORM], "eps is 1e-6.")), None


def _norm_evidence(trial: Trial, numbers: Numbers) -> str:
    """What the final norm makes of a tiny token, if it is wrong and a module."""
    path = trial.anatomy.norm[0].rpartition(".")[0]
    x = 1e-3 * draw(2, trial.sizes["embed_dim"])
    if path:
        with torch.no_grad():
            seen, right = trial.model.get_submodule(path)(x), assembling.final_norm(x, numbers)
        if not same(seen, right):
            code = f"awaken({model_code(trial.sizes)}).get_submodule({path!r})({drawn(x.shape, factor=1e-3)})"
            return difference(seen, right, code)
    return ""


def _tiny_evidence(trial: Trial, silent: tuple[str, ...], seen: Tensor, right: Tensor) -> str:
    """Logits of tiny tokens, and how to get them."""
    if silent:
        told = f"with projection, class token and positions times 1e-3, and {' and '.join(silent)} of every block at 0"
        return f"{trial.code()} {told}: {difference(seen, right, 'logits')}"
    code = f"m = awaken({model_code(trial.sizes)}); [m.get_parameter(name).data.mul_(1e-3) for name in {_small(trial)}]"
    return f"{code}; {difference(seen, right, trial.code(model='m'))}"


def _small(trial: Trial) -> list[str]:
    """Names of the parameters that make the tokens."""
    return list(dict.fromkeys((trial.projection.weight, trial.projection.bias, *trial.anatomy.table.names)))


def run_tiny(trial: Trial, silent: tuple[str, ...]) -> tuple[Tensor, Tensor, Numbers]:
    """The logits if tokens have deviation 1e-3 and layers of the blocks are silent; the blocks' input; the numbers."""
    with restored(trial.model) as parameters:
        for name in _small(trial):
            parameters[name].mul_(1e-3)
        trial.silence(silent)
        seen, numbers = trial.run(trial.images[1]), trial.read(trial.way)
    return seen, trial.start(trial.project, numbers=numbers), numbers
