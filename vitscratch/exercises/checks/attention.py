"""Exercise 4: attention(q, k, v) -> (output, weights)."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vitscratch.exercises.checks import failing, reference
from vitscratch.exercises.checks.compare import difference, draw, explain, number, same, worst
from vitscratch.exercises.checks.naming import named_problem, table
from vitscratch.exercises.checks.student import (
    WrongError,
    another,
    differs,
    drawn,
    going_back,
    in_place,
    low_precision,
    noted,
    parts_of,
    pick_tensor,
    place_of,
    run,
    shape_of,
    tensors_of,
)
from vitscratch.exercises.checks.weights import Read, evidence_of, localise, one_hot, sums
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem

STEPS = ("scores", "scale", "softmax", "weighted mean")

NUDGES = {
    "scores": "Score (i, j) is the product of query i with key j of the same picture and the same head, nothing else.",
    "scale": "Eq. 6: by what are the scores divided, before softmax, and which axis of which tensor has that length?",
    "softmax": "Print `weights.sum(dim=-1)`: what should each number be, and what is it?",
    "weighted mean": "Row i of the output is made of the values with the weights of query i. Which axes meet?",
}

MISTAKES: dict[str, Mistake] = table(
    """
    attn_qk_swapped | scores | You swap queries and keys: your score (i, j) is key i with query j; it should be query i with key j. | Rows of the scores belong to queries, columns to keys; look at what is transposed, or at the order in which q and k are unpacked.
    attn_kv_swapped | scores | You swap keys and values; the scores should be made of queries and keys, the output of values. | Look at the order in which k and v are unpacked or passed on.
    attn_qv_swapped | scores | You swap queries and values; the scores should be made of queries and keys, the output of values. | Look at the order in which q and v are unpacked or passed on.
    attn_qkv_rotated | scores | You read queries, keys and values in a wrong order; it should be q, then k, then v. | Look at the line that unpacks the three.
    attn_over_features | scores | You let features look at features: your product runs over the tokens; it should run over the width of a head. | The scores need the shape (queries, keys); which of the two is transposed?
    attn_no_scale | scale | You do not scale the scores; Eq. 6 divides them by sqrt(D_h), D_h being the width of a head. | Before softmax, divide by the square root of the length of the last axis of q.
    attn_scale_embed_dim | scale | You divide the scores by the root of the whole width D; it should be the root of one head's width, D_h. | D_h is the length of the last axis of q once heads are split, D / heads.
    attn_scale_num_heads | scale | You divide the scores by the root of the number of heads; it should be the root of one head's width, D_h. | Which axis of q has the length D_h? The last, not the second.
    attn_scale_inverted | scale | You multiply the scores by the root of the width; you should divide by it. | Dividing by D_h ** -0.5 multiplies; there is one minus sign too many, or too few.
    attn_scale_after_softmax | scale | You apply the factor 1 / sqrt(D_h) after softmax; it belongs to the scores, before softmax. | If weights are scaled after softmax their rows no longer sum to one.
    attn_scale_no_root | scale | You divide the scores by a width itself; Eq. 6 divides by its square root, sqrt(D_h), and once. | A root is missing, or the factor is applied twice (scaled_dot_product_attention scales, too).
    attn_scale_num_tokens | scale | You divide the scores by the root of the number of tokens; it should be the root of one head's width, D_h. | The last axis of q, not the one before it.
    attn_scale_fourth_root | scale | You divide the scores by the fourth root of D_h in all; it should be the square root: if q and k share the factor, both need theirs. | D_h ** -0.25 on q and on k, or D_h ** -0.5 on one.
    attn_softmax_queries | softmax | Your softmax runs over the queries; it should run over the keys, so that the weights of one query sum to one. | The scores are (..., queries, keys): over which axis does softmax run?
    attn_no_softmax | softmax | You use the scores themselves as weights; softmax should make the weights of them. | Eq. 6 makes weights of scores; they are positive and sum to one for every query.
    attn_softmax_heads | softmax | Your softmax runs over the heads; it should run over the keys, so that the weights of one query sum to one. | Name the axis that softmax runs over by counting from the end.
    attn_softmax_batch | softmax | Your softmax runs over the batch, so that a picture's weights depend on its neighbours; it should run over the keys. | softmax without the right dim: count the axis from the end.
    attn_softmax_all | softmax | Your softmax runs over queries and keys together; it should run over the keys, so that each query's weights sum to one by themselves. | Do not flatten the scores; softmax runs over one axis.
    attn_softmax_twice | softmax | You apply softmax twice, which flattens the weights; once is right. | Look for a second softmax, maybe in another function.
    attn_log_softmax | softmax | Your weights are logarithms (log_softmax); they should be what softmax gives. | Weights are never negative.
    attn_sigmoid | softmax | You use sigmoid, so that the weights of a query do not sum to one; it should be softmax. | The keys compete for one query's attention; which function makes a row sum to one?
    attn_exp_not_normalised | softmax | You do softmax halfway; it should take exp of the scores and divide by the sum of exp over the keys. | Both are needed: exp first, then divide by its sum over the last axis, kept as an axis.
    attn_softmax_negated | softmax | You turn the scores' sign before softmax, so that the least similar key gets the most weight; the most similar one should. | Look for a minus sign.
    attn_relu_for_softmax | softmax | You use ReLU, so that the weights of a query do not sum to one; it should be softmax. | Which function makes a row positive and sum to one?
    attn_tanh_for_softmax | softmax | You use tanh, so that weights can be negative and do not sum to one; it should be softmax. | Which function makes a row positive and sum to one?
    attn_causal | softmax | You mask some keys; in a picture every token may look at every token, itself and later ones included. | A mask (tril, triu, is_causal) belongs into a language model; leave it out.
    attn_weights_transposed | weighted mean | You transpose the weights before they meet the values; output i should use the weights of query i. | weights is (queries, keys) and v is (keys, width): nothing needs turning.
    attn_returns_swapped | weighted mean | You return the weights first; it should be (output, weights). | Look at the return line. | Which of the two shapes that you return is (b, h, queries, d_h)?
    attn_returns_scores | softmax | You return something else as weights than what the output is made of; return what softmax gives. | Return the tensor that is multiplied with v.
    attn_random | softmax | You draw something at random, so that two calls with the same input differ; they should agree. | dropout must be off by default, and F.dropout needs to be told so.
    """,  # noqa: E501 - a table
    NUDGES,
)

# (pictures, heads, queries, keys, width of a head): all different; the second with as many keys as queries as the first
SQUARE = ((3, 5, 6, 6, 7), (1, 2, 5, 5, 11), (5, 2, 11, 11, 3))
LONG = ((3, 5, 2, 6, 7), (1, 2, 11, 5, 13))


def inputs(shape: tuple[int, int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v as the check draws them."""
    b, h, i, j, k = shape
    return 1.5 * draw(b, h, i, k, seed=1), 1.5 * draw(b, h, j, k, seed=2), draw(b, h, j, k, seed=3)


