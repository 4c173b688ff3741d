"""Tokens so small that eps matters: what only they show."""

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
    """Tokens of deviation 1e-3 show every eps: with the blocks as they are, without attention, without all of it."""
    heads = trial.sizes["num_heads"]
    silent: tuple[str, ...] = ()
    for layer in ("", "attn.proj", "mlp.fc2"):
        silent = (*silent, layer)
        seen, start, numbers = run_tiny(trial, silent)
        right = trial.logits_of(start, numbers)
        if same(seen, right):
            continue
        evidence = _tiny_evidence(trial, numbers, layer, difference(seen, right, "logits"))
        for flag in () if layer == "mlp.fc2" else (*reference.NORMALISED, *reference.NORM1, *reference.NORM2):
            z = assembling.encoded(start, numbers, heads, frozenset({flag}))
            if same(seen, assembling.tail(z, numbers)):
                return named(MISTAKES, reference.mistake_name(flag), evidence)
        for names, tail in assembling.wrong_tails() if layer == "mlp.fc2" else ():
            if same(seen, tail(start, numbers)):
                return of_the_norm(named(MISTAKES, names, evidence))
        step = NORM if layer == "mlp.fc2" else BLOCKS
        what = "Your norm gives other numbers where tokens are small; it should be LayerNorm with eps 1e-6."
        return Problem(what, evidence, step, (NUDGES[step], "eps is 1e-6."))
    return None


def _tiny_evidence(trial: Trial, numbers: Numbers, layer: str, told: str) -> str:
    """What the final norm, if it is that and a module, makes of a tiny token; else what the logits were."""
    path = trial.anatomy.norm[0].rpartition(".")[0]
    x = 1e-3 * draw(2, trial.sizes["embed_dim"])
    if layer == "mlp.fc2" and path:
        with torch.no_grad():
            seen, right = trial.model.get_submodule(path)(x), assembling.final_norm(x, numbers)
        if not same(seen, right):
            code = f"awaken({model_code(trial.sizes)}).get_submodule({path!r})({drawn(x.shape, factor=1e-3)})"
            return difference(seen, right, code)
    return f"{trial.code()} with projection, class token and positions times 1e-3, so that eps matters: {told}"


def run_tiny(trial: Trial, silent: tuple[str, ...]) -> tuple[Tensor, Tensor, Numbers]:
    """The logits if tokens have deviation 1e-3 and layers of the blocks are silent; the blocks' input; the numbers."""
    with restored(trial.model) as parameters:
        for name in {trial.projection.weight, trial.projection.bias, *trial.anatomy.table.names}:
            parameters[name].mul_(1e-3)
        trial.silence(silent)
        seen, numbers = trial.run(trial.images[1]), trial.read(trial.way)
    return seen, trial.start(trial.project, numbers=numbers), numbers
