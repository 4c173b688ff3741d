"""Cutting pictures into patches, in every order of axes: the right one, and those of known mistakes."""

from collections.abc import Callable, Iterator
from itertools import permutations, product

from einops import rearrange
from torch import Tensor

from vitscratch.exercises.checks.naming import bank
from vitscratch.exercises.exercise import Mistake

Cut = Callable[[Tensor, int], Tensor]  # pictures (b, c, H, W), patch side -> (b, n, numbers of a patch)
AXES = ("rows", "columns", "c", "p", "q")  # in the right order; p and q are the row and column inside a patch
CHANNEL_LAST = "pe_channel_last"

MISTAKES = bank(
    Mistake(
        "pe_reshape_not_transpose",
        "You use a reshape where axes have to be permuted first: the shape is right, but a patch holds numbers "
        "of several places; it should hold those of one.",
        "cut",
        (
            "A reshape keeps the order in which numbers are read: it cuts the same sequence into other rows.",
            "Split height and width into (rows, p) and (columns, q), and look at the order of the axes then.",
            "Bring the axes into the order batch, rows, columns, channel, p, q before you merge them.",
        ),
    ),
    Mistake(
        "pe_split_reversed",
        "You split a side as (p, rows), so that a patch takes pixels from all over the picture, at even "
        "distances; split it as (rows, p), so that they are neighbours.",
        "cut",
        (
            "Which pixels of the first row of the picture are in patch 0? They should be neighbours.",
            "When a side of length rows * p is split, the faster axis, p, comes last.",
        ),
    ),
    Mistake(
        "pe_column_major",
        "You read the patches down the columns; they should be read row by row, like text.",
        "order of patches",
        (
            "Patch 1 is the one to the right of patch 0, not the one below it.",
            "In the merged axis of patches the row varies slowest: (rows columns), not (columns rows).",
        ),
    ),
    Mistake(
        "pe_pixels_transposed",
        "You swap height and width inside the patches: each patch comes out transposed; it should stay as it is.",
        "order of pixels",
        (
            "Look at one patch alone, as a picture: it is mirrored at its diagonal.",
            "Inside a patch the pixel's row varies more slowly than its column: p before q.",
        ),
    ),
    Mistake(
        CHANNEL_LAST,
        "Your flattened patch does not begin with all of channel 0; its order should be (channel, row, column), "
        "as in a convolution's weight. (The paper writes the channel last; this exercise does not.)",
        "order of pixels",
        (
            "The first p * p numbers of a patch are all of channel 0.",
            "Merge the axes of a patch in the order (c p q).",
        ),
    ),
)


def right(images: Tensor, patch: int) -> Tensor:
    """Patches row by row, each flattened as (channel, row, column): what exercise 1 asks for."""
    return _cut(AXES, "(rows p)", "(columns q)")(images, patch)


def wrong_cuts() -> Iterator[tuple[tuple[str, ...], Cut]]:
    """Every way to split, order and merge the axes of a picture but the right one, and the mistakes that it makes.

    The likely ones come first: right splits, and among those a single mistake.
    """
    found: list[tuple[tuple[str, ...], Cut]] = []
    for height, width in product(("(rows p)", "(p rows)"), ("(columns q)", "(q columns)")):
        for order in permutations(AXES):
            names = _mistakes(order, (height, width) != ("(rows p)", "(columns q)"))
            if names:
                found.append((names, _cut(order, height, width)))
    return iter(sorted(found, key=lambda pair: (pair[0][0] == "pe_split_reversed", len(pair[0]))))


def channel_last(images: Tensor, patch: int) -> Tensor:
    """The paper's order of pixels: (row, column, channel)."""
    return _cut(("rows", "columns", "p", "q", "c"), "(rows p)", "(columns q)")(images, patch)


def _cut(order: tuple[str, ...], height: str, width: str) -> Cut:
    def cut(images: Tensor, patch: int) -> Tensor:
        count = (images.shape[2] // patch) * (images.shape[3] // patch)
        pattern = f"b c {height} {width} -> b {' '.join(order)}"
        return rearrange(images, pattern, p=patch, q=patch).reshape(len(images), count, -1)

    return cut


def _mistakes(order: tuple[str, ...], split_reversed: bool) -> tuple[str, ...]:
    if split_reversed:
        return ("pe_split_reversed",)
    if set(order[:2]) != {"rows", "columns"}:
        return ("pe_reshape_not_transpose",)
    pixels = order[2:]
    return tuple(
        name
        for name, made in (
            ("pe_column_major", order[0] == "columns"),
            (CHANNEL_LAST, pixels[0] != "c"),  # moves numbers furthest: those of the evidence are its
            ("pe_pixels_transposed", pixels.index("q") < pixels.index("p")),
        )
        if made
    )
