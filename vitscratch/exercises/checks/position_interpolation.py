"""Exercise 9: position embeddings for another grid of patches."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vitscratch.exercises.checks.compare import say
from vitscratch.exercises.checks.naming import bank, named
from vitscratch.exercises.checks.spies import seeded
from vitscratch.exercises.checks.student import shape_of
from vitscratch.exercises.errors import message_of
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem

Grid = tuple[int, int]
Resize = Callable[[Tensor, Grid, Grid], Tensor]

WIDTH = 6
# The last has as many patches in the new grid as in the old one.
GRIDS: list[tuple[Grid, Grid]] = [
    ((4, 4), (7, 7)),
    ((7, 7), (3, 3)),
    ((3, 5), (5, 7)),
    ((5, 3), (4, 11)),
    ((7, 5), (3, 2)),
    ((3, 5), (5, 3)),
]

MISTAKES: dict[str, Mistake] = bank(
    Mistake(
        "cv_pos_with_cls",
        "You interpolate the class token's row with the others, or do not leave it as row 0; it should be set "
        "aside and put back as it was.",
        "class token",
        (
            "Compare row 0 before and after: it should be the same to the bit.",
            "Split pos_embed into its first row and the rest; resize the rest; concatenate.",
        ),
    ),
    Mistake(
        "cv_pos_cls_dropped",
        "You leave the class token's row out of the result; it should be row 0, as it was.",
        "class token",
        (
            "How many rows has the result? One more than the new grid has patches.",
            "Concatenate the row that you set aside, in front.",
        ),
    ),
    Mistake(
        "cv_pos_cls_last",
        "You put the class token's row back at the end; it should be row 0.",
        "class token",
        ("Where was it before?", "Mind the order of what you concatenate."),
    ),
    Mistake(
        "cv_pos_rounding",
        "You give the new size as a factor, and old * (new / old) is rounded down at some sizes: one row of "
        "patches too few; give the size itself.",
        "interpolation",
        (
            "In floating point, 49 * (1 / 49) is below 1. Try many sizes, not one.",
            "F.interpolate takes size=(rows, columns) instead of scale_factor.",
        ),
    ),
    Mistake(
        "cv_pos_scale",
        "You give the new size as a factor with a little added to it (as DINO's code does), so the positions are "
        "sampled beside their places; give the size itself.",
        "interpolation",
        (
            "Is new / old the factor that your call of F.interpolate gets?",
            "F.interpolate computes the places from the factor that it is given. With size=(rows, columns) it finds "
            "the right factor, and there is nothing to round.",
        ),
    ),
    Mistake(
        "cv_pos_square_only",
        "You guess the sides from the number of patches, which is right for square grids only; take them from "
        "the arguments.",
        "grid",
        (
            "3 x 5 patches are 15, and the square root of 15 is not 3.",
            "Take rows and columns from the arguments.",
        ),
    ),
    Mistake(
        "cv_pos_same_count",
        "You return the positions as they are when the new grid has as many patches as the old one; only the same "
        "rows and the same columns make it the same grid.",
        "grid",
        (
            "How many patches has a grid of 3 x 5, and how many one of 5 x 3?",
            "Compare the grids, not the numbers of patches; or leave the shortcut out.",
        ),
    ),
    Mistake(
        "cv_pos_axes",
        "You swap rows and columns somewhere; patches are stored row by row, and a grid should be (rows, columns).",
        "grid",
        (
            "Try a grid of 3 x 5 in which each position holds its own row number.",
            "Read the grid as (rows columns), resize to (new rows, new columns), and flatten it the same way.",
        ),
    ),
    Mistake(
        "cv_pos_grid_reshape",
        "You reshape the grid where axes have to be permuted, so that the numbers of a position are torn apart; "
        "they should stay together.",
        "grid",
        (
            "F.interpolate wants (1, d, rows, columns); you have (1, rows * columns, d).",
            "Split the grid first, then permute d to the second place; and permute it back before flattening.",
        ),
    ),
    Mistake(
        "cv_pos_mode",
        "You interpolate in another way; it should be bicubic.",
        "interpolation",
        ("Which mode is F.interpolate's default?", 'mode="bicubic" is what the paper\'s code and its heirs use.'),
    ),
    Mistake(
        "cv_pos_input_changed",
        "You change the input in place; it should stay as it is, for it is somebody else's tensor.",
        "grid",
        ("Compare pos_embed before and after the call.", "Make a new tensor; no operations that end in _."),
    ),
)
# plain (DINO), timm, torchvision
_RIGHT: tuple[dict[str, Any], ...] = (
    {},
    {"antialias": True},
    {"align_corners": True},
)


def check(student: ModuleType) -> Iterator[Outcome]:
    """Grids that grow and shrink, not all square; then many sizes."""
    runs: list[tuple[Tensor, Grid, Grid, Any]] = []
    for old, new in GRIDS:
        pos = _positions(old)
        given = pos.clone()
        try:
            found = student.resize_position_embedding(given, old, new)
        except Exception as error:
            if runs and _square_is_right(runs):
                yield named(
                    MISTAKES, "cv_pos_square_only", f"4 x 4 to 7 x 7 is right; {_call(old, new)}: {_line(error)}"
                )
                return
            error.add_note(_call(old, new))
            raise
        if not torch.equal(given, pos):
            yield named(MISTAKES, "cv_pos_input_changed", f"{_call(old, new)}: pos_embed is another after the call")
            return
        runs.append((pos, old, new, found))
    for _, old, new, found in runs:
        if problem := _shape_problem(old, new, found, runs):
            yield problem
            return
    yield Passed("the result is (1, 1 + rows * columns, d), for grids that are not square, too")
    yield from _values(student, runs)


def _positions(grid: Grid) -> Tensor:
    with seeded():
        return torch.randn(1, 1 + grid[0] * grid[1], WIDTH)


def _call(old: Grid, new: Grid) -> str:
    """What a student types to get the same numbers."""
    return (
        f"torch.manual_seed(0); pos_embed = torch.randn(1, {1 + old[0] * old[1]}, {WIDTH}); "
        f"found = resize_position_embedding(pos_embed, {old}, {new})"
    )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {message_of(error, 160)}"


def _close(found: Any, expected: Tensor) -> bool:
    """In float32, as the weights are."""
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    return bool(torch.allclose(found.to(expected.dtype), expected, rtol=1e-4, atol=1e-5))


def _square_is_right(runs: list[tuple[Tensor, Grid, Grid, Any]]) -> bool:
    return all(_is_right(*run) for run in runs if run[1][0] == run[1][1] and run[2][0] == run[2][1])


def _is_right(pos: Tensor, old: Grid, new: Grid, found: Any) -> bool:
    return any(_close(found, expected) for expected in _rights(pos, old, new))


def _rights(pos: Tensor, old: Grid, new: Grid) -> list[Tensor]:
    """Bicubic in each of the three forms in use."""
    return [_resize(pos, old, new, mode="bicubic", **form) for form in _RIGHT]


def _resize(pos: Tensor, old: Grid, new: Grid, **form: Any) -> Tensor:
    grid = rearrange(pos[:, 1:], "1 (rows columns) d -> 1 d rows columns", rows=old[0])
    return torch.cat([pos[:, :1], rearrange(F.interpolate(grid, size=new, **form), "1 d r c -> 1 (r c) d")], dim=1)


def _shape_problem(old: Grid, new: Grid, found: Any, runs: list[tuple[Tensor, Grid, Grid, Any]]) -> Problem | None:
    shape = (1, 1 + new[0] * new[1], WIDTH)
    if shape_of(found) == str(shape):
        return None
    evidence = f"{_call(old, new)}: found is {shape_of(found)}; expected {shape}"
    if isinstance(found, Tensor) and found.numel() == new[0] * new[1] * WIDTH:
        return named(MISTAKES, "cv_pos_cls_dropped", evidence)
    if (old[0] != old[1] or new[0] != new[1]) and _square_is_right(runs):
        return named(MISTAKES, "cv_pos_square_only", evidence)
    return Problem(
        "The result has another shape than (1, 1 + rows * columns, d).",
        evidence,
        "grid",
        ("One row for the class token, and one for every patch of the new grid.", "d stays as it is."),
    )


def _values(student: ModuleType, runs: list[tuple[Tensor, Grid, Grid, Any]]) -> Iterator[Outcome]:
    for pos, old, new, found in runs:
        if not _close(found[:, 0], pos[:, 0]):
            name = "cv_pos_cls_last" if _close(found[:, -1], pos[:, 0]) else "cv_pos_with_cls"
            apart = f"pos_embed[0, 0] begins {say(pos[0, 0])} and found[0, 0] {say(found[0, 0])}"
            yield named(MISTAKES, name, f"{_call(old, new)}: {apart}")
            return
    yield Passed("the class token's row is untouched")
    if not all(_is_right(*run) for run in runs):
        yield _wrong_values(runs)
        return
    yield Passed("the positions of the patches are interpolated, bicubic, in the right order")
    yield from _many_sizes(student)


def _wrong_values(runs: list[tuple[Tensor, Grid, Grid, Any]]) -> Problem:
    pos, old, new, found = next(run for run in runs if not _is_right(*run))
    right = _rights(pos, old, new)[0]
    place = (found - right).abs().amax(dim=-1)[0].argmax().item()
    row, column = divmod(int(place) - 1, new[1])
    evidence = (
        f"{_call(old, new)}: found[0, {int(place)}], of row {row}, column {column}, begins "
        f"{say(found[0, int(place)])}; expected {say(right[0, int(place)])} (align_corners=False; antialias=True or "
        "align_corners=True are right, too)"
    )
    as_many = {run[1:3] for run in runs if run[0].shape == run[3].shape}
    if all(_close(run[3], run[0]) if run[1:3] in as_many else _is_right(*run) for run in runs):
        return named(MISTAKES, "cv_pos_same_count", evidence)
    for names, wrong in _wrongs():
        if all(_close(found, wrong(pos, old, new)) for pos, old, new, found in runs):
            return named(MISTAKES, names, evidence)
    if _square_is_right(runs):
        return named(MISTAKES, "cv_pos_square_only", evidence)
    bands = _rows_alone(pos, old, new, found)
    return Problem(
        "The positions of the patches are not the old ones, interpolated.",
        evidence,
        "interpolation" if bands else "grid",
        (
            "Resize a grid in which each position holds its own row number: what comes out?",
            "(1, rows * columns, d) to (1, d, rows, columns), bicubic F.interpolate, and the same way back.",
        ),
    )


def _rows_alone(pos: Tensor, old: Grid, new: Grid, found: Tensor) -> bool:
    """Whether a position's numbers at least stay within a little of the range of the old ones, channel by channel."""
    low, high = pos[:, 1:].amin(1), pos[:, 1:].amax(1)
    slack = 0.5 * (high - low)
    inside = (found[:, 1:].amin(1) > low - slack) & (found[:, 1:].amax(1) < high + slack)
    nearest = _rights(pos, old, new)[0]
    return bool(inside.all()) and float((found - nearest).abs().mean()) < 0.5 * float(pos.std())


