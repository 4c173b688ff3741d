"""Exercise 5: MultiHeadSelfAttention(embed_dim, num_heads)."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from types import ModuleType

import torch
from einops import rearrange
from torch import Tensor

from vitscratch.exercises.checks import attention, failing, reference
from vitscratch.exercises.checks.compare import TOLERANCE, draw, number, same, say, worst
from vitscratch.exercises.checks.modules import Part, Sizes, Trial, check_part
from vitscratch.exercises.checks.naming import table
from vitscratch.exercises.checks.reference import Flags, Parameters
from vitscratch.exercises.checks.roles import attention_maps
from vitscratch.exercises.checks.weights import Read, evidence_of, localise, one_hot
from vitscratch.exercises.exercise import Mistake, Outcome

STEPS = (
    "parameters",
    "queries, keys and values",
    "heads",
    "scores",
    "scale",
    "softmax",
    "weighted mean",
    "merging heads",
    "output projection",
)

NUDGES = {
    **attention.NUDGES,
    "parameters": "Print the names and shapes of `named_parameters()` and compare them with the equations.",
    "queries, keys and values": "Eq. 5: three different linear functions of the same token. What makes each of yours?",
    "heads": "Take D = 4, 2 heads and a token (0, 1, 2, 3): which numbers are head 0's, and what does your split give?",
    "merging heads": "After the merge, the first D_h numbers of token i all come from head 0 and token i. Do yours?",
    "output projection": "Eq. 8: what happens to the merged heads, and what happens after that?",
}

MISTAKES: dict[str, Mistake] = table(
    """
    attn_over_batch | scores | You swap batch and tokens, so that a token looks at the same token of other pictures; it should look at the tokens of its own picture. | The batch comes first here: nn.MultiheadAttention needs to be told (batch_first), and no transposition may be left over.
    attn_no_qkv_bias | queries, keys and values | Your queries, keys or values have no bias; U_qkv should be a linear layer with one. | Look at the arguments of the layer that makes q, k and v.
    attn_value_is_input | queries, keys and values | You use the tokens themselves as values; they should have a projection of their own, as queries and keys have. | Which tensor do the weights meet?
    attn_query_is_input | queries, keys and values | You use the tokens themselves as queries; they should have a projection of their own. | Follow q back to x: which layer does it come through?
    attn_key_is_input | queries, keys and values | You use the tokens themselves as keys; they should have a projection of their own. | Follow k back to x: which layer does it come through?
    attn_layer_used_twice | queries, keys and values | You make two of queries, keys and values with the same layer; there should be three layers, one for each. | A copied line whose layer was not changed.
    attn_activation_on_qkv | queries, keys and values | You put an activation on queries, keys and values; they should be linear functions of a token. | Leave the activation to the MLP.
    attn_split_view | heads | You split q, k and v, or the heads, by view or reshape alone, so that a head gets parts of other tokens; it should get a slice of every token. | Split nothing but the last axis, 3 D into (3, heads, width) or D into (heads, width); then move the axis of heads before that of tokens.
    attn_packing_per_head | heads | You read the packed layer in another order, such as head by head, (heads, 3, width); it should be (3, heads, width): all queries, then all keys, then all values. | In which order do the three axes stand when the last axis, 3 D long, is split: what is outermost?
    attn_heads_interleaved | heads | Your head takes every h-th number of a token; it should take a slice of D_h neighbours. | In the view, the axis of heads comes before the axis of the width.
    attn_heads_and_width_swapped | heads | You mix up the number of heads and the width of a head; there should be num_heads heads, each embed_dim / num_heads wide. | There are num_heads heads, and each is embed_dim / num_heads wide.
    attn_one_head | heads | You compute a single head and do not use num_heads; there should be num_heads of them. | Eq. 6 runs for each head by itself, on its slice of q, k and v.
    attn_heads_not_transposed | heads | You let the heads of one token look at each other; the axis of heads should move before that of tokens, so that tokens do. | Before the product, q is (b, h, n, d_h): which axes does yours have?
    attn_merge_reshape | merging heads | You merge the heads by reshape alone, which puts other tokens beside each other; the heads of one token should stand beside each other. | First move the axis of heads back behind that of tokens, then join the last two.
    attn_merge_interleaved | merging heads | You merge the heads number by number; it should be head after head. | Of the two axes that are joined, that of heads is the outer one.
    attn_heads_reversed | merging heads | You merge the heads from last to first; it should be from first to last. | They go back in the order in which they came.
    attn_no_out_proj | output projection | Your output projection is missing; Eq. 8 ends with it (U_msa). | After the merge comes one more linear layer, D to D.
    attn_no_out_bias | output projection | Your output projection has no bias; it should have one. | Look at the arguments of the last layer.
    attn_out_activation | output projection | You put an activation on the output; the projection should be the last step. | Leave the activation to the MLP.
    attn_out_proj_twice | output projection | You apply the output projection twice; once is right. | Count how often it is called.
    attn_out_proj_transposed | output projection | You use the weight of the output projection transposed; a linear layer with weight W computes x W^T. | A linear layer with weight W computes x W^T; call the layer.
    attn_residual_inside | output projection | You add the input to the output of attention; the residual belongs to the block, outside. | Return what Eq. 8 says, nothing more.
    """,  # noqa: E501 - a table
    NUDGES,
) | {name: mistake for name, mistake in attention.MISTAKES.items() if not name.startswith("attn_returns")}
MISTAKES["attn_over_batch"] = replace(
    MISTAKES["attn_over_batch"],
    hints=(
        "Which axis of its input does your attention take for the batch? (With nn.MultiheadAttention, look it up.)",
        *MISTAKES["attn_over_batch"].hints[1:],
    ),
)
for _name in ("attn_heads_not_transposed", "attn_packing_per_head"):  # they split a token of 4 numbers rightly
    MISTAKES[_name] = replace(MISTAKES[_name], hints=MISTAKES[_name].hints[::-1])


def _read(name: str) -> Mistake:
    """A mistake of the scores that is made where queries, keys and values are read."""
    step, mistake = "queries, keys and values", MISTAKES[name]
    return replace(mistake, step=step, hints=(NUDGES[step], *mistake.hints[1:]))


for _name in ("attn_kv_swapped", "attn_qv_swapped", "attn_qkv_rotated"):
    MISTAKES[_name] = _read(_name)


def check(student: ModuleType) -> Iterator[Outcome]:
    """What is right about the student's `MultiHeadSelfAttention`, then the first thing that is wrong."""
    yield from check_part(PART, student)


