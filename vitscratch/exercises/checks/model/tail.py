"""The steps after the last block, Eq. 4: final norm, pooling and head."""

from typing import Any

import torch
from torch import Tensor, nn

from vitscratch.exercises.checks import assembling
from vitscratch.exercises.checks.compare import difference, same
from vitscratch.exercises.checks.model.bank import HEAD, MISTAKES, NORM, NUDGES, POOLING, of_the_norm
from vitscratch.exercises.checks.model.listening import Heard
from vitscratch.exercises.checks.model.parameters import told_absent
from vitscratch.exercises.checks.model.surplus import surplus_problem
from vitscratch.exercises.checks.model.tiny import run_tiny
from vitscratch.exercises.checks.model.trial import Trial, all_same, restored
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.exercise import Problem


def tail_problem(trials: list[Trial], traces: list[list[Heard]]) -> Problem | None:
    """Whether the logits are the head of the normalised class token."""
    last, found = [heard[-1].out for heard in traces], [trial.logits[1] for trial in trials]
    if trials[0].anatomy.absent:
        return _absent(trials, last, found)
    right = [assembling.tail(z, trial.numbers()) for z, trial in zip(last, trials, strict=True)]
    if all(same(logits, expected) for logits, expected in zip(found, right, strict=True)):
        return None
    trial, logits, expected = next(w for w in zip(trials, found, right, strict=True) if not same(w[1], w[2]))
    evidence = f"{difference(logits, expected, trial.code())}\nthe last block is right"
    inputs = {id(trial): (z, heard[0].x) for trial, z, heard in zip(trials, last, traces, strict=True)}
    for names, compute in assembling.wrong_tails():
        if all_same(trials, found, lambda t, c=compute: c(inputs[id(t)][0], t.numbers())):
            return of_the_norm(named(MISTAKES, _with_eps(trial, names, compute), evidence))
    if all_same(trials, found, lambda t: assembling.tail(sum(inputs[id(t)]), t.numbers())):  # type: ignore[arg-type]
        return named(MISTAKES, "vit_long_residual", evidence)
    if all_same(trials, found, lambda t: assembling.tail(inputs[id(t)][0] + t.numbers().pos, t.numbers())):
        return named(MISTAKES, "tok_pos_twice", evidence)
    if all_same(trials, found, lambda t: assembling.tail(inputs[id(t)][1], t.numbers())):
        return named(MISTAKES, "vit_blocks_unused", evidence)
    before = {id(trial): heard[-2].out for trial, heard in zip(trials, traces, strict=True)}
    if all_same(trials, found, lambda t: assembling.tail(before[id(t)], t.numbers())):
        return named(MISTAKES, "vit_depth_minus_one", evidence)
    return surplus_problem(trial) or unknown_tail(trial, evidence, inputs[id(trial)][0])


def _absent(trials: list[Trial], last: list[Tensor], found: list[Tensor]) -> Problem:
    """Parameters are missing after the blocks: what is done wrong there besides."""
    trial, absent = trials[0], trials[0].anatomy.absent
    z = {id(one): tokens for one, tokens in zip(trials, last, strict=True)}
    evidence = f"{trial.counted()}\n{told_absent(trial.model, trial.anatomy)}"
    for names, compute in assembling.wrong_tails():
        fits = "vit_no_final_norm" in names or "vit_no_final_norm" not in absent
        if fits and all_same(trials, found, lambda t, c=compute: c(z[id(t)], t.numbers())):
            every = dict.fromkeys((*absent, *_with_eps(trial, names, compute)))  # in this order, each once
            return named(MISTAKES, sorted(every, key=_place_in_the_tail), evidence)
    return named(MISTAKES, absent, evidence)


def _place_in_the_tail(name: str) -> int:
    return 0 if name.startswith("enc_eps") else (NORM, POOLING, HEAD).index(MISTAKES[name].step)


