import re

import pytest

from tests.exercises.students import edited, outcome_of, outcomes
from vitscratch.exercises import Passed
from vitscratch.exercises.checks.patchify import MISTAKES

HEAD = "import torch\nimport torch.nn.functional as F\nfrom einops import rearrange\n"
VIEW = (
    HEAD
    + """
def patchify(images, patch_size):
    b, c, height, width = images.shape
    p = patch_size
    rows, columns = height // p, width // p
    x = images.reshape(b, c, rows, p, columns, p)
    x = x.permute(0, 2, 4, 1, 3, 5)
    return x.reshape(b, rows * columns, c * p * p)
"""
)
EINOPS = (
    HEAD
    + """
def patchify(images, patch_size):
    return rearrange(images, "b c (r p) (s q) -> b (r s) (c p q)", p=patch_size, q=patch_size)
"""
)
RIGHT = {
    "view and permute": VIEW,
    "einops": EINOPS,
    "F.unfold": HEAD
    + """
def patchify(images, patch_size):
    return F.unfold(images, kernel_size=patch_size, stride=patch_size).transpose(1, 2)
""",
    "Tensor.unfold": HEAD
    + """
def patchify(images, patch_size):
    x = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return x.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
""",
    "loops": HEAD
    + """
def patchify(images, patch_size=16, verbose=False):
    patches = []
    for y in range(0, images.shape[2], patch_size):
        for x in range(0, images.shape[3], patch_size):
            patches.append(images[:, :, y : y + patch_size, x : x + patch_size].flatten(1))
    return torch.stack(patches, dim=1)
""",
    "chunks": HEAD
    + """
def patchify(images, patch_size):
    rows = images.split(patch_size, dim=2)
    return torch.stack([part.flatten(1) for row in rows for part in row.split(patch_size, dim=3)], dim=1)
""",
    "the library": "from vitscratch.patches import patchify",
    "filled": HEAD
    + """
def patchify(images, patch_size):
    b, c, height, width = images.shape
    p = patch_size
    patches = torch.zeros(b, (height // p) * (width // p), c * p * p)
    places = [(y, x) for y in range(0, height, p) for x in range(0, width, p)]
    for i, (y, x) in enumerate(places):
        patches[:, i] = images[:, :, y : y + p, x : x + p].flatten(1)
    return patches
""",
}
PERMUTE = "x = x.permute(0, 2, 4, 1, 3, 5)"
WRONG = {
    "pe_no_stride": (RIGHT["F.unfold"], (", stride=patch_size", "")),
    "pe_reshape_not_transpose: no permute": (VIEW, (PERMUTE, "")),
    "pe_reshape_not_transpose: unfolded": (VIEW, (PERMUTE, "x = x.permute(0, 1, 2, 4, 3, 5)")),
    "pe_reshape_not_transpose: F.unfold": (
        RIGHT["F.unfold"],
        (".transpose(1, 2)", ".reshape(len(images), -1, images.shape[1] * patch_size ** 2)"),
    ),
    "pe_split_reversed": (EINOPS, ("(r p) (s q)", "(p r) (q s)")),
    "pe_column_major": (VIEW, ("0, 2, 4, 1", "0, 4, 2, 1")),
    "pe_column_major: loops": (EINOPS, ("(r s)", "(s r)")),
    "pe_pixels_transposed": (VIEW, ("1, 3, 5", "1, 5, 3")),
    "pe_channel_last": (EINOPS, ("(c p q)", "(p q c)")),
    "pe_column_major + pe_pixels_transposed": (EINOPS, ("rearrange(images", "rearrange(images.mT")),
    "pe_channel_last + pe_pixels_transposed": (EINOPS, ("(c p q)", "(q p c)")),
    "tok_global_name": (VIEW, ("p = patch_size", "p = 16")),
    "tok_global_name: nowhere": (VIEW, ("p = patch_size", "p = PATCH_SIZE")),
    "tok_global_name: of the file": (VIEW, ("p = patch_size", "p = size"), ("def ", "size = 16\ndef ")),
    "pe_detached": (VIEW, ("images.reshape", "images.detach().reshape")),
    "pe_detached: numpy": (VIEW, ("images.reshape", "torch.from_numpy(images.numpy()).reshape")),
}
NOT_ITS = "A patch holds numbers that are not those of its place in the picture."
UNKNOWN = {  # the step that is wrong; what is said, the right file, and edits
    "cut: rolled": (NOT_ITS, EINOPS, ("rearrange(images", "rearrange(images.roll(1, 3)")),
    "cut: one picture for all": (NOT_ITS, EINOPS, ("rearrange(images", "rearrange(images[:1].expand_as(images)")),
    "cut: no batch": (
        "The result has another shape than (batch, patches, numbers",
        EINOPS,
        ("b (r s) (c p q)", "(b r s) (c p q)"),
    ),
    "order of patches: backwards": (
        "The patches are the right ones, in a wrong order.",
        EINOPS,
        ("q=patch_size)", "q=patch_size).flip(1)"),
    ),
    "order of pixels: upside down": (
        "The numbers of each patch are the right ones, in a wrong",
        EINOPS,
        ("q=patch_size)", "q=patch_size).flip(2)"),
    ),
    "order of patches: mirrored": (
        "The patches are the right ones, in a wrong order, and so are their pixels.",
        EINOPS,
        ("rearrange(images", "rearrange(images.flip(3)"),
    ),
    "cut: doubled": ("You change the numbers", EINOPS, ("q=patch_size)", "q=patch_size) * 2")),
    "cut: squares, an error": (
        "You cut square pictures alone",
        VIEW,
        ("b, c, height, width = images.shape", "b, c, height, _ = images.shape; width = height"),
    ),
    "cut: squares, another shape": (
        "You cut square pictures alone",
        EINOPS,
        (
            "rearrange(images",
            "rearrange(images[..., :images.shape[3] - images.shape[3] % images.shape[2]][..., :images.shape[2]]",
        ),
    ),
    "cut: normalised": ("You change the numbers", EINOPS, ("rearrange(images", "rearrange((images - 0.5) / 0.5")),
    "cut: negative": (NOT_ITS, EINOPS, ("q=patch_size)", "q=patch_size) * -1")),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name: str) -> None:
    assert outcome_of("patchify", RIGHT[name]) is None


