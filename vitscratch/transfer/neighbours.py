"""k nearest neighbours: what features are worth with nothing learned on top of them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

KS = (1, 5, 20)
TEMPERATURE = 0.07  # of the vote in DINO (arXiv 2104.14294), after arXiv 1805.01978
_SIMILARITIES = 2**24  # at a time: 64 MiB


def nearest_neighbours(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    queries: Float[Tensor, "m d"],
    ks: Sequence[int] = KS,
    *,
    weighted: bool = True,
) -> dict[int, Int[Tensor, " m"]]:
    """Classes of pictures by the vote of the training pictures whose features have the most similar direction.

    Args:
        features, labels: of the training pictures; labels from 0 on.
        queries: features of other pictures.
        ks: numbers of neighbours, each in 1..n.
        weighted: a neighbour's vote counts exp(cosine similarity / 0.07), as in DINO; otherwise 1. In a draw the
            smallest class wins.

    Returns:
        For each k a class for each query.

    Raises:
        ValueError: a k outside 1..n, or none.
    """
    if not ks or not 1 <= min(ks) <= max(ks) <= len(features):
        raise ValueError(f"ks {tuple(ks)}: expected numbers of neighbours in 1..{len(features)}, the training pictures")
    targets = F.normalize(features)
    classes = int(labels.max()) + 1
    found: dict[int, list[Tensor]] = {k: [] for k in ks}
    for some in F.normalize(queries).split(max(1, _SIMILARITIES // len(features))):
        similarity, neighbour = (some @ targets.T).topk(max(ks))  # sorted, the most similar first
        votes = (similarity / TEMPERATURE).exp() if weighted else torch.ones_like(similarity)
        for k in ks:
            counts = votes.new_zeros(len(some), classes).scatter_add_(1, labels[neighbour[:, :k]], votes[:, :k])
            found[k].append(counts.argmax(dim=1))
    return {k: torch.cat(chunks) for k, chunks in found.items()}


def neighbour_accuracy(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    other_features: Float[Tensor, "m d"],
    other_labels: Int[Tensor, " m"],
    ks: Sequence[int] = KS,
    *,
    weighted: bool = True,
) -> dict[int, float]:
    """Share in [0, 1] of other pictures whose class `nearest_neighbours` tells, for each k."""
    found = nearest_neighbours(features, labels, other_features, ks, weighted=weighted)
    return {k: float((classes == other_labels).double().mean()) for k, classes in found.items()}
