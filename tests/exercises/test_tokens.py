import re

import pytest

from tests.exercises.students import assert_reproduced, edited, outcome_of
from vitscratch.exercises.checks.tokens import MISTAKES

HEAD = "import torch\nfrom torch import nn\nimport torch.nn.functional as F\nfrom einops import repeat\n"
RIGHT_ONE = (
    HEAD
    + """
class Tokens(nn.Module):
    def __init__(self, num_patches, embed_dim):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.randn(1, num_patches + 1, embed_dim) * 0.02)

    def forward(self, x):
        cls = self.cls_token.expand(x.shape[0], -1, -1)
        x = torch.cat([cls, x], dim=1)
        return x + self.pos_embed
"""
)
RIGHT = {
    "expand": RIGHT_ONE,
    "repeat": edited(RIGHT_ONE, ("self.cls_token.expand(x.shape[0], -1, -1)", "self.cls_token.repeat(x.shape[0], 1, 1)")),
    "einops": edited(RIGHT_ONE, ("self.cls_token.expand(x.shape[0], -1, -1)", 'repeat(self.cls_token, "1 1 d -> b 1 d", b=len(x))')),
    "vectors": edited(RIGHT_ONE, ("(1, 1, embed_dim)", "(embed_dim)"), ("expand(x.shape[0], -1, -1)", "expand(x.shape[0], 1, -1)"), ("(1, num_patches + 1, embed_dim)", "(num_patches + 1, embed_dim)")),
    "torch.empty, and then a value": edited(RIGHT_ONE, ("nn.Parameter(torch.zeros(1, 1, embed_dim))", "nn.Parameter(torch.empty(1, 1, embed_dim).normal_())")),
    "zero positions": edited(RIGHT_ONE, ("torch.randn(1, num_patches + 1, embed_dim) * 0.02", "torch.zeros(1, num_patches + 1, embed_dim)")),
    "nn.Embedding": edited(RIGHT_ONE, ("nn.Parameter(torch.randn(1, num_patches + 1, embed_dim) * 0.02)", "nn.Embedding(num_patches + 1, embed_dim)"),
        ("x + self.pos_embed", "x + self.pos_embed(torch.arange(x.shape[1], device=x.device))")),
    "parts added apart": edited(RIGHT_ONE, ("x = torch.cat([cls, x], dim=1)", "pos = self.pos_embed"),
        ("return x + self.pos_embed", "return torch.cat([cls + pos[:, :1], x + pos[:, 1:]], dim=1)")),
    "dropout": edited(RIGHT_ONE, ("super().__init__()", "super().__init__()\n        self.drop = nn.Dropout(0.1)"), ("return x + self.pos_embed", "return self.drop(x + self.pos_embed)")),
    "a dict": edited(RIGHT_ONE, ("return x + self.pos_embed", 'return {"patches": len(x), "tokens": x + self.pos_embed}')),
    "a table on its side": edited(RIGHT_ONE, ("(1, num_patches + 1, embed_dim)", "(embed_dim, num_patches + 1)"),
        ("x + self.pos_embed", "x + self.pos_embed.mT")),
    "in place": edited(RIGHT_ONE, ("return x + self.pos_embed", "x += self.pos_embed\n        return x, None")),
}  # fmt: skip
CAT, ADD = "torch.cat([cls, x], dim=1)", "return x + self.pos_embed"
CLS, POS = (
    "nn.Parameter(torch.zeros(1, 1, embed_dim))",
    "nn.Parameter(torch.randn(1, num_patches + 1, embed_dim) * 0.02)",
)
EXPAND = "self.cls_token.expand(x.shape[0], -1, -1)"
FEW = "nn.Parameter(torch.randn(1, num_patches, embed_dim))"
WRONG = {
    "vit_cls_batch_dim": ((CLS, "nn.Parameter(torch.randn(32, 1, embed_dim))"), (EXPAND, "self.cls_token[:len(x)]")),
    "vit_cls_batch_dim: rows": ((CLS, "nn.Parameter(torch.randn(32, embed_dim))"), (EXPAND, "self.cls_token[:len(x), None]")),
    "vit_cls_batch_dim: as it is": ((CLS, "nn.Parameter(torch.randn(32, 1, embed_dim))"), (EXPAND, "self.cls_token")),
    "vit_pos_batch_dim": ((POS, "nn.Parameter(torch.randn(32, num_patches + 1, embed_dim))"),),
    "vit_pos_not_on_cls": ((POS, FEW), (f"x = {CAT}", "x = x + self.pos_embed"), (ADD, f"return {CAT}")),
    "vit_pos_not_on_cls: all rows": ((f"x = {CAT}", "x = x + self.pos_embed[:, 1:]"), (ADD, f"return {CAT}")),
    "vit_pos_random_each_forward": ((ADD, "return x + torch.randn_like(self.pos_embed)"),),
    "vit_pos_random_each_forward: nowhere": ((ADD, "return x + torch.randn(1, x.shape[1], x.shape[2])"), (POS, "None")),
    "tok_global_name": ((ADD, "return x + self.pos_embed[:, : num_patches + 1]"),),
    "tok_global_name: in __init__": ((POS, "nn.Parameter(torch.zeros(1, num_tokens, hidden_size))"),),
    "tok_global_name: 197 rows": ((POS, "nn.Parameter(torch.zeros(1, 197, embed_dim))"),),
    "tok_global_name: those of ViT-B/16": ((POS, "nn.Parameter(torch.zeros(1, 197, 768))"),),
    "vit_cls_added": ((POS, FEW), (CAT, "x + self.cls_token")),
    "vit_cls_added: too": ((CAT, "torch.cat([cls, x + self.cls_token], dim=1)"),),
    "vit_cls_added: to a copy, too": ((CAT, "torch.cat([x[:, :1], x], dim=1) + self.cls_token"),),
    "vit_cls_appended": ((CAT, "torch.cat([x, cls], dim=1)"),),
    "tok_not_parameter": ((POS, "torch.zeros(1, num_patches + 1, embed_dim)"),),
    "tok_not_parameter: class token": ((CLS, "torch.zeros(1, 1, embed_dim)"),),
    "tok_not_parameter: buffer": ((f"self.pos_embed = {POS}", 'self.register_buffer("pos_embed", torch.zeros(1, num_patches + 1, embed_dim))'),),
    "tok_detached": ((ADD, "return x + self.pos_embed.detach()"),),
    "tok_no_position": ((ADD, "return x"),),
    "tok_no_position: at all": ((ADD, "return x"), (POS, "None")),
    "tok_no_class_token": ((EXPAND, "torch.zeros_like(x[:, :1])"),),
    "tok_no_class_token: the mean": ((EXPAND, "x.mean(1, keepdim=True)"), (CLS, "None")),
    "tok_no_class_token: declared alone": ((CAT, "x"), (ADD, "return x + self.pos_embed[:, 1:]")),
    "tok_no_class_token: with a row short": ((POS, FEW), (CAT, "x * 2")),
    "vit_cls_added: with its position": ((CAT, "x + cls"), (ADD, "return x + self.pos_embed[:, 1:] + self.pos_embed[:, :1]")),
    "tok_cls_first_picture": ((EXPAND, "torch.cat([self.cls_token, torch.zeros_like(x[1:, :1])])"),),
    "tok_pos_twice": ((ADD, "return x + self.pos_embed + self.pos_embed"),),
    "tok_pos_multiplied": ((ADD, "return x * self.pos_embed"),),
    "tok_pos_shifted": ((ADD, "return x + self.pos_embed.roll(1, 1)"),),
    "tok_pos_twice: of the class token": ((EXPAND, "(self.cls_token + self.pos_embed[:, :1]).expand(x.shape[0], -1, -1)"),),
    "tok_pos_shifted: from row 0": ((ADD, "return x + torch.cat([self.pos_embed[:, :1], self.pos_embed[:, :-1]], 1)"),),
    "tok_pos_shifted: one for all": ((ADD, "return x + self.pos_embed[:, :1]"),),
    "tok_scaled": ((ADD, "return x + self.pos_embed * x.shape[-1] ** 0.5"),),
    "tok_scaled: patches": ((CAT, "torch.cat([cls, x * x.shape[-1] ** 0.5], dim=1)"),),
    "tok_scaled: as at the start": ((ADD, "return x + 0.02 * self.pos_embed"),),
    "vit_cls_appended + tok_scaled: as at the start": ((CAT, "torch.cat([x, cls], dim=1)"), (ADD, "return x + 0.02 * self.pos_embed")),
    "tok_norm": ((ADD, "return F.layer_norm(x + self.pos_embed, x.shape[-1:])"),),
    "tok_norm: tanh": ((ADD, "return torch.tanh(x + self.pos_embed)"),),
    "tok_norm: layer": (("super().__init__()", "super().__init__()\n        self.norm = nn.LayerNorm(embed_dim)"), (ADD, "return self.norm(x + self.pos_embed)")),
    "tok_dropout": ((ADD, "return F.dropout(x + self.pos_embed, 0.2)"),),
    "vit_cls_appended + tok_scaled": ((CAT, "torch.cat([x, cls], dim=1)"), (ADD, "return x + self.pos_embed * x.shape[-1] ** 0.5")),
    "vit_cls_added + tok_no_position": ((CAT, "torch.cat([cls, x + self.cls_token], dim=1)"), (ADD, "return x")),
    "vit_pos_not_on_cls + tok_norm": ((f"x = {CAT}", "x = x + self.pos_embed[:, 1:]"), (ADD, f"return F.layer_norm({CAT}, x.shape[-1:])")),
    "tok_cls_first_picture + tok_pos_shifted": ((EXPAND, "torch.cat([self.cls_token, torch.zeros_like(x[1:, :1])])"), (ADD, "return x + self.pos_embed.roll(1, 1)")),
    "tok_no_class_token + tok_pos_multiplied": ((EXPAND, "torch.ones_like(x[:, :1])"), (ADD, "return x * self.pos_embed")),
    "vit_cls_appended + tok_pos_twice": ((CAT, "torch.cat([x, cls], dim=1)"), (ADD, "return x + 2 * self.pos_embed")),
}  # fmt: skip

