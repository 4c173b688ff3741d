import re
from typing import Any

import pytest

from tests.exercises.students import edited, module, outcome_of, outcomes
from vitscratch.exercises.checks.compare import say
from vitscratch.exercises.checks.weight_conversion import MISTAKES
from vitscratch.exercises.exercise import Problem

RIGHT_ONE = """
import re
import torch

NAMES = {
    "conv_proj": "patch_embed.proj", "class_token": "cls_token", "encoder.pos_embedding": "pos_embed",
    "encoder.ln": "norm", "heads.head": "head",
}
BLOCK = {
    "ln_1": "norm1", "ln_2": "norm2", "self_attention.in_proj_weight": "attn.qkv.weight",
    "self_attention.in_proj_bias": "attn.qkv.bias", "self_attention.out_proj": "attn.proj",
    "mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2",
}

def rename(name):
    block = re.match(r"encoder[.]layers[.]encoder_layer_([0-9]+)[.](.*)", name)
    table, rest = (BLOCK, block[2]) if block else (NAMES, name)
    start = f"blocks.{block[1]}." if block else ""
    for theirs, ours in table.items():
        if rest == theirs or rest.startswith(theirs + "."):
            return start + ours + rest[len(theirs):]
    raise KeyError(name)

def convert_torchvision(state_dict):
    ours = {}
    for name, tensor in state_dict.items():
        name = name.removeprefix("module.")
        ours[rename(name)] = tensor
    return ours
"""
REPLACED = """
def convert_torchvision(state_dict):
    table = [("module.", ""), ("conv_proj", "patch_embed.proj"), ("class_token", "cls_token"), ("encoder.pos_embedding", "pos_embed"),
        ("encoder.layers.encoder_layer_", "blocks."), (".ln_", ".norm"), ("self_attention.in_proj_", "attn.qkv."),
        ("self_attention.out_proj", "attn.proj"), ("mlp.0", "mlp.fc1"), ("mlp.3", "mlp.fc2"), ("encoder.ln", "norm"), ("heads.head", "head")]
    out = {}
    for key, value in state_dict.items():
        for old, new in table:
            key = key.replace(old, new)
        out[key] = value.clone()
    return out
"""
ASSIGN = "ours[rename(name)] = tensor"
RIGHT = {"a table": RIGHT_ONE, "replace": REPLACED, "the library": '''
from vitscratch.weights.table import to_ours
from vitscratch.weights.torchvision import TORCHVISION
def convert_torchvision(state_dict):
    return to_ours(TORCHVISION, {name.removeprefix("module."): tensor for name, tensor in state_dict.items()})[0]
''', "float": edited(RIGHT_ONE, (ASSIGN, "ours |= {rename(name): tensor.detach().float()}"))}  # fmt: skip


def only(condition: str, change: str) -> tuple[str, str]:
    return ASSIGN, f"new = rename(name)\n        ours[new] = {change} if {condition} else tensor"


