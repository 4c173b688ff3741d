"""What the parts of a block compute, written once more as plain functions, right or with mistakes that people make.

Every stage of the computation is a table: flag -> how the stage is computed with that mistake. A flag is the name of a
mistake, with a colon and a word behind it where there are several ways to make it ("enc_post_norm:mlp");
`mistake_name` cuts the word off. Parameters have the library's names; a bias that is missing counts as zero.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Flags: TypeAlias = frozenset[str]
Parameters: TypeAlias = Mapping[str, Tensor]
Function: TypeAlias = Callable[..., Any]

RIGHT: Flags = frozenset()


def mistake_name(flag: str) -> str:
    """The name in the bank of a flag: "enc_post_norm:mlp" is "enc_post_norm"."""
    return flag.partition(":")[0]


def inside(parameters: Parameters, prefix: str) -> dict[str, Tensor]:
    """The parameters whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}


def _pick(table: Mapping[str, Function], mistakes: Flags, right: Function) -> Function:
    return next((table[flag] for flag in mistakes if flag in table), right)


# ---------------------------------------------------------------------------------------------------- attention

# q, k, v as they were meant -> as they are read
ORDER: dict[str, Function] = {
    "attn_qk_swapped": lambda q, k, v: (k, q, v),
    "attn_kv_swapped": lambda q, k, v: (q, v, k),
    "attn_qv_swapped": lambda q, k, v: (v, k, q),
    "attn_qkv_rotated": lambda q, k, v: (v, q, k),
    "attn_qkv_rotated:back": lambda q, k, v: (k, v, q),
}

# heads, width of a head, tokens -> factor before the softmax and factor after it
SCALE: dict[str, Function] = {
    "attn_no_scale": lambda h, k, n: (1.0, 1.0),
    "attn_scale_embed_dim": lambda h, k, n: ((h * k) ** -0.5, 1.0),
    "attn_scale_num_heads": lambda h, k, n: (h**-0.5, 1.0),
    "attn_scale_inverted": lambda h, k, n: (k**0.5, 1.0),
    "attn_scale_inverted:embed_dim": lambda h, k, n: ((h * k) ** 0.5, 1.0),
    "attn_scale_after_softmax": lambda h, k, n: (1.0, k**-0.5),
    "attn_scale_after_softmax:too": lambda h, k, n: (k**-0.5, k**-0.5),
    "attn_scale_after_softmax:embed_dim": lambda h, k, n: (1.0, (h * k) ** -0.5),
    "attn_scale_no_root": lambda h, k, n: (1.0 / k, 1.0),
    "attn_scale_no_root:embed_dim": lambda h, k, n: (1.0 / (h * k), 1.0),
    "attn_scale_no_root:num_heads": lambda h, k, n: (1.0 / h, 1.0),
    "attn_scale_no_root:inverted": lambda h, k, n: (float(k), 1.0),
    "attn_scale_num_tokens": lambda h, k, n: (n**-0.5, 1.0),
    "attn_scale_fourth_root": lambda h, k, n: (k**-0.25, 1.0),
}


def _causal(scores: Tensor) -> Tensor:
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, float("-inf")).softmax(-1)


def _without_itself(scores: Tensor) -> Tensor:
    itself = torch.eye(*scores.shape[-2:], dtype=torch.bool)
    return scores.masked_fill(itself, float("-inf")).softmax(-1)


SOFTMAX: dict[str, Function] = {
    "attn_softmax_queries": lambda scores: scores.softmax(-2),
    "attn_no_softmax": lambda scores: scores,
    "attn_no_softmax:mean": lambda scores: scores / scores.shape[-1],
    "attn_softmax_heads": lambda scores: scores.softmax(1),
    "attn_softmax_batch": lambda scores: scores.softmax(0),
    "attn_softmax_all": lambda scores: scores.flatten(-2).softmax(-1).view_as(scores),
    "attn_softmax_twice": lambda scores: scores.softmax(-1).softmax(-1),
    "attn_log_softmax": lambda scores: scores.log_softmax(-1),
    "attn_sigmoid": lambda scores: scores.sigmoid(),
    "attn_exp_not_normalised": lambda scores: scores.exp(),
    "attn_exp_not_normalised:sum": lambda scores: scores / scores.sum(-1, keepdim=True),
    "attn_exp_not_normalised:all": lambda scores: scores.exp() / scores.exp().sum(),
    "attn_softmax_negated": lambda scores: (-scores).softmax(-1),
    "attn_relu_for_softmax": lambda scores: scores.relu(),
    "attn_tanh_for_softmax": lambda scores: scores.tanh(),
    "attn_causal": _causal,
    "attn_causal:itself": _without_itself,
}

