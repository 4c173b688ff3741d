"""Exercise 1: patchify."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from traceback import walk_tb
from types import ModuleType
from typing import Any

from torch import Tensor

from vitscratch.exercises.checks import compare, cutting
from vitscratch.exercises.checks.compare import difference, pixels, worst
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.checks.student import line_of, noted, raised, shape_of
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem

SIDE = r"p|ps|size|side|(p|patch|patches)_?(size|sides?|height|width|h|w|len|length)?"  # names for it
# batch, channels, rows and columns of patches, side of a patch: no two alike, and no side 16
SIZES = [(3, 2, 3, 5, 7), (1, 3, 5, 2, 4), (5, 4, 2, 3, 8)]

same = partial(compare.same, tolerance=0.0)  # numbers only move, and one by a column differs by 1 in a million
MISTAKES: dict[str, Mistake] = {
    **cutting.MISTAKES,
    "tok_global_name": Mistake(
        "tok_global_name",
        "You take the side of a patch from somewhere else (a global name, or a number such as 16); it should be the "
        "argument patch_size.",
        "cut",
        (
            "Try patches of another side than 16.",
            "Inside the function, use its arguments and nothing else.",
        ),
        section="Without loops",
    ),
    "pe_no_stride": Mistake(
        "pe_no_stride",
        "You move on by one pixel, so that the patches overlap; you should move on by a whole patch.",
        "cut",
        (
            "How many patches come out, and how many has the picture?",
            "unfold has an argument for it: the stride is as long as the patch.",
        ),
    ),
    "pe_detached": Mistake(
        "pe_detached",
        "You cut the patches off from the pictures' gradients (detach, .data, numpy or no_grad); gradients should "
        "pass.",
        "cut",
        (
            "Cutting moves numbers; a gradient has to find its way back through it.",
            "Stay in PyTorch: reshape, permute, unfold or einops, and no .detach(), .numpy() or torch.tensor().",
        ),
    ),
}


def check(student: ModuleType) -> Iterator[Outcome]:
    """Pictures in which every pixel's value says where it is, cut into patches."""
    pictures = [(pixels(b, c, rows * p, columns * p), p) for b, c, rows, columns, p in SIZES]
    found = []
    for images, patch in pictures:
        try:
            with noted(f"called as in {_code(images, patch)}", _again(student, images, patch), lambda *_: "cut"):
                found.append(student.patchify(images.clone(), patch))
        except Exception as error:
            if problem := _is_nowhere(error) or ignores_its_argument(student, images.shape[1]):
                yield problem
                return
            if _cuts_squares(student, images.shape[1], patch):
                yield _of_squares(f"{raised(_code(images, patch), error)}{line_of(error)}")
                return
            raise
    for (images, patch), patches in zip(pictures, found, strict=True):
        expected = cutting.right(images, patch)
        if not isinstance(patches, Tensor) or patches.shape != expected.shape:
            problem = ignores_its_argument(student, images.shape[1]) or _wrong_shape(images, patch, patches)
            squares = problem.mistake is None and _cuts_squares(student, images.shape[1], patch)
            yield _of_squares(problem.evidence) if squares else problem
            return
    yield Passed("patches come as (batch, patches, numbers of a patch), for pictures of any height and width")
    yield from _values(student, pictures, found)


def _cuts_squares(student: ModuleType, channels: int, patch: int) -> bool:
    """Whether square pictures, of two sizes, are cut as they should be."""
    pictures = [pixels(7, channels, side * patch, side * patch) for side in (2, 3)]
    try:
        return all(same(student.patchify(images, patch), cutting.right(images, patch)) for images in pictures)
    except Exception:
        return False


def _of_squares(evidence: str) -> Problem:
    return Problem(
        "You cut square pictures alone; height and width may differ.",
        evidence,
        "cut",
        (
            "A picture has H / p rows of patches and W / p columns: where does each of the two numbers come from?",
            "images.shape is (batch, channels, height, width): rows come from the height, columns from the width.",
        ),
    )


def _other_dtype(images: Tensor, patches: Tensor) -> str:
    """What to know before a layer in another precision calls this function; "" if the dtype is kept."""
    if patches.dtype == images.dtype:
        return ""
    return (
        f"they come out in {patches.dtype} where the pictures are in {images.dtype}: keep the "
        "pictures' dtype (`images.new_zeros(...)` in place of torch.zeros, no .float()), or a layer that is not in "
        "float32 (exercise 2 checks one) cannot read them"
    )


def _is_nowhere(error: Exception) -> Problem | None:
    """The side of the patch by a name that is nowhere; another such name is a slip, and the runner tells its line."""
    name = (error.name or "") if isinstance(error, NameError) else ""
    if not re.fullmatch(SIDE, name, re.IGNORECASE):
        return None
    *_, (_, line) = walk_tb(error.__traceback__)
    evidence = f"line {line}: NameError: {error}; {name} is not among the arguments"
    return named(MISTAKES, "tok_global_name", evidence)


def ignores_its_argument(student: ModuleType, channels: int) -> Problem | None:
    """The side of the patch is 16 whatever is asked for: right for 16, wrong for others."""
    images = pixels(7, channels, 32, 48)  # no batch that a student has in mind
    try:
        works = same(student.patchify(images, 16), cutting.right(images, 16))
    except Exception:
        return None
    return named(MISTAKES, "tok_global_name", "patchify(images, 16) is right, other sides are not") if works else None


