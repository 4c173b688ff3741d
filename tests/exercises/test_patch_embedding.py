import re

import pytest

from tests.exercises.students import assert_reproduced, edited, outcome_of
from vitscratch.exercises.checks.patch_embedding import MISTAKES

HEAD = "import torch\nfrom torch import nn\nimport torch.nn.functional as F\nfrom einops import rearrange\n"
CONV = (
    HEAD
    + """
class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, embed_dim):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images):
        x = self.proj(images)
        return x.flatten(2).transpose(1, 2)
"""
)
LINEAR = (
    HEAD
    + """
class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, embed_dim):
        super().__init__()
        self.patch_size = patch_size
        self.to_token = nn.Linear(in_channels * patch_size * patch_size, embed_dim)

    def forward(self, images):
        p = self.patch_size
        return self.to_token(rearrange(images, "b c (r p) (s q) -> b (r s) (p q c)", p=p, q=p))
"""
)
RIGHT = {
    "conv": CONV,
    "a lazy convolution": edited(CONV, ("nn.Conv2d(in_channels, ", "nn.LazyConv2d(")),
    "a lazy linear layer": edited(LINEAR, ("nn.Linear(in_channels * patch_size * patch_size, ", "nn.LazyLinear(")),
    "linear, the paper's order": LINEAR,
    "linear, our order": edited(LINEAR, ("(p q c)", "(c p q)")),
    "unfold": edited(
        LINEAR,
        ('rearrange(images, "b c (r p) (s q) -> b (r s) (p q c)", p=p, q=p)', "F.unfold(images, p, stride=p).mT"),
    ),
    "square only": edited(
        CONV, ("self.proj =", "self.num_patches = (image_size // patch_size) ** 2\n        self.proj =")
    ),
    "square only, and says so": edited(
        CONV,
        (
            "x = self.proj",
            "if images.shape[2] != images.shape[3]: raise ValueError('no square')\n        x = self.proj",
        ),
    ),
    "einsum": HEAD
    + """
class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, embed_dim, name="mine"):
        super().__init__()
        self.p = patch_size
        self.E = nn.Parameter(torch.randn(in_channels * patch_size ** 2, embed_dim) * 0.02)
        self.b = nn.Parameter(torch.zeros(embed_dim))

    def forward(self, images):
        x = rearrange(images, "b c (r p) (s q) -> b r s (c p q)", p=self.p, q=self.p)
        return torch.einsum("b r s i, i d -> b r s d", x, self.E).flatten(1, 2) + self.b
""",
    "sequential": HEAD
    + """
from einops.layers.torch import Rearrange
class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, embed_dim, dropout=0.0):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, embed_dim, patch_size, patch_size), Rearrange("b d r s -> b (r s) d"), nn.Dropout(dropout))

    def forward(self, images):
        return self.net(images)
""",
    "a bias of its own": edited(
        CONV,
        ("self.proj =", "self.b = nn.Parameter(torch.zeros(embed_dim))\n        self.proj ="),
        ("stride=patch_size", "stride=patch_size, bias=False"),
        ("return x.flatten(2).transpose(1, 2)", "return x.flatten(2).transpose(1, 2) + self.b"),
    ),
    "a dict": edited(CONV, ("return x.flatten(2).transpose(1, 2)", 'return {"grid": x, "tokens": x.flatten(2).mT}')),
    "the library": "from vitscratch import PatchEmbedding",
}
FLAT = "x.flatten(2).transpose(1, 2)"
WRONG = {
    "pe_reshape_not_transpose": (CONV, (FLAT, "x.reshape(x.shape[0], -1, x.shape[1])")),
    "pe_reshape_not_transpose: cut": (
        LINEAR,
        (
            'rearrange(images, "b c (r p) (s q) -> b (r s) (p q c)", p=p, q=p)',
            "images.reshape(len(images), -1, images.shape[1] * p * p)",
        ),
    ),
    "pe_column_major": (CONV, (FLAT, "x.transpose(2, 3).flatten(2).transpose(1, 2)")),
    "pe_column_major: linear": (LINEAR, ("(r s)", "(s r)")),
    "pe_pixels_transposed": (LINEAR, ("(p q c)", "(q p c)")),
    "pe_split_reversed": (LINEAR, ("(r p) (s q)", "(p r) (q s)")),
    "pe_picture_transposed": (
        CONV,
        ("self.proj(images)", "self.proj(images.mT)"),
        ("self.proj =", "assert image_size == int(image_size)\n        self.proj ="),
    ),
    "pe_no_stride": (CONV, (", stride=patch_size", "")),
    "pe_no_stride: unfold": (
        LINEAR,
        ('rearrange(images, "b c (r p) (s q) -> b (r s) (p q c)", p=p, q=p)', "F.unfold(images, p).mT"),
    ),
    "pe_relu": (CONV, ("self.proj(images)", "F.relu(self.proj(images))")),
    "pe_relu: gelu": (LINEAR, ("return self.to_token(", "return F.gelu(self.to_token("), ("q=p)", "q=p))")),
    "pe_relu: gelu, nearly": (
        LINEAR,
        ("return self.to_token(", "return F.gelu(approximate='tanh', input=self.to_token("),
        ("q=p)", "q=p))"),
    ),
    "pe_norm": (CONV, (FLAT, FLAT + "\n        return F.layer_norm(y, y.shape[-1:])"), ("return x.", "y = x.")),
    "pe_norm: layer": (
        CONV,
        (FLAT, f"self.norm({FLAT})"),
        ("self.proj =", "self.norm = nn.LayerNorm(embed_dim)\n        self.proj ="),
    ),
    "pe_norm: each picture": (
        CONV,
        (
            "self.proj(images)",
            "self.proj((images - images.mean((1, 2, 3), True)) / (images.std((1, 2, 3), keepdim=True) + 1e-5))",
        ),
    ),
    "pe_scaled": (CONV, (FLAT, FLAT + " * x.shape[1] ** 0.5")),
    "pe_scaled: pixels": (CONV, ("self.proj(images)", "self.proj(images / 255)")),
    "pe_no_bias": (CONV, ("stride=patch_size", "stride=patch_size, bias=False")),
    "pe_no_bias: unused": (CONV, ("self.proj(images)", "F.conv2d(images, self.proj.weight, stride=self.proj.stride)")),
    "pe_dropout": (CONV, ("self.proj(images)", "F.dropout(self.proj(images), 0.3)")),
    "pe_frozen": (CONV, ("self.proj(images)", "self.proj(images).detach()")),
    "pe_frozen: the bias": (
        LINEAR,
        ("self.to_token(", "F.linear("),
        ("p=p, q=p)", "p=p, q=p), self.to_token.weight, self.to_token.bias.detach()"),
    ),
    "tok_global_name": (LINEAR, ("p = self.patch_size", "p = 16")),
    "tok_global_name: nowhere": (LINEAR, ("p = self.patch_size", "p = patch_size")),
    "tok_global_name: layer": (CONV, ("kernel_size=patch_size, stride=patch_size", "kernel_size=16, stride=16")),
    "tok_global_name: stride": (CONV, ("stride=patch_size", "stride=16")),
    "pe_column_major + pe_relu": (CONV, (FLAT, "x.mT.flatten(2).transpose(1, 2).relu()")),
    "pe_column_major + pe_scaled": (CONV, (FLAT, "x.mT.flatten(2).transpose(1, 2) / x.shape[1] ** 0.5")),
    "pe_reshape_not_transpose + pe_norm": (
        CONV,
        (FLAT, "F.layer_norm(x.reshape(x.shape[0], -1, x.shape[1]), x.shape[1:2])"),
    ),
    "pe_pixels_transposed + pe_relu": (
        LINEAR,
        ("(p q c)", "(q p c)"),
        ("return self.to_token(", "return F.relu(self.to_token("),
        ("q=p)", "q=p))"),
    ),
    "pe_picture_transposed + pe_scaled": (
        CONV,
        ("self.proj(images)", "self.proj(images.mT / 255)"),
        ("self.proj =", "assert image_size == int(image_size)\n        self.proj ="),
    ),
}
UNKNOWN = {
    "cut: no picture at all": (
        "A token is not made of its own patch",
        CONV,
        ("self.proj(images)", "self.proj(0 * images)"),
    ),
    "cut: padded": (
        "Your convolution pads the picture",
        CONV,
        ("stride=patch_size)", "stride=patch_size, padding=1)"),
    ),
    "cut: blurred": (
        "A token is not made of its own patch, pixel by pixel.",
        CONV,
        ("self.proj(images)", "self.proj(images + images.roll(1, 3))"),
    ),
    "projection: a bias for each patch": (
        "You learn more than one row of numbers to add",
        CONV,
        ("super().__init__()", "super().__init__()\n        self.b = nn.Parameter(torch.zeros(9, embed_dim))"),
        ("stride=patch_size)", "stride=patch_size, bias=False)"),
        (FLAT, FLAT + " + self.b"),
    ),
    "parameters: a layer for each patch": (
        "You have several weights of the projection's size; there should be one, the same for every patch.",
        LINEAR,
        (
            "self.to_token = nn.Linear(in_channels * patch_size * patch_size, embed_dim)",
            "self.to_token = nn.ModuleList(nn.Linear(in_channels * patch_size**2, embed_dim) for _ in range(9))",
        ),
    ),
    "projection: squared": ("The tokens are not patch times weight plus bias.", CONV, (FLAT, FLAT + " ** 2")),
    "cut: shape": ("The result has another shape than (batch, patches, embed_dim).", CONV, (FLAT, "x.flatten(2)")),
    "cut: of the next picture": (
        "You make tokens of another picture of the batch; a token should be made of a patch of its own picture.",
        LINEAR,
        ("rearrange(images", "rearrange(images.roll(1, 0)"),
    ),
    "cut: one picture for all": (
        "You make tokens of another picture of the batch",
        CONV,
        ("self.proj(images)", "self.proj(images[:1].expand_as(images))"),
    ),
    "cut: pixels backwards": (
        "A token is not made of its own patch, pixel by pixel.",
        LINEAR,
        ("q=p)", "q=p).flip(-1)"),
    ),
    "projection: a little too much": (
        "The tokens are not patch times weight plus bias.",
        CONV,
        (FLAT, FLAT + " * 1.0001"),
    ),
    "parameters: never called": (
        "You make a layer that forward never calls",
        CONV,
        ("self.proj =", "self.spare = nn.LazyLinear(embed_dim)\n        self.proj ="),
    ),
    "parameters: too many": (
        "There are more parameters than the projection's weight and bias.",
        CONV,
        ("self.proj =", "self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))\n        self.proj ="),
    ),
    "parameters: sizes of a convolution swapped": (
        "You swap the two sizes of your layer; it should map the c * p * p numbers of a patch to embed_dim.",
        CONV,
        ("nn.Conv2d(in_channels, embed_dim", "nn.Conv2d(embed_dim, in_channels"),
    ),
    "parameters: sizes of a linear layer swapped": (
        "You swap the two sizes of your layer",
        LINEAR,
        ("in_channels * patch_size * patch_size, embed_dim", "embed_dim, in_channels * patch_size * patch_size"),
    ),
    "parameters: no layer": (
        "No parameter has the size of the projection.",
        CONV,
        ("nn.Conv2d(in", "nn.Conv2d(2 + in"),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name: str) -> None:
    assert outcome_of("patch_embedding", RIGHT[name]) is None


@pytest.mark.parametrize("name", WRONG)
def test_known_mistakes_are_named(name: str) -> None:
    source, *edits = WRONG[name]
    problem = outcome_of("patch_embedding", edited(source, *edits))
    assert problem and problem.mistake == name.partition(":")[0] and problem.evidence and len(problem.hints) > 1


@pytest.mark.parametrize("name", UNKNOWN)
def test_others_are_placed(name: str) -> None:
    says, source, *edits = UNKNOWN[name]
    problem = outcome_of("patch_embedding", edited(source, *edits))
    assert problem and problem.mistake is None and problem.step == name.partition(":")[0]
    assert problem.what.startswith(says)


@pytest.mark.parametrize(
    ("mistake", "edit", "evidence"),
    [
        (
            "signature",
            ("image_size, patch_size,", "size, patch_size,"),
            "PatchEmbedding(image_size=15, patch_size=5, in_channels=2, embed_dim=7) ends in TypeError: missing a "
            "required argument: 'size'; yours takes (size, patch_size, in_channels, embed_dim)",
        ),
        (
            "no_module",
            ("(nn.Module):", ":"),
            "isinstance(PatchEmbedding(image_size=15, patch_size=5, in_channels=2, embed_dim=7), nn.Module) is False; "
            "it should be True",
        ),
    ],
)
def test_what_is_no_layer_is_told(mistake: str, edit: tuple[str, str], evidence: str) -> None:
    problem = outcome_of("patch_embedding", edited(CONV, edit))
    assert problem and (problem.mistake, problem.step, problem.evidence) == (mistake, "parameters", evidence)


def test_an_error_with_pictures_that_are_not_square_is_the_students() -> None:
    side = "side = image_size if isinstance(image_size, int) else image_size[0]"
    text = edited(CONV, ("self.proj =", f"{side}\n        self.n = (side // patch_size) ** 2\n        self.proj ="))
    with pytest.raises(RuntimeError, match="is invalid for input of size") as raised:
        outcome_of("patch_embedding", edited(text, (FLAT, "x.reshape(len(x), -1, self.n).mT")))
    assert raised.value.step == "cut"  # type: ignore[attr-defined]
    assert raised.value.__notes__ == [
        "called as in awaken(PatchEmbedding(image_size=(21, 35), patch_size=7, in_channels=2, embed_dim=13))"
        "(draw(1, 2, 21, 35, seed=1))",
        "reshape of (1, 13, 3, 5)",
    ]


def test_an_error_in_init_says_for_which_sizes() -> None:
    with pytest.raises(AssertionError) as raised:
        outcome_of("patch_embedding", edited(CONV, ("self.proj =", "assert embed_dim < 11\n        self.proj =")))
    says = "called as in PatchEmbedding(image_size=32, patch_size=8, in_channels=3, embed_dim=11)"
    assert raised.value.__notes__ == [says]


@pytest.mark.parametrize("right", [LINEAR, CONV])
def test_a_buffer_in_single_precision_is_explained(right: str) -> None:
    text = edited(right, ("def forward(self, images):", "def forward(self, images):\n        images = images.float()"))
    problem = outcome_of("patch_embedding", text)
    assert problem and (problem.mistake, problem.step) == ("fixed_dtype", "cut")
    assert problem.evidence.endswith("`images = images.float()` makes a tensor in torch.float32")
    assert_reproduced(problem, text)
    text = edited(
        text, ("        images = images.float()", "        images = (images * torch.tensor(3.0).sqrt()).float()")
    )
    problem = outcome_of("patch_embedding", text)
    assert problem and "images = (images" in problem.evidence.splitlines()[1]
    text = edited(
        text, ("        images = (images *", "        y = torch.tensor(3.0).sqrt()\n        images = (images *")
    )
    problem = outcome_of("patch_embedding", text)  # a single number in float32 fits every tensor
    assert problem and "images = (images" in problem.evidence.splitlines()[1]


def test_every_mistake_is_tried() -> None:
    assert {part for name in WRONG for part in name.partition(":")[0].split(" + ")} == MISTAKES.keys()


def test_hints_on_hard_coded_channels_are_about_channels() -> None:
    problem = outcome_of("patch_embedding", edited(CONV, ("nn.Conv2d(in_channels", "nn.Conv2d(3")))
    assert problem and problem.mistake == "tok_global_name" and "proj.weight is made for 3 channels" in problem.evidence
    assert all("channels" in hint for hint in problem.hints) and "16" not in "".join(problem.hints)


def test_a_layer_that_is_made_in_forward_is_asked_for() -> None:
    text = edited(CONV, ("self.proj = ", "self.proj = lambda x: "), ("=patch_size)", "=patch_size).double()(x)"))
    problem = outcome_of("patch_embedding", text)
    assert problem and problem.step == "parameters" and "in forward" in problem.hints[0]


def test_the_hints_on_a_reshape_are_those_for_a_convolution_or_a_linear_layer() -> None:
    of_conv, of_linear = (
        outcome_of("patch_embedding", edited(*WRONG[f"pe_reshape_not_transpose{one}"])) for one in ("", ": cut")
    )
    assert of_conv and of_linear and "a token is made of numbers of several places" in of_conv.what
    assert all("convolution" in hint for hint in of_conv.hints[:2])
    assert not any("convolution" in hint for hint in of_linear.hints)


BUFFER = edited(
    LINEAR,
    (
        'return self.to_token(rearrange(images, "b c (r p) (s q) -> b (r s) (p q c)", p=p, q=p))',
        'patches = rearrange(images, "b c (r p) (s q) -> b (r s) (p q c)", p=p, q=p)\n'
        "        out = images.new_zeros(*patches.shape[:2], self.to_token.out_features)\n"
        "        buf = torch.zeros_like(patches[:, 0])\n"
        "        for i in range(patches.shape[1]):\n"
        "            buf[:] = patches[:, i]\n"
        "            out[:, i] = self.to_token(buf)\n"
        "        return out",
    ),
)


def test_a_buffer_that_autograd_needs_as_it_was_is_the_students() -> None:
    problem = outcome_of("patch_embedding", BUFFER)
    assert problem and (problem.mistake, problem.step) == ("input_changed", "projection")
    assert_reproduced(problem, BUFFER)
    assert outcome_of("patch_embedding", edited(BUFFER, ("self.to_token(buf)", "self.to_token(buf.clone())"))) is None


def test_what_autograd_does_not_find_its_way_through_is_the_students() -> None:
    bent = "x = self.proj(images)\n        y = x * 1\n        y.data = y.data[:, :1]\n        x = x + 0 * y.sum()"
    text = edited(CONV, ("x = self.proj(images)", bent))
    problem = outcome_of("patch_embedding", text)
    assert problem and problem.what.startswith("You compute something that autograd does not find its way back through")
    assert_reproduced(problem, text)


def test_a_layer_in_a_plain_list_is_told() -> None:
    text = edited(CONV, ("self.proj =", "self.layers ="), ("stride=patch_size)", "stride=patch_size),"))
    problem = outcome_of("patch_embedding", edited(text, ("self.proj(", "self.layers[0](")))
    assert problem and (problem.mistake, problem.step) == ("layers_in_plain_list", "parameters")
    assert problem.evidence.endswith("the parameters: none\nself.layers is not registered")


@pytest.mark.parametrize("name", ["cut: of the next picture", "cut: one picture for all"])
def test_the_evidence_of_another_picture_can_be_computed(name: str) -> None:
    _, source, *edits = UNKNOWN[name]
    problem = outcome_of("patch_embedding", edited(source, *edits))
    assert problem
    assert_reproduced(problem, edited(source, *edits))


def test_two_calls_that_differ_say_for_which_picture() -> None:
    source, *edits = WRONG["pe_dropout"]
    problem = outcome_of("patch_embedding", edited(source, *edits))
    assert problem
    assert_reproduced(problem, edited(source, *edits))


def test_a_size_that_is_nowhere_is_told_with_its_line() -> None:
    problem = outcome_of("patch_embedding", edited(LINEAR, ("p = self.patch_size", "p = patch_size")))
    assert problem and problem.evidence.splitlines()[1].endswith(", line 13: `p = patch_size`"), problem.evidence


def test_a_layer_beside_the_projection_is_no_layer_for_each_patch() -> None:
    spare = (
        "super().__init__()",
        "super().__init__()\n        self.spare = nn.Linear(in_channels * patch_size**2, embed_dim)",
    )
    problem = outcome_of("patch_embedding", edited(CONV, spare))
    assert problem and problem.hints[0] == "Which of these layers does forward use, and what is the other one for?"


def test_a_batch_that_is_a_number_is_no_size_of_the_layer() -> None:
    two = edited(CONV, ("return x.flatten(2).transpose(1, 2)", "return x.reshape(2, x.shape[1], -1).transpose(1, 2)"))
    with pytest.raises(RuntimeError, match="is invalid for input of size"):  # the runner tells its line
        outcome_of("patch_embedding", two)


def test_low_precision_is_told_as_that() -> None:
    text = edited(
        LINEAR,
        ("self.to_token(", "F.linear("),
        ("p=p, q=p)", "p=p, q=p).half(), self.to_token.weight.half(), self.to_token.bias.half()"),
    )
    problem = outcome_of("patch_embedding", text)
    assert problem and (problem.mistake, problem.step) == ("low_precision", "cut"), problem


def test_what_it_should_be_is_said_for_the_order_of_pixels_that_is_meant() -> None:
    problem = outcome_of(
        "patch_embedding", edited(LINEAR, ("return self.to_token(", "return F.relu(self.to_token("), ("q=p)", "q=p))"))
    )
    assert problem and problem.mistake == "pe_relu"
    seen, right = re.fullmatch(r".* is (.*); it should be (.*)", problem.evidence).groups()  # type: ignore[union-attr]
    assert float(seen) == 0 > float(right)