def check(student: ModuleType) -> Iterator[Outcome]:
    """What is right about the student's `attention`, then the first thing that is wrong."""
    try:
        yield from _check(student.attention)
    except WrongError as error:
        yield error.problem


def _check(attention: Any) -> Iterator[Outcome]:
    seen = [_call(attention, shape) for shape in SQUARE]
    _deterministic(attention)
    right = [reference.attention(*inputs(shape)) for shape in SQUARE]
    if not all(same(output, expected) for (output, _), (expected, _) in zip(seen, right, strict=True)):
        raise WrongError(_wrong_output(attention, seen, right))
    yield Passed(f"the output is right for q, k, v of {_shape(SQUARE[0])}, and for two other shapes")
    yield Passed("scores are divided by the root of the width of a head; the weights of a query sum to one over keys")
    for (_, weights), (_, expected) in zip(seen, right, strict=True):
        if weights and not any(same(one, expected) for one in weights):
            evidence = f"{difference(weights[0], expected, _code(SQUARE[0], attention, weights[0].shape))}\n"
            evidence += sums(weights[0]).removesuffix("; ")
            raise WrongError(_other_weights([each for _, each in seen], evidence))
    if not seen[0][1]:
        _nothing_else(attention)
        yield Passed("the output alone is returned: that is enough here; the exercise asks for (output, weights)")
    else:
        yield Passed("the weights that are returned are those that the output is made of")
    for shape in LONG:
        output, _ = _call(attention, shape)
        expected, _ = reference.attention(*inputs(shape))
        if not same(output, expected):
            evidence = difference(output, expected, _code(shape, attention, output.shape))
            what = "You go wrong as soon as there are not as many keys as queries; any two numbers should do."
            raise WrongError(Problem(what, evidence, "weighted mean", (NUDGES["weighted mean"], _LENGTHS)))
    yield Passed(f"2 queries may look at 6 keys: the output is right for queries {_shape(LONG[0])}")
    _in_place(attention)
    with going_back(_backward(attention), "softmax"):
        _gradients(attention)
    yield Passed("gradients flow back to q, k and v")


