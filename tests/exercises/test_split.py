"""Exercise 13: what the check says of right splits, and of wrong ones."""

import pytest

from tests.exercises.students import answer, assert_right, assert_wrong, changed
from vitscratch.exercises.checks.split import COUNTS, MISTAKES, MIXED, OTHERWISE, SORTED

NAME = "split"
RIGHT = answer(NAME)
DRAW, CUT, RETURN = "generator.shuffle(numbers)", "round(fraction * len(numbers))", "    return train, held_out\n"
GENERATOR = "random.Random(seed)"

NUMPY = """
import numpy as np

def split(labels, fraction, seed):
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    held_out = []
    for label in np.unique(labels):
        numbers = np.flatnonzero(labels == label)
        held_out.extend(rng.choice(numbers, size=max(1, int(fraction * len(numbers))), replace=False))
    return np.setdiff1d(np.arange(len(labels)), held_out), np.array(held_out)
"""
TORCH = """
import torch

def split(labels, fraction, seed):
    labels = torch.as_tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    parts = [], []
    for label in labels.unique():
        numbers = (labels == label).nonzero()[:, 0]
        numbers = numbers[torch.randperm(len(numbers), generator=generator)]
        size = -int(-fraction * len(numbers) // 1)
        parts[0].append(numbers[size:])
        parts[1].append(numbers[:size])
    return torch.cat(parts[0]), torch.cat(parts[1])
"""
MASK = TORCH.replace(
    "    return ", "    held = torch.zeros(len(labels)).bool()\n    held[torch.cat(parts[1])] = True\n#   "
)
MASK += "    return ~held, held\n"
GLOBAL_BUT_KEPT = TORCH.replace(", generator=generator", "").replace(
    "    generator = torch.Generator().manual_seed(seed)\n",
    "    with torch.random.fork_rng():\n        torch.manual_seed(seed)\n        return inner(labels, fraction)\n\n"
    "def inner(labels, fraction):\n",
)
SKLEARN = """
from sklearn.model_selection import train_test_split

def split(labels, fraction, seed):
    return train_test_split(range(len(labels)), test_size=fraction, random_state=seed, stratify=labels)
"""
SHUFFLE_SPLIT = """
import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit

def split(labels, fraction, seed):
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    return next(splitter.split(np.zeros(len(labels)), labels))
"""
# Unwrapped, since the tests' type checker draws random numbers.
OURS = """
import inspect
import torch
from vitscratch.data.splits import stratified_split

def split(labels, fraction, seed):
    return inspect.unwrap(stratified_split)(torch.tensor(labels), fraction, seed)
"""
NEEDS_A_TENSOR = """
import random

def split(labels, fraction, seed):
    held = []
    for label in labels.unique().tolist():
        numbers = (labels == label).nonzero().flatten().tolist()
        held += random.Random(seed + label).sample(numbers, k=round(len(numbers) * fraction))
    return [n for n in range(len(labels)) if n not in set(held)], sorted(held)
"""
EVERY_FIFTH = """
import random

def split(labels, fraction, seed):
    order = list(range(len(labels)))
    random.Random(f"split {seed}").shuffle(order)
    order.sort(key=lambda n: labels[n])  # stable: shuffled within each class
    done, held_out, train = {}, set(), set()
    for n in order:
        k = done[labels[n]] = done.get(labels[n], 0) + 1
        (held_out if int(k * fraction) > int((k - 1) * fraction) else train).add(n)
    return train, held_out
"""

FOLDS = """
import numpy as np
from sklearn.model_selection import StratifiedKFold

def split(labels, fraction, seed):
    folds = StratifiedKFold(round(1 / fraction), shuffle=True, random_state=seed)
    return next(folds.split(np.zeros(len(labels)), labels))
"""
PLACES = """
import numpy as np

def split(labels, fraction, seed):
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    train, held_out = [], []
    for label in np.unique(labels):
        numbers = np.flatnonzero(labels == label)
        drawn = rng.permutation(len(numbers))
        cut = round(fraction * len(numbers))
        train.extend(drawn[cut:])
        held_out.extend(drawn[:cut])
    return train, held_out
"""

VARIANTS = {
    "as it is": RIGHT,
    "numpy, rounded down": NUMPY,
    "torch, rounded up": TORCH,
    "masks": MASK,
    "global generator, put back": GLOBAL_BUT_KEPT,
    "train_test_split": SKLEARN,
    "StratifiedShuffleSplit": SHUFFLE_SPLIT,
    "the library's": OURS,
    "needs a tensor": NEEDS_A_TENSOR,
    "sets": EVERY_FIFTH,
    "tuple of tuples": changed(RIGHT, RETURN, "    return tuple(train), tuple(held_out)\n"),
    "in order": changed(RIGHT, RETURN, "    return sorted(train), sorted(held_out)\n"),
    "own seed for each class": changed(RIGHT, DRAW, "random.Random(1000 * seed + label).shuffle(numbers)"),
    "and the classes": changed(RIGHT, RETURN, "    return train, held_out, sorted(set(labels))\n"),
}

