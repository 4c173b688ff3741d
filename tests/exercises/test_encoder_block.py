"""The check of exercise 7 accepts what is right, however written, and names or places what is wrong."""

import pytest
import torch

from tests.exercises import test_mlp, test_multi_head_self_attention
from tests.exercises.students import changed, edited, outcome_of
from tests.exercises.test_multi_head_self_attention import MERGE, SCALE, SOFTMAX
from tests.exercises.test_multi_head_self_attention import RIGHT as ATTENTION
from vitscratch.exercises.checks.encoder_block import MISTAKES, unread_copies

BLOCK = """
class MLP(nn.Module):
    def __init__(self, embed_dim, mlp_dim):
        super().__init__()
        self.a = nn.Linear(embed_dim, mlp_dim)
        self.b = nn.Linear(mlp_dim, embed_dim)

    def forward(self, x):
        return self.b(F.gelu(self.a(x)))

class EncoderBlock(nn.Module):
    def __init__(self, embed_dim, num_heads, mlp_dim):
        super().__init__()
        self.ln_1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attention = MultiHeadSelfAttention(embed_dim, num_heads)
        self.ln_2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = MLP(embed_dim, mlp_dim)

    def forward(self, x):
        x = x + self.attention(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x
"""
RIGHT = ATTENTION + BLOCK
FROM_LIBRARY = (
    "import torch\nfrom torch import nn\nimport torch.nn.functional as F\nfrom vitscratch import MLP, MultiHeadSelfAttention\n"
    + BLOCK[BLOCK.index("class EncoderBlock") :]
)
LN1, LN2 = "self.ln_1 = nn.LayerNorm(embed_dim, eps=1e-6)", "self.ln_2 = nn.LayerNorm(embed_dim, eps=1e-6)"
EQ2, EQ3 = "x = x + self.attention(self.ln_1(x))", "x = x + self.mlp(self.ln_2(x))"
MLP_FORWARD = "return self.b(F.gelu(self.a(x)))"
OWN_NORM = """
class Norm(nn.Module):
    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.g, self.b, self.eps = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), eps

    def forward(self, x):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(var + self.eps) * self.g + self.b

class EncoderBlock("""
PRE_NORM = """
import torch
from torch import nn
from vitscratch import MLP, MultiHeadSelfAttention

class PreNorm(nn.Module):
    def __init__(self, dim, fn):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fn = fn
    def forward(self, x):
        return self.fn(self.norm(x)) + x

class EncoderBlock(nn.Sequential):
    def __init__(self, embed_dim, num_heads, mlp_dim):
        super().__init__(PreNorm(embed_dim, MultiHeadSelfAttention(embed_dim, num_heads)),
                         PreNorm(embed_dim, MLP(embed_dim, mlp_dim)))
"""
LAYER = """
import torch
from torch import nn
class EncoderBlock(nn.Module):
    def __init__(self, embed_dim, num_heads, mlp_dim):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(embed_dim, num_heads, mlp_dim, dropout=0.1, activation="gelu",
                                                layer_norm_eps=1e-6, batch_first=True, norm_first=True)
    def forward(self, x):
        return self.layer(x)
"""
FLAT = """
import torch
from torch import nn
import torch.nn.functional as F
from einops import rearrange
class EncoderBlock(nn.Module):
    def __init__(self, embed_dim, num_heads, mlp_dim, p=0.0):
        super().__init__()
        self.num_heads = num_heads
        self.lin1, self.lin2 = nn.Linear(embed_dim, mlp_dim), nn.Linear(mlp_dim, embed_dim)
        self.query, self.key, self.value, self.back = (nn.Linear(embed_dim, embed_dim) for _ in range(4))
        self.n1, self.n2 = nn.LayerNorm(embed_dim, 1e-6), nn.LayerNorm(embed_dim, 1e-6)
    def forward(self, x):
        y = self.n2(x)
        q, k, v = (rearrange(f(y), "b n (h k) -> b h n k", h=self.num_heads) for f in (self.query, self.key, self.value))
        x = self.back(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n k -> b n (h k)")) + x
        return self.lin2(F.gelu(self.lin1(self.n1(x)))) + x
"""

