"""The check of exercise 4 accepts what is right, however written, and names or places what is wrong."""

import re
from itertools import combinations

import pytest

from tests.exercises.students import edited, module, outcome_of
from vitscratch.exercises import draw
from vitscratch.exercises.checks.attention import MISTAKES

RIGHT = """
import math
import torch
import torch.nn.functional as F

def attention(q, k, v):
    scores = q @ k.transpose(-2, -1)
    scores = scores / math.sqrt(q.shape[-1])
    weights = scores.softmax(dim=-1)
    output = weights @ v
    return output, weights
"""
SCORES, SCALE, SOFTMAX = "q @ k.transpose(-2, -1)", "scores / math.sqrt(q.shape[-1])", "scores.softmax(dim=-1)"
MIX, RETURN = "output = weights @ v", "return output, weights"

RIGHT_VARIANTS = {
    "as it stands": RIGHT,
    "the library's": "from vitscratch.attention import attention",
    "einsum": edited(RIGHT, (SCORES, 'torch.einsum("bhik,bhjk->bhij", q, k)'),
                     (MIX, 'output = torch.einsum("bhij,bhjk->bhik", weights, v)')),
    "q scaled first": edited(RIGHT, (SCORES, "(q * q.shape[-1] ** -0.5) @ k.mT"), (SCALE, "scores")),
    "both scaled": edited(RIGHT, (SCORES, "(q / q.shape[-1] ** 0.25) @ (k / k.shape[-1] ** 0.25).mT"), (SCALE, "scores")),
    "exp over sum": edited(RIGHT, (SOFTMAX, "scores.exp() / scores.exp().sum(-1, keepdim=True)")),
    "fused, output alone": edited(RIGHT, (RETURN, "return F.scaled_dot_product_attention(q, k, v)")),
    "a loop over heads": edited(RIGHT, (MIX, "output = torch.stack([weights[:, i] @ v[:, i] for i in range(q.shape[1])], 1)")),
    "a list": edited(RIGHT, (RETURN, "return [output, weights]")),
    "a dict": edited(RIGHT, (RETURN, 'return {"weights": weights, "scale": 1.0, "output": output}')),
    "hints and defaults": edited(RIGHT, ("(q, k, v)", "(q: torch.Tensor, k, v, dropout: float = 0.0) -> tuple"), (
        SOFTMAX, "F.dropout(scores.softmax(dim=-1), dropout)")),
    "root of a tensor": edited(RIGHT, ("math.sqrt(q.shape[-1])", "torch.tensor(q.shape[-1]).sqrt()")),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT_VARIANTS)
def test_right_passes(name: str) -> None:
    assert outcome_of("attention", RIGHT_VARIANTS[name]) is None


@pytest.mark.parametrize("returned", ["output, weights", "output"])
def test_weights_that_autograd_needs_as_they_were_are_the_students(returned: str) -> None:
    in_place = f"weights = scores.exp()\n    weights /= weights.sum(-1, keepdim=True)\n    {MIX}"
    problem = outcome_of(
        "attention", edited(RIGHT, (f"weights = {SOFTMAX}\n    {MIX}", in_place), (RETURN, f"return {returned}"))
    )
    assert problem and (problem.mistake, problem.step) == ("input_changed", "softmax")