NEITHER = "You have no class token, or no positions, among the parameters; both should be there."
UNKNOWN = {
    "class token: its position": (
        "You make the first token of something else; it should be the class token plus its position.",
        (EXPAND, "(self.cls_token + self.pos_embed[:, :1] ** 2).expand(x.shape[0], -1, -1)"),
    ),
    "class token: cubed": (
        "You make the first token of something else; it should be the class token plus its position.",
        (EXPAND, "(self.cls_token ** 3).expand(x.shape[0], -1, -1)"),
    ),
    "position embedding: cubed": (
        "You make the patches' tokens of something else; each should be the patch plus its position.",
        (CAT, "torch.cat([cls, x ** 3], dim=1)"),
    ),
    "class token: shape": (
        "The result has another shape than (batch, 1 + patches, embed_dim).",
        (CAT, "torch.cat([cls, cls, x], dim=1)[:, :]"),
        (ADD, "return x"),
    ),
    "position embedding: a row short": (
        "You make a position for each patch, and none for the class token; there should be N + 1.",
        (POS, FEW),
    ),
    "class token: in the place of a patch": (
        "The result has another shape than (batch, 1 + patches, embed_dim).",
        (CAT, "torch.cat([cls, x[:, 1:]], dim=1)"),
        (ADD, "return x + self.pos_embed[:, 1:]"),
    ),
    "parameters: nothing": (
        NEITHER,
        (CLS, "None"),
        (POS, "None"),
        (f"x = {CAT}", ""),
        (f"cls = {EXPAND}", ""),
        (ADD, "return x"),
    ),
    "parameters: nothing, and it fails": (NEITHER, (CLS, "None"), (POS, "None")),
    "parameters: more": (
        "There are more parameters than a class token and a table of positions.",
        ("super().__init__()", "super().__init__()\n        self.more = nn.Linear(embed_dim, 3)"),
    ),
    "class token: a little too much": (
        "You make the first token of something else; it should be the class token plus its position.",
        (EXPAND, "1.0001 * self.cls_token.expand(x.shape[0], -1, -1)"),
    ),
    "position embedding: a little too much": (
        "You make the patches' tokens of something else; each should be the patch plus its position.",
        (ADD, "return x + 1.0001 * torch.cat([0.9999 * self.pos_embed[:, :1], self.pos_embed[:, 1:]], 1)"),
    ),
    "parameters: no value": (
        "You leave a parameter as it was found in memory",
        (CLS, "nn.Parameter(torch.empty(1, 1, embed_dim))"),
    ),
    "position embedding: bent": (
        "You make the patches' tokens of something else",
        (ADD, "return x + self.pos_embed.sin()"),
    ),
    "position embedding: a factor, too": ("You make the patches' tokens", (ADD, "return x * (1 + self.pos_embed)")),
    "class token: of some pictures": (
        "You make the first token right for some pictures of a batch only; it should be the same for all of them.",
        (EXPAND, "torch.cat([self.cls_token, self.cls_token + x[1:, :1]])"),
    ),
    "position embedding: chance": (
        "You let chance change the tokens, or their order, so that calls differ; in eval mode they should not.",
        (ADD, "return x * (1 + torch.rand_like(x)) + self.pos_embed"),
    ),
    "position embedding: shuffled": (
        "You let chance change the tokens, or their order",
        (ADD, "return x + self.pos_embed[:, torch.randperm(x.shape[1])]"),
    ),
    "class token: chance": ("You let chance change", (EXPAND, "torch.rand(1) * self.cls_token.expand(len(x), -1, -1)")),
    "class token: a parameter is changed": (
        "You change a parameter in forward; it should stay as it is until an optimizer changes it.",
        (
            f"cls = {EXPAND}",
            f"self.cls_token.data = self.cls_token.data + self.pos_embed.data[:, :1]\n        cls = {EXPAND}",
        ),
    ),
    "class token: a parameter is changed in place": (
        "You change a parameter in forward; it should stay as it is until an optimizer changes it.",
        (CAT, "torch.cat([cls.add_(self.pos_embed[:, :1]), x + self.pos_embed[:, 1:]], dim=1)"),
        (ADD, "return x"),
    ),
    "parameters: one table": (
        "You keep class token and positions in one table",
        (CLS, "None"),
        (EXPAND, "self.pos_embed[:1].expand(len(x), 1, -1)"),
        ("(1, num_patches + 1, embed_dim)", "(num_patches + 2, embed_dim)"),
        (ADD, "return x + self.pos_embed[1:]"),
    ),
    "class token: one picture has no batch": ("", (ADD, "return (x + self.pos_embed).squeeze(0)")),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name: str) -> None:
    assert outcome_of("tokens", RIGHT[name]) is None