_LENGTHS = "No length may be taken from q where it belongs to k and v: 2 queries and 6 keys give 2 x 6 weights."


def _call(attention: Any, shape: tuple[int, int, int, int, int]) -> tuple[Tensor, list[Tensor]]:
    """The output, and all else that may be the weights (none: not returned), found by shape."""
    b, h, i, j, k = shape
    with noted(f"called as in {_code(shape)}", lambda: attention(*inputs(shape)), failing.in_attention):
        result = run(attention, *inputs(shape), step="scores", code=_code(shape))
    outputs, weights = tensors_of(result, (b, h, i, k)), tensors_of(result, (b, h, i, j))
    in_order = isinstance(result, tuple | list)  # a dict's names tell which is which
    if in_order and outputs and weights and parts_of(result)[0] is weights[0]:
        should = f"it should return a tuple of {(b, h, i, k)} and {(b, h, i, j)}"
        evidence = f"{_code(shape)} returns {shape_of(result)}; {should}"
        raise WrongError(_named("attn_returns_swapped", evidence))
    if not outputs:
        wanted = f"it should return the output, {(b, h, i, k)}, and the weights, {(b, h, i, j)}"
        features = tensors_of(result, (b, h, k, k))
        step = "scores" if features else "weighted mean"
        what = "Your output has another shape; it should have (b, h, queries, width)."
        evidence = f"{_code(shape)} returns {shape_of(result)}; {wanted}"
        raise WrongError(Problem(what, evidence, step, (NUDGES[step], f"{wanted.capitalize()}.")))
    weights = [thing for thing in weights if thing is not outputs[0]]
    return outputs[0], weights


def _other_shape(attention: Any) -> str:
    """For a second tensor, meant to be the weights, that has another shape: what is returned and what should be."""
    b, h, i, j, _ = SQUARE[0]
    result = attention(*inputs(SQUARE[0]))
    if sum(isinstance(part, Tensor) for part in parts_of(result)) < 2:
        return ""
    return f"{_code(SQUARE[0])} returns {shape_of(result)}; it should return weights of {(b, h, i, j)}"


def _nothing_else(attention: Any) -> None:
    """Raises WrongError for weights of another shape."""
    if evidence := _other_shape(attention):
        raise WrongError(Problem(_SHAPE, evidence, "softmax", (NUDGES["softmax"], _EACH)))


_SHAPE = "Your weights have another shape; it should be (b, h, queries, keys)."
_EACH = "One number for every query and every key, of each picture and each head."


def _named(mistake: str, evidence: str) -> Problem:
    return named_problem([mistake], MISTAKES, STEPS, lambda _: evidence)


def _other_weights(seen: list[list[Tensor]], evidence: str) -> Problem:
    """Weights that are returned beside a right output: with which mistake they are made, if it is a known one."""
    problem = _named("attn_returns_scores", evidence)
    for flag in (*reference.SCALE, *reference.SOFTMAX):
        wrong = [reference.attention(*inputs(shape), frozenset({flag}))[1] for shape in SQUARE]
        if all(any(same(one, other) for one in each) for each, other in zip(seen, wrong, strict=True)):
            mistake = MISTAKES[reference.mistake_name(flag)]
            what = f"You return other weights than the output is made of. In those that you return: {mistake.what}"
            return replace(problem, what=what, step=mistake.step, hints=mistake.hints)
    return problem


def _deterministic(attention: Any) -> None:
    one = _call(attention, SQUARE[0])[0]
    other = another(lambda: _call(attention, SQUARE[0])[0], one)
    if other is not None:
        raise WrongError(_named("attn_random", differs(_code(SQUARE[0], attention, one.shape), one, other)))


def _wrong_output(attention: Any, seen: list[Any], right: list[Any]) -> Problem:
    outputs = [output for output, _ in seen]
    flags = explain(
        outputs, lambda i, flags: reference.attention(*inputs(SQUARE[i]), flags)[0], reference.ATTENTION_STAGES, True
    )
    at = next(i for i, output in enumerate(outputs) if not same(output, right[i][0]))
    general = difference(outputs[at], right[at][0], _code(SQUARE[at], attention, outputs[at].shape))
    read, returned = _reader(attention, SQUARE[at]), seen[at][1]
    if flags:
        return named_problem(
            flags,
            MISTAKES,
            STEPS,
            lambda step: _lines(general, _told(evidence_of(read, step), attention, read, returned, SQUARE[at])),
        )
    of_q = tensors_of(attention(*inputs(SQUARE[0])), inputs(SQUARE[0])[0].shape)[1:]
    over_width = any(same(one.sum(-1), torch.ones_like(one[..., 0])) for one in of_q)  # softmax of q * k
    if not returned and over_width and (shapes := _other_shape(attention)):
        hints = ("One score is a sum: q[0, 0, 0] @ k[0, 0, 1] is a single number. What is yours?", _EACH)
        return Problem(f"{NAMELESS['scores']} {_SHAPE}", f"{general}\n{shapes}", "scores", hints)
    if problem := low_precision(lambda: attention(*inputs(SQUARE[at])), failing.in_attention, general):
        return problem
    step, told = _localise(attention, seen, right, at)
    return Problem(NAMELESS[step], _lines(general, told), step, (NUDGES[step], DIRECT[step]))