def _compute(x: Tensor, parameters: Parameters, sizes: Sizes, flags: Flags) -> Tensor:
    return reference.multi_head(x, parameters, sizes["num_heads"], flags)


# ----------------------------------------------------------------------------------------------------- localising

TINY = 1e-12  # what rounding makes of a weight of 0
Run = Callable[[Tensor, Mapping[str, Tensor]], Tensor]


def _step_of(run: Run, parameters: Parameters, num_heads: int) -> tuple[str, str]:
    """The step in which a multi-head self-attention goes wrong, and numbers that show it.

    From the end to the start, each probe sets the parameters so that all steps but one have no say.

    Args:
        run: input and values of some parameters -> the student's output; the other parameters are `parameters`.
        parameters: as `reference.multi_head` takes them.
        num_heads: heads.
    """
    d = parameters["qkv.weight"].shape[1]
    for probe in (*PROBES, _groups, _weights):
        found = probe(run, parameters, num_heads, d)
        if found:
            return found
    return "weighted mean", ""


def _bare(d: int) -> dict[str, Tensor]:
    """Every parameter of q, k and v zero, the projection the identity: the output is the merged heads."""
    none = torch.zeros(3 * d, d, dtype=torch.float64)
    return {
        "qkv.weight": none,
        "qkv.bias": none[:, 0].clone(),
        "proj.weight": torch.eye(d, dtype=torch.float64),
        "proj.bias": torch.zeros(d, dtype=torch.float64),
    }


