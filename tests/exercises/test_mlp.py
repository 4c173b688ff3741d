"""The check of exercise 6 accepts what is right, however written, and names or places what is wrong."""

import re

import pytest
import torch
import torch.nn.functional as F

from tests.exercises.students import edited, outcome_of, outcomes
from vitscratch.exercises.checks.mlp import MISTAKES
from vitscratch.exercises.exercise import Passed, Problem

RIGHT = """
import math
import torch
import torch.nn.functional as F
from torch import nn

class MLP(nn.Module):
    def __init__(self, embed_dim, mlp_dim):
        super().__init__()
        self.a = nn.Linear(embed_dim, mlp_dim)
        self.b = nn.Linear(mlp_dim, embed_dim)

    def forward(self, x):
        hidden = F.gelu(self.a(x))
        return self.b(hidden)
"""
A, B = "self.a = nn.Linear(embed_dim, mlp_dim)", "self.b = nn.Linear(mlp_dim, embed_dim)"
HIDDEN, OUT = "F.gelu(self.a(x))", "return self.b(hidden)"
BARE = f"{A}\n        {B}"

RIGHT_VARIANTS = {
    "as it stands": RIGHT,
    "the library's": "from vitscratch import MLP",
    "Sequential": edited(
        RIGHT, (A, "self.net = nn.Sequential(nn.Linear(embed_dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, embed_dim))"),
        (B, "pass"), (HIDDEN, "self.net(x)"), (OUT, "return hidden"),
    ),
    "a Sequential itself": """
from torch import nn
class MLP(nn.Sequential):
    def __init__(self, embed_dim: int, mlp_dim: int, dropout: float = 0.1) -> None:
        super().__init__(nn.Linear(embed_dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, embed_dim),
                         nn.Dropout(dropout))
""",
    "erf": edited(RIGHT, (HIDDEN, "self.a(x); hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))")),
    "convolutions": edited(
        RIGHT, (A, "self.a = nn.Conv1d(embed_dim, mlp_dim, 1)"), (B, "self.b = nn.Conv1d(mlp_dim, embed_dim, 1)"),
        (HIDDEN, "F.gelu(self.a(x.transpose(1, 2)))"), (OUT, "return self.b(hidden).transpose(1, 2)"),
    ),
    "bare parameters": edited(
        RIGHT,
        (A, "self.w1, self.b1 = nn.Parameter(torch.randn(embed_dim, mlp_dim)), nn.Parameter(torch.zeros(mlp_dim))"),
        (B, "self.w2, self.b2 = nn.Parameter(torch.randn(mlp_dim, embed_dim)), nn.Parameter(torch.zeros(embed_dim))"),
        (HIDDEN, "F.gelu(x @ self.w1 + self.b1)"), (OUT, "return hidden @ self.w2 + self.b2"),
    ),
    "zeros at the start": edited(RIGHT, (B, B + "; nn.init.zeros_(self.b.weight); nn.init.zeros_(self.b.bias)")),
    "second layer made first": edited(RIGHT, (BARE, f"{B}\n        {A}")),
    "lazy": edited(RIGHT, (A, "self.a = nn.LazyLinear(mlp_dim)")),
    "token by token": edited(RIGHT, (OUT, "return torch.stack([self.b(hidden[:, i]) for i in range(x.shape[1])], 1)")),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT_VARIANTS)
def test_right_passes(name: str) -> None:
    assert outcome_of("mlp", RIGHT_VARIANTS[name]) is None


NAMED = {
    "mlp_gelu_tanh": [(HIDDEN, 'F.gelu(self.a(x), approximate="tanh")')],
    "mlp_quick_gelu": [(HIDDEN, "self.a(x); hidden = hidden * torch.sigmoid(1.702 * hidden)")],
    "mlp_activation_last": [(OUT, "return F.gelu(self.b(hidden))")],
    "mlp_hidden_is_embed": [
        (A, "self.a = nn.Linear(embed_dim, embed_dim)"), (B, "self.b = nn.Linear(embed_dim, embed_dim)")],
    "mlp_hidden_fixed": [
        (A, "self.a = nn.Linear(embed_dim, 4 * embed_dim)"), (B, "self.b = nn.Linear(4 * embed_dim, embed_dim)")],
    "mlp_no_bias": [(A, A.replace(")", ", bias=False)")), (B, B.replace(")", ", bias=False)"))],
    "mlp_no_bias, first": [(A, A.replace(")", ", bias=False)"))],
    "mlp_no_bias, second": [(B, B.replace(")", ", bias=False)"))],
    "mlp_no_activation": [(HIDDEN, "self.a(x)")],
    "mlp_relu": [(HIDDEN, "F.relu(self.a(x))")],
    "mlp_silu": [(HIDDEN, "F.silu(self.a(x))")],
    "mlp_other_activation": [(HIDDEN, "torch.tanh(self.a(x))")],
    "mlp_activation_misplaced": [(HIDDEN, "self.a(x)"), (OUT, "return F.gelu(self.b(hidden))")],
    "mlp_activation_twice": [(HIDDEN, "F.gelu(F.gelu(self.a(x)))")],
    "mlp_residual_inside": [(OUT, "return x + self.b(hidden)")],
    "mlp_random": [(HIDDEN, "F.dropout(F.gelu(self.a(x)))")],
    "mlp_gelu_tanh + mlp_residual_inside": [
        (HIDDEN, 'F.gelu(self.a(x), approximate="tanh")'), (OUT, "return x + self.b(hidden)")],
    "mlp_relu + mlp_activation_last": [(HIDDEN, "F.relu(self.a(x))"), (OUT, "return F.relu(self.b(hidden))")],
    "mlp_no_bias + mlp_relu": [(B, B.replace(")", ", bias=False)")), (HIDDEN, "F.relu(self.a(x))")],
}  # fmt: skip