def _wrongs() -> Iterator[tuple[tuple[str, ...], Resize]]:
    """Known mistakes in each form of interpolation, and then two at once."""
    modes: list[dict[str, Any]] = [{"mode": mode} for mode in ("nearest", "nearest-exact", "area")]
    modes += [{"mode": "bilinear", **form} for form in _RIGHT]
    for form in modes:
        yield ("cv_pos_mode",), partial(_resize, **form)
    for form in ({"mode": "bicubic", **right} for right in _RIGHT):
        for name, misread in _misreadings(form):
            yield (name,), misread
        yield ("cv_pos_with_cls",), partial(_miscounted, **form)
        if "align_corners" not in form:
            yield from ((("cv_pos_scale",), partial(_scaled, added=added, **form)) for added in (0.1, 1e-2, 1e-4))
    for form in modes:
        for name, misread in _misreadings(form):
            yield (name, "cv_pos_mode"), misread


def _miscounted(pos: Tensor, old: Grid, new: Grid, **form: Any) -> Tensor:
    """The grid begins at row 0, the class token's."""
    return torch.cat([pos[:, :1], _resize(torch.cat([pos[:, :1], pos[:, :-1]], dim=1), old, new, **form)[:, 1:]], dim=1)


def _scaled(pos: Tensor, old: Grid, new: Grid, added: float, **form: Any) -> Tensor:
    """Interpolated by a factor that is a little larger than new / old."""
    grid = rearrange(pos[:, 1:], "1 (rows columns) d -> 1 d rows columns", rows=old[0])
    factors = tuple((side + added) / before for side, before in zip(new, old, strict=True))
    found = F.interpolate(grid, scale_factor=factors, **form)
    return torch.cat([pos[:, :1], rearrange(found, "1 d r c -> 1 (r c) d")], dim=1)


