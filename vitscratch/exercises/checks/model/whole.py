"""Models without blocks to listen to: one mistake anywhere, by hypotheses of the whole, then by probes."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from vitscratch.exercises.checks import assembling, prepending, projecting, reference, tokens
from vitscratch.exercises.checks.compare import difference, draw, same
from vitscratch.exercises.checks.model.bank import BLOCKS, CLASS_TOKEN, MISTAKES, NUDGES, PATCHES, POOLING, of_the_norm
from vitscratch.exercises.checks.model.embedding import right_starts, start_under, unknown_patches
from vitscratch.exercises.checks.model.surplus import surplus_problem
from vitscratch.exercises.checks.model.tail import NEIGHBOURS, unknown_tail
from vitscratch.exercises.checks.model.trial import Trial, all_same, restored
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.checks.projecting import Projection
from vitscratch.exercises.checks.student import pick_tensor
from vitscratch.exercises.exercise import Problem


def by_hypotheses(wrong: list[Trial]) -> Problem | None:
    """The whole model with one mistake, anywhere."""
    found = [trial.logits[1] for trial in wrong]
    trial = wrong[0]
    evidence = trial.evidence()
    for name, compute in _too_few(trial.projection):
        if all_same(wrong, found, compute):
            return named(MISTAKES, name, evidence)
    if trial.anatomy.table.rows == trial.patches:
        return named(MISTAKES, "vit_pos_not_on_cls", evidence)
    for names, in_tail, order, compute in _whole(trial.projection):
        if all_same(wrong, found, compute):
            trial.project = order
            evidence = trial.evidence()
            problem = projecting.hinted(named(MISTAKES, names, evidence), trial.projection)
            if names == ("tok_pos_shifted",) and _appends(trial):  # and reads it there: blocks do not see the order
                problem = named(MISTAKES, "vit_cls_appended", evidence)
            if names == ("attn_over_batch",) and _keeps_pictures_apart(trial):
                return named(MISTAKES, "attn_causal", evidence)
            return of_the_norm(problem) if in_tail else problem
    return None


def _keeps_pictures_apart(trial: Trial) -> bool:
    """Whether no picture sees another, if the positions, or the class tokens, of all pictures differ.

    In attention over the batch, as under a mask, a class token sees class tokens alone, and these are all the same.
    """
    images, parameters = trial.images[1], dict(trial.model.named_parameters())
    for name in (trial.anatomy.table.pos, trial.anatomy.table.cls):
        shape = parameters[name].shape
        one, other = (draw(len(images), *shape[-2:] if len(shape) > 1 else (1, *shape), seed=seed) for seed in (10, 11))
        other[0] = one[0]
        try:
            with torch.no_grad():
                seen = [functional_call(trial.model, {name: each}, (images.clone(),)) for each in (one, other)]
            first, second = (pick_tensor(each, trial.logits[1].shape) for each in seen)
        except Exception:  # the student's code does not take one for each picture
            continue
        if first is not None and second is not None:
            return same(first[0], second[0])
    return False


def _appends(trial: Trial) -> bool:
    """Whether one token is joined behind those of all patches."""
    seen: list[list[int]] = []

    class Joined(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__name__", "") in ("cat", "concat", "concatenate") and args:
                seen.append([tensor.shape[1] for tensor in args[0] if tensor.ndim == 3])
            return func(*args, **(kwargs or {}))

    with Joined():
        trial.run(trial.images[1])
    return [trial.patches, 1] in seen


def _blocks(t: Trial) -> list[assembling.Block]:
    heads = t.sizes["num_heads"]
    return [partial(reference.encoder_block, parameters=block, num_heads=heads) for block in t.numbers().blocks]


def _too_few(projection: Projection) -> Iterator[tuple[str, Any]]:
    """Names, and functions from a trial to its logits, where no class token stands in front of the patches."""
    for (name, join), project, tail in product(
        prepending.too_few(), projecting.rights(projection), assembling.tails_of_few()
    ):
        yield (
            name,
            lambda t, f=(project, join), tail=tail: tail(
                assembling.encoded(start_under(t, *f), t.numbers(), t.sizes["num_heads"]), t.numbers()
            ),
        )


def _whole(projection: Projection) -> Iterator[tuple[tuple[str, ...], bool, int, Any]]:
    """Names, whether the mistake comes after the blocks, the right order of pixels, and a function from a trial to its
    logits."""

    orders = range(len(projecting.rights(projection)))  # of pixels
    starts: dict[int, list[Tensor]] = {}
    ends: dict[tuple[int, int, reference.Flags], Tensor] = {}

    def start(t: Trial, order: int) -> Tensor:
        if id(t) not in starts:
            starts[id(t)] = right_starts(t)
        return starts[id(t)][order]

    def encoded(t: Trial, order: int, flags: reference.Flags = reference.RIGHT) -> Tensor:
        key = (id(t), order, flags)
        if key not in ends:
            ends[key] = assembling.encoded(start(t, order), t.numbers(), t.sizes["num_heads"], flags)
        return ends[key]

    for names, project, prepend in assembling.wrong_embeddings(projection):
        if len(names) == 1:
            yield names, False, 0, lambda t, f=(project, prepend): t.logits_of(start_under(t, *f), t.numbers())
    for (names, tail), i in product(assembling.wrong_tails(), orders):
        if len(names) == 1:
            yield names, True, i, lambda t, tail=tail, i=i: tail(encoded(t, i), t.numbers())
    for (name, loop), i in product(assembling.loops(), orders):
        yield (name,), False, i, lambda t, loop=loop, i=i: loop(start(t, i), _blocks(t), t.numbers())
    for flag, i in product((flag for stage in reference.BLOCK_STAGES for flag in stage), orders):
        yield (
            (reference.mistake_name(flag),),
            False,
            i,
            lambda t, flag=flag, i=i: assembling.tail(encoded(t, i, frozenset({flag})), t.numbers()),
        )


def by_probes(trial: Trial) -> Problem:
    """No hypothesis fits: special parameters say which part is wrong."""
    alone = trial.run(trial.images[1][:1])
    if not same(alone, trial.logits[1][:1]):
        return Problem(
            NEIGHBOURS,
            f"{difference(trial.logits[1][:1], alone, trial.code())}, as when the picture is alone",
            BLOCKS,
            (NUDGES[BLOCKS], "Which axis does attention run over? Give nn.MultiheadAttention batch_first=True."),
        )
    evidence = trial.evidence()
    if problem := surplus_problem(trial):
        return problem
    silent = _silenced(trial)
    if not same(*silent):
        problem = unknown_tail(trial, evidence)
        apart = difference(*silent, "logits")
        if problem.step != POOLING:
            return problem
        hints = ("With silent blocks the logits are head(LN(class token + first position)).", NUDGES[POOLING])
        return Problem(
            "You lose the class token on its way; with silent blocks the head should read it plus the first position.",
            f"{evidence}\nwith silent blocks {apart}",
            CLASS_TOKEN,
            hints,
        )
    if problem := _before_the_blocks(trial, evidence):
        return problem
    what = "Your blocks add something else; they should compute Eq. 2 and Eq. 3."
    return Problem(
        what, evidence, BLOCKS, (NUDGES[BLOCKS], "Check the block by itself (exercise 7), and the patches (2).")
    )


def _before_the_blocks(trial: Trial, evidence: str) -> Problem | None:
    """The logits are right as soon as a part of what the first block gets is 0: the blocks are right, this part not."""

    def right_without(*names: str) -> bool:
        with restored(trial.model) as parameters:
            for name in filter(None, names):
                parameters[name].zero_()
            seen, numbers = trial.run(trial.images[1]), trial.read(trial.way)
        starts = (trial.start(order, numbers=numbers) for order in trial.orders)
        return any(same(seen, trial.logits_of(start, numbers)) for start in starts)

    projection, table = trial.projection, trial.anatomy.table
    without_patches = right_without(projection.weight, projection.bias)
    without_positions = right_without(table.pos, table.cls_pos)
    if without_patches and without_positions:
        return Problem(
            "You give patches the positions of others, or put them into another order; token i should be made of patch "
            "i, row by row through the picture, and of position i.",
            f"{evidence}\nwith the positions at 0 the logits are right, and with the projection's weight and bias at 0",
            PATCHES,
            (
                "In which order do patches come out, and rows of the table? A flip or an index changes it.",
                "Patches go row by row, from the upper left to the lower right; the table is added as it is.",
            ),
        )
    if without_patches:
        return unknown_patches(f"{evidence}\nwith the projection's weight and bias at 0 the logits are right")
    if without_positions:
        return tokens.unknown_positions(f"{evidence}\nwith the positions at 0 the logits are right")
    return None


def _silenced(trial: Trial) -> tuple[Tensor, Tensor]:
    """Logits with both last layers of every block at 0, and head(LN(class token + first position))."""
    with restored(trial.model):
        trial.silence(("attn.proj", "mlp.fc2"))
        seen = trial.run(trial.images[1])
    n = trial.numbers()
    return seen, assembling.tail((n.cls + n.pos[0]).expand(len(seen), 1, -1), n)
