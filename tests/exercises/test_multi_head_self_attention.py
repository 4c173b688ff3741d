"""The check of exercise 5 accepts what is right, however written, and names or places what is wrong."""

from itertools import combinations

import pytest

from tests.exercises.students import edited, outcome_of, outcomes
from vitscratch.exercises import Problem
from vitscratch.exercises.checks.multi_head_self_attention import MISTAKES

NAME = "multi_head_self_attention"

RIGHT = """
import math
import torch
import torch.nn.functional as F
from torch import nn

class MultiHeadSelfAttention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.h, self.k = num_heads, embed_dim // num_heads
        self.to_q = nn.Linear(embed_dim, embed_dim)
        self.to_k = nn.Linear(embed_dim, embed_dim)
        self.to_v = nn.Linear(embed_dim, embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)

    def split(self, z):
        return z.view(*z.shape[:2], self.h, self.k).transpose(1, 2)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.split(self.to_q(x)), self.split(self.to_k(x)), self.split(self.to_v(x))
        scores = q @ k.transpose(-2, -1)
        scores = scores / math.sqrt(self.k)
        weights = scores.softmax(dim=-1)
        z = weights @ v
        merged = z.transpose(1, 2).reshape(b, n, d)
        return self.out(merged)
"""
SPLIT = "return z.view(*z.shape[:2], self.h, self.k).transpose(1, 2)"
QKV = "q, k, v = self.split(self.to_q(x)), self.split(self.to_k(x)), self.split(self.to_v(x))"
SCORES, SCALE, SOFTMAX = "scores = q @ k.transpose(-2, -1)", "scores / math.sqrt(self.k)", "scores.softmax(dim=-1)"
MIX, MERGE, OUT = "z = weights @ v", "z.transpose(1, 2).reshape(b, n, d)", "return self.out(merged)"
LAYERS = """        self.to_q = nn.Linear(embed_dim, embed_dim)
        self.to_k = nn.Linear(embed_dim, embed_dim)
        self.to_v = nn.Linear(embed_dim, embed_dim)
"""
OUT_LAYER = "self.out = nn.Linear(embed_dim, embed_dim)"
PACKED = (LAYERS, "        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)\n")
WHOLE = "import torch\nfrom torch import nn\nimport torch.nn.functional as F\nfrom einops import rearrange, einsum\n"

HEADS_ONE_BY_ONE = (
    WHOLE
    + """
class Head(nn.Module):
    def __init__(self, d, k):
        super().__init__()
        self.key, self.query, self.value = nn.Linear(d, k), nn.Linear(d, k), nn.Linear(d, k)

    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        return F.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1) @ v

class MultiHeadSelfAttention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.heads = nn.ModuleList(Head(embed_dim, embed_dim // num_heads) for _ in range(num_heads))
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x):
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))
"""
)
TORCH = (
    WHOLE
    + """
class MultiHeadSelfAttention(nn.Module):
    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.mha = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)

    def forward(self, x: torch.Tensor):
        return self.mha(x, x, x)
"""
)
BARE = (
    WHOLE
    + """
class MultiHeadSelfAttention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        k = embed_dim // num_heads
        self.W_Q = nn.Parameter(torch.randn(num_heads, embed_dim, k))
        self.W_K = nn.Parameter(torch.randn(num_heads, embed_dim, k))
        self.W_V = nn.Parameter(torch.randn(num_heads, embed_dim, k))
        self.W_O = nn.Parameter(torch.randn(num_heads, k, embed_dim))
        self.b_Q = nn.Parameter(torch.zeros(num_heads, 1, k))
        self.b_K = nn.Parameter(torch.zeros(num_heads, 1, k))
        self.b_V = nn.Parameter(torch.zeros(num_heads, 1, k))
        self.b_O = nn.Parameter(torch.zeros(embed_dim))

    def forward(self, x):
        q = torch.einsum("bnd,hdk->bhnk", x, self.W_Q) + self.b_Q
        k = torch.einsum("bnd,hdk->bhnk", x, self.W_K) + self.b_K
        v = torch.einsum("bnd,hdk->bhnk", x, self.W_V) + self.b_V
        a = torch.einsum("bhik,bhjk->bhij", q, k) / q.shape[-1] ** 0.5
        a = a.exp() / a.exp().sum(-1, keepdim=True)
        return torch.einsum("bhij,bhjk,hkd->bid", a, v, self.W_O) + self.b_O
"""
)
TRANSPOSED = (
    WHOLE
    + """
class MultiHeadSelfAttention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.weight = nn.Parameter(torch.randn(embed_dim, 3 * embed_dim))
        self.bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.last = nn.Parameter(torch.randn(embed_dim, embed_dim))
        self.last_bias = nn.Parameter(torch.zeros(embed_dim))

    def forward(self, x):
        q, k, v = rearrange(x @ self.weight + self.bias, "b n (c h k) -> c b h n k", c=3, h=self.num_heads)
        z = F.scaled_dot_product_attention(q, k, v)
        return rearrange(z, "b h n k -> b n (h k)") @ self.last + self.last_bias
"""
)
SUMMED = edited(
    HEADS_ONE_BY_ONE,
    ("nn.Linear(d, k), nn.Linear(d, k), nn.Linear(d, k)\n", "nn.Linear(d, k), nn.Linear(d, k), nn.Linear(d, k)\n"
     "        self.out = nn.Linear(k, d, bias=False)\n"),
    ("return F.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1) @ v",
     "return self.out(F.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1) @ v)"),
    ("self.proj = nn.Linear(embed_dim, embed_dim)", "self.bias = nn.Parameter(torch.zeros(embed_dim))"),
    ("self.proj(torch.cat([head(x) for head in self.heads], dim=-1))", "sum(head(x) for head in self.heads) + self.bias"),
)  # fmt: skip