# One way to make each, by the line that it changes: pairs change two lines.
SINGLE = {
    "scores": {
        "attn_qk_swapped": (SCORES, "k @ q.mT"),
    },
    "scale": {
        "attn_no_scale": (SCALE, "scores"),
        "attn_scale_embed_dim": (SCALE, "scores / math.sqrt(q.shape[1] * q.shape[-1])"),
        "attn_scale_num_heads": (SCALE, "scores / math.sqrt(q.shape[1])"),
        "attn_scale_inverted": (SCALE, "scores / q.shape[-1] ** -0.5"),
        "attn_scale_no_root": (SCALE, "scores / q.shape[-1]"),
        "attn_scale_num_tokens": (SCALE, "scores / math.sqrt(k.shape[-2])"),
        "attn_scale_fourth_root": (SCALE, "scores / q.shape[-1] ** 0.25"),
    },
    "softmax": {
        "attn_softmax_queries": (SOFTMAX, "scores.softmax(dim=-2)"),
        "attn_no_softmax": (SOFTMAX, "scores"),
        "attn_softmax_heads": (SOFTMAX, "scores.softmax(dim=1)"),
        "attn_softmax_batch": (SOFTMAX, "scores.softmax(dim=0)"),
        "attn_softmax_twice": (SOFTMAX, "scores.softmax(dim=-1).softmax(dim=-1)"),
        "attn_log_softmax": (SOFTMAX, "scores.log_softmax(dim=-1)"),
        "attn_sigmoid": (SOFTMAX, "scores.sigmoid()"),
        "attn_exp_not_normalised": (SOFTMAX, "scores.exp()"),
        "attn_softmax_negated": (SOFTMAX, "(-scores).softmax(dim=-1)"),
        "attn_relu_for_softmax": (SOFTMAX, "scores.relu()"),
        "attn_tanh_for_softmax": (SOFTMAX, "scores.tanh()"),
        "attn_causal": (SOFTMAX, (
            "scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf).softmax(dim=-1)")),
    },
    "weighted mean": {
        "attn_weights_transposed": (MIX, "output = weights.mT @ v"),
    },
}  # fmt: skip
NAMED = {name: [edit] for edits in SINGLE.values() for name, edit in edits.items()} | {
    "attn_softmax_all": [(SOFTMAX, "scores.flatten(-2).softmax(dim=-1).view_as(scores)")],
    "attn_scale_after_softmax": [(SCALE, "scores"), (MIX, "output = weights @ v / math.sqrt(q.shape[-1])")],
    "attn_kv_swapped": [("attention(q, k, v)", "attention(q, v, k)")],
    "attn_qv_swapped": [("attention(q, k, v)", "attention(v, k, q)")],
    "attn_qkv_rotated": [("attention(q, k, v)", "attention(v, q, k)")],
    "attn_over_features": [(SCORES, "q.mT @ k"), (MIX, "output = v @ weights.mT")],
    "attn_returns_swapped": [(RETURN, "return weights, output")],
    "attn_returns_scores": [(RETURN, "return output, scores")],
    "attn_random": [(SOFTMAX, "F.dropout(scores.softmax(dim=-1), 0.1)")],
}


def test_every_mistake_of_the_bank_is_tried() -> None:
    assert set(NAMED) == set(MISTAKES)


@pytest.mark.parametrize("name", NAMED)
def test_known_mistake_is_named(name: str) -> None:
    problem = outcome_of("attention", edited(RIGHT, *NAMED[name]))
    assert problem is not None
    assert problem.mistake == name, problem
    assert problem.evidence and problem.step == MISTAKES[name].step


@pytest.mark.parametrize("name", ["attn_softmax_queries", "attn_kv_swapped"])
def test_mistakes_are_named_in_a_dict_too(name: str) -> None:
    as_dict = (RETURN, 'return {"weights": weights, "output": output}')
    problem = outcome_of("attention", edited(RIGHT, *NAMED[name], as_dict))
    assert problem and problem.mistake == name and "['output'][" in problem.evidence


def test_the_evidence_of_softmax_over_queries() -> None:
    problem = outcome_of("attention", edited(RIGHT, *NAMED["attn_softmax_queries"]))
    assert problem is not None
    assert "weights of picture 0, head 0 sum to" in problem.evidence and "1 over queries" in problem.evidence


PAIRS = [
    (one, other)
    for first, second in combinations(SINGLE, 2)
    for one in SINGLE[first]
    for other in SINGLE[second]
]  # fmt: skip
# What acts on each score by itself, or over heads or pictures, does not mind whether queries and keys are swapped before
# it, or weights transposed behind it: these give the same numbers, and the former is named.
SAME = (
    "attn_no_softmax",
    "attn_softmax_heads",
    "attn_softmax_batch",
    "attn_sigmoid",
    "attn_exp_not_normalised",
    "attn_relu_for_softmax",
    "attn_tanh_for_softmax",
)


# Two that turn the same axes give what turning the third would give.
SINGLE_INSTEAD = {
    ("attn_qk_swapped", "attn_softmax_queries"): "attn_weights_transposed",
    ("attn_qk_swapped", "attn_weights_transposed"): "attn_softmax_queries",
    ("attn_softmax_queries", "attn_weights_transposed"): "attn_qk_swapped",
}


def test_pairs_are_caught_and_named() -> None:
    """All pairs of the table."""
    assert len(PAIRS) > 100
    for one, other in PAIRS:
        edits = [edit for table in SINGLE.values() for name, edit in table.items() if name in (one, other)]
        problem = outcome_of("attention", edited(RIGHT, *edits))
        assert problem is not None and problem.mistake is not None, (one, other)
        swapped = other == "attn_weights_transposed" and one in SAME
        pair = f"attn_qk_swapped + {one}" if swapped else f"{one} + {other}"
        assert problem.mistake == SINGLE_INSTEAD.get((one, other), pair), problem