ALL = (
    "def convert",
    """def rename_all(name):
    try:
        return rename(name)
    except KeyError:
        return name

def convert""",
)
WRONG = {
    "cv_strict_false": ((ASSIGN, "ours[name] = tensor"),),
    "cv_strict_false: empty": ((ASSIGN, "pass"),),
    "cv_prefix_always": (('name.removeprefix("module.")', "name[7:]"), (ASSIGN, "ours[rename_all(name)] = tensor"), ALL),
    "cv_lstrip": ((ASSIGN, "ours[name.lstrip('module.')] = tensor"),),
    "cv_prefix": (('name.removeprefix("module.")', "name"),),
    "cv_prefix: kept": (('name = name.removeprefix("module.")', 'start = "module." * name.startswith("module.")'), (ASSIGN, 'ours[start + rename(name.removeprefix("module."))] = tensor')),
    "cv_prefix: added": ((ASSIGN, 'ours["module." + rename(name)] = tensor'),),
    "cv_block_number": (("([0-9]+)[.](.*)", "([0-9])[0-9]*[.](.*)"),),
    "cv_input_changed": ((ASSIGN, "ours[rename(name)] = tensor\n    state_dict.clear()"),),
    "cv_input_changed: in place": ((ASSIGN, "ours[rename(name)] = tensor.mul_(2)"),),
    "cv_input_changed: added": ((ASSIGN, "ours[rename(name)] = tensor\n    state_dict['more'] = tensor"),),
    "cv_kernel_layout": (only("tensor.ndim == 4", "tensor.permute(2, 3, 1, 0)"),),
    "cv_kernel_layout: square": (only("tensor.ndim == 4", "tensor.mT"),),
    "cv_transposed": (only("'attn.proj.weight' in new", "tensor.T"),),
    "cv_transposed: all": (only("tensor.ndim == 2", "tensor.T"),),
    "cv_norms_swapped": (('"ln_1": "norm1", "ln_2": "norm2"', '"ln_1": "norm2", "ln_2": "norm1"'),),
    "cv_mlp_swapped": (('"mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2"', '"mlp.0": "mlp.fc2", "mlp.3": "mlp.fc1"'),),
    "cv_qkv_order": (only("'qkv' in new", "torch.cat([tensor.chunk(3)[i] for i in (1, 0, 2)])"),),
    "cv_qkv_order: per head": (only("'qkv' in new", "torch.cat([tensor[0::3], tensor[1::3], tensor[2::3]])"),),
    "cv_block_order": ((ASSIGN, "ours[rename(name)] = tensor\n    kept = dict(ours)\n    for name in kept:\n        if name.startswith('blocks.0.'):\n            a, b = name, name.replace('blocks.0.', 'blocks.1.')\n            ours[a], ours[b] = kept[b], kept[a]"),),
    "cv_wrong_source: of the same block": (only("'norm1.weight' in new", "state_dict[name.replace('ln_1.weight', 'self_attention.out_proj.bias')]"),),
    "cv_wrong_source": (only("new == 'norm.weight'", "state_dict[name.replace('ln.weight', 'layers.encoder_layer_0.ln_1.weight')]"),),
}  # fmt: skip
UNKNOWN = {
    "values: scaled": (
        "pos_embed is not torchvision's.",
        only("'pos' in new", "tensor * 2"),
    ),
    "values: scaled qkv": ("blocks.0.attn.qkv.weight is not torchvision's.", only("'qkv' in new", "tensor * 2")),
    "shapes: squeezed": (
        "cls_token is not torchvision's.",
        only("'cls' in new", "tensor[0]"),
    ),
    "shapes: a list": (
        "cls_token is not torchvision's.",
        only("'cls' in new", "tensor.tolist()"),
    ),
    "names: one": (
        "Some of the names that you return are not ours, or some of ours are missing.",
        (ASSIGN, "ours[rename(name) if 'class' not in name else name] = tensor"),
    ),
    "names: made up": (
        "Some of the names that you return are not ours, or some of ours are missing.",
        (ASSIGN, "ours['my.' + name] = tensor"),
    ),
    "names: dropped": (
        "Some of the names that you return are not ours, or some of ours are missing.",
        (ASSIGN, "if 'bias' not in name: ours[rename(name)] = tensor"),
    ),
    "names: surplus": (
        "Some of the names that you return are not ours, or some of ours are missing.",
        ("return ours", "return ours | {'mlp.1': 0}"),
    ),
    "names: no dict": (
        "The result is no dict.",
        ("return ours", "return list(ours.items())"),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name: str) -> None:
    assert outcome_of("weight_conversion", RIGHT[name]) is None


@pytest.mark.parametrize("name", WRONG)
def test_known_mistakes_are_named(name: str) -> None:
    problem = outcome_of("weight_conversion", edited(RIGHT_ONE, *WRONG[name]))
    assert problem and problem.mistake == name.partition(":")[0] and problem.evidence and len(problem.hints) > 1


@pytest.mark.parametrize("name", UNKNOWN)
def test_others_are_placed(name: str) -> None:
    says, *edits = UNKNOWN[name]
    problem = outcome_of("weight_conversion", edited(RIGHT_ONE, *edits))
    assert problem and problem.mistake is None and problem.step == name.partition(":")[0]
    assert problem.what.startswith(says)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cv_input_changed", "cv_norms_swapped"),
        ("cv_lstrip", "cv_mlp_swapped"),
        ("cv_kernel_layout", "cv_norms_swapped"),
        ("cv_norms_swapped", "cv_mlp_swapped"),
        ("cv_mlp_swapped", "cv_prefix"),
    ],
)
def test_of_two_mistakes_the_first_is_told(first: str, second: str) -> None:
    edits = [edit for name in (second, first) for edit in WRONG[name]]
    problem = outcome_of("weight_conversion", edited(RIGHT_ONE, *edits))
    assert problem and problem.mistake == first


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cv_qkv_order", "its thirds are k, q, v"),
        ("cv_qkv_order: per head", "the numbers are the right ones, in another order"),
        ("cv_wrong_source", "these are the values that belong to blocks.0.norm1.weight"),
        ("cv_input_changed: added", "the given dict differs in more"),
    ],
)
def test_the_evidence_says_where_the_values_come_from(name: str, says: str) -> None:
    problem = outcome_of("weight_conversion", edited(RIGHT_ONE, *WRONG[name]))
    assert problem and problem.evidence.partition(". Try it: ")[0].endswith(says)