RIGHT_VARIANTS = {
    "as it stands": RIGHT,
    "parts of the library": FROM_LIBRARY,
    "the library's": "from vitscratch import EncoderBlock",
    "pre-norm wrappers in a Sequential": PRE_NORM,
    "torch's layer": LAYER,
    "all in one class, norms named the other way round": FLAT,
    "a norm of one's own": edited(RIGHT, ("class EncoderBlock(", OWN_NORM), ("nn.LayerNorm", "Norm")),
    "norms that start at zero": edited(FROM_LIBRARY, (LN2, f"{LN2}\n        for n in (self.ln_1, self.ln_2): nn.init.zeros_(n.weight)")),
    "all drawn at random": edited(RIGHT, ("class EncoderBlock(", OWN_NORM), ("nn.LayerNorm", "Norm"), (
        "    def forward(self, x):\n        x = x + self.att", "        for z in self.parameters(): nn.init.normal_(z)\n\n    def forward(self, x):\n        x = x + self.att")),
    "a norm of one's own, names that tell nothing": edited(
        RIGHT, ("class EncoderBlock(", changed(OWN_NORM, "self.g, self.b, self.eps = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), eps",
        "self.c, self.a, self.eps = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width)), eps", "* self.g + self.b", "* self.a + self.c")), ("nn.LayerNorm", "Norm")),
    "parameters of norms a and b, at a half": edited(
        FROM_LIBRARY,
        (LN1, "\n        ".join(f"self.{kind}_{half} = nn.Parameter(torch.full((embed_dim,), {start}))" for half in "ab" for kind, start in (("shift", 0.0), ("scale", 0.5)))),
        (LN2, "self.d = (embed_dim,)"), ("self.ln_1(x)", "F.layer_norm(x, self.d, self.scale_a, self.shift_a, 1e-6)"), ("self.ln_2(x)", "F.layer_norm(x, self.d, self.scale_b, self.shift_b, 1e-6)"),
    ),
    "a norm that keeps its weight less one": edited(
        RIGHT, ("class EncoderBlock(", changed(OWN_NORM, "torch.ones", "torch.zeros", "* self.g", "* (1 + self.g)")), ("nn.LayerNorm", "Norm")),
    "residual kept in a variable": edited(
        RIGHT, (EQ2, "residual = x\n        x = self.ln_1(x)\n        x = residual + self.attention(x)")
    ),
    "named steps": edited(RIGHT, (EQ2, "normed = self.ln_1(x)\n        x = x + self.attention(normed)")),
    "torch's attention": edited(
        RIGHT, ("MultiHeadSelfAttention(embed_dim, num_heads)", "nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)"),
        (EQ2, "y = self.ln_1(x)\n        x = x + self.attention(y, y, y, need_weights=False)[0]"),
    ),
    "in place": edited(FROM_LIBRARY, (EQ3, "x = torch.add(x, self.mlp(self.ln_2(x)))")),
    "dropout": edited(
        FROM_LIBRARY, ("mlp_dim):", "mlp_dim, dropout=0.1):"), (LN1, LN1 + "; self.drop = nn.Dropout(dropout)"),
        (EQ2, "x = x + self.drop(self.attention(self.ln_1(x)))"),
    ),
    "zeros at the start": edited(RIGHT, (LN1, LN1 + "\n        for z in self.parameters(): nn.init.zeros_(z)"), (
        LN2, LN2 + "; nn.init.ones_(self.ln_1.weight)")),
    "MLP as a Sequential": edited(
        FROM_LIBRARY, ("MLP(embed_dim, mlp_dim)", (
            "nn.Sequential(nn.Linear(embed_dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, embed_dim))")),
    ),
    "returns more": edited(FROM_LIBRARY, ("return x", 'return {"tokens": x, "norm": x.norm()}')),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT_VARIANTS)