MIX: dict[str, Function] = {"attn_weights_transposed": lambda weights, v: weights.mT @ v}


# q^T k: features look at features; v (b, h, n, d_h), weights (b, h, d_h, d_h)
OVER_FEATURES: dict[str, Function] = {
    "attn_over_features": lambda v, weights: v @ weights.mT,
    "attn_over_features:straight": lambda v, weights: v @ weights,
}


def attention(q: Tensor, k: Tensor, v: Tensor, mistakes: Flags = RIGHT) -> tuple[Tensor, Tensor]:
    """Output and weights of Eq. 6-7 for q, k, v of (b, h, n, k)."""
    if over_features := mistakes & OVER_FEATURES.keys():
        weights = (q.mT @ k * q.shape[-1] ** -0.5).softmax(-1)
        return OVER_FEATURES[next(iter(over_features))](v, weights), weights
    q, k, v = _pick(ORDER, mistakes, lambda q, k, v: (q, k, v))(q, k, v)
    _, h, n, width = q.shape
    before, after = _pick(SCALE, mistakes, lambda h, k, n: (k**-0.5, 1.0))(h, width, n)
    weights = _pick(SOFTMAX, mistakes, lambda scores: scores.softmax(-1))(q @ k.mT * before) * after
    return _pick(MIX, mistakes, lambda weights, v: weights @ v)(weights, v), weights


# ----------------------------------------------------------------------------------- multi-head self-attention


def _replace(qkv: Tensor, part: int, by: Tensor) -> Tensor:
    parts = list(qkv.chunk(3, -1))
    parts[part] = by
    return torch.cat(parts, -1)


def _part(qkv: Tensor, part: int) -> Tensor:
    return qkv.chunk(3, -1)[part]


# input and packed q, k, v of (b, n, 3 d) -> packed q, k, v
PROJECTED: dict[str, Function] = {
    "attn_value_is_input": lambda x, qkv: _replace(qkv, 2, x),
    "attn_query_is_input": lambda x, qkv: _replace(qkv, 0, x),
    "attn_key_is_input": lambda x, qkv: _replace(qkv, 1, x),
    "attn_query_is_input:keys_too": lambda x, qkv: _replace(_replace(qkv, 0, x), 1, x),
    "attn_query_is_input:all": lambda x, qkv: torch.cat([x, x, x], -1),
    "attn_layer_used_twice": lambda x, qkv: _replace(qkv, 1, _part(qkv, 0)),
    "attn_layer_used_twice:key": lambda x, qkv: _replace(qkv, 0, _part(qkv, 1)),
    "attn_layer_used_twice:value_is_key": lambda x, qkv: _replace(qkv, 2, _part(qkv, 1)),
    "attn_layer_used_twice:value_is_query": lambda x, qkv: _replace(qkv, 2, _part(qkv, 0)),
    "attn_layer_used_twice:key_is_value": lambda x, qkv: _replace(qkv, 1, _part(qkv, 2)),
    "attn_layer_used_twice:query_is_value": lambda x, qkv: _replace(qkv, 0, _part(qkv, 2)),
    "attn_layer_used_twice:all": lambda x, qkv: torch.cat([_part(qkv, 0)] * 3, -1),
    "attn_layer_used_twice:all_keys": lambda x, qkv: torch.cat([_part(qkv, 1)] * 3, -1),
    "attn_layer_used_twice:all_values": lambda x, qkv: torch.cat([_part(qkv, 2)] * 3, -1),
    "attn_activation_on_qkv": lambda x, qkv: qkv.relu(),
    "attn_activation_on_qkv:gelu": lambda x, qkv: F.gelu(qkv),
    "attn_activation_on_qkv:tanh": lambda x, qkv: qkv.tanh(),
}

