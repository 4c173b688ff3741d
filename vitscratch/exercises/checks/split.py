"""Check of exercise 13: which pictures are held out.

Nothing here has one right answer: the check looks at what every good split has, for several seeds and labels.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitscratch.exercises.checks.naming import bank, problem
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem
from vitscratch.randomness import random_state_kept

FRACTION = 0.2
COUNTS = (23, 11, 5)  # of classes 0, 1 and 2
SORTED = [label for label, count in enumerate(COUNTS) for _ in range(count)]  # as folders are read
MIXED = [SORTED[7 * number % len(SORTED)] for number in range(len(SORTED))]  # 7 and 39 have no common divisor
CASE = "labels = 23 * [0] + 11 * [1] + 5 * [2]"
SEEDS = range(8)

MISTAKES = bank(
    Mistake(
        "sp_returns_nothing",
        "You return nothing; it should be two lists of numbers of pictures.",
        "sizes",
        ("What does a Python function return that has no return?", "Return train, held_out."),
    ),
    Mistake(
        "sp_labels_returned",
        "You return labels; it should be the numbers of the pictures.",
        "sizes",
        (
            "How would somebody find the pictures of your lists?",
            "The number of a picture is its place in `labels`: 0 to n - 1.",
        ),
    ),
    Mistake(
        "sp_parts_swapped",
        "You return the parts in the other order, or take `fraction` for the training part; the held-out part "
        "should be the second, and `fraction` its share.",
        "sizes",
        ("How many pictures are held out at fraction 0.2?", "First those to train on, the larger part here."),
    ),
    Mistake(
        "sp_fraction_ignored",
        "Your held-out part has the same size whatever the fraction; the fraction should decide it.",
        "sizes",
        ("Where does your function use `fraction`?", "Of n_c pictures of a class, fraction * n_c are held out."),
    ),
    Mistake(
        "sp_whole_folds",
        "You cut whole folds, one of 1 / fraction of them, rounded, so that 0.4 gives a half or a third; the fraction "
        "itself should decide the size.",
        "sizes",
        (
            "How many folds is 1 / 0.4, and how large is one of them?",
            "Folds fit the fractions 1/2, 1/3, 1/4 and so on. Of n_c pictures of a class, fraction * n_c are held out.",
        ),
    ),
    Mistake(
        "sp_class_positions",
        "You return places within a class; they should be numbers of pictures, which are places in `labels`.",
        "every picture once",
        (
            "Which picture is meant by number 0 of the second class?",
            "Keep the numbers of a class's pictures in a list. What is drawn are places in that list: look up what "
            "stands there.",
        ),
    ),
    Mistake(
        "sp_overlap",
        "You put pictures into both parts; each should be in one.",
        "every picture once",
        (
            "Can you find a picture that is in both lists?",
            "A model is right on pictures that it has learned by heart; so what is held out must not be trained on.",
            "Draw once, and cut that one list in two.",
        ),
    ),
    Mistake(
        "sp_duplicates",
        "You put pictures more than once into a part; each should be there once.",
        "every picture once",
        (
            "How many different numbers are in your lists?",
            "Either something adds the same numbers twice, or a number that was drawn is put back: random.choices, "
            "randint and numpy's choice do that; shuffle, sample and randperm do not.",
        ),
    ),
    Mistake(
        "sp_lost",
        "You put some pictures into neither part; each should be in one.",
        "every picture once",
        (
            "Which numbers are missing?",
            "The end of a slice is not in it, and rounding two parts separately can lose a picture: let the second "
            "part begin where the first ends.",
        ),
    ),
    Mistake(
        "sp_from_one",
        "You count the pictures from 1; the first should be 0.",
        "every picture once",
        ("What is labels[n] for n labels?", "range(len(labels)) counts from 0 to n - 1."),
    ),
    Mistake(
        "da_ordered_split",
        "You cut the list in its order, and it is sorted by class; the parts should be drawn at random, class by "
        "class.",
        "every class",
        (
            "Which classes are in your held-out part?",
            "Folders are read class by class, so the last pictures are one class.",
            "Draw from each class by itself.",
        ),
    ),
    Mistake(
        "da_class_missing",
        "You leave one part without a class; both should have pictures of every class.",
        "every class",
        (
            "How many pictures of the smallest class are held out, for several seeds?",
            "A shuffle of all pictures holds out none of a small class now and then.",
            "Draw from each class by itself.",
        ),
    ),
    Mistake(
        "sp_equal_counts",
        "You hold out equally many pictures of every class; each should give the same share of its own.",
        "every class",
        ("What is 20 % of 23, and what of 5?", "The held-out part should be made up as the whole is."),
    ),
    Mistake(
        "sp_rounded_past",
        "Where fraction * n_c is a whole number, you hold out one picture more, or fewer; only what is no whole number "
        "should be rounded.",
        "every class",
        (
            "How many pictures are 0.2 * 5, and how many do you hold out?",
            "Adding 1 after int(...) is not rounding up: a whole number should stay. math.ceil and round leave it.",
        ),
    ),
    Mistake(
        "sp_not_stratified",
        "You leave the classes' shares to chance; every class should give the same share.",
        "every class",
        (
            "How many pictures of each class are held out, for several seeds?",
            "Draw from each class by itself: fraction * n_c of its n_c pictures.",
        ),
    ),
    Mistake(
        "sp_labels_changed",
        "You change the caller's list of labels, so its numbers now mean other pictures; it should stay as it is.",
        "randomness",
        ("Is `labels` the same before and after?", "Shuffle a list of your own, of numbers, not the labels."),
    ),
    Mistake(
        "sp_not_repeatable",
        "Your split differs for the same seed, depending on who drew random numbers before; the seed alone should "
        "decide it.",
        "randomness",
        (
            "Where does your function use `seed`?",
            "Two runs can be compared only if both hold out the same pictures.",
            "random.Random(seed), numpy.random.default_rng(seed) or torch.Generator().manual_seed(seed).",
        ),
    ),
    Mistake(
        "sp_no_shuffle",
        "You hold out the first, or last, pictures of each class; they should be drawn at random.",
        "randomness",
        (
            "What do neighbouring files have in common?",
            "Often the day, the camera or the subject; so hold out any, drawn at random.",
            "Shuffle each class's numbers with a generator made from the seed.",
        ),
    ),
    Mistake(
        "sp_seed_ignored",
        "You give the same split for another seed; it should be another one.",
        "randomness",
        ("Where does your function use `seed`?", "Make the generator from the argument, not from a number."),
    ),
    Mistake(
        "sp_global_seed",
        "You seed or use a global random generator, so that what others draw from it changes; it should be a "
        "generator of your own.",
        "randomness",
        (
            "What does random.random() give after your function?",
            "A caller who seeded once gets other dropout and other augmentation, because somebody split pictures.",
            "Make a generator of your own from the seed.",
        ),
    ),
)

# What is said where nobody foresaw the mistake: the step is known, the name is not.
OTHERWISE = {
    "returned": Mistake(
        "",
        "What is returned is not a pair of lists of whole numbers.",
        "sizes",
        ("What type has what you return?", "Return train, held_out: two lists of numbers."),
    ),
    "sizes": Mistake(
        "",
        "The held-out part has the wrong size.",
        "sizes",
        ("How many pictures are fraction * n?", "Rounding may move one picture for each class, no more."),
    ),
    "numbers": Mistake(
        "",
        "There are numbers that belong to no picture.",
        "every picture once",
        ("What is the smallest of your numbers, and what the largest?", "Of n pictures, the numbers are 0 to n - 1."),
    ),
}


def check(student: ModuleType) -> Iterator[Outcome]:
    """What is right in `split`, until the first thing that is wrong."""
    for probe in (_sizes, _once, _classes, _randomness):
        for outcome in probe(student.split):
            yield outcome
            if isinstance(outcome, Problem):
                return


def _called(split: Callable[..., Any], labels: list[int], fraction: float, seed: int) -> tuple[Any, Any]:
    """What a student's function returns, and the labels as it leaves them: a list, unless it needs a tensor."""
    given: Any
    try:
        given = list(labels)
        returned = split(given, fraction, seed)
    except Exception as error:
        try:
            given = torch.tensor(labels)
            returned = split(given, fraction, seed)
        except Exception:
            raise error from None
    return returned, given


