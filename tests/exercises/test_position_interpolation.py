import re

import pytest

from tests.exercises.students import edited, module, outcome_of
from vitscratch.exercises.checks.compare import say
from vitscratch.exercises.checks.position_interpolation import MISTAKES, rounded_sizes

RIGHT_ONE = """
import math
import torch
import torch.nn.functional as F
from einops import rearrange

def resize_position_embedding(pos_embed, old_grid, new_grid):
    cls, grid = pos_embed[:, :1], pos_embed[:, 1:]
    rows, columns = old_grid
    grid = grid.reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=tuple(new_grid), mode="bicubic")
    grid = grid.permute(0, 2, 3, 1).flatten(1, 2)
    return torch.cat([cls, grid], dim=1)
"""
READ, RESIZE = "grid.reshape(1, rows, columns, -1).permute(0, 3, 1, 2)", 'size=tuple(new_grid), mode="bicubic"'
FLAT, CAT = "grid.permute(0, 2, 3, 1).flatten(1, 2)", "torch.cat([cls, grid], dim=1)"
RIGHT = {
    "plain": (),
    "antialias": (('"bicubic"', '"bicubic", antialias=True'),),
    "corners": (('"bicubic"', '"bicubic", align_corners=True'),),
    "corners said": (('"bicubic"', '"bicubic", align_corners=False'),),
    "same grid returned": (("cls, grid =", "if tuple(old_grid) == tuple(new_grid):\n        return pos_embed\n    cls, grid ="),),
    "einops, in double": ((READ, 'rearrange(grid, "1 (r c) d -> 1 d r c", r=rows).double()'), (FLAT, 'rearrange(grid, "1 d r c -> 1 (r c) d").to(pos_embed.dtype)')),
}  # fmt: skip
WRONG = {
    "cv_pos_with_cls": ((CAT, "torch.cat([grid[:, :1], grid], dim=1)"),),
    "cv_pos_with_cls: miscounted": (("pos_embed[:, 1:]", "pos_embed[:, :-1]"),),
    "cv_pos_with_cls: one row": ((CAT, "F.interpolate(pos_embed.mT, size=1 + new_grid[0] * new_grid[1], mode='linear').mT"),),
    "cv_pos_cls_dropped": ((CAT, "grid"),),
    "cv_pos_cls_last": ((CAT, "torch.cat([grid, cls], dim=1)"),),
    "cv_pos_rounding": ((RESIZE, 'scale_factor=(new_grid[0] / rows, new_grid[1] / columns), mode="bicubic"'),),
    "cv_pos_square_only": (("rows, columns = old_grid", "rows = columns = int(math.sqrt(grid.shape[1]))"),),
    "cv_pos_square_only: new": (("size=tuple(new_grid)", "size=(new_grid[0], new_grid[0])"),),
    "cv_pos_square_only: the shorter side first": (("rows, columns = old_grid", "rows, columns = sorted(old_grid)"),),
    "cv_pos_rounding: and then it fails": ((RESIZE, 'scale_factor=(new_grid[0] / rows, new_grid[1] / columns), mode="bicubic"'), (FLAT, "grid.permute(0, 2, 3, 1).reshape(1, new_grid[0] * new_grid[1], grid.shape[1])")),
    "cv_pos_axes": (("columns, -1).permute(0, 3, 1, 2)", "columns, -1).permute(0, 3, 2, 1)"),),
    "cv_pos_axes: written": ((FLAT, "grid.permute(0, 3, 2, 1).flatten(1, 2)"),),
    "cv_pos_axes: read": (("reshape(1, rows, columns,", "reshape(1, columns, rows,"),),
    "cv_pos_grid_reshape": ((READ, "grid.reshape(1, -1, rows, columns)"),),
    "cv_pos_grid_reshape: back": ((FLAT, "grid.reshape(1, -1, pos_embed.shape[2])"),),
    "cv_pos_mode": (('"bicubic"', '"bilinear"'),),
    "cv_pos_mode: nearest-exact": (('"bicubic"', '"nearest-exact"'),),
    "cv_pos_mode: default": ((', mode="bicubic"', ""),),
    "cv_pos_axes + cv_pos_mode": (
        ("columns, -1).permute(0, 3, 1, 2)", "columns, -1).permute(0, 3, 2, 1)"),
        ('"bicubic"', '"bilinear"'),
    ),
    "cv_pos_grid_reshape + cv_pos_mode": ((READ, "grid.reshape(1, -1, rows, columns)"), (', mode="bicubic"', "")),
    "cv_pos_same_count": (("cls, grid =", "if pos_embed.shape[1] - 1 == new_grid[0] * new_grid[1]:\n        return pos_embed\n    cls, grid ="),),
    "cv_pos_scale": ((RESIZE, 'scale_factor=((new_grid[0] + 0.1) / rows, (new_grid[1] + 0.1) / columns), mode="bicubic"'),),
    "cv_pos_scale: timm's": ((RESIZE, 'scale_factor=((new_grid[0] + 0.1) / rows, (new_grid[1] + 0.1) / columns), mode="bicubic", antialias=True'),),
    "cv_pos_input_changed": (("cls, grid =", "pos_embed *= 1.5\n    cls, grid ="),),
}  # fmt: skip
RETURN = f"return {CAT}"
NOT_SAME = "The same grid does not give the same positions."
NOT_OLD = "The positions of the patches are not the old ones, interpolated."
UNKNOWN = {
    "grid: cut out of a square": (
        NOT_OLD,
        (RETURN, "if new_grid == (3, 3):\n        grid = pos_embed[:, 1:10]\n    " + RETURN),
    ),
    "interpolation: damped": (
        NOT_OLD,
        (CAT, "torch.cat([cls, 0.9 * grid], dim=1)"),
    ),
    "grid: shuffled": (
        NOT_OLD,
        (CAT, "torch.cat([cls, grid.flip(1)], dim=1)"),
    ),
    "interpolation: the same grid": (
        NOT_SAME,
        (RETURN, "if old_grid == new_grid:\n        grid = 2 * grid\n    " + RETURN),
    ),
    "interpolation: nothing for the same grid": (NOT_SAME, (RETURN, "if old_grid != new_grid:\n        " + RETURN)),
    "grid: shape": (
        "The result has another shape than (1, 1 + rows * columns, d).",
        (FLAT, "grid.flatten(2)"),
        (CAT, "grid[:, :, 1:]"),
    ),
    "interpolation: the same grid is scaled": (
        NOT_SAME,
        ("cls, grid =", "if tuple(old_grid) == tuple(new_grid):\n        return 1.01 * pos_embed\n    cls, grid ="),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name: str) -> None:
    assert outcome_of("position_interpolation", edited(RIGHT_ONE, *RIGHT[name])) is None


@pytest.mark.parametrize("method", ["timm", "torchvision"])
def test_the_library_passes(method: str) -> None:
    import_it = "from functools import partial\nfrom vitscratch.weights.resize import resize_position_embedding as it\n"
    assert (
        outcome_of("position_interpolation", f"{import_it}resize_position_embedding = partial(it, method='{method}')")
        is None
    )


@pytest.mark.parametrize("name", WRONG)
def test_known_mistakes_are_named(name: str) -> None:
    problem = outcome_of("position_interpolation", edited(RIGHT_ONE, *WRONG[name]))
    assert problem and problem.mistake == name.partition(":")[0] and problem.evidence and len(problem.hints) > 1


@pytest.mark.parametrize("name", UNKNOWN)
def test_others_are_placed(name: str) -> None:
    says, *edits = UNKNOWN[name]
    problem = outcome_of("position_interpolation", edited(RIGHT_ONE, *edits))
    assert problem and problem.mistake is None and problem.step == name.partition(":")[0]
    assert problem.what.startswith(says)


def test_an_error_is_told_where_the_first_grid_is_wrong_too() -> None:
    text = edited(RIGHT_ONE, (CAT, "torch.cat([cls, grid.view(1, 49, -1)], dim=1)[0]"))
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        outcome_of("position_interpolation", text)


def test_of_two_mistakes_in_different_steps_the_first_is_told() -> None:
    problem = outcome_of("position_interpolation", edited(RIGHT_ONE, *WRONG["cv_pos_cls_last"], *WRONG["cv_pos_mode"]))
    assert problem and problem.mistake == "cv_pos_cls_last"


@pytest.mark.parametrize("name", ["cv_pos_mode", "cv_pos_scale", "cv_pos_same_count", "cv_pos_cls_last", "cv_pos_axes"])
def test_the_evidence_can_be_typed(name: str) -> None:
    text = edited(RIGHT_ONE, *WRONG[name])
    problem = outcome_of("position_interpolation", text)
    assert problem
    call, _, says = problem.evidence.partition(": ")
    there = vars(module(text))
    exec(call, there)
    claims = re.findall(r"((?:found|pos_embed)\[\d+, \d+\]).*?(-?\d\.\d+)", says)
    assert claims and all(say(eval(where, there)).startswith(begins) for where, begins in claims), problem.evidence


def test_every_mistake_is_tried() -> None:
    assert {part for name in WRONG for part in name.partition(":")[0].split(" + ")} == MISTAKES.keys()


def test_some_sizes_are_rounded_down() -> None:
    assert len(rounded_sizes()) == 8