def _with_eps(trial: Trial, names: tuple[str, ...], tail: assembling.Tail) -> tuple[str, ...]:
    """The names of what is wrong after the blocks, and a wrong eps, which only tiny tokens show."""
    seen, start, numbers = run_tiny(trial, ("attn.proj", "mlp.fc2"))
    if same(seen, tail(start, numbers)):
        return names
    for pair, compute in assembling.wrong_tails():
        if {*names} < {*pair} and pair[0].startswith("enc_eps") and same(seen, compute(start, numbers)):
            return pair
    return names


def unknown_tail(trial: Trial, evidence: str, last: Tensor | None = None) -> Problem:
    """With the head's weight at 0 the logits are its bias; with the norm's at 0 every token is the norm's bias.

    `last` is what the last block returned, if one could listen to it.
    """
    numbers, what = trial.numbers(), ""

    def with_zero(name: str) -> Tensor:
        with restored(trial.model) as parameters:
            parameters[name].zero_()
            return trial.run(trial.images[1])

    bias = with_zero(trial.anatomy.head[0])
    if not same(bias, numbers.head[1].expand_as(bias)):
        step, why = HEAD, "with the head's weight at 0 the logits should be its bias, "
        why += difference(bias, numbers.head[1].expand_as(bias), "logits")
    elif told := _around_the_norm(trial, last):
        step, what, why = told
    else:
        constant = with_zero(trial.anatomy.norm[0])
        right = assembling.classified(numbers.norm[1], numbers).expand_as(constant)
        step = POOLING if same(constant, right) else NORM
        why = "with the final norm's weight at 0 every token is its bias, and the logits are " + (
            "right: the wrong token is read, or none alone" if step == POOLING else "wrong all the same"
        )
    what = what or _NAMELESS[step]
    alone = trial.run(trial.images[1][-1:])
    if not same(alone, trial.logits[1][-1:]):
        what = NEIGHBOURS
        why += f"; {difference(trial.logits[1][-1:], alone, 'logits of the last picture')} as when it is alone"
    return Problem(what, f"{evidence}\n{why}", step, (NUDGES[step], "Eq. 4: y = LN(z_L^0); then the head."))


def _around_the_norm(trial: Trial, last: Tensor | None) -> tuple[str, str, str] | None:
    """Step, what is wrong and why, where listening to the final norm tells: what it gets, and who reads the patches."""
    path = trial.anatomy.norm[0].rpartition(".")[0]
    if last is None or not path:
        return None
    given: list[Tensor] = []

    def silent_patches(norm: nn.Module, args: tuple[Tensor, ...], out: Any) -> Any:
        given.extend(args[:1])
        all_tokens = isinstance(out, Tensor) and out.shape == last.shape
        return torch.cat([out[:, :1], 0 * out[:, 1:]], dim=1) if all_tokens else out

    hook = trial.model.get_submodule(path).register_forward_hook(silent_patches)
    try:
        logits = trial.run(trial.images[1])
    finally:
        hook.remove()
    if len(given) != 1:
        return None
    came = [last, last.transpose(0, 1), last[:, 0], last[:, :1]]
    if not any(same(given[0], tokens) for tokens in came):
        why = "what goes into the final norm is not what comes out of the last block"
        if given[0].shape not in (tokens.shape for tokens in came[:2]):  # not all tokens
            return POOLING, _NAMELESS[POOLING], why
        return NORM, "You give the final norm something else; it should get what the last block returned.", why
    if not same(logits, trial.logits[1]):
        return POOLING, _NAMELESS[POOLING], "if the final norm returns 0 for the patches' tokens, the logits change"
    return None


NEIGHBOURS = "You let a picture's logits depend on its neighbours in the batch; they should not."
_NAMELESS = {
    HEAD: "You do something more in the head; the logits should be one linear map of what it reads.",
    NORM: "You normalise the last tokens in another way; it should be LayerNorm over the width, with weight and bias.",
    POOLING: "Your head reads something else; it should read the class token, token 0, alone.",
}