@pytest.mark.parametrize(("name", "dtype"), [("loops", None), ("filled", "torch.float32")])
def test_another_dtype_than_the_pictures_is_said_not_refused(name: str, dtype: str | None) -> None:
    said = [one.but for one in outcomes("patchify", RIGHT[name]) if isinstance(one, Passed) and one.but]
    assert len(said) == (dtype is not None)
    assert all(f"{dtype} where the pictures are in torch.float64" in but for but in said)


@pytest.mark.parametrize("name", WRONG)
def test_known_mistakes_are_named(name: str) -> None:
    source, *edits = WRONG[name]
    problem = outcome_of("patchify", edited(source, *edits))
    assert problem and problem.mistake == name.partition(":")[0] and problem.evidence and len(problem.hints) > 1


def test_a_name_that_is_nowhere_is_told() -> None:
    problem = outcome_of("patchify", edited(VIEW, ("p = patch_size", "p = PATCH_SIZE")))
    assert problem and problem.evidence.endswith("; PATCH_SIZE is not among the arguments")


@pytest.mark.parametrize("name", UNKNOWN)
def test_others_are_placed(name: str) -> None:
    says, source, *edits = UNKNOWN[name]
    problem = outcome_of("patchify", edited(source, *edits))
    assert problem and problem.mistake is None and problem.step == name.partition(":")[0]
    assert problem.what.startswith(says)


@pytest.mark.parametrize("slip", [("images.reshape", "image.reshape"), ("c * p", "C * p"), ("rows, p", "rwos, p")])
def test_a_name_that_is_not_the_sides_is_a_slip(slip: tuple[str, str]) -> None:
    with pytest.raises(NameError) as raised:  # the runner tells its line
        outcome_of("patchify", edited(VIEW, slip))
    assert raised.value.__notes__ == ["called as in patchify(pixels(3, 2, 21, 35), 7)"]