RIGHT_VARIANTS = {
    "as it stands": RIGHT,
    "the library's": "from vitscratch import MultiHeadSelfAttention",
    "heads one by one": HEADS_ONE_BY_ONE,
    "heads one by one, each with its part of the projection": SUMMED,
    "the same, without telling names": edited(
        SUMMED, ("self.out", "self.d"), ("self.key", "self.b"), ("self.query", "self.a"), ("self.value", "self.c"),
        ("self.b, self.a, self.c =", "self.a, self.b, self.c ="),
    ),
    "the same, packed": edited(
        SUMMED,
        ("self.key, self.query, self.value = nn.Linear(d, k), nn.Linear(d, k), nn.Linear(d, k)", (
            "self.qkv = nn.Linear(d, 3 * k)")),
        ("self.query(x), self.key(x), self.value(x)", "self.qkv(x).chunk(3, -1)"),
    ),
    "torch's, returning a tuple": TORCH,
    "bare parameters, exp over its sum": BARE,
    "one transposed packed parameter, fused": TRANSPOSED,
    "q scaled first": edited(RIGHT, (SCALE, "scores"), (SCORES, "scores = (q * self.k ** -0.5) @ k.mT")),
    "q and k scaled": edited(
        RIGHT, (SCALE, "scores"), (SCORES, "scores = (q / self.k ** 0.25) @ (k / self.k ** 0.25).mT")
    ),
    "fused": edited(RIGHT, (MIX, "z = F.scaled_dot_product_attention(q, k, v)")),
    "largest score subtracted": edited(
        RIGHT, (SOFTMAX, "torch.exp(scores - scores.amax(-1, keepdim=True)); weights = weights / weights.sum(-1, True)")
    ),
    "returns the weights": edited(RIGHT, (OUT, "return self.out(merged), weights")),
    "packed, chunk": edited(RIGHT, PACKED, (QKV, "q, k, v = map(self.split, self.qkv(x).chunk(3, dim=-1))")),
    "packed, split": edited(RIGHT, PACKED, (QKV, "q, k, v = map(self.split, self.qkv(x).split(d, dim=-1))")),
    "packed, unbind": edited(
        RIGHT, PACKED, (QKV, "q, k, v = self.qkv(x).view(b, n, 3, self.h, self.k).permute(2, 0, 3, 1, 4).unbind(0)")
    ),
    "layers without telling names": edited(
        RIGHT, ("to_q", "first"), ("to_k", "second"), ("to_v", "third"), ("self.out", "self.fourth")
    ),
    "layers in a list": edited(
        RIGHT, (LAYERS, "        self.three = nn.ModuleList(nn.Linear(embed_dim, embed_dim) for _ in range(3))\n"),
        (QKV, "q, k, v = (self.split(layer(x)) for layer in self.three)"),
    ),
    "values first, without names": edited(
        RIGHT, ("to_q", "c1"), ("to_k", "c2"), ("to_v", "c0"),
        (LAYERS.replace("to_q", "c1").replace("to_k", "c2").replace("to_v", "c0"), (
            "        self.c0, self.c1, self.c2 = (nn.Linear(embed_dim, embed_dim) for _ in range(3))\n")),
    ),
    "convolutions": edited(
        RIGHT, ("nn.Linear(embed_dim, embed_dim)", "nn.Conv1d(embed_dim, embed_dim, 1)"),
        ("self.to_q(x)", "self.to_q(x.mT).mT"), ("self.to_k(x)", "self.to_k(x.mT).mT"),
        ("self.to_v(x)", "self.to_v(x.mT).mT"), ("self.out(merged)", "self.out(merged.mT).mT"),
        (SPLIT, "return z.reshape(*z.shape[:2], self.h, self.k).transpose(1, 2)"),
    ),
    "keys and values packed": edited(
        RIGHT, ("self.to_v = nn.Linear(embed_dim, embed_dim)", "pass"),
        ("self.to_k = nn.Linear(embed_dim, embed_dim)", "self.kv = nn.Linear(embed_dim, 2 * embed_dim)"),
        (QKV, "q, k, v = map(self.split, (self.to_q(x), *self.kv(x).chunk(2, -1)))"),
    ),
    "a loop over heads": edited(
        RIGHT, (MIX, "z = torch.stack([weights[:, i] @ v[:, i] for i in range(self.h)], dim=1)")
    ),
    "dropout, off in eval": edited(
        RIGHT, ("num_heads):", "num_heads, dropout=0.1):"),
        (OUT_LAYER, OUT_LAYER + "; self.drop = nn.Dropout(dropout)"), (OUT, "return self.drop(self.out(merged))"),
    ),
    "a buffer": edited(
        RIGHT, (OUT_LAYER, OUT_LAYER + '; self.register_buffer("root", torch.tensor(self.k ** 0.5))'),
        (SCALE, "scores / self.root"),
    ),
    "the root of a tensor": edited(RIGHT, (SCALE, "scores / torch.sqrt(torch.tensor(self.k))")),
    "softmax in float32": edited(RIGHT, (SOFTMAX, "scores.float().softmax(dim=-1).to(v.dtype)")),
    "zeros at the start": edited(
        RIGHT, (OUT_LAYER, OUT_LAYER + "; nn.init.zeros_(self.out.weight); nn.init.zeros_(self.out.bias)")
    ),
    "Sequential with dropout": edited(
        RIGHT, (OUT_LAYER, "self.out = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.Dropout(0.0))")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT_VARIANTS)
def test_right_passes(name: str) -> None:
    assert outcome_of(NAME, RIGHT_VARIANTS[name]) is None


def P(*edits: tuple[str, str]) -> str:
    return edited(RIGHT, PACKED, *edits)


NAMED = {
    "attn_split_view": edited(RIGHT, (SPLIT, "return z.reshape(len(z), self.h, -1, self.k)")),
    "attn_split_view, packed": P((QKV, "q, k, v = self.qkv(x).reshape(3, b, self.h, n, self.k)")),
    "attn_split_view, thirds": P((QKV, "q, k, v = (self.split(z) for z in self.qkv(x).reshape(3, b, n, d))")),
    "attn_split_view, thirds of a picture": P((QKV, "q, k, v = (self.split(z) for z in self.qkv(x).reshape(b, 3, n, d).unbind(1))")),
    "attn_split_view, each": P((QKV, "q, k, v = (z.reshape(b, self.h, n, self.k) for z in self.qkv(x).chunk(3, -1))")),
    "attn_merge_reshape": edited(RIGHT, (MERGE, "z.reshape(b, n, d)")),
    "attn_softmax_queries": edited(RIGHT, (SOFTMAX, "scores.softmax(dim=-2)")),
    "attn_no_softmax": edited(RIGHT, (SOFTMAX, "scores")),
    "attn_scale_embed_dim": edited(RIGHT, (SCALE, "scores / math.sqrt(d)")),
    "attn_scale_num_heads": edited(RIGHT, (SCALE, "scores / math.sqrt(self.h)")),
    "attn_scale_inverted": edited(RIGHT, (SCALE, "scores / self.k ** -0.5")),
    "attn_scale_after_softmax": edited(RIGHT, (SCALE, "scores"), (MIX, "z = weights @ v / math.sqrt(self.k)")),
    "attn_qk_swapped": edited(RIGHT, (QKV, "k, q, v" + QKV[7:])),
    "attn_qk_swapped, packed": P((QKV, "k, q, v = map(self.split, self.qkv(x).chunk(3, dim=-1))")),
    "attn_packing_per_head": P(
        (QKV, "q, k, v = self.qkv(x).view(b, n, self.h, 3, self.k).permute(3, 0, 2, 1, 4)")
    ),
    "attn_packing_per_head, chunk": P(
        (QKV, "q, k, v = self.qkv(x).view(b, n, self.h, 3 * self.k).transpose(1, 2).chunk(3, -1)")
    ),
    "attn_value_is_input": edited(RIGHT, ("self.split(self.to_v(x))", "self.split(x)")),
    "attn_no_out_proj": edited(RIGHT, (OUT, "return merged"), (OUT_LAYER, "pass")),
    "attn_no_out_proj, unused": edited(RIGHT, (OUT, "return merged")),
    "attn_no_qkv_bias": edited(RIGHT, *[
        (f"self.to_{z} = nn.Linear(embed_dim, embed_dim)", f"self.to_{z} = nn.Linear(embed_dim, embed_dim, bias=False)")
        for z in "qkv"]),
    "attn_over_batch": edited(TORCH, (", batch_first=True", ""), ("x, x)", "x, x)[0]")),
    "attn_no_scale": edited(RIGHT, (SCALE, "scores")),
    "attn_scale_no_root": edited(RIGHT, (SCALE, "scores / self.k")),
    "attn_softmax_heads": edited(RIGHT, (SOFTMAX, "scores.softmax(dim=1)")),
    "attn_softmax_batch": edited(RIGHT, (SOFTMAX, "scores.softmax(dim=0)")),
    "attn_kv_swapped": P((QKV, "q, v, k = map(self.split, self.qkv(x).chunk(3, dim=-1))")),
    "attn_heads_interleaved": edited(RIGHT, (SPLIT, "return z.view(*z.shape[:2], self.k, self.h).permute(0, 3, 1, 2)")),
    "attn_heads_not_transposed": edited(
        RIGHT, (SPLIT, "return z.view(*z.shape[:2], self.h, self.k)"), (MERGE, "z.reshape(b, n, d)")
    ),
    "attn_merge_interleaved": edited(RIGHT, (MERGE, "z.permute(0, 2, 3, 1).reshape(b, n, d)")),
    "attn_one_head": edited(RIGHT, ("num_heads, embed_dim // num_heads", "1, embed_dim")),
    "attn_layer_used_twice": edited(RIGHT, ("self.split(self.to_k(x))", "self.split(self.to_q(x))")),
    "attn_activation_on_qkv": P((QKV, "q, k, v = map(self.split, self.qkv(x).relu().chunk(3, dim=-1))")),
    "attn_weights_transposed": edited(RIGHT, (MIX, "z = weights.mT @ v")),
    "attn_residual_inside": edited(RIGHT, (OUT, "return x + self.out(merged)")),
    "attn_out_activation": edited(RIGHT, (OUT, "return F.gelu(self.out(merged))")),
    "attn_no_out_bias": edited(RIGHT, (OUT_LAYER, OUT_LAYER.replace(")", ", bias=False)"))),
    "attn_random": edited(RIGHT, (SOFTMAX, "F.dropout(scores.softmax(dim=-1), 0.5)")),
    "attn_causal": edited(RIGHT, (MIX, "z = F.scaled_dot_product_attention(q, k, v, is_causal=True)")),
    "attn_key_is_input": edited(RIGHT, ("self.split(self.to_k(x))", "self.split(x)")),
    "attn_query_is_input": edited(RIGHT, ("self.split(self.to_q(x))", "self.split(x)")),
    "attn_qv_swapped": P((QKV, "v, k, q = map(self.split, self.qkv(x).chunk(3, dim=-1))")),
    "attn_qkv_rotated": P((QKV, "k, v, q = map(self.split, self.qkv(x).chunk(3, dim=-1))")),
    "attn_heads_and_width_swapped": edited(
        RIGHT, ("num_heads, embed_dim // num_heads", "embed_dim // num_heads, num_heads")
    ),
    "attn_over_features": edited(RIGHT, (SCORES, "scores = q.mT @ k"), (MIX, "z = v @ weights.mT")),
    "attn_over_features, straight": edited(RIGHT, (SCORES, "scores = q.mT @ k"), (MIX, "z = v @ weights")),
    "attn_scale_num_tokens": edited(RIGHT, (SCALE, "scores / math.sqrt(n)")),
    "attn_scale_fourth_root": edited(RIGHT, (SCALE, "scores / self.k ** 0.25")),
    "attn_softmax_all": edited(RIGHT, (SOFTMAX, "scores.flatten(-2).softmax(dim=-1).view_as(scores)")),
    "attn_softmax_twice": edited(RIGHT, (SOFTMAX, "scores.softmax(dim=-1).softmax(dim=-1)")),
    "attn_softmax_negated": edited(RIGHT, (SOFTMAX, "(-scores).softmax(dim=-1)")),
    "attn_log_softmax": edited(RIGHT, (SOFTMAX, "scores.log_softmax(dim=-1)")),
    "attn_sigmoid": edited(RIGHT, (SOFTMAX, "scores.sigmoid()")),
    "attn_relu_for_softmax": edited(RIGHT, (SOFTMAX, "scores.relu()")),
    "attn_tanh_for_softmax": edited(RIGHT, (SOFTMAX, "scores.tanh()")),
    "attn_exp_not_normalised": edited(RIGHT, (SOFTMAX, "scores.exp()")),
    "attn_heads_reversed": edited(RIGHT, (MERGE, "z.flip(1).transpose(1, 2).reshape(b, n, d)")),
    "attn_out_proj_twice": edited(RIGHT, (OUT, "return self.out(self.out(merged))")),
    "attn_out_proj_transposed": edited(RIGHT, (OUT, "return F.linear(merged, self.out.weight.T, self.out.bias)")),
    "layers_in_plain_list": edited(
        RIGHT, (LAYERS, "        self.three = [nn.Linear(embed_dim, embed_dim) for _ in range(3)]\n"),
        (OUT_LAYER, "self.three += [nn.Linear(embed_dim, embed_dim)]"),
        (QKV, "q, k, v = (self.split(layer(x)) for layer in self.three[:3])"), ("self.out(", "self.three[3]("),
    ),
    "surplus_parameters": edited(RIGHT, (OUT_LAYER, OUT_LAYER + "; self.norm = nn.LayerNorm(embed_dim)")),
    "gradient_cut": edited(RIGHT, (MIX, "z = weights.detach() @ v")),
    "fixed_dtype": edited(RIGHT, (MIX, "z = weights @ v; z = torch.ones(1, 1, n, n) @ z")),
    "signature": edited(RIGHT, ("embed_dim, num_heads):", "dim, num_heads):\n        embed_dim = dim")),
}  # fmt: skip


def test_every_mistake_of_the_bank_is_tried() -> None:
    assert set(MISTAKES) <= {name.split(",")[0] for name in NAMED}


@pytest.mark.parametrize("name", NAMED)
def test_known_mistake_is_named(name: str) -> None:
    problem = outcome_of(NAME, NAMED[name])
    assert problem is not None
    assert problem.mistake == name.split(",")[0], problem
    assert problem.evidence
    if problem.mistake in MISTAKES:
        read = name == "attn_qk_swapped, packed"  # where one layer is unpacked, not where two are multiplied
        assert problem.step == ("queries, keys and values" if read else MISTAKES[problem.mistake].step)


@pytest.mark.parametrize("name", ["attn_qk_swapped, packed", "attn_kv_swapped", "attn_qv_swapped", "attn_qkv_rotated"])
def test_a_wrong_order_is_in_the_step_that_reads_it(name: str) -> None:
    problem = outcome_of(NAME, NAMED[name])
    assert problem is not None and problem.step == "queries, keys and values"
    assert problem.hints[0].startswith("Eq. 5:")


@pytest.mark.parametrize(
    ("layers", "which"),
    [
        ("qqv", "queries and keys"), ("kkv", "queries and keys"), ("qkk", "keys and values"),
        ("qvv", "keys and values"), ("qkq", "queries and values"), ("vkv", "queries and values"),
        ("qqq", "queries, keys and values"), ("kkk", "queries, keys and values"), ("vvv", "queries, keys and values"),
    ],
)  # fmt: skip
def test_which_of_three_share_a_layer(layers: str, which: str) -> None:
    edits = [(f"self.split(self.to_{z}(x))", f"self.split(self.to_{y}(x))") for z, y in zip("qkv", layers, strict=True)]
    problem = outcome_of(NAME, edited(RIGHT, *[(old, new) for old, new in edits if old != new]))
    assert problem is not None and problem.mistake == "attn_layer_used_twice"
    assert problem.what == f"You make {which} with the same layer; there should be three layers, one for each."


SOFTMAX_HIDES = "the output is right all the same: softmax does not see what is added to all scores of a query"


@pytest.mark.parametrize("layer", ["to_q", "to_k", "to_v"])
def test_one_missing_bias_is_missed(layer: str) -> None:
    line = f"self.{layer} = nn.Linear(embed_dim, embed_dim"
    problem = outcome_of(NAME, edited(RIGHT, (f"{line})", f"{line}, bias=False)")))
    assert problem is not None and problem.mistake == "attn_no_qkv_bias"
    first, second, *_ = [*problem.evidence.splitlines(), ""]
    assert first.endswith(f"is 5005; it should be 5040; missing: {layer}.bias")
    assert second.startswith(SOFTMAX_HIDES) == (layer == "to_k")


def test_a_missing_part_of_a_packed_bias_is_told() -> None:
    """As in BEiT: queries and values have a bias of their own, keys have none."""
    problem = outcome_of(
        NAME,
        edited(
            RIGHT,
            (PACKED[0], PACKED[1].replace(")\n", ", bias=False)\n        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(embed_dim)) for _ in range(2))\n")),
            (QKV, "bias = torch.cat([self.q_bias, 0 * self.q_bias, self.v_bias]); q, k, v = map(self.split, (self.qkv(x) + bias).chunk(3, -1))"),
        ),
    )  # fmt: skip
    assert problem is not None and problem.mistake == "attn_no_qkv_bias"
    assert f"missing: the bias of keys\n{SOFTMAX_HIDES}" in problem.evidence


SHARED_LAYERS = {
    "the key's layer is the query's": [("self.to_k = nn.Linear(embed_dim, embed_dim)", "self.to_k = self.to_q")],
    "one layer for queries and keys": [
        ("        self.to_k = nn.Linear(embed_dim, embed_dim)\n", ""), ("self.to_k(x)", "self.to_q(x)"),
    ],
    "one layer for keys and values": [
        ("        self.to_v = nn.Linear(embed_dim, embed_dim)\n", ""), ("self.to_v(x)", "self.to_k(x)"),
    ],
    "one layer without a telling name": [
        ("        self.to_v = nn.Linear(embed_dim, embed_dim)\n", ""), ("self.to_v", "self.to_k"),
        ("self.to_q", "self.one"), ("self.to_k", "self.two"),
    ],
    "one layer for all": [(LAYERS, "        self.to_qkv = nn.Linear(embed_dim, embed_dim)\n"),
                          ("self.to_q(", "self.to_qkv("), ("self.to_k(", "self.to_qkv("), ("self.to_v(", "self.to_qkv(")],
}  # fmt: skip


@pytest.mark.parametrize("name", SHARED_LAYERS)
def test_a_layer_that_is_not_there_since_another_is_used_twice(name: str) -> None:
    problem = outcome_of(NAME, edited(RIGHT, *SHARED_LAYERS[name]))
    assert problem is not None and problem.mistake == "attn_layer_used_twice", problem
    which = "layers for two" if name.endswith("all") else "a layer for one"
    assert f"it should be 5040; missing: {which} of queries, keys and values" in problem.evidence


def test_a_layer_used_twice_beside_another_mistake() -> None:
    edits = [*SHARED_LAYERS["the key's layer is the query's"], (SCALE, "scores / math.sqrt(d)")]
    problem = outcome_of(NAME, edited(RIGHT, *edits))
    assert problem is not None and problem.mistake == "attn_layer_used_twice + attn_scale_embed_dim", problem


def test_an_input_in_place_of_a_layer_that_is_not_there() -> None:
    """No layer is used twice, though one is not there."""
    edits = [
        ("        self.to_v = nn.Linear(embed_dim, embed_dim)\n", ""),
        ("self.split(self.to_v(x))", "self.split(x)"),
    ]
    problem = outcome_of(NAME, edited(RIGHT, *edits))
    assert problem is not None and problem.mistake == "attn_value_is_input", problem


# Of NAMED, those that change different lines: the steps in their order.
PAIRED = (
    ("attn_value_is_input", "attn_no_qkv_bias"),
    ("attn_split_view", "attn_heads_interleaved"),
    ("attn_scale_embed_dim", "attn_no_scale", "attn_scale_inverted"),
    ("attn_softmax_queries", "attn_no_softmax", "attn_softmax_heads"),
    ("attn_merge_reshape", "attn_merge_interleaved"),
    ("attn_no_out_proj", "attn_residual_inside", "attn_no_out_bias"),
)
EDITS = {
    "attn_value_is_input": [("self.split(self.to_v(x))", "self.split(x)")],
    "attn_no_qkv_bias": [(LAYERS, LAYERS.replace("embed_dim)", "embed_dim, bias=False)"))],
    "attn_split_view": [(SPLIT, "return z.reshape(len(z), self.h, -1, self.k)")],
    "attn_heads_interleaved": [(SPLIT, "return z.view(*z.shape[:2], self.k, self.h).permute(0, 3, 1, 2)")],
    "attn_scale_embed_dim": [(SCALE, "scores / math.sqrt(d)")],
    "attn_no_scale": [(SCALE, "scores")],
    "attn_scale_inverted": [(SCALE, "scores / self.k ** -0.5")],
    "attn_softmax_queries": [(SOFTMAX, "scores.softmax(dim=-2)")],
    "attn_no_softmax": [(SOFTMAX, "scores")],
    "attn_softmax_heads": [(SOFTMAX, "scores.softmax(dim=1)")],
    "attn_merge_reshape": [(MERGE, "z.reshape(b, n, d)")],
    "attn_merge_interleaved": [(MERGE, "z.permute(0, 2, 3, 1).reshape(b, n, d)")],
    "attn_no_out_proj": [(OUT, "return merged"), (OUT_LAYER, "pass")],
    "attn_residual_inside": [(OUT, "return x + self.out(merged)")],
    "attn_no_out_bias": [(OUT_LAYER, OUT_LAYER.replace(")", ", bias=False)"))],
}  # fmt: skip
PAIRS = [(one, other) for first, second in combinations(PAIRED, 2) for one in first for other in second][::2]


def test_pairs_are_named() -> None:
    assert len(PAIRS) >= 40
    for one, other in PAIRS:
        problem = outcome_of(NAME, edited(RIGHT, *EDITS[one], *EDITS[other]))
        assert problem is not None and problem.mistake == f"{one} + {other}", (one, other, problem)


UNKNOWN = {
    "scale by 1.7": ("scale", (SCALE, "scores / 1.7")),
    "scale of 64": ("scale", (SCALE, "scores / 8")),
    "values alone": ("weighted mean", (MIX, "z = v")),
    "all of the values in every head": (
        "merging heads",
        (MIX, "z = (weights @ self.to_v(x)[:, None]).sum(1)"),
        (MERGE, "z"),
    ),
    "the input projected": ("output projection", (OUT, "return self.out(x)")),
    "every score twice": ("scale", (SCORES, SCORES + " * 1.3")),
    "weights cubed": ("softmax", (SOFTMAX, "scores.softmax(dim=-1) ** 3")),
    "weights clipped": ("softmax", (SOFTMAX, "scores.softmax(dim=-1).clamp(max=0.3)")),
    "softplus": ("softmax", (SOFTMAX, "F.softplus(scores)")),
    "keys squared": ("queries, keys and values", (SCORES, "scores = q @ (k ** 2).mT")),
    "distances": ("scores", (SCORES, "scores = -torch.cdist(q, k)")),
    "cosine": ("scores", (QKV, QKV + "\n        q = F.normalize(q, dim=-1)")),
    "values squared": ("queries, keys and values", (QKV, QKV + "\n        v = v ** 2")),
    "values normalised": ("queries, keys and values", (QKV, QKV + "\n        v = F.layer_norm(v, v.shape[-1:])")),
    "queries of position": (
        "queries, keys and values",
        (QKV, QKV + "\n        v = v + torch.arange(n, dtype=v.dtype)[:, None]"),
    ),
    "queries of the next head": ("heads", (QKV, QKV + "\n        q = q.roll(1, 1)")),
    "value added": ("weighted mean", (MIX, "z = weights @ v + v")),
    "scores of a token with itself": ("scores", (SCORES, "scores = q @ k.mT + torch.eye(n)")),
    "the same slice for all": (
        "heads",
        (QKV, QKV + "\n        q, k, v = (z[:, :1].expand(-1, self.h, -1, -1) for z in (q, k, v))"),
    ),
    "heads averaged": ("merging heads", (MIX, "z = (weights @ v).mean(1, keepdim=True).expand(-1, self.h, -1, -1)")),
    "not merged": ("merging heads", (MERGE, "z"), (OUT, "return z")),
    "nothing returned": ("output projection", (OUT, "self.out(merged)")),
    "projections of single slices": (
        "parameters",
        (LAYERS, "        self.a, self.b, self.c = (nn.Linear(self.k, self.k) for _ in range(3))\n"),
        (QKV, "x = x.view(b, n, self.h, self.k).transpose(1, 2); q, k, v = self.a(x), self.b(x), self.c(x)"),
    ),
    "no weights at all": (
        "parameters",
        (LAYERS, ""),
        (OUT_LAYER, "pass"),
        (QKV, "q = k = v = self.split(x)"),
        (OUT, "return merged"),
    ),
    "no module": (
        "parameters",
        ("MultiHeadSelfAttention(nn.Module)", "MultiHeadSelfAttention"),
        ("super().__init__()", "pass"),
    ),
    "heads rolled": ("merging heads", (MERGE, "z.roll(1, 1).transpose(1, 2).reshape(b, n, d)")),
    "heads flipped inside": ("merging heads", (MERGE, "z.flip(-1).transpose(1, 2).reshape(b, n, d)")),
    "the input beside the heads": ("output projection", (OUT, "return self.out(merged + x)")),
    "tanh at the end": ("output projection", (OUT, "return self.out(merged).tanh()")),
    "norm at the end": ("output projection", (OUT, "return F.layer_norm(self.out(merged), (d,))")),
    "half the output": ("output projection", (OUT, "return self.out(merged) / 2")),
    "half of it its own value": ("weighted mean", (MIX, "z = (weights @ v + v) / 2")),
    "neighbours alone": (
        "softmax",
        (
            SCALE,
            SCALE
            + """
        place = torch.arange(n)
        scores = scores.masked_fill((place[:, None] - place).abs() > 3, -math.inf)""",
        ),
    ),
    "no token at itself in the corner": ("softmax", (SCALE, SCALE + "; scores[..., 0, 0] = -math.inf")),
    "weights averaged over heads": ("softmax", (MIX, "z = weights.mean(1, keepdim=True) @ v")),
    "norm before the projection": ("weighted mean", (MERGE, MERGE + "; merged = F.layer_norm(merged, (d,))")),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_mistake_is_placed(name: str) -> None:
    step, *edits = UNKNOWN[name]
    problem = outcome_of(NAME, edited(RIGHT, *edits))
    assert problem is not None
    assert problem.step == step, problem


def test_the_first_hint_on_batch_and_tokens_is_on_the_axes() -> None:
    problem = outcome_of("multi_head_self_attention", edited(TORCH, (", batch_first=True", ""), ("x, x)", "x, x)[0]")))
    assert problem and problem.mistake == "attn_over_batch"
    assert "take for the batch" in problem.hints[0] and "nn.MultiheadAttention" in problem.hints[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("half of it its own value", "the output is 0.5 times what the weights make, and something that no score"),
        ("neighbours alone", "weights[0, 0, 0, 4] is 0; softmax never gives 0 or less; the others are softmax over"),
        ("no token at itself in the corner", "weights[0, 0, 0, 0] is 0; softmax never gives 0 or less; the others are"),
        ("weights averaged over heads", "the weights of head 0 are 0.2, 0.2, 0.2, 0.2, 0.2 times those of heads 0, 1"),
    ],
)
def test_what_shows_a_mistake_without_a_name(name: str, said: str) -> None:
    _, *edits = UNKNOWN[name]
    problem = outcome_of(NAME, edited(RIGHT, *edits))
    assert problem is not None and said in problem.evidence, problem


DETACH_K = "scores = q @ k.detach().transpose(-2, -1)"
CUT = {
    "keys": ("scores", "to_k.weight", (SCORES, DETACH_K)),
    "keys, packed": (
        "scores", "qkv.weight", PACKED, (QKV, "q, k, v = map(self.split, self.qkv(x).chunk(3, -1))"), (SCORES, DETACH_K)
    ),
    "weights": ("softmax", "to_q.weight", (MIX, "z = weights.detach() @ v")),
    "values": ("weighted mean", "to_v.weight", (MIX, "z = weights @ v.detach()")),
    "heads": ("merging heads", "to_q.weight", (MERGE, "z.detach().transpose(1, 2).reshape(b, n, d)")),
    "projection": ("output projection", "out.weight", (OUT, "return F.linear(merged, self.out.weight.detach(), self.out.bias)")),
    "output": ("output projection", "to_q.weight", (OUT, "return self.out(merged).detach()")),
    "input": ("queries, keys and values", "the input", ("b, n, d = x.shape", "b, n, d = x.shape; x = x.detach()")),
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_where_the_gradient_is_cut(name: str) -> None:
    step, first, *edits = CUT[name]
    problem = outcome_of(NAME, edited(RIGHT, *edits))
    assert problem is not None and problem.mistake == "gradient_cut" and problem.step == step, problem
    assert problem.what.startswith(f"You cut the gradient of {first} off")


def test_a_mistake_in_heads_that_are_summed_is_named() -> None:
    problem = outcome_of(NAME, edited(SUMMED, ("** -0.5, dim=-1", "** -0.5, dim=-2")))
    assert problem is not None and problem.mistake == "attn_softmax_queries", problem


def test_an_unknown_layout_is_not_called_wrong() -> None:
    """As many numbers as there should be, in tensors that no layer of the equations is cut into."""
    rows = "self.rows = nn.ParameterList(nn.Parameter(torch.randn(embed_dim)) for _ in range(4 * embed_dim + 4))"
    *_, problem = outcomes(
        NAME,
        edited(
            RIGHT,
            (LAYERS, ""),
            (OUT_LAYER, rows),
            ("b, n, d = x.shape", "b, n, d = x.shape; w = torch.stack(list(self.rows)); w, c = w[:-4], w[-4:]"),
            (QKV, "q, k, v = (self.split(x @ w[i * d : i * d + d] + c[i]) for i in range(3))"),
            (OUT, "return merged @ w[3 * d :] + c[3]"),
        ),
    )
    assert isinstance(problem, Problem) and problem.mistake is None and problem.step == "parameters"
    assert problem.what.startswith("Your parameters could not all be matched with those of the equations"), problem
    assert "has rows.0 (35,)" in problem.evidence


PAIR = """
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


class MultiHeadSelfAttention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.h = num_heads
        self.two = nn.Linear(embed_dim, 2 * embed_dim)
        self.one = nn.Linear(embed_dim, embed_dim)

    def forward(self, x):
        y, z = self.two(x).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.h, -1)).transpose(1, 2) for t in (y, z, self.one(x)))
        return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
"""


@pytest.mark.parametrize(
    ("mistake", "three", "out"),
    [
        ("attn_no_out_proj", "y, z, self.one(x)", ""),
        ("attn_no_out_proj", "self.one(x), y, z", ""),
        ("attn_value_is_input", "y, z, x", "self.one"),
        ("attn_query_is_input", "x, y, z", "self.one"),
        ("attn_layer_used_twice", "y, z, z", "self.one"),
        ("attn_layer_used_twice", "y, y, z", "self.one"),
    ],
)
def test_a_layer_for_two_and_one_more(mistake: str, three: str, out: str) -> None:
    """The one more is the output, or it is not: what it computes tells."""
    edits = ("y, z, self.one(x)", three), ("return scaled", f"return {out}(scaled"), (".flatten(2)", ".flatten(2))")
    problem = outcome_of(NAME, edited(PAIR, *edits))
    assert problem is not None and problem.mistake == mistake, problem


@pytest.mark.parametrize(
    ("mistake", "three", "out"),
    [
        ("attn_no_out_proj", "self.a(x), self.b(x), self.c(x)", ""),
        ("attn_value_is_input", "self.a(x), self.b(x), x", "self.c"),
        ("attn_layer_used_twice", "self.a(x), self.b(x), self.b(x)", "self.c"),
    ],
)
def test_three_layers_whose_names_tell_nothing(mistake: str, three: str, out: str) -> None:
    layers = "self.a, self.b, self.c = (nn.Linear(embed_dim, embed_dim) for _ in range(3))"
    text = edited(
        PAIR, ("self.two = nn.Linear(embed_dim, 2 * embed_dim)", layers), ("        self.one = nn.Linear(embed_dim, embed_dim)\n", ""),
        ("        y, z = self.two(x).chunk(2, dim=-1)\n", ""), ("y, z, self.one(x)", three),
        ("return scaled", f"return {out}(scaled"), (".flatten(2)", ".flatten(2))"),
    )  # fmt: skip
    problem = outcome_of(NAME, text)
    assert problem is not None and problem.mistake == mistake, problem


def test_queries_and_keys_alone_have_layers() -> None:
    layers = "self.a, self.b = (nn.Linear(embed_dim, embed_dim) for _ in range(2))"
    text = edited(
        PAIR, ("self.two = nn.Linear(embed_dim, 2 * embed_dim)", layers), ("        self.one = nn.Linear(embed_dim, embed_dim)\n", ""),
        ("        y, z = self.two(x).chunk(2, dim=-1)\n", ""), ("y, z, self.one(x)", "self.a(x), self.b(x), x"),
    )  # fmt: skip
    problem = outcome_of(NAME, text)
    assert problem is not None
    assert set(str(problem.mistake).split(" + ")) == {"attn_value_is_input", "attn_no_out_proj"}, problem


def test_values_that_are_not_mixed_are_no_mask() -> None:
    problem = outcome_of("multi_head_self_attention", edited(RIGHT, (MIX, "z = v")))
    assert problem and "each token gets its own value alone, whatever the weights are" in problem.evidence
    assert "mask" not in problem.evidence


def test_what_is_copied_together_is_named_together() -> None:
    packed = "q, k, v = self.qkv(x).reshape(b, n, self.h, self.k, 3).permute(4, 0, 2, 1, 3)"
    text = edited(P((QKV, packed)), (SCALE, "scores"), (SOFTMAX, "scores.softmax(dim=-1) / d ** 0.5"))
    problem = outcome_of("multi_head_self_attention", text)
    assert problem and problem.mistake == "attn_packing_per_head + attn_scale_after_softmax"


def test_the_bias_of_the_output_added_twice_is_said_with_both_numbers() -> None:
    problem = outcome_of(NAME, edited(RIGHT, (OUT, f"{OUT} + self.out.bias")))
    assert problem and problem.step == "output projection" and "2 times as much" in problem.evidence


def test_a_head_in_the_place_of_another_is_a_wrong_merge() -> None:
    problem = outcome_of(NAME, edited(RIGHT, (MIX, f"{MIX}; z = torch.cat([z[:, :-1], z[:, :1]], 1)")))
    assert problem and problem.step == "merging heads" and "number 29 of yours is 1" in problem.evidence


def test_without_a_layer_for_values_no_number_is_called_the_right_one() -> None:
    problem = outcome_of(
        NAME, edited(RIGHT, ("self.to_v(x)", "x"), ("        self.to_v = nn.Linear(embed_dim, embed_dim)\n", ""))
    )
    assert problem and problem.mistake == "attn_value_is_input"
    assert problem.evidence.count("should be") == 1 and "it should be 5040" in problem.evidence


def test_what_is_kept_from_a_call_is_told_with_both_calls() -> None:
    kept = edited(
        RIGHT,
        (
            "def forward(self, x):",
            "def forward(self, x):\n        self.n = getattr(self, 'n', x.shape[1])\n        x = x.reshape(x.shape[0], self.n, -1)",
        ),
    )
    problem = outcome_of(NAME, kept)
    assert problem and problem.mistake == "kept_from_a_call"
    assert "; _ = m(draw(3, 6, 35)); m(" in problem.evidence


def test_a_last_layer_as_wide_as_one_head_is_told_as_that() -> None:
    problem = outcomes(
        NAME,
        edited(
            RIGHT,
            ("self.out = nn.Linear(embed_dim, embed_dim)", "self.out = nn.Linear(embed_dim // num_heads, embed_dim)"),
            (MERGE, "z.mean(1)"),
        ),
    )[-1]
    assert isinstance(problem, Problem) and problem.step == "merging heads" and "the width of one head" in problem.what