def _projected(parameters: Parameters, d: int) -> dict[str, Tensor]:
    """The values' own weight; that of queries and keys is 0."""
    weight = parameters["qkv.weight"].clone()
    weight[: 2 * d] = 0
    return {"qkv.weight": weight}


def _projection(run: Run, parameters: Parameters, num_heads: int, d: int) -> tuple[str, str] | None:
    """With weight 0 the output is the bias; with any weight W it is W times what it is with the identity."""
    x = draw(3, 4, d, seed=5)
    weight, bias = parameters.get("proj.weight"), parameters.get("proj.bias")
    if weight is None:
        return None
    zero = run(x, {"proj.weight": torch.zeros_like(weight)})
    expected = torch.zeros_like(x) if bias is None else bias.expand_as(x)
    if not same(zero, expected):
        text = f"with the projection's weight at 0 the output must be its bias, {say(expected[0, 0, :3])}, ...; "
        return "output projection", f"{text}yours is {say(zero[0, 0, :3])}, ...{_times(zero, expected)}; "
    none = {"proj.bias": torch.zeros(d, dtype=torch.float64)}
    merged = run(x, {"proj.weight": torch.eye(d, dtype=torch.float64), **none})
    if not same(run(x, none), merged @ weight.mT):
        return "output projection", "the output is not the projection's weight times what it is with the identity; "
    return None


def _times(seen: Tensor, expected: Tensor) -> str:
    factor = seen.flatten()[0] / expected.flatten()[0]
    return f", {number(factor)} times as much" if same(seen, factor * expected) else ""