def _again(student: ModuleType, images: Tensor, patch: int) -> Callable[[], Any]:
    return lambda: student.patchify(images.clone(), patch)


def _code(images: Tensor, patch: int) -> str:
    """How a student computes the patches."""
    return f"patchify(pixels({', '.join(map(str, images.shape))}), {patch})"


def _wrong_shape(images: Tensor, patch: int, patches: Any) -> Problem:
    batch, channels, height, width = images.shape
    expected = (batch, height * width // patch**2, channels * patch**2)
    evidence = (
        f"{_code(images, patch)} returns {shape_of(patches)}; it should return {expected}: "
        f"{height // patch} rows of {width // patch} patches of {channels} x {patch} x {patch}"
    )
    overlapping = (height - patch + 1) * (width - patch + 1)
    if isinstance(patches, Tensor) and patches.numel() == batch * overlapping * expected[2]:
        return named(MISTAKES, "pe_no_stride", evidence)
    return Problem(
        "The result has another shape than (batch, patches, numbers of a patch).",
        evidence,
        "cut",
        (
            "A picture of H x W pixels has (H / p) * (W / p) patches; each has c * p * p numbers.",
            "Split both sides with a reshape, permute the axes, then merge what belongs together.",
        ),
    )


def _values(student: ModuleType, pictures: list[tuple[Tensor, int]], found: list[Tensor]) -> Iterator[Outcome]:
    wrong = [
        (images, patch, patches)
        for (images, patch), patches in zip(pictures, found, strict=True)
        if not same(patches, cutting.right(images, patch))
    ]
    if not wrong:
        images, patch = pictures[0]
        yield Passed(
            "every pixel is where it belongs: patches row by row, pixels as (channel, row, column)",
            _other_dtype(images, found[0]),
        )
        code = _code(images, patch).replace("), ", ").requires_grad_(), ")
        try:
            patches = student.patchify(images.clone().requires_grad_(), patch)
        except RuntimeError as error:
            if "numpy()" not in str(error):
                raise
            says = str(error).partition(". Use")[0]  # it would advise to detach, which is the mistake
            yield named(MISTAKES, "pe_detached", f"{code} ends in RuntimeError: {says}")
            return
        if not patches.requires_grad:
            yield named(MISTAKES, "pe_detached", f"{code}.requires_grad is False; it should be True")
            return
        yield Passed("gradients find their way back to the pictures")
        return
    for names, cut in cutting.wrong_cuts():
        if all(same(patches, cut(images, patch)) for (images, patch), patches in zip(pictures, found, strict=True)):
            yield named(MISTAKES, names, _evidence(*wrong[0]))
            return
    yield _unknown(*wrong[0])


def _evidence(images: Tensor, patch: int, patches: Tensor) -> str:
    """Says it in pictures whose pixels know where they are.

    The first number of a patch is the same in every order of its pixels: it shows the order of the patches alone,
    which is told first.
    """
    expected = cutting.right(images, patch)
    count = 1 if not same(patches[..., :1], expected[..., :1]) else patches.shape[-1]
    apart = difference(patches[..., :count], expected[..., :count], _code(images, patch))
    row, column = divmod(worst(patches[..., :count], expected[..., :count])[1], images.shape[3] // patch)
    apart += f" (the patch in row {row}, column {column} of patches)"
    return f"{apart}\neach pixel says where it is: 1000000 batch + 10000 channel + 100 row + column"


def _unknown(images: Tensor, patch: int, patches: Tensor) -> Problem:
    """No known mistake: say whether the patches are cut wrongly, in a wrong order, or wrong inside."""
    expected = cutting.right(images, patch)
    sets, expected_sets = patches.sort(dim=-1).values, expected.sort(dim=-1).values
    if same(sets, expected_sets):
        what, step = "The numbers of each patch are the right ones, in a wrong order.", "order of pixels"
    elif same(_sorted_rows(sets), _sorted_rows(expected_sets)):
        inside = same(_sorted_rows(patches), _sorted_rows(expected))
        what = "The patches are the right ones, in a wrong order" + ("." if inside else ", and so are their pixels.")
        step = "order of patches"
    elif patches.flatten().argsort(stable=True).equal(expected.flatten().argsort(stable=True)):  # all in their places
        return Problem(
            "You change the numbers; a patch should hold the pixels of the picture as they are.",
            _evidence(images, patch, patches),
            "cut",
            (
                "Which line computes something with the pixels? Cutting only moves them.",
                "Pictures are normalised before, once for all, where the data is loaded; not here.",
            ),
        )
    else:
        what, step = "A patch holds numbers that are not those of its place in the picture.", "cut"
    return Problem(
        what,
        _evidence(images, patch, patches),
        step,
        (
            "Cut the picture of the evidence by hand: the second index names a patch. Which numbers belong in it?",
            "Patches go row by row; inside a patch first the channel, then the row, then the column varies slowest.",
        ),
    )


def _sorted_rows(sets: Tensor) -> Tensor:
    """Patches of each picture in the order of their smallest number, so that their own order does not matter."""
    order = sets[..., 0].argsort(dim=1)
    return sets.gather(1, order[..., None].expand_as(sets))