def test_every_mistake_of_the_bank_is_tried() -> None:
    assert set(MISTAKES) <= {name.split(",")[0] for name in NAMED}


@pytest.mark.parametrize("name", NAMED)
def test_known_mistake_is_named(name: str) -> None:
    problem = outcome_of("mlp", edited(RIGHT, *NAMED[name]))
    assert problem is not None and problem.mistake is not None
    assert problem.mistake == name.split(",")[0], problem
    assert problem.evidence
    assert problem.step == MISTAKES[problem.mistake.split(" + ")[0]].step


@pytest.mark.parametrize("name", [name for name in NAMED if MISTAKES[re.split("[ ,]", name)[0]].step == "activation"])
def test_what_the_activation_gives_is_told_where_it_is_seen(name: str) -> None:
    problem = outcome_of("mlp", edited(RIGHT, *NAMED[name]))
    assert problem is not None
    told = re.search(r"a hidden number (\S+) comes out as (\S+); GELU gives (\S+)$", problem.evidence)
    assert (told is None) == (name in ("mlp_activation_misplaced", "mlp_random") or " + " in name), problem.evidence
    if told is None:
        return
    t = torch.tensor(float(told[1]), dtype=torch.float64)
    gives = {"mlp_gelu_tanh": F.gelu(t, approximate="tanh"), "mlp_quick_gelu": t * torch.sigmoid(1.702 * t),
             "mlp_no_activation": t, "mlp_relu": F.relu(t), "mlp_silu": F.silu(t), "mlp_other_activation": t.tanh(),
             "mlp_activation_twice": F.gelu(F.gelu(t))}[name]  # fmt: skip
    for said, value in ((told[2], gives), (told[3], F.gelu(t))):
        assert float(said) == pytest.approx(float(value), rel=1e-6)


UNKNOWN = {
    "gelu of half": ("activation", (HIDDEN, "F.gelu(self.a(x)) / 2")),
    "bias twice": ("first layer", (HIDDEN, "F.gelu(self.a(x) + self.a.bias)")),
    "square": ("activation", (HIDDEN, "self.a(x) ** 2")),
    "norm at the end": ("second layer", (OUT, "return F.layer_norm(self.b(hidden), x.shape[-1:])")),
    "half the output": ("second layer", (OUT, "return self.b(hidden) / 2")),
    "norm first": ("first layer", (HIDDEN, "F.gelu(self.a(F.layer_norm(x, x.shape[-1:])))")),
    "mean of tokens": ("first layer", (HIDDEN, "F.gelu(self.a(x + x.mean(1, keepdim=True)))")),
    "three layers": (
        "parameters",
        (B, B + "; self.c = nn.Linear(mlp_dim, mlp_dim)"),
        (HIDDEN, "F.gelu(self.c(self.a(x)))"),
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_mistake_is_placed(name: str) -> None:
    step, *edits = UNKNOWN[name]
    problem = outcome_of("mlp", edited(RIGHT, *edits))
    assert problem is not None
    assert problem.step == step, problem


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("{}", ""),
        ("{}, None", "as [0] of a tuple: the block or model that calls it has to take it out"),
        ("None, {}", "as [1] of a tuple: the block or model that calls it has to take it out"),
        ("dict(it={})", "as ['it'] of a dict: the block or model that calls it has to take it out"),
    ],
)
def test_an_output_in_a_tuple_is_right_and_said(returned: str, told: str) -> None:
    first, *_, last = outcomes("mlp", edited(RIGHT, (OUT, f"return {returned.format(OUT.removeprefix('return '))}")))
    assert isinstance(first, Passed) and isinstance(last, Passed)
    assert first.but == told and str(first).endswith(f"tokens 2, 6, 13; but {told}" if told else "tokens 2, 6, 13")


def test_a_frozen_parameter_is_told() -> None:
    problem = outcome_of("mlp", edited(RIGHT, (B, f"{B}; self.a.bias.requires_grad_(False)")))
    assert problem is not None and (problem.mistake, problem.step) == ("gradient_cut", "parameters")
    assert "You freeze a parameter" in problem.what


def test_a_convolution_over_several_tokens_is_told_as_that() -> None:
    text = """
from torch import nn

class MLP(nn.Module):
    def __init__(self, embed_dim, mlp_dim):
        super().__init__()
        self.up = nn.Conv1d(embed_dim, mlp_dim, KERNEL)
        self.down = nn.Conv1d(mlp_dim, embed_dim, 1)

    def forward(self, x):
        return self.down(nn.functional.gelu(self.up(x.mT))).mT
"""
    assert outcome_of("mlp", text.replace("KERNEL", "1")) is None
    problem = outcomes("mlp", text.replace("KERNEL", "3, padding=1"))[-1]
    assert isinstance(problem, Problem) and problem.what.startswith("Your convolution looks at several tokens at once")