def _parts(split: Callable[..., Any], labels: list[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Both parts as lists; `_sizes` has seen to it that this is possible."""
    first, second = (_as_list(part, len(labels)) for part in _called(split, labels, fraction, seed)[0][:2])
    assert first is not None and second is not None
    return first, second


def _as_list(part: Any, pictures: int) -> list[int] | None:
    """Whole numbers from a list, tensor, array, range or set, or from a mask over all pictures; None from others."""
    if isinstance(part, Tensor | np.ndarray):
        part = part.tolist()
    try:
        values = list(part)
        if len(values) == pictures and all(isinstance(value, bool | np.bool_) for value in values):
            return [number for number, value in enumerate(values) if value]
        whole = [int(value) for value in values]
    except (TypeError, ValueError):
        return None
    return whole if all(number == value for number, value in zip(whole, values, strict=True)) else None


def _sizes(split: Callable[..., Any]) -> Iterator[Outcome]:
    n = len(SORTED)
    returned, _ = _called(split, SORTED, FRACTION, 0)
    call = f"{CASE}: split(labels, {FRACTION}, seed=0)"
    if returned is None:
        yield problem(MISTAKES["sp_returns_nothing"], f"{call} is None")
        return
    pair = isinstance(returned, tuple | list) and len(returned) >= 2
    parts = [_as_list(part, n) for part in returned[:2]] if pair else [None]
    if any(part is None for part in parts):
        yield problem(OTHERWISE["returned"], f"{call} is {_short(returned)}")
        return
    train, held_out = (part or [] for part in parts)
    for i, part in enumerate((train, held_out)):
        if len(part) > len(COUNTS) and {*part} == {*SORTED}:  # each label, again and again
            yield problem(MISTAKES["sp_labels_returned"], f"{call}[{i}] is {_short(part)}")
    sizes = {}
    for fraction in (FRACTION, 0.4):
        train, held_out = _parts(split, SORTED, fraction, 0)
        sizes[fraction] = len(held_out)
        if abs(len(held_out) - fraction * n) > len(COUNTS):
            evidence = f"{CASE}: split(labels, {fraction}, seed=0) holds out {len(held_out)} of {n} pictures; expected "
            evidence += f"{fraction} * {n} = {fraction * n:.1f}, up to rounding in each class"
            if abs(len(train) - fraction * n) <= len(COUNTS):
                yield problem(MISTAKES["sp_parts_swapped"], evidence)
            yield problem(_why_size(split), evidence)
    found = " and ".join(f"{size} at {fraction}" for fraction, size in sizes.items())
    yield Passed(f"of {n} pictures, about the fraction that was asked for is held out: {found}")


def _why_size(split: Callable[..., Any]) -> Mistake:
    sizes = {len(_parts(split, SORTED, fraction, 0)[1]) for fraction in (FRACTION, 0.3, 0.4)}
    if len(sizes) == 1:
        return MISTAKES["sp_fraction_ignored"]
    return MISTAKES["sp_whole_folds"] if _is_fold(split) else OTHERWISE["sizes"]


def _is_fold(split: Callable[..., Any]) -> bool:
    """Whether a half or a third of the pictures is held out at fractions between the two."""
    sizes = [len(_parts(split, SORTED, fraction, 0)[1]) for fraction in (0.4, 0.45)]
    return any(all(abs(size - len(SORTED) / folds) <= len(COUNTS) / 2 for size in sizes) for folds in (2, 3))


def _once(split: Callable[..., Any]) -> Iterator[Outcome]:
    evidence: dict[str, str] = {}
    for labels in (SORTED, MIXED):
        for seed in SEEDS:
            call = f"{_name(labels)}: split(labels, {FRACTION}, seed={seed}): "
            for name, what in _not_once(len(labels), *_parts(split, labels, FRACTION, seed)).items():
                evidence.setdefault(name, call + what)
    if "sp_duplicates" in evidence and (what := _places(split)):
        evidence["sp_class_positions"] = what
    for name in ("sp_class_positions", "sp_from_one", "numbers", "sp_duplicates", "sp_overlap", "sp_lost"):
        if name in evidence:
            yield problem(OTHERWISE[name] if name in OTHERWISE else MISTAKES[name], evidence[name])
    yield Passed(f"every picture is in one of the parts, once, for {len(SEEDS)} seeds")


def _places(split: Callable[..., Any]) -> str:
    """What shows that a part has places within a class: numbers that only the first class's pictures have."""
    for which, part in enumerate(("train", "held_out")):
        largest = max(max(_parts(split, SORTED, FRACTION, seed)[which], default=0) for seed in SEEDS)
        if largest < COUNTS[0]:
            return (
                f"{CASE}: no number in {part} is larger than {largest}, for seeds 0 to {len(SEEDS) - 1}; the pictures "
                f"of classes 1 and 2 have the numbers {COUNTS[0]} to {len(SORTED) - 1}"
            )
    return ""


def _not_once(n: int, train: list[int], held_out: list[int]) -> dict[str, str]:
    """What keeps two lists from having every number below n once, by the mistake's name."""
    given, wanted = set(train + held_out), set(range(n))
    found = {}
    if given - wanted == {n} and wanted - given == {0}:
        found["sp_from_one"] = f"number {n} is there, number 0 is not"
    if strange := sorted(given - wanted):
        found["numbers"] = f"{_short(strange)}; expected numbers from 0 to {n - 1}"
    if twice := sorted(number for part in (train, held_out) for number, times in Counter(part).items() if times > 1):
        found["sp_duplicates"] = f"more than once in a part: {_short(twice)}"
    if both := sorted(set(train) & set(held_out)):
        found["sp_overlap"] = f"in both parts: {_short(both)}"
    if lost := sorted(wanted - given):
        found["sp_lost"] = f"in neither part: {_short(lost)}"
    return found


def _classes(split: Callable[..., Any]) -> Iterator[Outcome]:
    held = sorted(_parts(split, SORTED, FRACTION, 0)[1])
    if _at_an_end(held, list(range(len(SORTED)))):
        evidence = f"{CASE}: split(labels, {FRACTION}, seed=0) holds out pictures {held[0]} to {held[-1]}, "
        evidence += f"{_counts(SORTED, held)} of classes 0, 1 and 2"
        yield problem(MISTAKES["da_ordered_split"], evidence)
    for labels, fraction in product((SORTED, MIXED), (FRACTION, 0.4)):
        wanted = [f"{fraction * count:.1f}" for count in COUNTS]
        counts = {seed: _counts(labels, _parts(split, labels, fraction, seed)[1]) for seed in SEEDS}
        missing = [
            seed for seed, found in counts.items() if any(k in (0, n) for k, n in zip(found, COUNTS, strict=True))
        ]
        uneven = [seed for seed, found in counts.items() if _furthest(found, fraction) > 0.999]
        if missing or uneven:
            seed = (missing or uneven)[0]
            evidence = f"{_name(labels)}: split(labels, {fraction}, seed={seed}) holds out {counts[seed]} of "
            evidence += f"{list(COUNTS)} pictures of classes 0, 1 and 2; expected {', '.join(wanted)}, up to rounding"
            yield problem(MISTAKES[_why_uneven(split, list(counts.values()), bool(missing), fraction)], evidence)
    yield Passed(f"every class is in both parts with its share, for {len(SEEDS)} seeds, sorted labels and mixed ones")


def _why_uneven(split: Callable[..., Any], counts: list[list[int]], missing: bool, fraction: float) -> str:
    """The mistake's name, from the counts for each seed."""
    if all(len(set(found)) == 1 for found in counts):
        return "sp_equal_counts"
    if missing:
        return "da_class_missing"
    if all(found == counts[0] for found in counts) and _furthest(counts[0], fraction) < 1.001:
        return "sp_rounded_past"
    return "sp_whole_folds" if _is_fold(split) else "sp_not_stratified"


def _randomness(split: Callable[..., Any]) -> Iterator[Outcome]:
    left = [int(label) for label in _called(split, SORTED, FRACTION, 0)[1]]
    if left != SORTED:
        changed = sum(one != other for one, other in zip(left, SORTED, strict=False))
        yield problem(MISTAKES["sp_labels_changed"], f"{CASE}: after split(labels, ...), {changed} labels differ")
    held = [sorted(part) for part in _for_random_states(split)]
    if any(part != held[0] for part in held):
        evidence = f"{CASE}: split(labels, {FRACTION}, seed=3) holds out {_short(held[0])} and, called again, "
        evidence += _short(next(part for part in held if part != held[0]))
        yield problem(MISTAKES["sp_not_repeatable"], evidence)
    others = [sorted(_parts(split, SORTED, FRACTION, seed)[1]) for seed in SEEDS]
    if all(part == others[0] for part in others):
        evidence = f"{CASE}: seeds 0 to {len(SEEDS) - 1} all hold out {_short(others[0])}"
        classes = [[n for n, label in enumerate(SORTED) if label == each] for each in range(len(COUNTS))]
        ends = all(_at_an_end([n for n in others[0] if n in numbers], numbers) for numbers in classes)
        name = "sp_no_shuffle" if ends else "sp_seed_ignored"
        yield problem(MISTAKES[name], evidence)
    disturbed = _disturbed(split)
    if disturbed:
        yield problem(MISTAKES["sp_global_seed"], f"after split(...), {disturbed} gives another number than without it")
    yield Passed("the seed alone decides what is drawn, and nobody else's random numbers change")


def _for_random_states(split: Callable[..., Any]) -> list[list[int]]:
    """The part held out for one seed, after other people drew random numbers."""
    held = []
    for others in (1, 2):
        with random_state_kept(0):
            random.seed(others)
            np.random.seed(others)
            torch.default_generator.manual_seed(others)
            held.append(_parts(split, SORTED, FRACTION, 3)[1])
    return held


def _disturbed(split: Callable[..., Any]) -> str:
    """Which global generator goes on differently after a split; "" for none."""
    draws: dict[str, Callable[[], float]] = {
        "random.random()": random.random,
        "numpy.random.rand()": lambda: float(np.random.rand()),
        "torch.rand(())": lambda: float(torch.rand(())),
    }
    labels = _called(split, SORTED, FRACTION, 3)[1]
    with random_state_kept(0):
        expected = {name: draw() for name, draw in draws.items()}
    with random_state_kept(0):
        split(labels, FRACTION, 3)  # and nothing else: whoever checks types at run time draws random numbers, too
        found = {name: draw() for name, draw in draws.items()}
    return ", ".join(name for name in draws if found[name] != expected[name])


def _counts(labels: list[int], part: list[int]) -> list[int]:
    found = Counter(labels[number] for number in part)
    return [found[label] for label in range(len(COUNTS))]


def _furthest(found: list[int], fraction: float) -> float:
    """How far a class is from its share, at most; rounding keeps it below 1."""
    return max(abs(k - fraction * n) for k, n in zip(found, COUNTS, strict=True))


def _at_an_end(part: list[int], numbers: list[int]) -> bool:
    """Whether it is just the first, or just the last, of these numbers."""
    return part in (numbers[: len(part)], numbers[len(numbers) - len(part) :])


def _name(labels: list[int]) -> str:
    return CASE if labels is SORTED else f"{CASE}; labels = [labels[7 * i % 39] for i in range(39)]"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