def test_right_passes(name: str) -> None:
    assert outcome_of("encoder_block", RIGHT_VARIANTS[name]) is None


NAMED = {
    "enc_no_attn_residual": [(EQ2, "x = self.attention(self.ln_1(x))")],
    "enc_no_mlp_residual": [(EQ3, "x = self.mlp(self.ln_2(x))")],
    "enc_no_attn_residual + enc_no_mlp_residual": [
        (EQ2, "x = self.attention(self.ln_1(x))"), (EQ3, "x = self.mlp(self.ln_2(x))")],
    "enc_residual_after_norm": [
        (EQ2, "x = self.ln_1(x)\n        x = x + self.attention(x)"), (EQ3, "x = self.ln_2(x)\n        x = x + self.mlp(x)")],
    "enc_residual_after_norm, one": [(EQ3, "x = self.ln_2(x)\n        x = x + self.mlp(x)")],
    "enc_post_norm": [(EQ2, "x = self.ln_1(x + self.attention(x))"), (EQ3, "x = self.ln_2(x + self.mlp(x))")],
    "enc_post_norm, one": [(EQ2, "x = self.ln_1(x + self.attention(x))")],
    "enc_post_norm, too": [(EQ3, "x = self.ln_2(x + self.mlp(self.ln_2(x)))")],
    "enc_norm_on_branch_output": [(EQ2, "x = x + self.ln_1(self.attention(x))"), (EQ3, "x = x + self.ln_2(self.mlp(x))")],
    "enc_eps_1e-5": [(LN1, LN1.replace(", eps=1e-6", "")), (LN2, LN2.replace(", eps=1e-6", ""))],
    "enc_eps_1e-5, one": [(LN2, LN2.replace(", eps=1e-6", ""))],
    "enc_eps_other": [("1e-6", "1e-12")],
    "enc_double_residual": [(MLP_FORWARD, "return x + self.b(F.gelu(self.a(x)))")],
    "enc_double_residual, raw": [(EQ2, "x = x + (x + self.attention(self.ln_1(x)))")],
    "enc_double_residual, attention": [("return self.out(merged)", "return x + self.out(merged)")],
    "enc_mlp_residual_from_input": [(EQ2, "y = x + self.attention(self.ln_1(x))"), (EQ3, "x = x + self.mlp(self.ln_2(y))")],
    "enc_x_plus_x": [
        (EQ2, "x = self.attention(self.ln_1(x))\n        x = x + x"), (EQ3, "x = self.mlp(self.ln_2(x))\n        x = x + x")],
    "enc_x_plus_x, one": [(EQ2, "x = self.attention(self.ln_1(x))\n        x = x + x")],
    "enc_dead_residual": [(EQ2, "residual = x\n        x = x + self.attention(self.ln_1(x))  # + residual")],
    "enc_no_norm": [(EQ2, "x = x + self.attention(x)"), (EQ3, "x = x + self.mlp(x)")],
    "enc_no_norm, one": [(EQ3, "x = x + self.mlp(x)")],
    "enc_no_norm, not there": [(EQ3, "x = x + self.mlp(x)"), (LN2, "pass")],
    "enc_no_norm, both not there": [(EQ2, "x = x + self.attention(x)"), (EQ3, "x = x + self.mlp(x)"), (LN1, ""), (LN2, "")],
    "enc_shared_norm": [(EQ3, EQ3.replace("ln_2", "ln_1"))],
    "enc_shared_norm, one made": [(EQ3, EQ3.replace("ln_2", "ln_1")), (LN2, "")],
    "enc_rms_norm": [("nn.LayerNorm", "nn.RMSNorm")],
    "enc_norm_no_affine": [("eps=1e-6", "eps=1e-6, elementwise_affine=False")],
    "enc_norm_unbiased": [("class EncoderBlock(", OWN_NORM), ("nn.LayerNorm", "Norm"), (", unbiased=False", "")],
    "enc_norm_wrong_axis": [
        ("class EncoderBlock(", OWN_NORM), ("nn.LayerNorm", "Norm"), ("mean(-1", "mean(1"), ("var(-1", "var(1")],
    "enc_parallel": [(EQ2, "y = x + self.attention(self.ln_1(x))"), (EQ3, "x = y + self.mlp(self.ln_2(x))")],
    "enc_mlp_first": [(EQ2, "y = 0"), (EQ3, f"{EQ3}\n        {EQ2}")],
    "enc_half_unused": [(EQ3, "pass")],
    "enc_half_twice": [(EQ3, f"{EQ3}\n        {EQ3}")],
    "enc_residual_scaled": [(EQ2, EQ2 + " / 2")],
    "enc_residual_subtracted": [(EQ2, EQ2.replace("+", "-"))],
    "enc_random": [(EQ2, EQ2.replace("self.attention(self.ln_1(x))", "F.dropout(self.attention(self.ln_1(x)))"))],
    "enc_attention_input_mixed": [
        ("MultiHeadSelfAttention(embed_dim, num_heads)", "nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)"),
        (EQ2, "y = self.ln_1(x)\n        x = x + self.attention(y, x, x)[0]")],
    "enc_branch_twice": [(EQ2, "x = x + self.attention(self.attention(self.ln_1(x)))")],
    "enc_halves_not_added": [
        (EQ2, "y = x + self.attention(self.ln_1(x))"), (EQ3, "x = y + x + self.mlp(self.ln_2(x))")],
    "enc_norm_centres_only": [
        ("class EncoderBlock(", OWN_NORM), ("nn.LayerNorm", "Norm"), (" / torch.sqrt(var + self.eps)", "")],
    "enc_norm_variance": [
        ("class EncoderBlock(", OWN_NORM), ("nn.LayerNorm", "Norm"), ("torch.sqrt(var + self.eps)", "(var + self.eps)")],
    "enc_norm_is_batch_norm": [
        ("nn.LayerNorm(embed_dim, eps=1e-6)", "nn.BatchNorm1d(embed_dim)"), ("self.ln_1(x)", "self.ln_1(x.mT).mT"),
        ("self.ln_2(x)", "self.ln_2(x.mT).mT")],
    "enc_norm_on_residual": [
        (EQ2, "x = self.ln_1(x) + self.attention(x)"), (EQ3, "x = self.ln_2(x) + self.mlp(x)")],
    "enc_norm_twice": [(EQ2, "x = x + self.attention(self.ln_1(self.ln_1(x)))")],
    "enc_residual_multiplied": [(EQ2, EQ2.replace("+", "*"))],
    "attn_scale_embed_dim": [(SCALE, "scores / math.sqrt(d)")],
    "attn_merge_reshape": [(MERGE, "z.reshape(b, n, d)")],
    "attn_no_out_proj": [("self.out = nn.Linear(embed_dim, embed_dim)", ""), ("self.out(merged)", "merged")],
    "mlp_gelu_tanh": [("F.gelu(self.a(x))", 'F.gelu(self.a(x), approximate="tanh")')],
    "mlp_activation_last": [(MLP_FORWARD, "return F.gelu(self.b(F.gelu(self.a(x))))")],
    "mlp_hidden_fixed": [("MLP(embed_dim, mlp_dim)", "MLP(embed_dim, num_heads)")],
    "mlp_hidden_is_embed": [("MLP(embed_dim, mlp_dim)", "MLP(embed_dim, embed_dim)")],
    "mlp_no_bias": [("nn.Linear(embed_dim, mlp_dim)", "nn.Linear(embed_dim, mlp_dim, bias=False)")],
    "attn_softmax_queries + enc_no_mlp_residual": [
        (SOFTMAX, "scores.softmax(dim=-2)"), (EQ3, "x = self.mlp(self.ln_2(x))")],
    "enc_eps_1e-5 + mlp_gelu_tanh": [
        ("1e-6", "1e-5"), ("F.gelu(self.a(x))", 'F.gelu(self.a(x), approximate="tanh")')],
    "enc_post_norm + attn_no_scale": [
        (EQ2, "x = self.ln_1(x + self.attention(x))"), (EQ3, "x = self.ln_2(x + self.mlp(x))"), (SCALE, "scores")],
    "attn_merge_reshape + mlp_relu": [(MERGE, "z.reshape(b, n, d)"), ("F.gelu", "F.relu")],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_known_mistake_is_named(name: str) -> None:
    problem = outcome_of("encoder_block", edited(RIGHT, *NAMED[name]))
    assert problem is not None and problem.mistake is not None, problem
    assert problem.mistake == name.split(",")[0], problem
    assert problem.evidence
    step = MISTAKES[problem.mistake.split(" + ")[0]].step
    if edits_of_the_second_half(name):  # the bank has the step of the first
        step = {"first residual": "second residual", "attention": "MLP"}.get(step, step)
    assert problem.step == step


def test_every_mistake_of_the_bank_is_tried() -> None:
    of_the_block = {name for name in MISTAKES if name.startswith("enc_")}
    assert of_the_block <= {name.split(",")[0] for name in NAMED}


OF_PARTS = {name: text + BLOCK for name, text in test_multi_head_self_attention.NAMED.items()} | {
    name: ATTENTION + edited(test_mlp.RIGHT, *edits) + BLOCK[BLOCK.index("class EncoderBlock") :]
    for name, edits in test_mlp.NAMED.items()
}


# Inside a block these are the block's own mistake.
IN_A_BLOCK = {"attn_residual_inside": "enc_double_residual", "mlp_residual_inside": "enc_double_residual"}


def test_mistakes_of_the_parts_are_named_in_the_block_too() -> None:
    tried = {name for name in OF_PARTS if name in MISTAKES and name not in NAMED}
    assert len(tried) > 40
    for name in sorted(tried):
        problem = outcome_of("encoder_block", OF_PARTS[name])
        assert problem is not None and problem.mistake == IN_A_BLOCK.get(name, name), (name, problem)
        assert name in IN_A_BLOCK or problem.step == MISTAKES[name].step


PAIRS = [
    ("attn_merge_reshape", "enc_no_mlp_residual"),
    ("attn_scale_embed_dim", "mlp_activation_last"),
    ("attn_scale_embed_dim", "enc_no_attn_residual"),
    ("attn_merge_reshape", "mlp_gelu_tanh"),
    ("enc_no_attn_residual", "mlp_gelu_tanh"),
    ("enc_eps_1e-5", "enc_no_mlp_residual"),
    ("enc_eps_1e-5", "attn_scale_embed_dim"),
    ("enc_no_norm", "mlp_activation_last"),
    ("enc_no_norm", "attn_merge_reshape"),
    ("enc_mlp_residual_from_input", "attn_merge_reshape"),
    ("enc_shared_norm", "mlp_gelu_tanh"),
    ("enc_parallel", "attn_scale_embed_dim"),
]


@pytest.mark.parametrize("pair", PAIRS, ids=" + ".join)
def test_pairs_are_named(pair: tuple[str, str]) -> None:
    problem = outcome_of("encoder_block", edited(RIGHT, *NAMED[pair[0]], *NAMED[pair[1]]))
    assert problem is not None and problem.mistake is not None
    assert set(problem.mistake.split(" + ")) == set(pair), problem


def edits_of_the_second_half(name: str) -> bool:
    """Whether all that is changed is the line of Eq. 3, or the MLP."""
    return all(old in (EQ3, MLP_FORWARD) for old, _ in NAMED[name])


UNKNOWN = {
    "tokens scaled": ("first residual", (EQ2, EQ2.replace("x = x", "x = 1.1 * x"))),
    "MLP in both halves": ("attention", (EQ2, "x = x + self.mlp(self.ln_1(x))")),
    "attention in both halves": ("MLP", (EQ3, "x = x + self.attention(self.ln_2(x))")),
    "MLP of attention alone": (
        "first residual",
        (EQ2, "a = self.attention(self.ln_1(x))"),
        (EQ3, "x = x + a + self.mlp(self.ln_2(a))"),
    ),
    "first norm added to": ("second residual", (EQ3, "x = self.ln_1(x) + self.mlp(self.ln_2(x))")),
    "mean of the MLP's tokens": ("MLP", (EQ3, "x = x + self.mlp(self.ln_2(x)).mean(1, keepdim=True)")),
    "MLP of the next token": ("MLP", (EQ3, "x = x + self.mlp(self.ln_2(x).roll(1, 1))")),
    "a norm of the largest of all tokens": (
        "norms",
        (EQ3, "x = x + self.mlp(x / x.abs().amax((1, 2), True) * self.ln_2.weight + self.ln_2.bias)"),
    ),
    "a third added": ("second residual", (EQ3, EQ3 + " / 3")),
    "tanh of the norm": ("norms", (EQ2, "x = x + self.attention(self.ln_1(x).tanh())")),
    "tanh of the second norm": ("norms", (EQ3, "x = x + self.mlp(self.ln_2(x).tanh())")),
    "largest instead of deviation": ("norms", (EQ3, "x = x + self.mlp(self.ln_2(x.sign() * x.abs().sqrt()))")),
    "scale 8": ("attention", (SCALE, "scores / 8")),
    "values squared": ("attention", ("self.split(self.to_v(x))", "self.split(self.to_v(x)) ** 2")),
    "square": ("MLP", (MLP_FORWARD, "return self.b(self.a(x) ** 2)")),
    "norm after the second half": ("second residual", (EQ3, "x = 1.1 * self.ln_2(x + self.mlp(x))")),
    "MLP halved": ("MLP", (MLP_FORWARD, "return self.b(F.gelu(self.a(x)) / 2)")),
    "first output normed": ("first residual", (EQ2, EQ2 + "\n        x = F.normalize(x, dim=-1)")),
    "last output normed": ("second residual", (EQ3, EQ3 + "\n        x = F.normalize(x, dim=-1)")),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_mistake_is_placed(name: str) -> None:
    step, *edits = UNKNOWN[name]
    problem = outcome_of("encoder_block", edited(RIGHT, *edits))
    assert problem is not None
    assert problem.step == step, problem


# A half that goes wrong after its branch in a way that has no name; N is its norm, F attention or the MLP.
HALVES = ("x = F(N(x) + x)", "x = x + F(N(x)).tanh()", "x = x + F(N(x)) + x.mean()")


@pytest.mark.parametrize("half", HALVES)
def test_the_first_of_two_halves_that_are_wrong_in_the_same_way_is_placed(half: str) -> None:
    halves = {line: half.replace("F(", f"{branch}(").replace("N(", f"{norm}(")
              for line, branch, norm in ((EQ2, "self.attention", "self.ln_1"), (EQ3, "self.mlp", "self.ln_2"))}  # fmt: skip
    for edits, step in (((EQ2,), "first"), ((EQ3,), "second"), ((EQ2, EQ3), "first")):
        problem = outcome_of("encoder_block", edited(RIGHT, *((line, halves[line]) for line in edits)))
        assert problem is not None and problem.mistake is None and problem.step == f"{step} residual"


def test_all_that_a_norm_without_parameters_misses_is_listed() -> None:
    problem = outcome_of("encoder_block", edited(RIGHT, *NAMED["enc_norm_no_affine"]))
    assert problem is not None
    assert problem.evidence.endswith("; missing: norm1.weight, norm1.bias, norm2.weight, norm2.bias")


def test_unread_copies() -> None:
    source = "def forward(self, x):\n    residual = x\n    kept = x.clone()\n    _ = x\n    b, n, d = x.shape\n    y = x\n    return y"
    assert unread_copies(source) == [("residual", 2), ("kept", 3)]


@pytest.mark.parametrize(
    ("mistake", "edit", "says"),
    [
        (
            "attn_no_qkv_bias",
            ("self.to_k = nn.Linear(embed_dim, embed_dim)", "self.to_k = nn.Linear(embed_dim, embed_dim, bias=False)"),
            "missing: attention.to_k.bias\nthe output is right all the same",
        ),
        (
            "attn_layer_used_twice",
            ("self.to_k = nn.Linear(embed_dim, embed_dim)", "self.to_k = self.to_q"),
            "missing: a layer for one of queries, keys and values",
        ),
        ("attn_value_is_input", ("self.to_v(x)", "x"), "it should be"),
    ],
)
def test_what_attention_lacks_is_told_in_a_block_too(mistake: str, edit: tuple[str, str], says: str) -> None:
    without = [("        self.to_v = nn.Linear(embed_dim, embed_dim)\n", "")] if "to_v" in edit[0] else []
    problem = outcome_of("encoder_block", edited(RIGHT, edit, *without))
    assert problem is not None and problem.mistake == mistake and says in problem.evidence, problem


@pytest.mark.parametrize(("line", "which"), [(LN1, "first"), (LN2, "second")])
def test_the_eps_of_one_norm_is_said_to_be_of_that(line: str, which: str) -> None:
    problem = outcome_of("encoder_block", edited(RIGHT, (line, line.replace("1e-6", "1e-5"))))
    assert problem and problem.mistake == "enc_eps_1e-5" and problem.what.endswith(f"(It is the {which} norm.)")


@pytest.mark.parametrize(
    ("edit", "step"),
    [
        ((EQ2, EQ2.replace("x +", "x.detach() +")), "first residual"),
        ((EQ3, EQ3.replace("x +", "x.detach() +")), "second residual"),
        ((EQ2, EQ2.replace("self.attention(self.ln_1(x))", "self.attention(self.ln_1(x)).detach()")), "parameters"),
        ((EQ2, EQ2.replace("self.ln_1(x)", "self.ln_1(x.detach())")), "attention"),
        ((EQ3, EQ3.replace("self.ln_2(x)", "self.ln_2(x.detach())")), "MLP"),
    ],
)
def test_a_residual_that_is_detached_is_the_inputs_gradient(edit: tuple[str, str], step: str) -> None:
    problem = outcome_of("encoder_block", edited(RIGHT, edit))
    assert problem and (problem.mistake, problem.step) == ("gradient_cut", step), problem
    assert ("the input" in problem.what) is (step not in ("parameters", "MLP"))


def test_a_half_that_is_skipped_once_in_ten_calls_is_chance() -> None:
    torch.manual_seed(0)
    rarely = (EQ3, f"if torch.rand(()) > 0.1:\n            {EQ3}")
    problem = outcome_of("encoder_block", edited(RIGHT, rarely))
    assert problem and problem.mistake == "enc_random" and problem.evidence.endswith("call it several times")


def test_a_norm_without_a_bias_lacks_the_bias_whatever_its_weight_starts_at() -> None:
    bare = (LN1, LN1.replace("eps=1e-6", "eps=1e-6, bias=False") + "\n        nn.init.zeros_(self.ln_1.weight)")
    problem = outcome_of("encoder_block", edited(FROM_LIBRARY, bare))
    assert problem and problem.mistake == "enc_norm_no_affine" and "missing: ln_1.bias" in problem.evidence
