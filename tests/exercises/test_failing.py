"""A student's code that ends with an exception is told the step that it is in, and the shapes that did not fit."""

from pathlib import Path

import pytest

from tests.exercises import test_attention, test_mlp
from tests.exercises import test_multi_head_self_attention as test_heads
from tests.exercises import test_vision_transformer as test_model
from tests.exercises.students import edited, outcomes
from tests.exercises.test_encoder_block import EQ2, EQ3, FROM_LIBRARY
from tests.exercises.test_encoder_block import RIGHT as BLOCK
from vitscratch.exercises import check

HEADS, MODEL = test_heads.RIGHT, test_model.LIBRARY
FAILS = {
    "attention, scores": (test_attention.RIGHT, ("q @ k.transpose(-2, -1)", "q @ k")),
    "attention, weighted mean": (test_attention.RIGHT, ("weights @ v", "weights @ v.mT")),
    "attention, softmax": (test_attention.RIGHT, ("softmax(dim=-1)", "softmax(dim=7)")),
    "attention, weighted mean, no product": (test_attention.RIGHT, ("weights @ v", "weights * v")),
    "attention, softmax, by hand": (test_attention.RIGHT, ("scores.softmax(dim=-1)", "scores.exp() / scores.exp().sum(-1)")),
    "multi_head_self_attention, queries; keys and values": (HEADS, ("self.to_q(x)", "self.to_q(x.mT)")),
    "multi_head_self_attention, heads": (HEADS, ("self.h, self.k).transpose", "self.h, self.k + 1).transpose")),
    "multi_head_self_attention, scores": (HEADS, (test_heads.SCORES, "scores = q @ k")),
    "multi_head_self_attention, weighted mean": (HEADS, (test_heads.MIX, "z = weights @ v.mT")),
    "multi_head_self_attention, merging heads": (HEADS, ("z.transpose(1, 2).reshape", "z.transpose(1, 2).view")),
    "multi_head_self_attention, output projection": (HEADS, ("self.out(merged)", "self.out(merged.mT)")),
    "mlp, first layer": (test_mlp.RIGHT, ("self.a(x)", "self.a(x.mT)")),
    "mlp, second layer": (test_mlp.RIGHT, ("self.b(hidden)", "self.b(hidden.mT)")),
    "encoder_block, norms": (FROM_LIBRARY, ("self.ln_1(x)", "self.ln_1(x.mT)")),
    "encoder_block, attention": (BLOCK, (test_heads.SCORES, "scores = q @ k")),
    "encoder_block, first residual": (FROM_LIBRARY, (EQ2, EQ2.replace("x = x +", "x = x.mT +"))),
    "encoder_block, MLP": (FROM_LIBRARY, ("self.mlp(self.ln_2(x))", "self.mlp(self.ln_2(x).mT)")),
    "encoder_block, second residual": (FROM_LIBRARY, (EQ3, EQ3.replace("x = x +", "x = x.mT +"))),
    "vision_transformer, patch embedding": (test_model.OWN, ("self.patch_embed(images)", "self.patch_embed(images.flatten(2))")),
    "vision_transformer, class token": (MODEL, ("torch.cat([cls, x], dim=1)", "torch.cat([cls, x], dim=2)")),
    "vision_transformer, position embedding": (MODEL, ("x + self.pos_embed", "x + self.pos_embed.mT")),
    "vision_transformer, encoder blocks": (MODEL, ("x = block(x)", "x = block(x[:, :, 1:])")),
    "vision_transformer, final norm": (MODEL, ("self.norm(x)", "self.norm(x.mT)")),
    "vision_transformer, head": (MODEL, ("self.head(x[:, 0])", "self.head(x[:, 0].mT)")),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILS)
def test_the_step_and_the_shapes_of_an_exception(name: str) -> None:
    exercise, step, *_ = name.split(", ")
    text, edit = FAILS[name]
    with pytest.raises((RuntimeError, IndexError, ValueError)) as raised:
        outcomes(exercise, edited(text, edit))
    assert getattr(raised.value, "step", "") == step.replace(";", ",")
    notes = raised.value.__notes__
    assert notes[0].startswith("called as in ") and " of (" in notes[1]


def test_it_is_in_the_report(tmp_path: Path) -> None:
    path = tmp_path / "mlp.py"
    path.write_text(edited(test_mlp.RIGHT, ("self.b(hidden)", "self.b(hidden.mT)")))
    report = check(path)
    assert f"(to see it yourself: vitscratch exercises try {path})" in report.text()
    problem = report.problem
    assert problem is not None and problem.step == "second layer"
    line, called, shapes = problem.evidence.splitlines()
    assert line == "mlp.py, line 15: `return self.b(hidden.mT)`"
    assert called == "called as in awaken(MLP(embed_dim=13, mlp_dim=29))(draw(3, 6, 13))"
    assert shapes == "linear of (3, 29, 6) and (13, 29) and (13,)"


def test_a_warning_that_is_shown_is_about_a_line_of_the_students(tmp_path: Path) -> None:
    """torch warns of a softmax without an axis; it is called once more, from a line of the checker's."""
    path = tmp_path / "04_attention.py"
    edit = ("softmax(dim=-1)", "softmax(dim=7)")
    code = edited(test_attention.RIGHT, edit).replace(
        "(q, k, v):\n", "(q, k, v):\n    torch.nn.functional.softmax(q)\n"
    )
    path.write_text(code)
    report = check(path)
    assert report.status == "wrong" and "04_attention.py:" in report.printed and "UserWarning" in report.printed
    assert "failing.py" not in report.printed, report.printed


def test_an_exception_of_no_tensors_has_no_step() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        outcomes("mlp", edited(test_mlp.RIGHT, ("return self.b(hidden)", "return 1 // 0")))
    assert not hasattr(raised.value, "step")