@pytest.mark.parametrize("name", WRONG)
def test_known_mistakes_are_named(name: str) -> None:
    problem = outcome_of("tokens", edited(RIGHT_ONE, *WRONG[name]))
    assert problem and problem.mistake == name.partition(":")[0] and problem.evidence and len(problem.hints) > 1


@pytest.mark.parametrize("name", UNKNOWN)
def test_others_are_placed(name: str) -> None:
    says, *edits = UNKNOWN[name]
    problem = outcome_of("tokens", edited(RIGHT_ONE, *edits))
    assert problem and problem.mistake is None and problem.step == name.partition(":")[0]
    assert problem.what.startswith(says)


@pytest.mark.parametrize(
    ("mistake", "edit", "evidence"),
    [
        (
            "signature",
            ("(self, num_patches, embed_dim)", "(num_patches, embed_dim)"),
            "Tokens(num_patches=7, embed_dim=11) ends in TypeError: got an unexpected keyword argument 'num_patches'; "
            "Python gives the new object to the first argument, which is num_patches",
        ),
        (
            "signature",
            ("(self, num_patches, embed_dim)", "(self, num_patches, dim)"),
            "Tokens(num_patches=7, embed_dim=11) ends in TypeError: missing a required argument: 'dim'; yours takes "
            "(num_patches, dim)",
        ),
        (
            "no_module",
            ("(nn.Module):", ":"),
            "isinstance(Tokens(num_patches=7, embed_dim=11), nn.Module) is False; it should be True",
        ),
    ],
)
def test_what_is_no_layer_is_told(mistake: str, edit: tuple[str, str], evidence: str) -> None:
    problem = outcome_of("tokens", edited(RIGHT_ONE, edit))
    assert problem and (problem.mistake, problem.step, problem.evidence) == (mistake, "parameters", evidence)


