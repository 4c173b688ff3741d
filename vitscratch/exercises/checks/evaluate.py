"""Check of exercise 12: loss and accuracy of a model.

The student's function measures a model that passes on what it is given, so that predictions are known by heart: what
comes back is compared with the right numbers, and with those that known mistakes give.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from vitscratch.exercises.checks.naming import bank, problem
from vitscratch.exercises.checks.spies import (
    NLL_OF_LOGITS,
    NLL_OF_PROBABILITIES,
    SWAPPED,
    SpiedModel,
    close,
    gradients,
    is_number,
    is_swapped_cross_entropy,
    modes,
    seeded,
    weights,
)
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem

# 12 pictures in batches of 5, 5 and 2, of which 4, 3 and 1 are recognised.
BATCH_SIZE = 5
LABELS = (0, 1, 2, 0, 1, 2, 0, 0, 1, 2, 1, 0)
PREDICTED = (0, 1, 2, 2, 1, 0, 0, 0, 2, 2, 1, 2)
CASE = (
    "12 pictures in batches of 5, 5 and 2, of which 4, 3 and 1 are recognised; "
    f"labels {list(LABELS)}, predicted {list(PREDICTED)}, logits of picture i: 1 + i / 5 for the predicted one, else 0"
)

MISTAKES = bank(
    Mistake(
        "ev_train_mode",
        "You measure the model in train mode; it should be in eval mode.",
        "mode",
        (
            "Do two evaluations of one model agree?",
            "In train mode dropout silences neurons, and BatchNorm uses the batch's own statistics and remembers them.",
            "Call model.eval() before the first batch.",
        ),
    ),
    Mistake(
        "tr_stays_eval",
        "You leave the model in eval mode, so that what trains it next trains without dropout; it should have the "
        "mode that it came in.",
        "mode",
        (
            "In which mode was the model before, and in which is it now?",
            "Remember model.training before eval(), and put it back in the end.",
        ),
    ),
    Mistake(
        "ev_always_train",
        "You leave the model in train mode, though it came in eval mode; it should have the mode that it came in.",
        "mode",
        (
            "What if somebody measures a model twice, and then predicts with it?",
            "Remember model.training before eval(), and put that back, not always True.",
        ),
    ),
    Mistake(
        "ev_graph",
        "You let autograd follow the measurement, so that every batch keeps its activations for a backward() that "
        "never comes; it should be off.",
        "gradients",
        (
            "Does model(images).requires_grad hold while you measure?",
            "eval() does not switch gradients off; that is what torch.no_grad() and torch.inference_mode() are for.",
        ),
    ),
    Mistake(
        "pf_loss_tensor",
        "You add up losses with their graphs, so that memory grows with every batch; add up numbers.",
        "gradients",
        (
            "What does the sum of losses hold on to?",
            "Add numbers (loss.item()), and measure under torch.no_grad().",
        ),
    ),
    Mistake(
        "ev_grad_left_off",
        "You switch autograd off and leave it off; it should be as it was before.",
        "gradients",
        (
            "Can anybody train after your function ran?",
            "torch.set_grad_enabled(False) holds until somebody undoes it; use torch.no_grad() with `with`, or as a "
            "decorator.",
        ),
    ),
    Mistake(
        "ev_trains",
        "You change the model by measuring it; it should stay as it is.",
        "gradients",
        (
            "Which lines of a training step do not belong here?",
            "No backward(), no step(): what is measured must not be learned from.",
        ),
    ),
    Mistake(
        "ev_argmax_axis",
        "You search the largest logit over the pictures of the batch; it should be over the classes.",
        "accuracy",
        (
            "What is the shape of your predictions? There should be one for each picture.",
            "Logits are (b, classes): axis 1 is the classes.",
        ),
    ),
    Mistake(
        "ev_metric_object",
        "You keep something from one call to the next; each call should begin at zero.",
        "accuracy",
        (
            "Where do your sums start?",
            "A metric object, a global or a default argument that nobody resets counts the last evaluation again.",
            "Start all sums at 0 inside the function.",
        ),
    ),
    Mistake(
        "ev_mean_of_means",
        "You average the batches' means, so a picture in a small batch counts more than one in a large batch; all "
        "should count the same.",
        "accuracy",
        (
            "Does the result change with the batch size?",
            "The last batch has 2 pictures, and weighs as much as one of 5.",
            "Add up over pictures, and divide once by their number.",
        ),
    ),
    Mistake(
        "ev_drop_last",
        "You leave out the last, smaller batch; every picture should count.",
        "accuracy",
        ("How many pictures does your function see?", "A test picture that is not counted was not tested."),
    ),
    Mistake(
        "ev_sum_not_mean",
        "You do not divide the sum by the number of pictures; it should be a mean.",
        "accuracy",
        (
            "Does the result change if every picture is there twice?",
            "Divide what was added up over pictures by the number of pictures, not of batches.",
        ),
    ),
    Mistake(
        "ev_last_batch",
        "You count the last batch only; all should count.",
        "accuracy",
        (
            "What does your sum hold after the second batch?",
            "Add to it; and divide after the loop, not in it.",
        ),
    ),
    Mistake(
        "ev_first_batch",
        "You count the first batch only; all should count.",
        "accuracy",
        ("How often does your loop run?", "A return inside the loop ends it after one batch."),
    ),
    Mistake(
        "ev_batch_size_assumed",
        "You divide the sum by batches x batch size, but the last batch is smaller; it should be the number of "
        "pictures.",
        "accuracy",
        ("How many pictures are in three batches of 5, 5 and 2?", "Count len(labels) of each batch."),
    ),
    Mistake(
        "ev_two_passes",
        "You go over the batches more than once; a loader that shuffles has another order the second time, and a "
        "generator has nothing left, so one loop should do everything.",
        "accuracy",
        (
            "How many loops over `batches` do you begin? next(iter(...)), list(...) and zip(*...) are loops, too.",
            "The images of one pass do not belong to the labels of the next.",
            "Take images and labels together, in one loop, and add up in it.",
        ),
    ),
    Mistake(
        "ev_needs_loader",
        "You ask `batches` for something that only a DataLoader has; it may be a generator, so all that you need "
        "should come out of the loop.",
        "accuracy",
        (
            "What do you use of `batches` besides the loop over it: len(...), .dataset, .batch_size?",
            "Even where it is there, len(batches.dataset) is not N when the loader has a sampler or drop_last.",
            "Count the pictures in the loop.",
        ),
    ),
    Mistake(
        "ev_percent",
        "You return the accuracy in percent; it should be a fraction in [0, 1].",
        "accuracy",
        ("What is the largest accuracy there can be?", "Percent is for printing: f'{accuracy:.1%}'."),
    ),
    Mistake(
        "ev_error_rate",
        "You return the share of wrong predictions; it should be that of the right ones.",
        "accuracy",
        ("What should a perfect model get?", "Count where the predictions equal the labels."),
    ),
    Mistake(
        "ev_softmax_first",
        "You apply softmax before the cross-entropy, which applies it itself; it should get the logits.",
        "loss",
        (
            "What does F.cross_entropy expect: logits or probabilities?",
            "Give it the model's output as it is.",
        ),
    ),
    NLL_OF_LOGITS,
    NLL_OF_PROBABILITIES,
    SWAPPED,
    Mistake(
        "ev_results_swapped",
        "You return loss and accuracy in the other order; the loss should be first.",
        "what is returned",
        ("In which order does the exercise name them?", "First the loss, then the accuracy."),
    ),
    Mistake(
        "ev_inference_tensor",
        "You return a tensor made under inference_mode, which autograd refuses for ever; it should be a plain number.",
        "what is returned",
        (
            "What happens if somebody multiplies your loss with a parameter?",
            "Return numbers: .item().",
        ),
    ),
    Mistake(
        "ev_returns_nothing",
        "You return nothing; it should be the loss and the accuracy.",
        "what is returned",
        ("What does a Python function return that has no return?", "Return the loss and the accuracy."),
    ),
)

# What is said where nobody foresaw the mistake: the step is known, the name is not.
OTHERWISE = {
    "not asked": Mistake(
        "",
        "The model is never called.",
        "accuracy",
        ("Where do your predictions come from?", "They begin with model(images)."),
    ),
    "accuracy": Mistake(
        "",
        "The accuracy is not the share of pictures whose largest logit is their label's.",
        "accuracy",
        ("Count by hand for one small batch.", "Add up over pictures, and divide once by their number."),
    ),
    "loss": Mistake(
        "",
        "The loss is not the mean cross-entropy of all pictures.",
        "loss",
        ("Compute it by hand for one small batch.", "Add up over pictures, and divide once by their number."),
    ),
    "returned": Mistake(
        "",
        "What is returned is not a pair of numbers.",
        "what is returned",
        ("What type has what you return?", "Return loss, accuracy: two numbers."),
    ),
}

Values: TypeAlias = Sequence[Sequence[float]]  # of each picture, batch by batch
Aggregate: TypeAlias = Callable[[Values], float]


def _total(values: Values) -> float:
    return sum(map(sum, values))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def right_mean(values: Values) -> float:
    """Every picture counts the same."""
    return _total(values) / sum(map(len, values))


# How people put batches together wrongly.
AGGREGATES: tuple[tuple[str, Aggregate], ...] = (
    ("ev_mean_of_means", lambda values: _mean([_mean(batch) for batch in values])),
    ("ev_drop_last", lambda values: right_mean(values[:-1])),
    ("ev_drop_last", lambda values: _total(values[:-1]) / sum(map(len, values))),
    ("ev_sum_not_mean", _total),
    ("ev_sum_not_mean", lambda values: _total(values) / len(values)),
    ("ev_sum_not_mean", lambda values: sum(_mean(batch) for batch in values)),
    ("ev_sum_not_mean", lambda values: sum(_mean(batch) for batch in values) / sum(map(len, values))),
    ("ev_last_batch", lambda values: _mean(values[-1])),
    ("ev_last_batch", lambda values: sum(values[-1]) / sum(map(len, values))),
    ("ev_first_batch", lambda values: _mean(values[0])),
    ("ev_batch_size_assumed", lambda values: _total(values) / (len(values) * BATCH_SIZE)),
)
# And what they do to an accuracy.
SCALES: tuple[tuple[str, Callable[[float], float]], ...] = (
    ("", lambda accuracy: accuracy),
    ("ev_percent", lambda accuracy: 100 * accuracy),
    ("ev_error_rate", lambda accuracy: 1 - accuracy),
)


def check(student: ModuleType) -> Iterator[Outcome]:
    """What is right in `evaluate`, until the first thing that is wrong."""
    enabled = torch.is_grad_enabled()
    try:
        for probe in (_mode, _gradients, _axis, _repeat, _numbers, _one_loop):
            for outcome in probe(student.evaluate):
                if isinstance(outcome, Problem) and probe in (_repeat, _numbers, _one_loop):
                    outcome = replace(outcome, evidence=f"{outcome.evidence}. There are {CASE}")
                yield outcome
                if isinstance(outcome, Problem):
                    return
    except Exception as error:
        if not is_swapped_cross_entropy(error):
            raise
        yield problem(SWAPPED, f"cross_entropy got whole numbers first, and failed: {error}")
    finally:
        torch.set_grad_enabled(enabled)  # whatever the student left behind


def _loader(logits: Tensor, labels: Sequence[int], batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    """Pictures that a model which passes them on takes for these logits."""
    return DataLoader(TensorDataset(logits[:, :, None, None], torch.tensor(labels)), batch_size=batch_size)


def _case(backwards: bool = False) -> tuple[SpiedModel, DataLoader[tuple[Tensor, ...]]]:
    """See `CASE`; backwards, the last picture comes first."""
    logits, labels = (_logits().flip(0), LABELS[::-1]) if backwards else (_logits(), LABELS)
    return _passing_on(3), _loader(logits, labels, BATCH_SIZE)


def _logits() -> Tensor:
    """See `CASE`."""
    sure = 1 + torch.arange(len(PREDICTED)) / 5
    return sure[:, None] * nn.functional.one_hot(torch.tensor(PREDICTED), 3)


def _passing_on(classes: int) -> SpiedModel:
    model = SpiedModel(nn.Flatten(), nn.Linear(classes, classes))
    model.load_state_dict({"1.weight": torch.eye(classes), "1.bias": torch.zeros(classes)})
    return model


def case_values(backwards: bool = False) -> tuple[list[list[float]], list[list[float]], dict[str, list[list[float]]]]:
    """Of each picture of `CASE`, batch by batch: 1 if it is recognised, its loss, and what is computed instead."""
    logits, labels = _logits(), torch.tensor(LABELS)
    correct = (logits.argmax(dim=1) == labels).double()
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    instead = {
        "ev_softmax_first": nn.functional.cross_entropy(logits.softmax(dim=1), labels, reduction="none"),
        "ts_nll_of_logits": nn.functional.nll_loss(logits, labels, reduction="none"),
        "ts_nll_of_probabilities": nn.functional.nll_loss(logits.softmax(dim=1), labels, reduction="none"),
    }

    def batches(values: Tensor) -> list[list[float]]:
        return [part.tolist() for part in (values.flip(0) if backwards else values).split(BATCH_SIZE)]

    return batches(correct), batches(losses), {name: batches(values) for name, values in instead.items()}


def _mode(evaluate: Callable[..., Any]) -> Iterator[Outcome]:
    about = "a model with nn.BatchNorm1d and nn.Dropout"
    for before in (True, False):
        with seeded():
            layers = (nn.Flatten(), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 3))
            model = SpiedModel(*layers).train(before)
            evaluate(model, _loader(torch.randn(9, 3), [0, 1, 2] * 3, 3))
        if not model.calls:
            yield problem(OTHERWISE["not asked"], "during evaluate, model.forward ran 0 times")
            return
        came = f"{about}, after model.{'train' if before else 'eval'}()"
        awake = [call for call in model.calls if any(call.modes)]
        if awake:
            evidence = f"{came}: in {len(awake)} of {len(model.calls)} forward passes some layer's .training was True"
            yield problem(MISTAKES["ev_train_mode"], evidence)
        if set(modes(model)) != {before}:
            name = "tr_stays_eval" if before else "ev_always_train"
            changed = sum(mode != before for mode in modes(model))
            evidence = f"{came}: after evaluate, .training of {changed} of {len(modes(model))} modules is {not before}"
            yield problem(MISTAKES[name], evidence)
    yield Passed("all batches are seen in eval mode, and afterwards the model is in the mode in which it was before")


def _gradients(evaluate: Callable[..., Any]) -> Iterator[Outcome]:
    with seeded():
        model = SpiedModel(nn.Flatten(), nn.Linear(3, 3))
        batches = _loader(torch.randn(9, 3), [0, 1, 2] * 3, 3)
    before = weights(model)
    returned = evaluate(model, batches)
    if not torch.is_grad_enabled():
        yield problem(MISTAKES["ev_grad_left_off"], "after evaluate, torch.is_grad_enabled() is False")
    moved = float((weights(model) - before).norm())
    learns = all(parameter.requires_grad for parameter in model.parameters())
    if moved or gradients(model) is not None or not learns:
        grad = "a tensor" if gradients(model) is not None else "None"
        yield problem(
            MISTAKES["ev_trains"],
            f"after evaluate, the weights differ by {moved:.4f} from those before, parameter.grad is {grad}, and "
            f"requires_grad is {learns}; all should be as before: 0, None, True",
        )
    followed = sum(call.with_graph for call in model.calls)
    if followed:
        kept = any(isinstance(part, Tensor) and part.requires_grad for part in _parts(returned))
        what = ", and what evaluate returns has a grad_fn" if kept else ""
        yield problem(
            MISTAKES["pf_loss_tensor" if kept else "ev_graph"],
            f"model(images).requires_grad was True in {followed} of {len(model.calls)} forward passes{what}",
        )
    yield Passed("nothing is kept for a backward pass, and autograd works afterwards")


def _axis(evaluate: Callable[..., Any]) -> Iterator[Outcome]:
    """As many pictures as classes: only here does an argmax over the wrong axis give predictions at all."""
    rows, labels = [[9, 8, 0, 1], [6, 1, 2, 0], [0, 7, 5, 6], [1, 2, 4, 3]], [0, 0, 1, 3]
    batches = _loader(torch.tensor(rows + rows).float(), labels + labels, 4)
    accuracy = _parts(evaluate(_passing_on(4), batches))[1:2]
    if accuracy and any(_equal(accuracy[0], scale(2 / 4)) for _, scale in SCALES[:2]):
        evidence = f"logits {rows} (a row for each picture), labels {labels}, twice: your accuracy is "
        evidence += f"{float(accuracy[0]):.4f}; it is 3 / 4, for the rows' largest are those of classes 0, 0, 1 and 2"
        yield problem(MISTAKES["ev_argmax_axis"], evidence)


def _repeat(evaluate: Callable[..., Any]) -> Iterator[Outcome]:
    model, batches = _case()
    first, second = (_parts(evaluate(model, batches))[:2] for _ in range(2))
    if all(map(is_number, first + second)) and not all(_equal(*pair) for pair in zip(first, second, strict=False)):
        found = [", ".join(f"{float(part):.4f}" for part in parts) for parts in (first, second)]
        evidence = f"two calls with the same model and batches give {found[0]} and {found[1]}"
        yield problem(MISTAKES["ev_metric_object"], evidence)


def _numbers(evaluate: Callable[..., Any]) -> Iterator[Outcome]:
    model, batches = _case()
    returned = evaluate(model, batches)
    parts = _parts(returned)[:2]
    if len(parts) < 2 or not all(is_number(part) for part in parts):
        name = type(returned).__name__
        kinds = f" of {', '.join(type(part).__name__ for part in parts)}" if isinstance(returned, tuple) else ""
        nothing = MISTAKES["ev_returns_nothing"] if returned is None else OTHERWISE["returned"]
        yield problem(nothing, f"evaluate(model, batches) is a {name}{kinds}; expected (loss, accuracy)")
        return
    correct, losses, _ = case_values()
    loss, accuracy = parts
    right_loss, right_accuracy = right_mean(losses), right_mean(correct)
    if _equal(loss, right_accuracy) and _equal(accuracy, right_loss):
        evidence = f"evaluate(...)[0] is {float(loss):.4f}; the loss is {right_loss:.4f}"
        yield problem(MISTAKES["ev_results_swapped"], evidence)
        return
    seen = f"; the model saw {sum(len(call.images) for call in model.calls)} pictures"
    for name, value, right in (("accuracy", accuracy, right_accuracy), ("loss", loss, right_loss)):
        if not _equal(value, right):
            evidence = f"your {name} is {float(value):.4f}; it is {right:.4f}{seen}"
            names = _explained(evaluate, name, value)
            found = [MISTAKES[each] for each in names] or [OTHERWISE[name]]
            yield problem([_of_step(mistake, name) for mistake in found], evidence)
            return
        fraction = "8 / 12" if name == "accuracy" else "the mean over all 12 pictures"
        yield Passed(f"the {name} of ragged batches is exact: {right:.4f}, {fraction}")
    if any(isinstance(part, Tensor) and part.is_inference() for part in parts):
        evidence = "evaluate(model, batches)[0].is_inference() is True: multiplied with a parameter it raises an error"
        yield problem(MISTAKES["ev_inference_tensor"], evidence)
        return
    remark = " (as tensors: .item() makes them numbers)" if any(isinstance(part, Tensor) for part in parts) else ""
    yield Passed(f"loss and accuracy are returned, in this order{remark}")


def _explained(evaluate: Callable[..., Any], name: str, value: Any) -> tuple[str, ...]:
    """The mistakes that give this value, and with the pictures backwards what comes out then, too; else none."""
    again = _parts(evaluate(*_case(backwards=True)))[name == "accuracy"]
    made = []
    for backwards in (False, True):
        correct, losses, instead = case_values(backwards)
        made.append(accuracies(correct) if name == "accuracy" else loss_values(losses, instead))
    pairs = zip(*made, strict=True)
    return next((names for (names, one), (_, other) in pairs if _equal(value, one) and _equal(again, other)), ())


class _Shuffled(DataLoader[tuple[Tensor, ...]]):
    """The pictures of `CASE` in another order in every pass; counts the passes."""

    def __init__(self) -> None:
        self.passes = 0
        pictures = _loader(_logits(), LABELS, BATCH_SIZE).dataset
        super().__init__(pictures, BATCH_SIZE, shuffle=True, generator=torch.Generator().manual_seed(0))

    def __iter__(self) -> Any:
        self.passes += 1
        return super().__iter__()


def _generator() -> Iterator[tuple[Tensor, ...]]:
    """The pictures of `CASE` for one pass: a second one finds nothing."""
    yield from _loader(_logits(), LABELS, BATCH_SIZE)


def _one_loop(evaluate: Callable[..., Any]) -> Iterator[Outcome]:
    """Nothing but one loop over the batches is needed, and more than one is wrong for some."""
    correct, losses, _ = case_values()
    right = right_mean(losses), right_mean(correct)
    shuffled = _Shuffled()  # tells how many loops begin: a generator cannot
    kinds: tuple[tuple[str, Any], ...] = (("DataLoader(..., shuffle=True)", shuffled), ("a generator", _generator()))
    for what, batches in kinds:
        try:
            found = _parts(evaluate(_passing_on(3), batches))[:2]
            if all(map(_equal, found, right)):
                continue
            loss, accuracy = map(float, found)
            said = f"loss and accuracy are {loss:.4f} and {accuracy:.4f}; they are {right[0]:.4f} and {right[1]:.4f}"
        except Exception as error:
            if shuffled.passes < 2 and not isinstance(error, AttributeError | TypeError):
                raise
            said = f"{type(error).__name__}: {error}"
        evidence = f"loops over batches: {shuffled.passes}; where it is {what} of the same pictures: {said}"
        yield problem(MISTAKES["ev_two_passes" if shuffled.passes > 1 else "ev_needs_loader"], evidence)
        return
    yield Passed("one loop over the batches does it: they may be shuffled, and come from a generator")


def accuracies(correct: Values) -> list[tuple[tuple[str, ...], float]]:
    """What mistakes make of an accuracy, each with their names; single ones first."""
    ways: list[tuple[str, Aggregate]] = [("", right_mean), *AGGREGATES]
    found = [
        (tuple(name for name in (way, scale) if name), change(aggregate(correct)))
        for (way, aggregate), (scale, change) in product(ways, SCALES)
    ]
    return sorted((each for each in found if each[0]), key=lambda each: len(each[0]))


def loss_values(losses: Values, instead: Mapping[str, Values]) -> list[tuple[tuple[str, ...], float]]:
    """What mistakes make of a loss, each with their names; single ones first."""
    ways: list[tuple[str, Aggregate]] = [("", right_mean), *AGGREGATES]
    found = [
        (tuple(name for name in (other, way) if name), aggregate(values))
        for (other, values), (way, aggregate) in product({"": losses, **instead}.items(), ways)
    ]
    return sorted((each for each in found if each[0]), key=lambda each: len(each[0]))


def _of_step(mistake: Mistake, step: str) -> Mistake:
    """Means are taken of both numbers: the mistake is in the step of the number that shows it."""
    return Mistake(mistake.name, mistake.what, step, mistake.hints, mistake.section)


def _parts(returned: Any) -> list[Any]:
    return list(returned) if isinstance(returned, tuple | list) and returned else [returned]


def _equal(value: Any, expected: Any) -> bool:
    return is_number(value) and close(float(value), float(expected), 2e-4)