def _localise(attention: Any, seen: list[Any], right: list[Any], at: int) -> tuple[str, str]:
    """The step of a mistake that has no name, and what shows it; output `at` is the first that is wrong."""
    output, returned = seen[at]
    if all(
        any(same(one, expected) for one in weights) for (_, weights), (_, expected) in zip(seen, right, strict=True)
    ):
        return "weighted mean", _right_weights(attention, SQUARE[at], worst(output, right[at][0]))
    if not _linear_in_values(attention, SQUARE[at]):
        return "weighted mean", "twice the values do not give twice the output; "
    read = _reader(attention, SQUARE[at])
    step, found = localise(read)
    if step == "weighted mean" and any(same(output, one @ inputs(SQUARE[at])[2]) for one in returned):
        step = "softmax"  # it is the mean with the weights that are returned
    return step, _told(found, attention, read, returned, SQUARE[at])


def _right_weights(attention: Any, shape: tuple[int, int, int, int, int], place: tuple[int, ...]) -> str:
    """What the weights, which are returned and right, make of the values at this place of the output."""
    q, k, v = inputs(shape)
    result, expected = attention(q, k, v), reference.attention(q, k, v)[1]
    weights = next(one for one in tensors_of(result, expected.shape) if same(one, expected))
    code = f"({_code(shape)}{place_of(result, weights)} @ {drawn(v.shape, 3)})[{', '.join(map(str, place))}]"
    return f"the weights that you return are right: {code} is {number((weights @ v)[place])}; "


def _told(
    evidence: str, attention: Any, read: Read, returned: list[Tensor], shape: tuple[int, int, int, int, int]
) -> str:
    """With a word on where these weights are to be had: they are returned, or else the output for certain values."""
    if not evidence:
        return ""
    b, h, i, j, k = shape
    shown = read(1.0)
    if shown is not None and any(same(one, shown[0]) for one in returned):
        result = attention(*inputs(shape))
        weights = next(one for one in tensors_of(result, (b, h, i, j)) if same(one, shown[0]))
        code = f"weights = {_code(shape)}{place_of(result, weights)}; " if evidence.startswith("weights[") else ""
        return f"{code}{evidence}"
    values = f"v = torch.eye({j}, {k}).double().expand{(b, h, j, k)}, of which the output is the weights"
    return f"with {values if j <= k else 'one-hot values'}: {evidence}"


def _lines(general: str, found: str) -> str:
    """The numbers, and below them what else was found."""
    return f"{general}\n{found.removesuffix('; ')}" if found else general


NAMELESS = {
    "scores": "You make the scores of something else; score (i, j) should be query i with key j of the same picture "
    "and head, and nothing else.",
    "scale": "You scale the scores by another factor; it should be 1 / sqrt(D_h), once, before softmax.",
    "softmax": "You make the weights in another way; they should be softmax of the scaled scores, over the keys.",
    "weighted mean": "You do something else with weights and values; output i should be the mean of the values with "
    "the weights of query i, and nothing else.",
}


def _linear_in_values(attention: Any, shape: tuple[int, int, int, int, int]) -> bool:
    q, k, v = inputs(shape)
    one, two = (pick_tensor(attention(q, k, factor * v), q.shape) for factor in (1, 2))
    return one is not None and two is not None and same(two, 2 * one)


DIRECT = {
    "scores": "Compare q[0, 0, 0] @ k[0, 0, 1] with your scores[0, 0, 0, 1] before you divide.",
    "scale": "Divide your scores by the unscaled product: every quotient must be 1 / sqrt(D_h). (`x ** 1 / 2` is half "
    "of x, and `x * -0.5` no root: `x ** -0.5` is 1 / sqrt(x).)",
    "softmax": "Compare your weights with exp of the scaled scores, divided by their sum over the last axis.",
    "weighted mean": "Compare output[0, 0, 0] with the sum over j of weights[0, 0, 0, j] * v[0, 0, j].",
}