def test_every_mistake_is_tried() -> None:
    assert {part for name in WRONG for part in name.partition(":")[0].split(" + ")} == MISTAKES.keys()


@pytest.mark.parametrize("shape", ["1, num_patches + 1, 1", "1, num_patches + 2, embed_dim"])
def test_a_table_of_another_shape_is_no_missing_one(shape: str) -> None:
    problem = outcome_of("tokens", edited(RIGHT_ONE, ("randn(1, num_patches + 1, embed_dim", f"randn({shape}")))
    assert problem and (problem.mistake, problem.step) == (None, "position embedding")
    assert problem.what.startswith("Your table of positions has another shape")
    assert problem.evidence.endswith("the shape should be (1, 8, 11)")


def test_a_table_whose_rows_stand_in_the_place_of_the_batch_is_told() -> None:
    problem = outcome_of("tokens", edited(RIGHT_ONE, ("randn(1, num_patches + 1", "randn(num_patches + 1, 1")))
    assert problem and (problem.mistake, problem.step) == (None, "position embedding")
    assert "where the tokens have the batch" in problem.what
    assert problem.evidence.endswith("the result is (8, 8, 11); expected (1, 8, 11); pos_embed is (8, 1, 11)")


def test_a_sum_in_place_on_the_callers_patches_is_told() -> None:
    edits = (
        (f"x = {CAT}", "x += self.pos_embed[:, 1:]\n        cls = cls + self.pos_embed[:, :1]"),
        (ADD, f"return {CAT}"),
    )
    problem = outcome_of("tokens", edited(RIGHT_ONE, *edits))
    assert problem and (problem.mistake, problem.step) == ("input_changed", "position embedding")
    assert problem.evidence.startswith(
        "x = draw(3, 7, 11, seed=3); _ = awaken(Tokens(num_patches=7, embed_dim=11))(x); x["
    )