UNKNOWN = {
    "scale by 1.7": ("scale", (SCALE, "scores / 1.7")),
    "a root that is a product": ("scale", (SCALE, "scores * q.shape[-1] * -0.5")),
    "scale of 64": ("scale", (SCALE, "scores / 8")),
    "weights cubed": ("softmax", (SOFTMAX, "scores.softmax(dim=-1) ** 3")),
    "softplus": ("softmax", (SOFTMAX, "F.softplus(scores)")),
    "no sum over the width": ("scores", (SCORES, "q * k"), (MIX, "output = weights * v")),
    "distances": ("scores", (SCORES, "-torch.cdist(q, k)")),
    "cosine": ("scores", (SCORES, "F.normalize(q, dim=-1) @ k.mT")),
    "position added": ("scores", (SCORES, f"{SCORES} + torch.arange(k.shape[-2])")),
    "squared values": ("weighted mean", (MIX, "output = weights @ v ** 2")),
    "output normed": ("weighted mean", (MIX, f"{MIX}; output = F.normalize(output, dim=-1)")),
    "query added": ("weighted mean", (MIX, f"{MIX} + q")),
    "merged": ("weighted mean", (MIX, f"{MIX}; output = output.transpose(1, 2).flatten(2)")),
    "over the keys": ("weighted mean", (MIX, f"{MIX} / k.shape[-2]")),
    "the last query's": ("weighted mean", (MIX, f"{MIX}; output[:, :, -1] = v.mean(-2)")),
    "half of it its own value": ("weighted mean", (MIX, f"{MIX} / 2 + v / 2"), (RETURN, "return output")),
    "half of every weight": ("softmax", (SOFTMAX, f"({SOFTMAX} + 1 / k.shape[-2]) / 2")),
    "neighbours alone": (
        "softmax",
        (SOFTMAX, ("scores.masked_fill(torch.ones_like(scores).tril(-6).bool(), -math.inf).softmax(-1)")),
        (RETURN, "return output"),
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_mistake_is_placed(name: str) -> None:
    step, *edits = UNKNOWN[name]
    problem = outcome_of("attention", edited(RIGHT, *edits))
    assert problem is not None and problem.step == step, problem


@pytest.mark.parametrize("name", ["over the keys", "the last query's"])
def test_right_weights_are_not_said_to_be_wrong(name: str) -> None:
    """The output is shown, and what the weights, which are returned, make of the values."""
    _, *edits = UNKNOWN[name]
    text = edited(RIGHT, *edits)
    problem = outcome_of("attention", text)
    assert problem is not None
    first, second = problem.evidence.splitlines()
    code, said = re.fullmatch(r"the weights that you return are right: (.*) is (.*)", second).groups()  # type: ignore[union-attr]
    names = {**module(text).__dict__, "draw": draw}
    assert float(eval(code, names)) == pytest.approx(float(said), rel=1e-6)
    assert first.endswith(f"it should be {said}")


def test_weights_that_are_read_off_are_said_to_be_so() -> None:
    """They are neither returned nor those of the values that are shown."""
    _, *edits = UNKNOWN["position added"]
    problem = outcome_of("attention", edited(RIGHT, *edits, (RETURN, "return output")))
    assert problem is not None
    first, second = problem.evidence.splitlines()
    values, place, said = re.fullmatch(  # type: ignore[union-attr]
        r"with v = (.*), of which the output is the weights: weights\[(.*)\] is (\S+); it should be .*", second
    ).groups()
    call = re.sub(r", draw\([^)]*\)\).*", f", {values})[{place}]", first)
    student = module(edited(RIGHT, *edits, (RETURN, "return output")))
    weight = eval(call, {**student.__dict__, "draw": draw})
    assert float(weight) == pytest.approx(float(said), rel=1e-6)
    problem = outcome_of("attention", edited(RIGHT, *edits))
    assert problem is not None
    code, place, said = re.fullmatch(  # type: ignore[union-attr]
        r"weights = (.*); weights(\[.*\]) is (\S+); it should be .*", problem.evidence.splitlines()[1]
    ).groups()
    student = module(edited(RIGHT, *edits))
    assert float(eval(code + place, {**student.__dict__, "draw": draw})) == pytest.approx(float(said), rel=1e-6)


def test_weights_of_the_shape_of_queries_are_told() -> None:
    _, *edits = UNKNOWN["no sum over the width"]
    problem = outcome_of("attention", edited(RIGHT, *edits))
    assert problem is not None and "Your weights have another shape" in problem.what
    assert problem.evidence.endswith(
        " returns a tuple of (3, 5, 6, 7) and (3, 5, 6, 7); it should return weights of (3, 5, 6, 6)"
    )
    for beside in (
        "weights.mean(1)",
        "v",
        "output.clone()",
        "weights, q.softmax(-1)",
    ):  # no weights: the scale is what is wrong
        other = outcome_of("attention", edited(RIGHT, (SCALE, "scores / 1.7"), (RETURN, f"return output, {beside}")))
        assert other is not None and other.step == "scale" and "another shape" not in other.what


def test_of_several_the_weights_are_shown() -> None:
    _, *edits = UNKNOWN["position added"]
    problem = outcome_of("attention", edited(RIGHT, *edits, (RETURN, "return output, scores, weights")))
    assert problem is not None and ")[2]; weights[" in problem.evidence


def test_a_mask_is_told() -> None:
    late = "scores.masked_fill(torch.ones_like(scores).tril(-4).bool(), -math.inf).softmax(-1)"
    edits = ((SOFTMAX, late), (RETURN, "return output"))
    problem = outcome_of("attention", edited(RIGHT, *edits))
    assert problem is not None and problem.evidence.endswith("softmax over the rest of the keys: there is a mask")
    first, second = problem.evidence.splitlines()
    values, place = re.fullmatch(  # type: ignore[union-attr]
        r"with v = (.*), of which the output is the weights: with 0.1 \* q, weights\[(.*)\] is 0; softmax never.*",
        second,
    ).groups()
    call = re.sub(r", draw\([^)]*\)\)\[.*", f", {values})", first).replace("attention(1.5", "attention(0.1 * 1.5")
    weights = eval(call, {**module(edited(RIGHT, *edits)).__dict__, "draw": draw})
    assert float(weights[tuple(map(int, place.split(", ")))]) == 0 and float(weights.max()) < 0.5


def test_more_keys_than_values_are_wide_are_told_without_a_line_to_type() -> None:
    late = "q @ k.mT + (torch.arange(k.shape[-2]) if k.shape[-2] > 10 else 0)"
    problem = outcome_of("attention", edited(RIGHT, (SCORES, late), (RETURN, "return output")))
    assert problem is not None and "\nwith one-hot values: weights[" in problem.evidence


@pytest.mark.parametrize(
    ("step", "edit"),
    [
        ("scores", (SCORES, "q @ k.detach().mT")),
        ("softmax", (SOFTMAX, "scores.softmax(dim=-1).detach()")),
        ("weighted mean", (MIX, "output = weights @ v.detach()")),
        ("weighted mean", (MIX, "output = (weights @ v).detach()")),
    ],
)
def test_where_the_gradient_is_cut(step: str, edit: tuple[str, str]) -> None:
    problem = outcome_of("attention", edited(RIGHT, edit))
    assert problem is not None and problem.what.startswith("You cut the gradient") and problem.step == step, problem


@pytest.mark.parametrize(
    ("weights", "step", "says"),
    [
        ("(q @ k.mT).softmax(-1)", "scale", "You do not scale the scores"),
        ("(q @ k.mT * q.shape[-1] ** -0.5).softmax(-2)", "softmax", "Your softmax runs over the queries"),
        ("q @ k.mT", "softmax", ""),
    ],
)
def test_other_weights_beside_a_right_output(weights: str, step: str, says: str) -> None:
    right = "torch.nn.functional.scaled_dot_product_attention(q, k, v)"
    problem = outcome_of("attention", f"import torch\ndef attention(q, k, v):\n    return {right}, {weights}\n")
    assert problem and (problem.mistake, problem.step) == ("attn_returns_scores", step)
    assert problem.what.startswith("You return") and says in problem.what


def test_an_argument_that_is_changed_in_place_is_told_by_its_numbers() -> None:
    for edit, step in (
        ((SCORES, "q.mul_(1.0) @ k.mT; q += 1"), "scores"),
        ((MIX, f"{MIX}; v *= 2"), "weighted mean"),
    ):
        problem = outcome_of("attention", edited(RIGHT, edit))
        assert problem and (problem.mistake, problem.step) == ("input_changed", step), problem


@pytest.mark.parametrize("dtype", ["half", "bfloat16"])
def test_low_precision_is_told_as_that(dtype: str) -> None:
    problem = outcome_of("attention", edited(RIGHT, (SCORES, f"(q.{dtype}() @ k.{dtype}().mT).double()")))
    assert problem and (problem.mistake, problem.step) == ("low_precision", "scores"), problem
    problem = outcome_of("attention", edited(RIGHT, (SOFTMAX, f"scores.{dtype}().softmax(dim=-1).double()")))
    assert problem and (problem.mistake, problem.step) == ("low_precision", "softmax"), problem