def typed(problem: Problem | None, text: str) -> tuple[str, Any]:
    """What the evidence says, and what a prompt prints for what is to be typed."""
    assert problem
    says, _, code = problem.evidence.partition(". Try it: ")
    *statements, last = code.split("; ")
    names = dict(vars(module(text)))
    exec("; ".join(statements), names)
    return says, eval(last, names)


@pytest.mark.parametrize("name", ["cv_transposed", "cv_norms_swapped", "cv_qkv_order"])
def test_the_evidence_can_be_typed(name: str) -> None:
    text = edited(RIGHT_ONE, *WRONG[name])
    says, printed = typed(outcome_of("weight_conversion", text), text)
    claim = re.match(r"in a model of 2 blocks, ([\w.]+) begins (.*?); expected", says)
    assert claim and say(printed) == claim[2]


@pytest.mark.parametrize(
    ("edits", "prints"),
    [
        (WRONG["cv_strict_false"], "conv_proj.weight"),
        (UNKNOWN["names: one"][1:], "blocks.0.norm1.weight"),
        (UNKNOWN["names: no dict"][1:], "<class 'list'>"),
        (UNKNOWN["shapes: squeezed"][1:], "torch.Size([1, 15])"),
        (UNKNOWN["shapes: a list"][1:], "[[["),
        (WRONG["cv_block_number"], "'blocks.1.norm2.bias'"),
        (WRONG["cv_prefix: kept"], "module.cls_token"),
        (WRONG["cv_prefix_always"], "n.weight"),
        (WRONG["cv_input_changed"], "conv_proj.weight"),
        (WRONG["cv_input_changed: in place"], "False"),
        (WRONG["cv_input_changed: added"], "{'more'}"),
    ],
)
def test_what_is_to_be_typed_prints_what_is_wrong(edits: tuple[tuple[str, str], ...], prints: str) -> None:
    text = edited(RIGHT_ONE, *edits)
    assert prints in str(typed(outcome_of("weight_conversion", text), text)[1])


def test_a_model_of_two_blocks_is_not_one_of_twelve() -> None:
    twelve = "ours[rename(name)] = tensor\n    state_dict['encoder.layers.encoder_layer_11.ln_1.bias']"
    problem = outcome_of("weight_conversion", edited(RIGHT_ONE, (ASSIGN, twelve)))
    assert problem and problem.step == "names" and problem.what.startswith("You convert a number of blocks of your own")
    assert "convert_torchvision(torchvision_weights(2)) ends in KeyError" in problem.evidence
    assert "the blocks of this model are 0 to 1" in problem.evidence
    with pytest.raises(KeyError) as caught:
        outcome_of("weight_conversion", edited(RIGHT_ONE, (ASSIGN, twelve.replace("_11.ln_1", "_1.ln_3"))))
    assert "in a model of 2 blocks" in caught.value.__notes__[0]


def test_numbers_that_are_rounded_are_told_as_that() -> None:
    rounded = edited(RIGHT_ONE, (ASSIGN, "ours[rename(name)] = tensor.half()"))
    problem = outcome_of("weight_conversion", rounded)
    assert problem and problem.step == "values" and "torchvision's but for rounding" in problem.what


def test_a_table_for_twelve_blocks_is_not_for_any_number() -> None:
    of_twelve = "if 'layer' not in name or any(f'layer_{i}.' in name for i in range(12)): ours[rename(name)] = tensor"
    problem = outcome_of("weight_conversion", edited(RIGHT_ONE, (ASSIGN, of_twelve)))
    assert problem and (problem.mistake, problem.step) == (None, "names")
    assert problem.evidence.startswith("for a model of 13 blocks, missing: blocks.12.")
    assert outcome_of("weight_conversion", edited(RIGHT_ONE, (ASSIGN, of_twelve.replace("12", "13")))) is None


def test_what_is_right_was_loaded_and_gave_the_same_logits() -> None:
    assert any(
        "loaded with strict=True, the logits of both models" in one.what
        for one in outcomes("weight_conversion", RIGHT_ONE)
    )


def test_every_mistake_is_tried() -> None:
    assert {name.partition(":")[0] for name in WRONG} == MISTAKES.keys()