def test_a_tensor_that_autograd_needs_as_it_was_is_the_students() -> None:
    text = edited(
        RIGHT_ONE,
        (
            ADD,
            "ones = torch.ones_like(x)\n        x = x * ones + self.pos_embed\n        ones.zero_()\n        return x",
        ),
    )
    problem = outcome_of("tokens", text)
    assert problem and (problem.mistake, problem.step) == ("input_changed", "position embedding")
    assert_reproduced(problem, text)


def test_an_error_of_some_inputs_says_which() -> None:
    with pytest.raises(RuntimeError, match="Sizes of tensors must match") as raised:
        outcome_of("tokens", edited(RIGHT_ONE, (EXPAND, "self.cls_token")))
    assert raised.value.step == "class token"  # type: ignore[attr-defined]
    assert raised.value.__notes__ == [
        "called as in awaken(Tokens(num_patches=7, embed_dim=11))(draw(3, 7, 11, seed=3))",
        "cat of (1, 1, 11) and (3, 7, 11)",
    ]
    with pytest.raises(RuntimeError) as raised:
        outcome_of("tokens", edited(RIGHT_ONE, (ADD, "return x + self.pos_embed[:, :8]")))
    assert raised.value.step == "position embedding"  # type: ignore[attr-defined]
    assert (
        raised.value.__notes__[0] == "called as in awaken(Tokens(num_patches=13, embed_dim=5))(draw(1, 13, 5, seed=1))"
    )


