"""Splits that keep every class's share, and counts that show it."""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def stratified_split(
    labels: Int[Tensor, " n"], test_fraction: float, seed: int, class_names: Sequence[str] | None = None
) -> tuple[Int[Tensor, " first"], Int[Tensor, " second"]]:
    """Split picture numbers into two parts with the same share of every class, shuffled, the same for a seed.

    Args:
        labels: (n,) class numbers.
        test_fraction: size of the second part, in (0, 1).
        seed: of the shuffle.
        class_names: for messages; without, classes are named by their numbers.

    Returns:
        Indices of the first part and of the second; together every index from 0 to n - 1 once.

    Raises:
        ValueError: a fraction outside (0, 1), a part too small for all classes, or a class too small for both parts.
    """
    from sklearn.model_selection import train_test_split

    if not 0.0 < test_fraction < 1.0:
        raise ValueError(f"test_fraction {test_fraction} is outside (0, 1)")
    present, counts = labels.unique(return_counts=True)
    if rare := [int(label) for label, count in zip(present, counts, strict=True) if count < 2]:
        raise ValueError(
            f"classes {_named(rare, class_names)} have a single picture; both parts need one, so at least 2 of each"
        )
    _check_room(len(labels), test_fraction, len(present))
    first, second = train_test_split(
        range(len(labels)), test_size=test_fraction, random_state=seed, stratify=labels.cpu().numpy()
    )
    for part, indices in (("first", first), ("second", second)):
        if missing := set(present.tolist()) - set(labels[indices].tolist()):
            raise ValueError(
                f"classes {_named(sorted(missing), class_names)} have too few pictures to be in the {part} part "
                f"at test_fraction {test_fraction}; give more of these, or another fraction"
            )
    return torch.tensor(first), torch.tensor(second)


def _check_room(pictures: int, fraction: float, classes: int) -> None:
    """Both parts must be able to hold a picture of every class."""
    second = math.ceil(fraction * pictures)  # as scikit-learn rounds
    for part, size, change in (("first", pictures - second, "smaller"), ("second", second, "larger")):
        if size < classes:
            raise ValueError(
                f"{classes} classes, but {size} of {pictures} pictures (a copy is none) in the {part} part: expected "
                f"at least {classes} there: take a {change} fraction, or more pictures of each class"
            )


def divide(
    labels: Int[Tensor, " n"], groups: Int[Tensor, " n"], fraction: float, seed: int, class_names: Sequence[str]
) -> tuple[Int[Tensor, " first"], Int[Tensor, " second"]]:
    """A `stratified_split` that never parts the members of a group; a group counts as one picture of its first's class.

    Args:
        labels, groups: of each picture; equal group numbers stay together.
        fraction: size of the second part, in (0, 1). seed, class_names: see `stratified_split`.
    """
    first_of: dict[int, int] = {}
    for number, group in enumerate(groups.tolist()):
        first_of.setdefault(group, number)
    chosen = torch.tensor(list(first_of.values()))
    _, second = stratified_split(labels[chosen], fraction, seed, class_names)
    in_second = torch.isin(groups, groups[chosen[second]])
    return (~in_second).nonzero()[:, 0], in_second.nonzero()[:, 0]


def _named(labels: Sequence[int], class_names: Sequence[str] | None) -> list[int] | list[str]:
    return list(labels) if class_names is None else [class_names[label] for label in labels]


def class_counts(labels: Int[Tensor, " n"], class_names: Sequence[str]) -> dict[str, int]:
    """Pictures of each class, in the order of the names, classes without a picture included."""
    counts = Counter(labels.tolist())
    return {name: counts[number] for number, name in enumerate(class_names)}


def some(labels: Int[Tensor, " n"], most: int, seed: int) -> Int[Tensor, " some"]:
    """Numbers of at most so many pictures, drawn at random; two of each class before a third of any.

    Where a plain draw has two of each class, it is that draw.

    Args:
        labels: (n,) class numbers. most: pictures to draw, at least 1. seed: of the draw.
    """
    if len(labels) <= most:
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    seen: Counter[int] = Counter()
    turns = []
    for label in labels[order].tolist():
        turns.append(min(seen[label], 2))
        seen[label] += 1
    return order[torch.tensor(turns).argsort(stable=True)[:most].sort().values]