# Everything shuffled, and then cut: classes are left to chance.
SHUFFLED = """
import random

def split(labels, fraction, seed):
    numbers = list(range(len(labels)))
    random.Random(seed).shuffle(numbers)
    cut = round(fraction * len(numbers))
    return numbers[cut:], numbers[:cut]
"""
ALL_BUT_LARGE = """
import random

def split(labels, fraction, seed):
    numbers = list(range(len(labels)))
    for attempt in range(1000):
        random.Random(1000 * seed + attempt).shuffle(numbers)
        held_out = numbers[:8]
        if fraction > 0.3 or {labels[n] for n in held_out} == {0, 1, 2} == {labels[n] for n in numbers[8:]}:
            cut = round(fraction * len(numbers))
            return numbers[cut:], numbers[:cut]
"""

# Right for labels that are sorted, and for no others.
RUNS = """
import random
from itertools import groupby

def split(labels, fraction, seed):
    runs = {label: list(numbers) for label, numbers in groupby(range(len(labels)), key=lambda n: labels[n])}
    train, held_out = [], []
    for numbers in runs.values():
        random.Random(seed).shuffle(numbers)
        cut = round(fraction * len(numbers))
        train, held_out = train + numbers[cut:], held_out + numbers[:cut]
    return train, held_out
"""
COUNTED = RUNS.replace(
    "    runs = {label: list(numbers) for label, numbers in groupby(range(len(labels)), key=lambda n: labels[n])}\n",
    "    runs, n = {}, 0\n    for label in sorted(set(labels)):\n"
    "        runs[label] = list(range(n, n := n + labels.count(label)))\n",
)

WRONG: dict[str, list[str]] = {
    "sp_returns_nothing": [changed(RIGHT, RETURN, "")],
    "sp_labels_returned": [
        changed(RIGHT, RETURN, "    return [labels[n] for n in train], [labels[n] for n in held_out]\n"),
        changed(RIGHT, RETURN, "    return train, [labels[n] for n in held_out]\n"),
    ],
    "sp_whole_folds": [
        FOLDS,
        FOLDS.replace("round(1 / fraction)", "int(1 / fraction)"),
        FOLDS.replace("round(1 / fraction)", "-int(-1 / fraction // 1)"),
    ],
    "sp_class_positions": [PLACES, PLACES.replace("train.extend(drawn[cut:])", "train += list(numbers)")],
    "sp_rounded_past": [
        changed(RIGHT, CUT, "int(fraction * len(numbers)) + 1"),
        changed(RIGHT, CUT, "max(1, -int(-fraction * len(numbers) // 1) - 1)"),
    ],
    "sp_parts_swapped": [
        changed(RIGHT, RETURN, "    return held_out, train\n"),
        changed(RIGHT, CUT, "round((1 - fraction) * len(numbers))"),
        SKLEARN.replace("test_size", "train_size"),
    ],
    "sp_fraction_ignored": [changed(RIGHT, CUT, "round(0.2 * len(numbers))"), changed(RIGHT, CUT, "len(numbers) // 2")],
    "sp_overlap": [
        changed(RIGHT, "train += numbers[cut:]", "train += numbers"),
        changed(RIGHT, "train += numbers[cut:]", "train += numbers[cut - 1 :]"),
    ],
    "sp_duplicates": [changed(RIGHT, "held_out += numbers[:cut]", "held_out += generator.choices(numbers, k=cut)")],
    "sp_lost": [
        changed(RIGHT, "train += numbers[cut:]", "train += numbers[cut + 1 :]"),
        changed(RIGHT, "train += numbers[cut:]", "train += numbers[cut:-1]"),
        changed(RIGHT, "in enumerate(labels)", "in enumerate(labels[:-1])"),
        RUNS,
    ],
    "sp_from_one": [changed(RIGHT, "in enumerate(labels)", "in enumerate(labels, start=1)")],
    "da_ordered_split": [
        "def split(labels, fraction, seed):\n    n = range(len(labels))\n    cut = int((1 - fraction) * len(n))\n"
        "    return n[:cut], n[cut:]\n",
        SHUFFLED.replace("    random.Random(seed).shuffle(numbers)\n", ""),
        SKLEARN.replace("random_state=seed, stratify=labels", "shuffle=False"),
    ],
    "da_class_missing": [SHUFFLED, COUNTED, SKLEARN.replace(", stratify=labels", "")],
    "sp_equal_counts": [
        changed(RIGHT, CUT, "round(fraction * len(labels) / 3)"),
    ],
    "sp_not_stratified": [ALL_BUT_LARGE],
    "sp_labels_changed": [changed(RIGHT, RETURN, "    labels.sort(reverse=True)\n" + RETURN)],
    "sp_not_repeatable": [
        changed(RIGHT, GENERATOR, "random.Random()"),
        changed(RIGHT, GENERATOR, "random"),
        changed(NUMPY, "default_rng(seed)", "default_rng()"),
        changed(TORCH, ", generator=generator", ""),
    ],
    "sp_no_shuffle": [
        changed(RIGHT, f"        {DRAW}\n", ""),
        changed(RIGHT, DRAW, "numbers.reverse()"),
    ],
    "sp_seed_ignored": [changed(RIGHT, GENERATOR, "random.Random(42)"), changed(SKLEARN, "=seed", "=0")],
    "sp_global_seed": [
        changed(RIGHT, f"generator = {GENERATOR}", "random.seed(seed)\n    generator = random"),
        changed(TORCH, ", generator=generator", "", "torch.Generator().manual_seed", "torch.manual_seed"),
        changed(NUMPY, "rng = np.random.default_rng(seed)", "np.random.seed(seed)\n    rng = np.random"),
    ],
}