_READS = ("rows", "columns", "swapped", "torn")
_WRITES = ("rows", "columns", "torn")


def _misreadings(form: dict[str, Any]) -> Iterator[tuple[str, Resize]]:
    """Every way to read, resize and write the grid but the right one."""
    for read, swap_size, write in product(_READS, (False, True), _WRITES):
        if (read, swap_size, write) != ("rows", False, "rows"):
            name = "cv_pos_grid_reshape" if "torn" in (read, write) else "cv_pos_axes"
            yield name, _misread(read, swap_size, write, form)


def _misread(read: str, swap_size: bool, write: str, form: dict[str, Any]) -> Resize:
    def resize(pos: Tensor, old: Grid, new: Grid) -> Tensor:
        patches = pos[:, 1:]
        grid = {
            "rows": lambda: rearrange(patches, "1 (r c) d -> 1 d r c", r=old[0]),
            "columns": lambda: rearrange(patches, "1 (c r) d -> 1 d r c", r=old[0]),
            "swapped": lambda: rearrange(patches, "1 (r c) d -> 1 d r c", r=old[1]),
            "torn": lambda: patches.reshape(1, -1, *old),
        }[read]()
        out = F.interpolate(grid, size=new[::-1] if swap_size else new, **form)
        flat = {
            "rows": lambda: rearrange(out, "1 d r c -> 1 (r c) d"),
            "columns": lambda: rearrange(out, "1 d r c -> 1 (c r) d"),
            "torn": lambda: out.reshape(1, -1, pos.shape[2]),
        }[write]()
        return torch.cat([pos[:, :1], flat], dim=1)

    return resize