def _reader(attention: Any, shape: tuple[int, int, int, int, int]) -> Read:
    """For `inputs(shape)`, with one-hot values."""
    q, k, v = inputs(shape)

    def read(factor: float) -> tuple[Tensor, Tensor] | None:
        values = [one.expand_as(v).contiguous() for one in one_hot(*v.shape[-2:])]
        found = [pick_tensor(attention(factor * q, k, one), q.shape) for one in values]
        outputs = [output.detach() for output in found if output is not None]
        if len(outputs) < len(found):
            return None
        return torch.cat(outputs, -1)[..., : v.shape[-2]], reference.attention(factor * q, k, v)[1]

    return read


def _in_place(attention: Any) -> None:
    """Raises WrongError if q, k or v is another after the call."""
    given = inputs(SQUARE[0])
    attention(*given)
    for name, now, before in zip("qkv", given, inputs(SQUARE[0]), strict=True):
        if not torch.equal(now, before):
            of_three = _code(SQUARE[0]).removeprefix("attention(").removesuffix(")")
            code = f"q, k, v = {of_three}; _ = attention(q, k, v); {name}"
            raise WrongError(in_place(difference(now, before, code), "weighted mean" if name == "v" else "scores"))


def _gradients(attention: Any) -> None:
    q, k, v = tensors = [tensor.requires_grad_() for tensor in inputs(SQUARE[0])]
    output = pick_tensor(attention(q, k, v), q.shape)
    assert output is not None
    expected, _ = reference.attention(q, k, v)
    loss = draw(*expected.shape, seed=4)
    right = torch.autograd.grad((expected * loss).sum(), tensors)
    found: Any = [None] * 3
    if output.requires_grad:
        found = torch.autograd.grad((output * loss).sum(), tensors, allow_unused=True)
    lost = {name: (mine, its) for name, mine, its in zip("qkv", found, right, strict=True) if not _alike(mine, its)}
    if lost:
        name, (mine, its) = next(iter(lost.items()))
        evidence = _gradient(name, _code(SQUARE[0], attention, output.shape), output, mine, its)
        hints = ("Which call takes a tensor out of the graph?", "No detach, .data, no_grad or numpy in attention.")
        what = f"You cut the gradient off before it reaches {name}; it should flow back to q, k and v."
        raise WrongError(Problem(what, evidence, cut(lost), hints))


def _alike(mine: Tensor | None, its: Tensor) -> bool:
    return mine is not None and same(mine, its)


def cut(lost: Collection[str]) -> str:
    """The step in which a gradient is cut off that does not reach these of q, k and v."""
    return "weighted mean" if "v" in lost else "softmax" if len(lost) > 1 else "scores"


def _backward(attention: Any) -> str:
    """How a student sees what the backward pass ends in."""
    of_three = _code(SQUARE[0]).removeprefix("attention(").removesuffix(")")
    called = _code(SQUARE[0], attention, inputs(SQUARE[0])[0].shape).replace(of_three, "q, k, v")
    return f"q, k, v = (x.requires_grad_() for x in ({of_three})); {called}.sum().backward()"


def _gradient(name: str, code: str, output: Tensor, mine: Tensor | None, its: Tensor) -> str:
    """Numbers that show which gradient is wrong; `code` computes the output."""
    one = dict(zip("qkv", re.findall(r"(?:1.5 \* )?draw\(.*?\)", code), strict=True))[name]
    start, called = f"{name} = ({one}).requires_grad_()", code.replace(one, name)
    if mine is None:  # nothing else asks for a gradient here
        return f"{start}; {called}.requires_grad is False; it should be True"
    return difference(mine, its, f"{start}; ({called} * {drawn(output.shape, seed=4)}).sum().backward(); {name}.grad")


def _shape(shape: tuple[int, int, int, int, int]) -> str:
    b, h, i, _, k = shape
    return str((b, h, i, k))


def _code(shape: tuple[int, int, int, int, int], attention: Any = None, of: Sequence[int] = ()) -> str:
    """How a student computes what attention returns for these inputs, or the part of it that has the shape `of`."""
    b, h, i, j, k = shape
    q, keys = (drawn((b, h, n, k), seed, 1.5) for n, seed in ((i, 1), (j, 2)))
    call = f"attention({q}, {keys}, {drawn((b, h, j, k), 3)})"
    if attention is None:
        return call
    result = attention(*inputs(shape))
    return call + place_of(result, pick_tensor(result, of))
