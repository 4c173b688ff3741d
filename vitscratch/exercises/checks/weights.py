"""The weights of an attention, read off its output with one-hot values, and the step that they show to be wrong."""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from vitscratch.exercises.checks.compare import TOLERANCE, difference, number, same, say

# Factor of the queries -> a student's weights and the right ones, each (b, h, queries, keys); None: no output to read.
Read: TypeAlias = Callable[[float], tuple[Tensor, Tensor] | None]


def one_hot(keys: int, width: int) -> list[Tensor]:
    """Values of (keys, width), as many as it takes for each key to be told by a place of its own."""
    eye = torch.eye(keys, dtype=torch.float64)
    return [F.pad(part, (0, width - part.shape[-1])) for part in eye.split(width, dim=-1)]


def localise(read: Read) -> tuple[str, str]:
    """The step that a student's weights show to be wrong, with the numbers that show it."""
    found, told = read(1.0), ""
    if found is not None and bool((found[0] <= 0).any()):  # scores may be so large that softmax gives 0
        found, told = read(0.1), "with 0.1 * q, "
    if found is None:
        return "weighted mean", ""
    step, evidence = _step_of(*found)
    if step == "scores" and (mixed := _mixed(found, read(0.0))):
        return "weighted mean", mixed
    return step, f"{told}{evidence}"


def _step_of(weights: Tensor, right: Tensor) -> tuple[str, str]:
    if same(weights, right):
        return "weighted mean", "the weights are right, what is made with them is not; "
    if not bool(torch.isfinite(weights).all()):
        return "softmax", "some weights are no numbers; "
    total = weights.sum(-1)
    if not same(total, torch.ones_like(total)):
        ratio = weights / right
        if same(ratio, torch.full_like(ratio, float(ratio.flatten()[0]))):
            return "scale", f"all weights are {number(ratio.flatten()[0])} times the right ones; "
        return "softmax", sums(weights)
    if weights.shape[-1] == weights.shape[-2] and same(weights, torch.eye(weights.shape[-1]).expand_as(weights)):
        return "weighted mean", "each token gets its own value alone, whatever the weights are; "
    if bool((weights <= 0).any()):
        place = tuple(int(i) for i in (weights <= 0).nonzero()[0])
        where = f"weights[{', '.join(map(str, place))}] is {number(weights[place])}"
        return "softmax", f"{where}; softmax never gives 0 or less{_mask(weights, right)}; "
    logs, expected = (w.log() - w.log().mean(-1, keepdim=True) for w in (weights, right))
    factor = float((logs * expected).sum() / (expected * expected).sum())
    if abs(factor) > TOLERANCE and same(logs, factor * expected):
        return "scale", f"the scores that softmax gets are {number(factor)} times the right ones; "
    return "scores", f"{difference(weights, right, 'weights')}; "


def _mask(weights: Tensor, right: Tensor) -> str:
    """What to say if the weights are right but for keys that are left out."""
    kept = right * (weights > 0)
    masked = same(weights, kept / kept.sum(-1, keepdim=True))
    return "; the others are softmax over the rest of the keys: there is a mask" if masked else ""


def _mixed(found: tuple[Tensor, Tensor], flat: tuple[Tensor, Tensor] | None) -> str:
    """What to say if the weights are the right ones, times a factor, and something that no score changes.

    Args:
        found: the student's weights and the right ones.
        flat: the same with queries of 0, which all keys are alike to.
    """
    if flat is None:
        return ""
    change, expected = (one - other for one, other in zip(found, flat, strict=True))
    factor = float((change * expected).sum() / (expected * expected).sum())
    if abs(factor) < TOLERANCE or not same(change, factor * expected):
        return ""
    return f"the output is {number(factor)} times what the weights make, and something that no score changes; "


def evidence_of(read: Read, step: str) -> str:
    """The numbers, where they belong to this step."""
    found, evidence = localise(read)
    return evidence if found == step else ""


def sums(weights: Tensor) -> str:
    """Row sums of the first head, and what they sum to over queries if that is one."""
    over_keys, over_queries = weights[0, 0].sum(-1), weights[0, 0].sum(-2)
    text = f"weights of picture 0, head 0 sum to {say(over_keys[:3])} over keys for queries 0, 1, 2"
    if same(over_queries, torch.ones_like(over_queries)):
        text += "; they sum to 1 over queries"
    return f"{text}; "