def _many_sizes(student: ModuleType) -> Iterator[Outcome]:
    """Sizes at which a factor is rounded down, and the same grid, at which nothing may change."""
    pos = _positions((3, 5))
    same = student.resize_position_embedding(pos.clone(), (3, 5), (3, 5))
    if not _close(same, pos):
        apart = f"found is {shape_of(same)}"
        if shape_of(same) == shape_of(pos):
            apart = f"pos_embed[0, 1] begins {say(pos[0, 1])} and found[0, 1] {say(same[0, 1])}"
        yield Problem(
            "The same grid does not give the same positions.",
            f"{_call((3, 5), (3, 5))}: {apart}",
            "interpolation",
            ("Interpolation at the old places gives the old values.", "If the grids are equal, return pos_embed."),
        )
        return
    yield Passed("the same grid gives the same positions")
    for old, new in rounded_sizes():
        pos = _positions(old)
        shape = (1, 1 + new[0] * new[1], WIDTH)
        try:
            found = shape_of(student.resize_position_embedding(pos, old, new))
        except RuntimeError as error:
            found = _line(error)
        if found != str(shape):
            yield named(MISTAKES, "cv_pos_rounding", f"{_call(old, new)}: found is {found}; expected {shape}")
            return
    yield Passed("the size is right for every grid that was tried")


def rounded_sizes() -> list[tuple[Grid, Grid]]:
    """Grids whose sides come out too short by `int(old * (new / old))`."""
    sides = [(old, new) for old in range(2, 30) for new in range(2, 60) if int(old * (new / old)) < new][:4]
    return [((old, 3), (new, 4)) for old, new in sides] + [((3, old), (4, new)) for old, new in sides]