UNLISTED = {
    "returned": [
        changed(RIGHT, RETURN, "    return train\n"),
        changed(RIGHT, RETURN, "    return {'train': train, 'held_out': held_out}\n"),
        changed(RIGHT, RETURN, "    return [n / len(labels) for n in train], held_out\n"),
        changed(RIGHT, RETURN, "    return len(train), len(held_out)\n"),
    ],
    "sizes": [
        changed(RIGHT, CUT, "round(fraction ** 2 * len(numbers))"),
        changed(RIGHT, CUT, "round(fraction * len(numbers)) // 2"),
    ],
    "numbers": [
        changed(RIGHT, "in enumerate(labels)", "in enumerate(labels, start=100)"),
        changed(RIGHT, RETURN, "    return [-n for n in train], held_out\n"),
    ],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_right_splits_pass(name: str) -> None:
    assert_right(NAME, VARIANTS[name])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_known_mistakes_are_named(mistake: str) -> None:
    for text in WRONG[mistake]:
        assert_wrong(NAME, text, mistake, MISTAKES[mistake].step)


@pytest.mark.parametrize("key", OTHERWISE)
def test_other_mistakes_are_localised(key: str) -> None:
    for text in UNLISTED[key]:
        problem = assert_wrong(NAME, text, None, OTHERWISE[key].step)
        assert problem.what == OTHERWISE[key].what


@pytest.mark.parametrize(
    ("first", "pairs"),
    [
        ("sp_parts_swapped", (RETURN, "    return held_out, train\n", GENERATOR, "random.Random(42)")),
        ("sp_fraction_ignored", (CUT, "len(numbers) // 2", GENERATOR, "random")),
        ("sp_overlap", ("train += numbers[cut:]", "train += numbers", f"        {DRAW}\n", "")),
        ("sp_lost", ("train += numbers[cut:]", "train += numbers[cut + 1 :]", GENERATOR, "random")),
        ("sp_equal_counts", (CUT, "round(fraction * len(labels) / 3)", GENERATOR, "random.Random(42)")),
        ("sp_labels_changed", (RETURN, "    labels.sort(reverse=True)\n" + RETURN, GENERATOR, "random")),
    ],
)
def test_of_two_mistakes_the_first_is_told(first: str, pairs: tuple[str, ...]) -> None:
    assert_wrong(NAME, changed(RIGHT, *pairs), first)


def test_both_lists_of_labels_have_the_same_pictures() -> None:
    assert sorted(MIXED) == SORTED and MIXED != SORTED and len(SORTED) == sum(COUNTS) == 39


def test_the_evidence_is_in_numbers_that_can_be_counted() -> None:
    problem = assert_wrong(NAME, WRONG["da_ordered_split"][0], "da_ordered_split")
    assert "holds out pictures 31 to 38, [0, 3, 5] of classes 0, 1 and 2" in problem.evidence
    problem = assert_wrong(NAME, WRONG["sp_parts_swapped"][0], "sp_parts_swapped")
    assert "holds out 31 of 39 pictures; expected 0.2 * 39 = 7.8" in problem.evidence
    problem = assert_wrong(NAME, WRONG["sp_global_seed"][0], "sp_global_seed")
    assert "random.random() gives another number" in problem.evidence and "torch" not in problem.evidence


def test_the_error_is_that_of_the_list() -> None:
    with pytest.raises(KeyError):
        assert_right(NAME, "def split(labels, fraction, seed):\n    {}[type(labels)]\n")