def test_an_error_in_init_says_for_which_sizes() -> None:
    with pytest.raises(AssertionError) as raised:
        outcome_of(
            "tokens", edited(RIGHT_ONE, ("super().__init__()", "super().__init__()\n        assert embed_dim > 5"))
        )
    assert raised.value.__notes__ == ["called as in Tokens(num_patches=13, embed_dim=5)"]


def test_a_buffer_in_single_precision_is_explained() -> None:
    text = edited(
        RIGHT_ONE,
        (
            ADD,
            "y = torch.zeros(x.shape)\n        y.index_copy_(1, torch.arange(x.shape[1]), x)\n        return y + self.pos_embed",
        ),
    )
    problem = outcome_of("tokens", text)
    assert problem and problem.mistake == "fixed_dtype"
    assert_reproduced(problem, text)


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in UNKNOWN if "chance" in name or "changed" in name),
        "class token: of some pictures",
        "class token: cubed",
    ],
)
def test_the_evidence_of_the_unforeseen_can_be_computed(name: str) -> None:
    text = edited(RIGHT_ONE, *UNKNOWN[name][1:])
    problem = outcome_of("tokens", text)
    assert problem
    assert_reproduced(problem, text)
    if name.startswith("class token") and "changed" not in name:
        assert re.search(r"\)\[\d, 0, \d+\] is ", problem.evidence)


def test_noise_in_the_place_of_positions_says_for_which_input() -> None:
    text = edited(RIGHT_ONE, *WRONG["vit_pos_random_each_forward"])
    problem = outcome_of("tokens", text)
    assert problem and problem.evidence.startswith(
        "awaken(Tokens(num_patches=7, embed_dim=11))(draw(3, 7, 11, seed=3))["
    )
    assert_reproduced(problem, text)


def test_positions_in_a_plain_list_are_told() -> None:
    rows = "[nn.Parameter(torch.randn(1, 1, embed_dim)) for _ in range(num_patches + 1)]"
    problem = outcome_of("tokens", edited(RIGHT_ONE, (POS, rows), (ADD, "return x + torch.cat(self.pos_embed, dim=1)")))
    assert problem and (problem.mistake, problem.step) == ("layers_in_plain_list", "parameters")
    assert problem.evidence.endswith("the parameters: cls_token (1, 1, 11)\nself.pos_embed is not registered")


def test_nothing_false_is_said_of_a_buffer() -> None:
    problem = outcome_of("tokens", edited(RIGHT_ONE, *WRONG["tok_not_parameter: buffer"]))
    assert problem and problem.evidence.endswith("; pos_embed (1, 8, 11) is a buffer")
    assert "saved" not in problem.what and "GPU" not in problem.what


def test_tokens_in_a_tuple_are_taken_out_of_it_in_the_evidence() -> None:
    text = edited(RIGHT_ONE, (ADD, "return x, self.pos_embed"))
    problem = outcome_of("tokens", text)
    assert problem and problem.mistake == "tok_no_position" and ")[0][" in problem.evidence
    assert_reproduced(problem, text)


def test_a_class_token_expanded_once_for_all_is_kept_from_a_call() -> None:
    kept = edited(RIGHT_ONE, (EXPAND, "self.__dict__.setdefault('kept', self.cls_token.expand(x.shape[0], -1, -1))"))
    problem = outcome_of("tokens", kept)
    assert problem and problem.mistake == "kept_from_a_call"
    assert "_ = m(draw(1, 7, 11, seed=1)); m(draw(3, 7, 11, seed=3)) ends in RuntimeError" in problem.evidence
