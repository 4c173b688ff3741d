"""Exercise 8: VisionTransformer, from pictures to logits."""

from collections.abc import Iterator
from types import ModuleType

from vitscratch.exercises.checks import failing
from vitscratch.exercises.checks.compare import draw
from vitscratch.exercises.checks.encoder_block import dead_residual
from vitscratch.exercises.checks.model.bank import BLOCKS, MISTAKES
from vitscratch.exercises.checks.model.block import block_problem
from vitscratch.exercises.checks.model.chance import chance_problem
from vitscratch.exercises.checks.model.embedding import embedding_problem
from vitscratch.exercises.checks.model.listening import trace
from vitscratch.exercises.checks.model.parameters import unknown_layout
from vitscratch.exercises.checks.model.running import SIZES, model_code
from vitscratch.exercises.checks.model.stream import stream_problem
from vitscratch.exercises.checks.model.surplus import surplus_problem, unused_problem
from vitscratch.exercises.checks.model.tail import tail_problem
from vitscratch.exercises.checks.model.tiny import tiny_problem
from vitscratch.exercises.checks.model.trial import Trial, build_trial, ignores_its_arguments
from vitscratch.exercises.checks.model.whole import by_hypotheses, by_probes
from vitscratch.exercises.checks.modes import in_both_modes
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.checks.student import (
    StudentError,
    WrongError,
    drawn,
    in_place,
    low_precision,
    pick_tensor,
    raised,
)
from vitscratch.exercises.exercise import Outcome, Passed, Problem

__all__ = ["MISTAKES", "check"]


def check(student: ModuleType) -> Iterator[Outcome]:
    """Built at several sizes, awake, in float64: parameters, then the logits, then what explains a difference."""
    try:
        yield from in_both_modes(_check, student)
    except WrongError as error:
        yield error.problem


def _check(student: ModuleType) -> Iterator[Outcome]:
    trials = []
    for sizes in SIZES:
        try:
            trials.append(build_trial(student, sizes))
        except StudentError as failed:
            square_only = isinstance(failed.error, TypeError | ValueError | AssertionError)
            if isinstance(sizes["image_size"], tuple) and square_only:
                continue
            if problem := ignores_its_arguments(student, sizes, failed.error):
                raise WrongError(problem) from None
            raise failed.error from None
    if trials[0].anatomy.table.rows > trials[0].patches and not trials[0].anatomy.absent:
        yield Passed("all parts are registered: patch embedding, class token, positions, blocks, norm and head")
    yield Passed("logits come as (batch, num_classes), for batches of 1, 3 and 5 and several sizes")
    if wrong := [trial for trial in trials if not trial.is_right()]:
        raise WrongError(_diagnose(student, trials, wrong))
    if problem := chance_problem(student, trials[0]) or tiny_problem(trials[0]):
        raise WrongError(problem)
    for trial in trials:
        if trial.anatomy.surplus:
            raise WrongError(unused_problem(trial))
    yield Passed("a picture's logits do not depend on the other pictures of the batch, and two calls agree")
    yield Passed("swapping two patches changes the logits: every token has its position")
    heard = trace(trials[0], 1) if trials[0].anatomy.hooked else []
    if heard and all(one.alone for one in heard) and (problem := block_problem(student)):
        raise WrongError(problem)
    dead_residual(trials[0].model, MISTAKES)
    yield Passed("every block is used once, in order; Eq. 1 to Eq. 4 give the same logits with your parameters, awake")
    _gradients(trials[0])
    yield Passed("a gradient reaches every parameter")


def _gradients(trial: Trial) -> None:
    """Raises WrongError if a parameter gets no gradient."""
    weights = draw(*trial.logits[1].shape)
    logits = pick_tensor(trial.model(trial.images[1]), trial.logits[1].shape)
    assert logits is not None
    if not logits.requires_grad:
        code = f"{trial.code()}.requires_grad is False; it should be True"
        raise WrongError(named(MISTAKES, "vit_frozen", code))
    loss = f"m = awaken({model_code(trial.sizes)}); ({trial.code(model='m')} * {drawn(weights.shape)}).sum().backward()"
    try:
        (logits * weights).sum().backward()
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        raise WrongError(in_place(raised(loss, error), BLOCKS)) from None
    without = [name for name, parameter in trial.model.named_parameters() if parameter.grad is None]
    if without:
        evidence = f"{loss}; m.get_parameter({without[0]!r}).grad is None; it should be a tensor"
        evidence += f"\nthe same for {', '.join(without[1:6])}" if without[1:] else ""
        raise WrongError(named(MISTAKES, "vit_frozen", evidence))


def _diagnose(student: ModuleType, trials: list[Trial], wrong: list[Trial]) -> Problem:
    """Why the logits differ; what has no name may be rounding."""
    problem, trial = _explain(student, trials, wrong), wrong[0]
    place = failing.in_model(trial.sizes["depth"])
    rounded = None
    if problem.mistake is None and trial.anatomy.guessed:
        return unknown_layout(trial.model, trial.anatomy, trial.sizes)
    if problem.mistake is None:
        rounded = low_precision(lambda: trial.model(trial.images[1].clone()), place, trial.evidence())
    return rounded or problem


def _explain(student: ModuleType, trials: list[Trial], wrong: list[Trial]) -> Problem:
    """Why the logits differ: stage by stage where one can listen to the blocks, else by hypotheses of the whole."""
    if problem := chance_problem(student, trials[0]):
        return problem
    traces = [trace(trial, 1) for trial in trials] if trials[0].anatomy.hooked else []
    if traces and all(traces):
        for stage in (embedding_problem, stream_problem, tail_problem):
            like_exercise_7 = all(one.alone for one in traces[0])
            if stage is tail_problem and like_exercise_7 and (problem := block_problem(student)):
                return problem
            if problem := stage(trials, traces):
                return problem
    extra = surplus_problem(wrong[0])
    if extra and extra.step != "parameters":
        return extra
    return by_hypotheses(wrong) or by_probes(wrong[0])
