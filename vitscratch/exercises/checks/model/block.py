"""What exercise 7 says of one block of the model."""

import re
from dataclasses import replace
from types import ModuleType

from torch import nn

from vitscratch.exercises.checks import encoder_block
from vitscratch.exercises.checks.anatomy import dissect
from vitscratch.exercises.checks.model.bank import BLOCKS
from vitscratch.exercises.checks.model.running import SIZES, model_code
from vitscratch.exercises.exercise import Problem

_OTHER_WIDTH = "You make the hidden layer of your blocks of another width than asked for; it should be mlp_dim wide."
_WIDTH_HINTS = (
    "Follow mlp_dim from the model's arguments to the layer: where is another number in its place?",
    "Look at the line that makes a block: are its arguments in the order EncoderBlock(embed_dim, num_heads, mlp_dim)? "
    "Inside, there is no 4 * embed_dim and no number.",
)


def block_problem(student: ModuleType) -> Problem | None:
    """What exercise 7 says of the model's block, taken alone."""

    def build(embed_dim: int, num_heads: int, mlp_dim: int) -> nn.Module:
        sizes = {**SIZES[0], "embed_dim": embed_dim, "num_heads": num_heads, "mlp_dim": mlp_dim}
        block = dissect(student.VisionTransformer(**sizes), sizes).blocks[0]
        return block

    alone = ModuleType(student.__name__)
    alone.__dict__.update(vars(student))
    alone.__dict__["EncoderBlock"] = build
    try:
        model = student.VisionTransformer(**SIZES[0])
        problem = next((outcome for outcome in encoder_block.check(alone) if isinstance(outcome, Problem)), None)
    except Exception:  # it needs the model around it
        return None
    if problem is None:
        return None
    return in_model(problem, _of_the_model(problem.evidence, model))


def in_model(problem: Problem, evidence: str) -> Problem:
    """What a block's check says, where the block is part of a model: its sizes come from a line of the model."""
    if problem.mistake in ("mlp_hidden_fixed", "mlp_hidden_is_embed"):
        problem = replace(problem, what=_OTHER_WIDTH, hints=_WIDTH_HINTS)
    return replace(problem, step=BLOCKS, evidence=evidence)


def _of_the_model(evidence: str, model: nn.Module) -> str:
    """The block that exercise 7 speaks of is one of a model."""
    block = dissect(model, SIZES[0]).blocks[0]
    path = next(name for name, module in model.named_modules() if module is block)

    def built_so(found: re.Match[str]) -> str:
        own = {name: int(size) for name, size in re.findall(r"(\w+)=(\d+)", found[1])}
        return f"{model_code({**SIZES[0], **own})}.get_submodule({path!r})"

    return re.sub(r"EncoderBlock\((.*?)\)", built_so, evidence)