# Which of q, k and v (0, 1, 2) share a layer -> the flag.
SAME_LAYER: dict[tuple[int, ...], str] = {
    (0, 1): "attn_layer_used_twice",
    (1, 2): "attn_layer_used_twice:value_is_key",
    (0, 2): "attn_layer_used_twice:value_is_query",
    (0, 1, 2): "attn_layer_used_twice:all",
}


def _split(pattern: str) -> Function:
    return lambda qkv, h: rearrange(qkv, f"b n {pattern} -> three b h n k", three=3, h=h)


def _view(*parts: int) -> Function:
    """Those of q, k and v viewed as (b, h, n, k) without moving an axis; the others split as they should be."""

    def split(qkv: Tensor, h: int) -> list[Tensor]:
        q_k_v = list(_split("(three h k)")(qkv, h))
        for part in parts:
            q_k_v[part] = _part(qkv, part).reshape(q_k_v[part].shape)
        return q_k_v

    return split


def _heads(q_k_v: Tensor, h: int) -> Tensor:
    return rearrange(q_k_v, "three b n (h k) -> three b h n k", h=h)


# packed q, k, v of (b, n, 3 d), number of heads -> q, k, v, each (b, h, n, k)
SPLIT: dict[str, Function] = {
    "attn_split_view": _view(0, 1, 2),
    "attn_split_view:packed": lambda qkv, h: qkv.reshape(3, len(qkv), h, qkv.shape[1], -1),
    "attn_split_view:packed_batch": lambda qkv, h: qkv.reshape(len(qkv), 3, h, qkv.shape[1], -1).transpose(0, 1),
    "attn_split_view:packed_last": lambda qkv, h: qkv.reshape(len(qkv), h, qkv.shape[1], -1).chunk(3, -1),
    "attn_split_view:thirds": lambda qkv, h: _heads(qkv.reshape(3, *qkv.shape[:2], -1), h),
    "attn_split_view:thirds_batch": lambda qkv, h: _heads(
        qkv.reshape(len(qkv), 3, qkv.shape[1], -1).transpose(0, 1), h
    ),
    "attn_split_view:query": _view(0),
    "attn_split_view:key": _view(1),
    "attn_split_view:value": _view(2),
    "attn_split_view:query_key": _view(0, 1),
    "attn_packing_per_head": _split("(h three k)"),
    "attn_packing_per_head:last": _split("(h k three)"),
    "attn_heads_interleaved": _split("(three k h)"),
    "attn_heads_interleaved:packed": _split("(k three h)"),
    "attn_heads_interleaved:packed_last": _split("(k h three)"),
    "attn_heads_and_width_swapped": lambda qkv, h: _split("(three h k)")(qkv, qkv.shape[-1] // 3 // h),
    "attn_one_head": lambda qkv, h: _split("(three h k)")(qkv, 1),
    "attn_heads_not_transposed": lambda qkv, h: rearrange(qkv, "b n (three h k) -> three b n h k", three=3, h=h),
    "attn_heads_not_transposed:merged": lambda qkv, h: rearrange(qkv, "b n (three h k) -> three b n h k", three=3, h=h),
}

# Two ways, each rare by itself, that stand together in code that is often copied.
COPIED = (("attn_packing_per_head:last", "attn_scale_after_softmax:embed_dim"),)

# output of all heads, (b, h, n, k) -> (b, n, d)
MERGE: dict[str, Function] = {
    "attn_merge_reshape": lambda out: out.reshape(out.shape[0], out.shape[2], -1),
    "attn_merge_reshape:transposed": lambda out: out.mT.reshape(out.shape[0], out.shape[2], -1),
    "attn_merge_reshape:batch": lambda out: out.permute(2, 0, 1, 3).reshape(out.shape[0], out.shape[2], -1),
    "attn_merge_interleaved": lambda out: rearrange(out, "b h n k -> b n (k h)"),
    "attn_heads_not_transposed": lambda out: out.flatten(2),
    "attn_heads_not_transposed:merged": lambda out: out.transpose(1, 2).reshape(*out.shape[:2], -1),
    "attn_heads_reversed": lambda out: rearrange(out.flip(1), "b h n k -> b n (h k)"),
}

# merged heads, weight and bias of the projection, the input -> output
OUT: dict[str, Function] = {
    "attn_no_out_proj": lambda out, w, b, x: out,
    "attn_no_out_bias": lambda out, w, b, x: F.linear(out, w),
    "attn_out_activation": lambda out, w, b, x: F.gelu(F.linear(out, w, b)),
    "attn_out_activation:relu": lambda out, w, b, x: F.relu(F.linear(out, w, b)),
    "attn_out_proj_twice": lambda out, w, b, x: F.linear(F.linear(out, w, b), w, b),
    "attn_out_proj_transposed": lambda out, w, b, x: F.linear(out, w.mT, b),
    "attn_residual_inside": lambda out, w, b, x: F.linear(out, w, b) + x,
}


def multi_head(
    x: Tensor,
    parameters: Parameters,
    num_heads: int,
    mistakes: Flags = RIGHT,
    keys: Tensor | None = None,
    values: Tensor | None = None,
) -> Tensor:
    """Eq. 5-8 with qkv.weight, qkv.bias, proj.weight, proj.bias: (b, n, d) -> (b, n, d).

    Without proj.weight the heads are merged and returned. `keys` and `values`, if given, are what these are made of
    in place of x.
    """
    if "attn_over_batch" in mistakes:  # the tokens of one place, over the pictures, look at each other
        swapped = [None if z is None else z.transpose(0, 1) for z in (x, keys, values)]
        assert swapped[0] is not None
        out = multi_head(swapped[0], parameters, num_heads, mistakes - {"attn_over_batch"}, *swapped[1:])
        return out.transpose(0, 1)
    bias = None if "attn_no_qkv_bias" in mistakes else parameters.get("qkv.bias")
    qkv = F.linear(x, parameters["qkv.weight"], bias)
    if keys is not None:
        qkv = _replace(qkv, 1, _part(F.linear(keys, parameters["qkv.weight"], bias), 1))
    if values is not None:
        qkv = _replace(qkv, 2, _part(F.linear(values, parameters["qkv.weight"], bias), 2))
    qkv = _pick(PROJECTED, mistakes, lambda x, qkv: qkv)(x, qkv)
    q, k, v = _pick(SPLIT, mistakes, _split("(three h k)"))(qkv, num_heads)
    out, _ = attention(q, k, v, mistakes)
    merged = _pick(MERGE, mistakes, lambda out: rearrange(out, "b h n k -> b n (h k)"))(out)
    if "proj.weight" not in parameters:
        return merged
    return _pick(OUT, mistakes, lambda out, w, b, x: F.linear(out, w, b))(
        merged, parameters["proj.weight"], parameters.get("proj.bias"), x
    )


# ------------------------------------------------------------------------------------------------------------ MLP

ACTIVATION: dict[str, Function] = {
    "mlp_gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "mlp_quick_gelu": lambda z: z * (1.702 * z).sigmoid(),
    "mlp_no_activation": lambda z: z,
    "mlp_relu": F.relu,
    "mlp_silu": F.silu,
    "mlp_other_activation:tanh": torch.tanh,
    "mlp_other_activation:sigmoid": torch.sigmoid,
    "mlp_other_activation:leaky": F.leaky_relu,
    "mlp_other_activation:elu": F.elu,
    "mlp_other_activation:selu": F.selu,
    "mlp_other_activation:mish": F.mish,
    "mlp_other_activation:softplus": F.softplus,
    "mlp_other_activation:squared_relu": lambda z: z.relu() ** 2,
    "mlp_other_activation:softmax": lambda z: z.softmax(-1),
    "mlp_other_activation:phi": lambda z: 0.5 * (1 + torch.erf(z / 2**0.5)),
    "mlp_other_activation:erf_without_root": lambda z: 0.5 * z * (1 + torch.erf(z)),
}

# input, first layer, activation, second layer -> output
LAYERS: dict[str, Function] = {
    "mlp_activation_last": lambda x, first, act, second: act(second(act(first(x)))),
    "mlp_activation_misplaced": lambda x, first, act, second: act(second(first(x))),
    "mlp_activation_misplaced:first": lambda x, first, act, second: second(first(act(x))),
    "mlp_activation_twice": lambda x, first, act, second: second(act(act(first(x)))),
    "mlp_activation_twice:first": lambda x, first, act, second: second(act(first(act(x)))),
}

MLP_OUT: dict[str, Function] = {
    "mlp_residual_inside": lambda out, x: out + x,
    "mlp_residual_inside:scaled": lambda out, x: (out + x) / 2,
}

MLP_BIAS: dict[str, tuple[str, ...]] = {
    "mlp_no_bias": ("fc1.bias", "fc2.bias"),
    "mlp_no_bias:first": ("fc1.bias",),
    "mlp_no_bias:second": ("fc2.bias",),
}


def mlp(x: Tensor, parameters: Parameters, mistakes: Flags = RIGHT) -> Tensor:
    """Two layers with a GELU between them, with fc1.weight, fc1.bias, fc2.weight, fc2.bias: (b, n, d) -> (b, n, d)."""
    without = {name for flag in mistakes for name in MLP_BIAS.get(flag, ())}
    biases = [None if name in without else parameters.get(name) for name in ("fc1.bias", "fc2.bias")]
    out = _pick(LAYERS, mistakes, lambda x, first, act, second: second(act(first(x))))(
        x,
        lambda z: F.linear(z, parameters["fc1.weight"], biases[0]),
        _pick(ACTIVATION, mistakes, F.gelu),
        lambda z: F.linear(z, parameters["fc2.weight"], biases[1]),
    )
    return _pick(MLP_OUT, mistakes, lambda out, x: out)(out, x)


# --------------------------------------------------------------------------------------------------------- block


def _normed(x: Tensor, dims: tuple[int, ...] = (-1,), eps: float = 1e-6, unbiased: bool = False) -> Tensor:
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, unbiased=unbiased, keepdim=True) + eps).sqrt()


