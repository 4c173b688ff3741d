"""Splits that keep every class's share, and counts that show it."""

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def stratified_split(
    labels: Int[Tensor, " n"], test_fraction: float, seed: int
) -> tuple[Int[Tensor, " first"], Int[Tensor, " second"]]:
    """Split picture numbers into two parts with the same share of every class, shuffled, the same for a seed.

    Args:
        labels: (n,) class numbers.
        test_fraction: size of the second part, in (0, 1).
        seed: of the shuffle.

    Returns:
        Indices of the first part and of the second; together every index from 0 to n - 1 once.

    Raises:
        ValueError: a fraction outside (0, 1), or a class too small to be in both parts.
    """
    from sklearn.model_selection import train_test_split

    if not 0.0 < test_fraction < 1.0:
        raise ValueError(f"test_fraction {test_fraction} is outside (0, 1)")
    present, counts = labels.unique(return_counts=True)
    if rare := [int(label) for label, count in zip(present, counts, strict=True) if count < 2]:
        raise ValueError(f"classes {rare} have a single picture; both parts need every class, so at least 2 of each")
    first, second = train_test_split(
        range(len(labels)), test_size=test_fraction, random_state=seed, stratify=labels.cpu().numpy()
    )
    for part, indices in (("first", first), ("second", second)):
        if missing := set(present.tolist()) - set(labels[indices].tolist()):
            raise ValueError(
                f"classes {sorted(missing)} have too few pictures to be in the {part} part "
                f"at test_fraction {test_fraction}"
            )
    return torch.tensor(first), torch.tensor(second)


def class_counts(labels: Int[Tensor, " n"], class_names: Sequence[str]) -> dict[str, int]:
    """Pictures of each class, in the order of the names, classes without a picture included."""
    counts = Counter(labels.tolist())
    return {name: counts[number] for number, name in enumerate(class_names)}