def _constant_values(run: Run, parameters: Parameters, num_heads: int, d: int) -> tuple[str, str] | None:
    """All weights 0, the values' bias c: whatever the weights are, if they sum to one, every output is c."""
    c = torch.arange(1, d + 1, dtype=torch.float64)
    values = _bare(d)
    values["qkv.bias"] = torch.cat([torch.zeros(2 * d, dtype=torch.float64), c])
    x = draw(2, 4, d, seed=6)
    seen = run(x, values)
    told = "with q = k = 0 and the values' bias at 1, 2, 3, ... every output must be 1, 2, 3, ...; "
    place = worst(seen, c.expand_as(seen))
    told += f"number {place[-1] + 1} of yours is {number(seen[place])}; "
    if "qkv.bias" not in parameters or same(seen, c.expand_as(seen)):
        return None
    if not same(seen, run(draw(2, 4, d, seed=7), values)):
        if same(seen, x):
            return "output projection", f"the last layer gets the token itself, not what attention gives: {told}"
        if same(seen - c, x):
            return "output projection", f"the token itself is added to the merged heads: {told}"
        return "queries, keys and values", f"q, k and v are made of more than their layers: {told}"
    if not bool(torch.isfinite(seen).all()):
        return "softmax", told
    if not bool(seen.any()):  # the values' bias has no say
        return "queries, keys and values", told
    if same(seen, float(seen[0, 0, 0]) * c.expand_as(seen)):
        more = run(draw(2, 9, d, seed=6), values)
        if not same(more[0, 0], seen[0, 0]):
            return "softmax", told
        if same(seen, num_heads * c.expand_as(seen)):
            return "merging heads", f"{num_heads} times as much, as if every head gave all of the values: {told}"
        mean = run(x, {**values, **_projected(parameters, d)})  # something is added to it if tokens differ
        return ("scale" if same(mean, mean[:, :1].expand_as(mean)) else "weighted mean"), told
    by_head = rearrange(seen, "b n (h k) -> b n h k", h=num_heads)
    if same(by_head, by_head[..., :1].expand_as(by_head)):  # the mean of a head's numbers: they attend to each other
        return "heads", told
    known = bool(torch.isclose(seen.unsqueeze(-1), c, rtol=TOLERANCE).any(-1).all())
    if known:
        several = len((seen[0, 0] - 1).div(d // num_heads, rounding_mode="floor").unique()) > 1  # heads that come out
        one = run(draw(1, 1, d, seed=6), values)
        return (
            "merging heads" if not same(seen[:1, :1], one) or _heads_of(run, d, num_heads, lost=several) else "heads"
        ), told
    total = float(seen.sum() / seen[..., 0].numel())
    if abs(total / float(c.sum()) - 1) < TOLERANCE:
        return "heads", told
    return _before_or_after(run, parameters, d), told


def _before_or_after(run: Run, parameters: Parameters, d: int) -> str:
    """Whether values are changed each by itself or as their mean: with q = k = 0, two tokens show it."""
    values = {**_bare(d), **_projected(parameters, d)}
    x = draw(1, 2, d, seed=13)
    of_mean = run(x.mean(1, keepdim=True), values)
    return "weighted mean" if same(run(x, values)[:, :1], of_mean) else "queries, keys and values"


def _values(run: Run, parameters: Parameters, num_heads: int, d: int) -> tuple[str, str] | None:
    """With q = k = 0 every output is the mean of the values; with one token, its value."""
    values = {**_bare(d), **_projected(parameters, d)}
    x = draw(2, 4, d, seed=6)
    projected = x @ parameters["qkv.weight"][2 * d :].mT
    if same(run(x, values), projected.mean(1, keepdim=True).expand_as(x)):
        return None
    single = run(x[:1, :1], values)
    if not same(single, projected[:1, :1]):
        told = f"one token alone must give its value, {say(projected[0, 0, :3])}, ...; "
        told += f"yours gives {say(single[0, 0, :3])}; "
        if not bool(torch.isfinite(single).all()):  # the one key is masked
            return _shown(_reader(run, parameters, num_heads, d))
        if same(single.sort().values, projected[:1, :1].sort().values):
            return ("merging heads" if _heads_of(run, d, num_heads) else "heads"), told
        return _before_or_after(run, parameters, d), told
    seen = run(x, values)
    told = f"with q = k = 0 every token must give the mean of the values, {say(projected.mean(1)[0, :3])}, ...; "
    told += f"token 1 gives {say(seen[0, 1, :3])}; "
    all_equal = same(seen, seen[:, :1].expand_as(seen))
    alone = same(run(x[:1], values), seen[:1])
    if not alone:
        return "scores", told
    if not all_equal and _scrambled(run, d):
        return "heads", told
    return _shown(_reader(run, parameters, num_heads, d))


def _scrambled(run: Run, d: int) -> bool:
    """Some output channel depends on more than its own channel of the values."""
    values = _bare(d)
    values["qkv.weight"][2 * d] = draw(d, seed=8)  # channel 0 of the values alone
    return bool(run(draw(1, 4, d, seed=6), values)[..., 1:].abs().max() > 0)


def _heads_of(run: Run, d: int, num_heads: int, lost: bool = False) -> bool:
    """The values that one channel of q and k weighs are those of its own head, wherever the merge puts them.

    With `lost`, it may also have lost some.
    """
    width = d // num_heads
    for channel in (0, d - 1):
        values = _bare(d)
        values["qkv.bias"][channel] = 3.0
        values["qkv.weight"][d + channel] = draw(d, seed=9)
        x = draw(1, 4, d, seed=6)
        for value in range(d):
            weight = values["qkv.weight"].clone()
            weight[2 * d + value] = draw(d, seed=10)
            flat = run(x, {**values, "qkv.bias": torch.zeros(3 * d, dtype=torch.float64), "qkv.weight": weight})
            if lost and not bool(flat.any()):
                continue
            changed = not same(run(x, {**values, "qkv.weight": weight}), flat)
            if changed != (value // width == channel // width):
                return False
    return True


def _groups(run: Run, parameters: Parameters, num_heads: int, d: int) -> tuple[str, str] | None:
    """A channel of q and k decides over the weights of its own head, and over no other."""
    if "qkv.bias" not in parameters or _heads_of(run, d, num_heads):
        return None
    if mixed := _mixed_heads(_reader(run, parameters, num_heads, d)):
        return "softmax", mixed
    return "heads", "numbers of q and k in one head decide over the weights of another head's values; "


def _mixed_heads(read: Read) -> str:
    """What to say if the weights are those of softmax, added up over heads."""
    found = read(1.0)
    assert found is not None
    weights, right = (rearrange(one, "1 h i j -> (i j) h") for one in found)
    shares = torch.linalg.lstsq(right, weights).solution
    if not same(right @ shares, weights) or not bool((shares[:, 0].abs() > TOLERANCE).sum() > 1):
        return ""
    count = len(shares)
    heads = ", ".join(map(str, range(count)))
    return f"the weights of head 0 are {say(shares[:, 0], count)} times those of heads {heads}; "


def _reader(run: Run, parameters: Parameters, num_heads: int, d: int, tokens: int = 4) -> Read:
    """For so many tokens (at most d), one picture, and values that are one-hot in every head."""
    x = draw(1, tokens, d, seed=11)
    to_tokens = torch.linalg.pinv(x[0])

    def read(factor: float) -> tuple[Tensor, Tensor]:
        values = _bare(d)
        values["qkv.weight"] = parameters["qkv.weight"].clone()
        values["qkv.bias"] = parameters.get("qkv.bias", values["qkv.bias"]).clone()
        values["qkv.bias"][2 * d :] = 0
        for name in ("qkv.weight", "qkv.bias"):
            values[name][:d] *= factor
        both = []
        for one in one_hot(tokens, d // num_heads):
            values["qkv.weight"][2 * d :] = (to_tokens @ one.repeat(1, num_heads)).mT
            both.append(torch.cat([run(x, values), reference.multi_head(x, values, num_heads)]))
        by_head = torch.cat([rearrange(out, "two n (h k) -> two h n k", h=num_heads) for out in both], -1)
        seen, right = by_head[..., :tokens].split(1)
        return torch.where(seen.abs() < TINY, 0, seen), right

    return read


def _weights(run: Run, parameters: Parameters, num_heads: int, d: int) -> tuple[str, str]:
    few, many = (_reader(run, parameters, num_heads, d, tokens) for tokens in (4, 13))
    step, evidence = _shown(many if _is_right(few) else few)
    if step == "scores" and not _turned(run, parameters, num_heads, d):
        return "queries, keys and values", f"q and k, both turned alike, do not give the same scores; {evidence}"
    return step, evidence


def _shown(read: Read) -> tuple[str, str]:
    step, evidence = localise(read)
    return step, f"with one-hot values, {evidence}"


def _is_right(read: Read) -> bool:
    found = read(1.0)
    return found is not None and same(*found)


def _turned(run: Run, parameters: Parameters, num_heads: int, d: int) -> bool:
    """Products of queries and keys stay the same if both are turned; an activation on them would show."""
    width = d // num_heads
    turn = torch.linalg.qr(draw(width, width, seed=12)).Q
    turned = {}
    for name in ("qkv.weight", "qkv.bias"):
        if name in parameters:
            q, k, v = parameters[name].chunk(3)
            q, k = ((turn @ part.reshape(num_heads, width, -1)).reshape(part.shape) for part in (q, k))
            turned[name] = torch.cat([q, k, v])
    before, after = (_reader(run, {**parameters, **more}, num_heads, d)(1.0) for more in ({}, turned))
    return before is not None and after is not None and same(after[0], before[0])


PROBES = (_projection, _constant_values, _values)  # those that are quick, and depend on the reading


def _localise(trial: Trial) -> tuple[str, str]:
    return _step_of(trial.probe, trial.parameters, trial.sizes["num_heads"])


def _cut(trial: Trial, roles: Collection[str], partly: bool) -> str:
    """Where a gradient is cut off, by the layers that it does not reach; none of them: the input."""
    lost = {role.partition(".")[0] for role in roles}
    if "proj" in lost:
        return "output projection"
    if {"q", "v"} <= lost:
        return "merging heads"
    return attention.cut(lost) if lost else "queries, keys and values"


def _details(trial: Trial, step: str) -> str:
    """The weights themselves, where it is these that a mistake is about."""
    if step not in ("scores", "scale", "softmax") or trial.role_map.twice("qkv.weight"):  # it cannot be written
        return ""
    num_heads, d = trial.sizes["num_heads"], trial.sizes["embed_dim"]
    evidence = evidence_of(_reader(trial.probe, trial.parameters, num_heads, d), step)
    return f"with one-hot values, {evidence}" if evidence else ""


_DIRECT = {
    **attention.DIRECT,
    "parameters": "q, k and v need D x D weights each and a bias; so does the output.",
    "queries, keys and values": "Compare your q with the layer applied to x by hand, and so k and v.",
    "heads": "q[b, h, i] must be q_before[b, i, h * D_h : (h + 1) * D_h].",
    "merging heads": "merged[b, i, h * D_h : (h + 1) * D_h] must be out[b, h, i].",
    "output projection": "Compare the output with the last layer, applied to the merged heads by hand.",
}

_NAMELESS = {
    **attention.NAMELESS,
    "queries, keys and values": "You make queries, keys or values of more, or less, than their layers give; each "
    "should be a linear function of its own token.",
    "heads": "You split queries, keys and values into heads in another way; head i should get the i-th slice of "
    "D / num_heads numbers of every token.",
    "merging heads": "You merge the heads in another way; a token should get what all heads give for it, head after "
    "head.",
    "output projection": "You do something else with the merged heads; one linear layer should be the last step.",
}

_SAME_LAYER = {
    "": "queries and keys",
    ":key": "queries and keys",
    ":value_is_key": "keys and values",
    ":value_is_query": "queries and values",
    ":key_is_value": "keys and values",
    ":query_is_value": "queries and values",
    ":all": "queries, keys and values",
    ":all_keys": "queries, keys and values",
    ":all_values": "queries, keys and values",
}

PART = Part(
    name="MultiHeadSelfAttention",
    sizes=({"embed_dim": 35, "num_heads": 5}, {"embed_dim": 22, "num_heads": 2}),
    steps=STEPS,
    bank=MISTAKES,
    maps=lambda module, sizes: attention_maps(module, **sizes),
    compute=_compute,
    stages=reference.MULTI_HEAD_STAGES,
    missing={
        "qkv.weight": "attn_layer_used_twice",
        "qkv.bias": "attn_no_qkv_bias",
        "proj.weight": "attn_no_out_proj",
        "proj.bias": "attn_no_out_bias",
    },
    absorbed={"attn_layer_used_twice": frozenset({"attn_value_is_input", "attn_query_is_input", "attn_key_is_input"})},
    count=lambda sizes: 4 * sizes["embed_dim"] * (sizes["embed_dim"] + 1),
    random=lambda trial: "attn_random",
    place=failing.in_heads,
    ends=(("proj", "output projection"),),
    widths=lambda module, sizes: None,
    localise=_localise,
    probes=tuple(
        lambda trial, probe=probe: probe(  # type: ignore[misc]
            trial.probe, trial.parameters, trial.sizes["num_heads"], trial.sizes["embed_dim"]
        )
        for probe in PROBES
    ),
    details=_details,
    cut=_cut,
    special={
        f"attn_layer_used_twice{how}": replace(
            MISTAKES["attn_layer_used_twice"],
            what=f"You make {which} with the same layer; there should be three layers, one for each.",
        )
        for how, which in _SAME_LAYER.items()
    },
    special_of_packed={"attn_qk_swapped": _read("attn_qk_swapped")},
    nameless=_NAMELESS,
    direct={step: (NUDGES[step], _DIRECT[step]) for step in STEPS},
    facts=(
        "queries, keys and values are three linear functions of a token, with bias",
        "heads are slices of D / num_heads neighbouring numbers",
        "the weights of a query are positive and sum to one over the keys; scores are divided by sqrt(D_h)",
        "a picture's output does not depend on its neighbours in the batch",
        "heads are merged in order, and projected",
    ),
)