NORMALISED: dict[str, Function] = {
    "enc_eps_1e-5": lambda x: _normed(x, eps=1e-5),
    "enc_eps_other:0": lambda x: _normed(x, eps=0.0),
    "enc_eps_other:1e-12": lambda x: _normed(x, eps=1e-12),
    "enc_eps_other:1e-8": lambda x: _normed(x, eps=1e-8),
    "enc_eps_other:1e-7": lambda x: _normed(x, eps=1e-7),
    "enc_eps_other:1e-4": lambda x: _normed(x, eps=1e-4),
    "enc_eps_other:1e-3": lambda x: _normed(x, eps=1e-3),
    "enc_eps_other:outside": lambda x: (x - x.mean(-1, True)) / (x.std(-1, unbiased=False, keepdim=True) + 1e-6),
    "enc_norm_unbiased": lambda x: _normed(x, unbiased=True),
    "enc_norm_unbiased:outside": lambda x: (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + 1e-6),
    "enc_norm_variance": lambda x: (x - x.mean(-1, True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6),
    "enc_rms_norm": lambda x: x / (x.pow(2).mean(-1, True) + 1e-6).sqrt(),
    "enc_norm_centres_only": lambda x: x - x.mean(-1, True),
    "enc_norm_wrong_axis": lambda x: _normed(x, (1,)),
    "enc_norm_wrong_axis:tokens_and_width": lambda x: _normed(x, (1, 2)),
    "enc_norm_wrong_axis:batch": lambda x: _normed(x, (0,)),
    "enc_norm_wrong_axis:batch_and_tokens": lambda x: _normed(x, (0, 1)),
    "enc_norm_wrong_axis:all": lambda x: _normed(x, (0, 1, 2)),
    "enc_norm_is_batch_norm": lambda x: x / (1 + 1e-5) ** 0.5,  # as it stands in eval, never trained
    "enc_norm_is_batch_norm:eps": lambda x: x / (1 + 1e-6) ** 0.5,
}

# weight and bias are used as the flag says
AFFINE: dict[str, Function] = {
    "enc_norm_no_affine": lambda x, w, b: x,
    "enc_norm_no_affine:bias_only": lambda x, w, b: x + b,
    "enc_norm_no_affine:weight_only": lambda x, w, b: x * w,
}

# token x, branch f, norm -> what comes out of one half of the block
HALF: dict[str, Function] = {
    "enc_residual_after_norm": lambda x, f, norm: norm(x) + f(norm(x)),
    "enc_post_norm": lambda x, f, norm: norm(x + f(x)),
    "enc_post_norm_too": lambda x, f, norm: norm(x + f(norm(x))),
    "enc_norm_on_branch_output": lambda x, f, norm: x + norm(f(x)),
    "enc_norm_on_branch_output_too": lambda x, f, norm: x + norm(f(norm(x))),
    "enc_double_residual": lambda x, f, norm: x + x + f(norm(x)),
    "enc_double_residual_of_norm": lambda x, f, norm: x + norm(x) + f(norm(x)),
    "enc_x_plus_x": lambda x, f, norm: f(norm(x)) * 2,
    "enc_no_norm": lambda x, f, norm: x + f(x),
    "enc_norm_twice": lambda x, f, norm: x + f(norm(norm(x))),
    "enc_norm_on_residual": lambda x, f, norm: norm(x) + f(x),
    "enc_residual_scaled": lambda x, f, norm: x + f(norm(x)) / 2,
    "enc_residual_scaled_sum": lambda x, f, norm: (x + f(norm(x))) / 2,
    "enc_residual_scaled_root": lambda x, f, norm: (x + f(norm(x))) / 2**0.5,
    "enc_residual_subtracted": lambda x, f, norm: x - f(norm(x)),
    "enc_residual_subtracted_x": lambda x, f, norm: f(norm(x)) - x,
    "enc_residual_multiplied": lambda x, f, norm: x * f(norm(x)),
    "enc_branch_twice": lambda x, f, norm: x + f(f(norm(x))),
    "enc_half_unused": lambda x, f, norm: x,
}
# How the rows of HALF that have no entry of their own in the bank are called there.
_SAME = {
    "enc_post_norm_too": "enc_post_norm",
    "enc_norm_on_branch_output_too": "enc_norm_on_branch_output",
    "enc_double_residual_of_norm": "enc_double_residual",
    "enc_residual_scaled_sum": "enc_residual_scaled",
    "enc_residual_scaled_root": "enc_residual_scaled",
    "enc_residual_subtracted_x": "enc_residual_subtracted",
}


def _for_half(half: str) -> dict[str, Function]:
    """Each form of HALF under a flag for this half alone: "enc_post_norm:mlp", "enc_post_norm:mlp_too"."""
    table: dict[str, Function] = {f"enc_no_{half}_residual": lambda x, f, norm: f(norm(x))}
    for flag, function in HALF.items():
        name = _SAME.get(flag, flag)
        table[f"{name}:{half}{flag.removeprefix(name)}"] = function
    return table


FIRST, SECOND = _for_half("attn"), _for_half("mlp")
FIRST |= {
    "enc_attention_input_mixed": lambda x, f, norm: x + f(norm(x), x, x),
    "enc_attention_input_mixed:value": lambda x, f, norm: x + f(norm(x), norm(x), x),
    "enc_attention_input_mixed:key": lambda x, f, norm: x + f(norm(x), x, norm(x)),
    "enc_attention_input_mixed:query": lambda x, f, norm: x + f(x, norm(x), norm(x)),
}
BOTH = {
    flag if flag not in _SAME else f"{_SAME[flag]}:{flag.removeprefix(_SAME[flag] + '_')}": function
    for flag, function in HALF.items()
    if flag != "enc_half_unused"
}

# x, first half, second half -> output
ARRANGED: dict[str, Function] = {
    "enc_mlp_residual_from_input": lambda x, first, second: x + second(first(x)) - first(x),
    "enc_parallel": lambda x, first, second: first(x) + second(x) - x,
    "enc_mlp_first": lambda x, first, second: first(second(x)),
    "enc_double_residual:whole": lambda x, first, second: x + second(first(x)),
    "enc_halves_not_added": lambda x, first, second: first(x) + second(x),
    "enc_half_twice": lambda x, first, second: second(second(first(x))),
    "enc_half_twice:attn": lambda x, first, second: second(first(first(x))),
    "enc_half_twice:both": lambda x, first, second: second(first(second(first(x)))),
}

SHARED: dict[str, tuple[str, str]] = {
    "enc_shared_norm": ("norm1.", "norm1."),
    "enc_shared_norm:second": ("norm2.", "norm2."),
}


def norm(x: Tensor, parameters: Parameters, mistakes: Flags = RIGHT) -> Tensor:
    """LayerNorm over the width with weight and bias and eps 1e-6."""
    z = _pick(NORMALISED, mistakes, _normed)(x)
    weight = parameters.get("weight", torch.ones_like(x[0, 0]))
    bias = parameters.get("bias", torch.zeros_like(x[0, 0]))
    return _pick(AFFINE, mistakes, lambda z, w, b: z * w + b)(z, weight, bias)


_ONE_NORM = ("enc_eps_1e-5", "enc_eps_other:1e-12", "enc_rms_norm", "enc_norm_no_affine", "enc_norm_unbiased")


def _only(half: str) -> dict[str, str]:
    """Flags of the norm of one half: "enc_eps_1e-5:attn" is "enc_eps_1e-5" in norm1 alone."""
    return {f"{flag}{'-' if ':' in flag else ':'}{half}": flag for flag in _ONE_NORM}


NORM1, NORM2 = _only("attn"), _only("mlp")


def encoder_block(x: Tensor, parameters: Parameters, num_heads: int, mistakes: Flags = RIGHT) -> Tensor:
    """Eq. 2-3 with norm1., attn., norm2., mlp.: (b, n, d) -> (b, n, d). Flags of the parts work inside."""
    names = next((SHARED[flag] for flag in mistakes if flag in SHARED), ("norm1.", "norm2."))
    first_norm = mistakes | {NORM1[flag] for flag in mistakes if flag in NORM1}
    second_norm = mistakes | {NORM2[flag] for flag in mistakes if flag in NORM2}
    both = _pick(BOTH, mistakes, lambda x, f, norm: x + f(norm(x)))

    def first(x: Tensor) -> Tensor:
        return _pick(FIRST, mistakes, both)(
            x,
            lambda z, *others: multi_head(z, inside(parameters, "attn."), num_heads, mistakes, *others),
            lambda z: norm(z, inside(parameters, names[0]), first_norm),
        )

    def second(x: Tensor) -> Tensor:
        return _pick(SECOND, mistakes, both)(
            x,
            lambda z: mlp(z, inside(parameters, "mlp."), mistakes),
            lambda z: norm(z, inside(parameters, names[1]), second_norm),
        )

    return _pick(ARRANGED, mistakes, lambda x, first, second: second(first(x)))(x, first, second)


# Flags by the stage that they change: a pair of mistakes takes its two from different stages.
ATTENTION_STAGES: tuple[tuple[str, ...], ...] = (
    tuple(ORDER),
    tuple(SCALE),
    tuple(SOFTMAX),
    tuple(MIX),
    tuple(OVER_FEATURES),
)
MULTI_HEAD_STAGES: tuple[tuple[str, ...], ...] = (
    ("attn_over_batch",),
    ("attn_no_qkv_bias",),
    tuple(PROJECTED),
    tuple(SPLIT),
    *ATTENTION_STAGES,
    tuple(flag for flag in MERGE if flag not in SPLIT),
    tuple(OUT),
)
MLP_STAGES: tuple[tuple[str, ...], ...] = (tuple(ACTIVATION), tuple(LAYERS), tuple(MLP_BIAS), tuple(MLP_OUT))
BLOCK_STAGES: tuple[tuple[str, ...], ...] = (
    (*FIRST, *BOTH),
    tuple(SECOND),
    (*NORMALISED, *NORM1, *NORM2),
    tuple(ARRANGED),
    (*AFFINE, *SHARED),
    *MULTI_HEAD_STAGES,
    *MLP_STAGES,
)