@pytest.mark.parametrize("name", ["p", "P", "PATCH", "patch_height"])
def test_the_side_by_a_name_that_is_nowhere_is_told_with_its_line(name: str) -> None:
    problem = outcome_of("patchify", edited(VIEW, ("    p = patch_size\n", ""), ("height // p", f"height // {name}")))
    assert problem and problem.mistake == "tok_global_name"
    assert problem.evidence == f"line 7: NameError: name '{name}' is not defined; {name} is not among the arguments"


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(s r) (p q c)", "[0, 2, 0] is 1400; it should be 14"),
        ("(r s) (q p c)", "[0, 0, 13] is 10600; it should be 106"),
    ],
)
def test_the_number_shown_is_that_of_the_mistake_told_first(pattern: str, says: str) -> None:
    problem = outcome_of("patchify", edited(EINOPS, ("(r s) (c p q)", pattern)))
    assert problem
    number, meaning = problem.evidence.splitlines()
    assert number.startswith(f"patchify(pixels(3, 2, 21, 35), 7){says} (the patch in row ")
    assert meaning == "each pixel says where it is: 1000000 batch + 10000 channel + 100 row + column"


def test_the_patch_that_is_shown_is_told_by_its_place() -> None:
    slices = "images[:, :, y : y + patch_size, x : x + patch_size]"
    problem = outcome_of("patchify", edited(RIGHT["loops"], (slices, "images[:, :, :patch_size, x : x + patch_size]")))
    assert problem is not None
    first, *_ = problem.evidence.splitlines()
    index, row, column = map(int, re.search(r"\)\[\d, (\d+), .*row (\d), column (\d) of patches", first).groups())  # type: ignore[union-attr]
    assert (row, column) == divmod(index, 5) and row > 0  # 21 x 35 px, in patches of 7: the first row is right


def test_numpys_advice_to_detach_is_not_passed_on() -> None:
    problem = outcome_of("patchify", edited(VIEW, ("images.reshape", "torch.from_numpy(images.numpy()).reshape")))
    assert problem and problem.evidence == (
        "patchify(pixels(3, 2, 21, 35).requires_grad_(), 7) ends in RuntimeError: Can't call numpy() on Tensor that "
        "requires grad"
    )


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("list(found.unbind(1))", "a list of (3, 98) and (3, 98) and (3, 98) and 12 more;"),
        ("found.numpy()", "an ndarray;"),
        ("iter(found)", "a generator;"),
    ],
)
def test_what_is_no_tensor_is_said_in_few_words(returned: str, says: str) -> None:
    returned = f"    return {returned.replace('iter(found)', '(one for one in found)')}\n"
    problem = outcome_of("patchify", edited(EINOPS, ("    return ", "    found = ")) + returned)
    assert problem and f"returns {says} it should return (3, 15, 98)" in problem.evidence


def test_every_mistake_is_tried() -> None:
    assert {part for name in WRONG for part in name.partition(":")[0].split(" + ")} == MISTAKES.keys()


def test_an_error_of_some_pictures_says_which_and_where() -> None:
    edit = ("rows, columns = height // p, width // p", "rows, columns = height // p, width // p + 1")
    with pytest.raises(RuntimeError, match="is invalid for input of size") as raised:
        outcome_of("patchify", edited(VIEW, edit))
    assert raised.value.step == "cut"  # type: ignore[attr-defined]
    assert raised.value.__notes__ == ["called as in patchify(pixels(3, 2, 21, 35), 7)", "reshape of (3, 2, 21, 35)"]


def test_of_many_tensors_that_do_not_fit_each_shape_is_told_once() -> None:
    edit = ("range(0, images.shape[3], patch_size)", "range(0, images.shape[3] + 1, patch_size)")
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size") as raised:
        outcome_of("patchify", edited(RIGHT["loops"], edit))
    assert raised.value.__notes__[1] == "stack of some (3, 98) and (3, 0)"


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_that_is_a_number_is_no_side_of_a_patch(batch: int) -> None:
    with pytest.raises(RuntimeError, match="is invalid for input of size"):  # the runner tells its line
        outcome_of("patchify", edited(VIEW, ("images.reshape(b,", f"images.reshape({batch},")))
