"""What people who never saw the checks wrote: right in unusual ways, and wrong in the second half, in the tail, ..."""

import re

import pytest

from tests.exercises.students import answer, assert_wrong, changed, outcomes
from tests.exercises.students import module as student
from vitscratch.exercises import Passed
from vitscratch.exercises.checks import encoder_block, modules
from vitscratch.exercises.checks.compare import draw
from vitscratch.exercises.checks.roles import awaken, block_maps

BARE_PROJECTION = """
import torch
import torch.nn.functional as F
from torch import nn

class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, embed_dim):
        super().__init__()
        self.p = patch_size
        self.kernel = nn.Parameter(torch.randn(embed_dim, in_channels, patch_size, patch_size))
        self.shift = nn.Parameter(torch.zeros(embed_dim))

    def forward(self, images):
        return F.conv2d(images, self.kernel, self.shift, stride=self.p).flatten(2).mT
"""

BARE_BLOCK = """
import torch
import torch.nn.functional as F
from torch import nn

def heads(t, h):
    return t.unflatten(2, (h, -1)).transpose(1, 2)

class EncoderBlock(nn.Module):
    def __init__(self, embed_dim, num_heads, mlp_dim):
        super().__init__()
        self.h, d, m = num_heads, embed_dim, mlp_dim
        self.p = nn.ParameterDict(dict(
            g1=torch.ones(d), b1=torch.zeros(d), g2=torch.ones(d), b2=torch.zeros(d),
            qkv=torch.randn(3 * d, d) / 9, qkv_b=torch.zeros(3 * d), o=torch.randn(d, d) / 9, o_b=torch.zeros(d),
            up=torch.randn(m, d) / 9, up_b=torch.zeros(m), down=torch.randn(d, m) / 9, down_b=torch.zeros(d)))

    def forward(self, x):
        p, d = self.p, x.shape[-1:]
        y = F.layer_norm(x, d, p["g1"], p["b1"], 1e-6)
        q, k, v = (heads(t, self.h) for t in F.linear(y, p["qkv"], p["qkv_b"]).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, p["o"], p["o_b"])
        y = F.layer_norm(x, d, p["g2"], p["b2"], 1e-6)
        y = F.gelu(F.linear(y, p["up"], p["up_b"]))
        return x + F.linear(y, p["down"], p["down_b"])
"""

MODEL = """
import torch
import torch.nn.functional as F
from torch import nn

HEADER
class VisionTransformer(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, num_classes, embed_dim, depth, num_heads, mlp_dim):
        super().__init__()
        d, m, self.h, self.p = embed_dim, mlp_dim, num_heads, patch_size
        n = (image_size // patch_size) ** 2
        PARTS

    def forward(self, images):
        b, p = len(images), self.p
        FORWARD
"""

# matrices that the token is multiplied with, under names of a few letters
BARE_MODEL = changed(
    MODEL,
    "HEADER",
    """def new(*sizes):
    return nn.Parameter(torch.randn(*sizes) / 9)

def ln(x, g, b):
    return F.layer_norm(x, x.shape[-1:], g, b, 1e-6)
""",
    "PARTS",
    """self.E, self.E_b = new(in_channels * patch_size**2, d), new(d)
        self.x_class, self.E_pos = new(1, 1, d), new(1, n + 1, d)
        self.layers = nn.ModuleList(nn.ParameterDict(dict(
            g1=torch.ones(d), b1=torch.zeros(d), g2=torch.ones(d), b2=torch.zeros(d),
            wqkv=new(d, 3 * d), bqkv=torch.zeros(3 * d), wo=new(d, d), bo=torch.zeros(d),
            w1=new(d, m), c1=torch.zeros(m), w2=new(m, d), c2=torch.zeros(d))) for _ in range(depth))
        self.g, self.b = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))
        self.W, self.c = new(d, num_classes), new(num_classes)""",
    "FORWARD",
    """x = F.unfold(images, p, stride=p).mT @ self.E + self.E_b
        x = torch.cat([self.x_class.expand(b, -1, -1), x], 1) + self.E_pos
        for l in self.layers:
            qkv = ln(x, l["g1"], l["b1"]) @ l["wqkv"] + l["bqkv"]
            q, k, v = qkv.unflatten(2, (3, self.h, -1)).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + y @ l["wo"] + l["bo"]
            y = F.gelu(ln(x, l["g2"], l["b2"]) @ l["w1"] + l["c1"])
            x = x + y @ l["w2"] + l["c2"]
        return ln(x[:, 0], self.g, self.b) @ self.W + self.c""",
)

# pixels as (row, column, channel), and no module that is a block
PAIRS_MODEL = changed(
    MODEL,
    "HEADER",
    """from einops import rearrange
from vitscratch import MLP, MultiHeadSelfAttention

def no_bias(mlp):
    mlp.fc1.bias = mlp.fc2.bias = None
    return mlp

def prenorm(d, layer):
    return nn.Sequential(nn.LayerNorm(d, eps=1e-6), layer)
""",
    "PARTS",
    """self.embed = nn.Sequential(nn.Linear(in_channels * patch_size**2, d))
        self.cls, self.pos = nn.Parameter(torch.randn(d)), nn.Parameter(torch.randn(n + 1, d))
        self.layers = nn.ModuleList(
            nn.ModuleList([prenorm(d, MultiHeadSelfAttention(d, num_heads)), prenorm(d, MLP(d, mlp_dim))])
            for _ in range(depth)
        )
        self.mlp_head = nn.Sequential(nn.LayerNorm(d, eps=1e-6), nn.Linear(d, num_classes))""",
    "FORWARD",
    """x = self.embed(rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=p, q=p))
        x = torch.cat([self.cls.expand(b, 1, -1), x], 1) + self.pos
        for attention, mlp in self.layers:
            x = attention(x) + x
            x = mlp(x) + x
        return self.mlp_head(x[:, 0])""",
)


NORM_IN_CLASSIFIER = """
import torch
from torch import nn
from vitscratch import EncoderBlock, PatchEmbedding
class VisionTransformer(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, num_classes, embed_dim, depth, num_heads, mlp_dim):
        super().__init__()

        self.patches = PatchEmbedding(image_size, patch_size, in_channels, embed_dim)
        self.tok = nn.Parameter(torch.randn(embed_dim))
        self.pos = nn.Parameter(torch.randn(1 + self.patches.num_patches, embed_dim))
        self.layers = nn.ModuleList(EncoderBlock(embed_dim, num_heads, mlp_dim) for _ in range(depth))
        self.classifier = nn.Sequential(nn.LayerNorm(embed_dim, eps=1e-6), nn.Linear(embed_dim, num_classes))
    def forward(self, images):
        x = self.patches(images)
        t = self.tok[None, None].repeat(images.shape[0], 1, 1)
        x = torch.cat([t, x], dim=1) + self.pos.unsqueeze(0)
        for layer in self.layers:
            x = layer(x)
        cls = x[:, 0]
        return self.classifier(cls)
"""


HELPERS_BLOCK = """
from torch import nn
from vitscratch import MLP, MultiHeadSelfAttention
class Residual(nn.Module):
    def __init__(self, dim, fn):
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(dim, eps=1e-6), fn
    def forward(self, x):
        out = self.fn(self.norm(x)) + x
        return out
class EncoderBlock(nn.Sequential):
    def __init__(self, embed_dim, num_heads, mlp_dim):
        attention = MultiHeadSelfAttention(embed_dim, num_heads)
        super().__init__(Residual(embed_dim, attention), Residual(embed_dim, MLP(embed_dim, mlp_dim)))
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("encoder_block", HELPERS_BLOCK),
        ("patch_embedding", BARE_PROJECTION),
        ("encoder_block", BARE_BLOCK),
        ("vision_transformer", BARE_MODEL),
        ("vision_transformer", PAIRS_MODEL),
        ("vision_transformer", NORM_IN_CLASSIFIER),
    ],
    ids=["helpers", "bare projection", "bare block", "bare model", "pairs", "norm in the classifier"],
)
def test_right(name: str, text: str) -> None:
    found = outcomes(name, text)
    assert found and all(isinstance(outcome, Passed) for outcome in found), found[-1]


@pytest.mark.parametrize(
    ("name", "text", "edit", "step"),
    [
        ("encoder_block", HELPERS_BLOCK, ("out = self.fn", "residual = x\n        out = self.fn"), "first residual"),
        ("vision_transformer", BARE_MODEL, ("        return ln(x[:, 0]", "        identity = x\n        return ln(x[:, 0]"), "encoder blocks"),
    ],
)  # fmt: skip
def test_a_dead_residual_anywhere_in_the_file(name: str, text: str, edit: tuple[str, str], step: str) -> None:
    assert_wrong(name, changed(text, *edit), "enc_dead_residual", step)


SECOND = 'return x + F.linear(y, p["down"], p["down_b"])'
FIRST_NORM = 'y = F.layer_norm(x, d, p["g1"], p["b1"], 1e-6)'
OUT = 'x = x + F.linear(y, p["o"], p["o_b"])'


@pytest.mark.parametrize(
    ("mistake", "step", "edits"),
    [
        ("enc_residual_scaled", "second residual", (SECOND, SECOND.replace("x + ", "(x + ") + ") / 2")),
        ("enc_residual_subtracted", "second residual", (SECOND, SECOND.replace("x + ", "x - "))),
        ("enc_residual_after_norm", "second residual", (SECOND, f"x = F.layer_norm(x, d, p['g2'], p['b2'], 1e-6)\n        {SECOND}")),
        ("enc_residual_subtracted", "first residual", (OUT, OUT.replace("x + ", "x - "))),
        ("enc_half_unused", "MLP", (SECOND, "return x")),
        ("enc_random", "MLP", (SECOND, SECOND.replace("(y,", "(F.dropout(y, 0.5),"))),
        ("enc_random", "attention", (OUT, OUT.replace("(y,", "(F.dropout(y, 0.5),"))),
        ("input_changed", "first residual", (OUT, OUT.replace("x = x + ", "x += "))),
        ("input_changed", "second residual", (SECOND, SECOND.replace("return x + ", "x += ") + "\n        return x")),
        ("attn_packing_per_head", "attention", (
            "q, k, v = (heads(t, self.h) for t in F.linear(y, p[\"qkv\"], p[\"qkv_b\"]).chunk(3, -1))",
            "q, k, v = F.linear(y, p[\"qkv\"], p[\"qkv_b\"]).unflatten(2, (self.h, 3, -1)).permute(3, 0, 2, 1, 4)",
        )),
    ],
)  # fmt: skip
def test_block(mistake: str, step: str, edits: tuple[str, str]) -> None:
    problem = assert_wrong("encoder_block", changed(BARE_BLOCK, *edits), mistake, step)
    assert problem.hints[0]


@pytest.mark.parametrize(
    ("text", "mistake", "step", "edits"),
    [
        (PAIRS_MODEL, "vit_mean_with_cls", "pooling", ("self.mlp_head(x[:, 0])", "self.mlp_head(x.mean(1))")),
        (
            PAIRS_MODEL,
            None,
            "patch embedding",
            ("(nn.Linear(in_channels * patch_size**2, d))", "(nn.Linear(in_channels * patch_size**2, d), nn.LayerNorm(d))"),
        ),
        (PAIRS_MODEL, "enc_eps_1e-5", "encoder blocks", ("nn.Sequential(nn.LayerNorm(d, eps=1e-6), layer)", "nn.Sequential(nn.LayerNorm(d), layer)")),
        (PAIRS_MODEL, "mlp_no_bias", "encoder blocks", ("prenorm(d, MLP(d, mlp_dim))", "prenorm(d, no_bias(MLP(d, mlp_dim)))")),
        (PAIRS_MODEL, "mlp_hidden_is_embed", "encoder blocks", ("MLP(d, mlp_dim)", "MLP(d, d)")),
        (PAIRS_MODEL, "enc_eps_1e-5", "final norm", ("(nn.LayerNorm(d, eps=1e-6), nn.Linear", "(nn.LayerNorm(d), nn.Linear")),
        (BARE_MODEL, None, "encoder blocks", (
            "wqkv=new(d, 3 * d), bqkv=torch.zeros(3 * d)", "wqkv=new(d, 2 * d), bqkv=torch.zeros(2 * d)",
            "qkv = ln(x,", "z = ln(x,", 'l["b1"]) @ l["wqkv"]', 'l["b1"]); qkv = torch.cat([z @ l["wqkv"]',
            '+ l["bqkv"]', '+ l["bqkv"], z], -1)',
        )),
        (BARE_MODEL, "vit_pos_after_blocks", "position embedding", (
            ", 1) + self.E_pos", ", 1)", "        return ln(x[:, 0]", "        x = x + self.E_pos\n        return ln(x[:, 0]",
        )),
        (PAIRS_MODEL, None, "head", ("nn.Linear(d, num_classes))", "nn.Linear(d, d), nn.Tanh(), nn.Linear(d, num_classes))")),
    ],
)  # fmt: skip
def test_model(text: str, mistake: str | None, step: str, edits: tuple[str, ...]) -> None:
    assert_wrong("vision_transformer", changed(text, *edits), mistake, step)


CONV = "self.kernel, self.shift"


@pytest.mark.parametrize(
    ("mistake", "step", "edits"),
    [
        (None, "cut", ("conv2d(images,", "conv2d(images.flip(3),")),
        (None, "cut", ("conv2d(images,", "conv2d(images.flip(2),")),
        (None, "cut", (CONV, f"{CONV.replace('kernel', 'kernel.flip(3)')}")),
        ("tok_global_name", "cut", ("randn(embed_dim, in_channels,", "randn(embed_dim, 3,")),
    ],
)
def test_patch_embedding(mistake: str | None, step: str, edits: tuple[str, str]) -> None:
    problem = assert_wrong("patch_embedding", changed(BARE_PROJECTION, *edits), mistake, step)
    if mistake:
        assert problem.evidence.endswith("made for 3 channels")


def test_class_token_drawn_at_every_call() -> None:
    text = answer("tokens").replace("self.cls_token.expand", "torch.randn_like(self.cls_token).expand")
    problem = assert_wrong("tokens", text, "vit_pos_random_each_forward", "class token")
    assert re.search(r"\(draw\(3, 7, 11, seed=3\)\)\[\d, 0, \d+\] is \S+ the first time and ", problem.evidence)


def test_activation_with_a_bound() -> None:
    text = "import torch.nn.functional as F\nfrom torch import nn\n\nclass MLP(nn.Module):\n"
    text += "    def __init__(self, embed_dim, mlp_dim):\n        super().__init__()\n"
    text += "        self.a, self.b = nn.Linear(embed_dim, mlp_dim), nn.Linear(mlp_dim, embed_dim)\n"
    text += "    def forward(self, x):\n        return self.b(F.gelu(self.a(x)).clamp(max=4))\n"
    assert_wrong("mlp", text, None, "activation")


def test_weights_of_another_shape() -> None:
    text = "def attention(q, k, v):\n    w = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)\n    return w @ v, w.flatten(0, 1)\n"
    problem = assert_wrong("attention", text, None, "softmax")
    assert problem.what == "Your weights have another shape; it should be (b, h, queries, keys)."


# matrices that the tokens are multiplied with, from the left or the right
RAW_ATTENTION = """
import torch
from torch import nn

class MultiHeadSelfAttention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        d, self.h = embed_dim, num_heads
        self.w = nn.ParameterDict({name: torch.randn(d, d) / 6 for name in ("wq", "wk", "wv", "wo")})
        self.b = nn.ParameterDict({name: torch.zeros(d) for name in ("bq", "bk", "bv", "bo")})

    def forward(self, x):
        q, k, v = ((x @ self.w["w" + n] + self.b["b" + n]).unflatten(2, (self.h, -1)).transpose(1, 2) for n in "qkv")
        a = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return (a @ v).transpose(1, 2).flatten(2) @ self.w["wo"] + self.b["bo"]
"""
MERGE = ("(a @ v).transpose(1, 2).flatten(2)", "(a @ v).reshape(x.shape)")

QK_PACKED = """
from torch import nn

class MultiHeadSelfAttention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.h = num_heads
        self.ONE, self.TWO = nn.Linear(embed_dim, 2 * embed_dim), nn.Linear(embed_dim, embed_dim)
        self.o = nn.Linear(embed_dim, embed_dim)

    def forward(self, x):
        q, k = self.ONE(x).unflatten(2, (2, self.h, -1)).permute(2, 0, 3, 1, 4)
        v = self.TWO(x).unflatten(2, (self.h, -1)).transpose(1, 2)
        a = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return self.o((a @ v).transpose(1, 2).flatten(2))
"""

LISTS_OF_PARAMETERS = """
import torch
import torch.nn.functional as F
from torch import nn

class Half(nn.Module):
    def __init__(self, d, *shapes):
        super().__init__()
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.w = nn.ParameterList([torch.randn(*shape) / 6 for shape in shapes])
        self.b = nn.ParameterList([torch.zeros(shape[0]) for shape in shapes])

class EncoderBlock(nn.Module):
    def __init__(self, embed_dim, num_heads, mlp_dim):
        super().__init__()
        d, m, self.h = embed_dim, mlp_dim, num_heads
        self.one, self.two = Half(d, *4 * [(d, d)]), Half(d, (m, d), (d, m))

    def forward(self, x):
        half = self.one
        y = half.norm(x)
        q, k, v = (F.linear(y, half.w[i], half.b[i]).unflatten(2, (self.h, -1)).transpose(1, 2) for i in range(3))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, half.w[3], half.b[3])
        half = self.two
        return x + F.linear(F.gelu(F.linear(half.norm(x), half.w[0], half.b[0])), half.w[1], half.b[1])
"""

LIBRARY_BLOCK = """
import torch
import torch.nn.functional as F
from torch import nn
from vitscratch import MLP, MultiHeadSelfAttention

class EncoderBlock(nn.Module):
    def __init__(self, embed_dim, num_heads, mlp_dim):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6), nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn, self.mlp = MultiHeadSelfAttention(embed_dim, num_heads), MLP(embed_dim, mlp_dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))
"""
NORMS = "self.norm1, self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6), nn.LayerNorm(embed_dim, eps=1e-6)"
BOTH_NORMS = changed(
    LIBRARY_BLOCK,
    NORMS,
    "self.g, self.s = nn.Parameter(torch.ones(2, embed_dim)), nn.Parameter(torch.zeros(2, embed_dim))",
    "self.norm1(x)",
    "F.layer_norm(x, x.shape[-1:], self.g[0], self.s[0], 1e-6)",
    "self.norm2(x)",
    "F.layer_norm(x, x.shape[-1:], self.g[1], self.s[1], 1e-6)",
)
LAYER_SCALE = changed(
    LIBRARY_BLOCK,
    NORMS,
    """self.norm1, self.scale1 = nn.LayerNorm(embed_dim, eps=1e-6), Scale(embed_dim)
        self.norm2, self.scale2 = nn.LayerNorm(embed_dim, eps=1e-6), Scale(embed_dim)""",
    "self.attn(self.norm1(x))",
    "self.scale1(self.attn(self.norm1(x)))",
    "self.mlp(self.norm2(x))",
    "self.scale2(self.mlp(self.norm2(x)))",
    "class EncoderBlock",
    """class Scale(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.gamma = nn.Parameter(1e-4 * torch.ones(d))

    def forward(self, x):
        return x * self.gamma

class EncoderBlock""",
)
SECOND_SUM = "return x + self.mlp(self.norm2(x))"

OWN_POSITION = """
import torch
from torch import nn

class Tokens(nn.Module):
    def __init__(self, num_patches, embed_dim):
        super().__init__()
        self.cls, self.cls_pos = nn.Parameter(torch.zeros(embed_dim)), nn.Parameter(torch.zeros(embed_dim))
        self.pos = nn.Parameter(torch.zeros(num_patches, embed_dim))

    def forward(self, patches):
        return torch.cat([(self.cls + self.cls_pos).expand(len(patches), 1, -1), patches + self.pos], 1)
"""
OWN_POSITION_MODEL = changed(
    NORM_IN_CLASSIFIER,
    "self.pos = nn.Parameter(torch.randn(1 + self.patches.num_patches, embed_dim))",
    """self.tok_pos = nn.Parameter(torch.randn(embed_dim))
        self.pos = nn.Parameter(torch.randn(self.patches.num_patches, embed_dim))""",
    "self.pos.unsqueeze(0)",
    "torch.cat([self.tok_pos[None], self.pos])",
)
FIRST_BLOCK_APART = changed(
    NORM_IN_CLASSIFIER,
    "self.layers = ",
    "self.first = EncoderBlock(embed_dim, num_heads, mlp_dim)\n        self.layers = ",
    "range(depth)",
    "range(depth - 1)",
    "for layer in self.layers:",
    "for layer in (self.first, *self.layers):",
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("multi_head_self_attention", RAW_ATTENTION),
        ("multi_head_self_attention", QK_PACKED.replace("ONE", "qk").replace("TWO", "v")),
        ("multi_head_self_attention", QK_PACKED.replace("ONE", "a").replace("TWO", "c")),
        ("encoder_block", LISTS_OF_PARAMETERS),
        ("encoder_block", LIBRARY_BLOCK),
        ("tokens", OWN_POSITION),
        ("vision_transformer", OWN_POSITION_MODEL),
        ("vision_transformer", FIRST_BLOCK_APART),
    ],
    ids=["raw", "qk packed", "no names", "parameter lists", "block", "own position", "model with it", "block apart"],
)
def test_right_in_other_layouts(name: str, text: str) -> None:
    found = outcomes(name, text)
    assert found and all(isinstance(outcome, Passed) for outcome in found), found[-1]


def test_positions_of_the_patches_alone_beside_a_class_token() -> None:
    text = OWN_POSITION.replace("(self.cls + self.cls_pos)", "self.cls").replace(
        ", self.cls_pos = nn.Param", ", _ = nn.Param"
    )
    assert_wrong("tokens", text, "vit_pos_not_on_cls", "position embedding")


def test_what_cannot_be_matched_is_no_mistake() -> None:
    problem = assert_wrong("encoder_block", BOTH_NORMS, None, "parameters")
    assert problem.what.startswith("Your parameters could not all be matched")
    assert (
        "no role was found for g (2, 35), s (2, 35); not there: norm1.weight, norm1.bias, norm2.weight, norm2.bias of"
        in problem.evidence
    )


def test_layer_scale_is_no_norm() -> None:
    found = block_maps(student(LAYER_SCALE).EncoderBlock(35, 5, 29), 35, 5, 29)[0]
    assert not found.missing and found.surplus == ("scale1.gamma", "scale2.gamma")


@pytest.mark.parametrize(
    ("mistake", "step", "edits"),
    [
        (None, "scores", ("a = (q @ k.mT", "a = (q[:, :, :1].expand_as(q) @ k.mT")),
        (None, "queries, keys and values", ('self.b["b" + n]', 'self.b["bq"]')),
        (
            None,
            "heads",
            ("(q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)", "(q.mT @ k / 4).softmax(-1)", "a @ v", "v @ a.mT"),
        ),
        ("attn_scale_num_heads + attn_merge_reshape", "scale", ("q.shape[-1] ** 0.5", "self.h ** 0.5", *MERGE)),
        ("attn_merge_reshape", "merging heads", MERGE),
    ],
)
def test_the_numbers_come_from_the_reading_that_fits(mistake: str | None, step: str, edits: tuple[str, ...]) -> None:
    problem = assert_wrong("multi_head_self_attention", changed(RAW_ATTENTION, *edits), mistake, step)
    module, x = awaken(student(RAW_ATTENTION).MultiHeadSelfAttention(35, 5)), draw(3, 6, 35)
    found = re.search(r"\(draw\(3, 6, 35\)\)\[(.*?)\] is .*?; it should be ([-\d.]+)", problem.evidence)
    assert found is not None
    place = tuple(map(int, found[1].split(", ")))
    assert module(x)[place].item() == pytest.approx(float(found[2]), rel=1e-6)  # what the right one gives


def test_the_place_that_is_shown_is_one_that_differs() -> None:
    text = changed(
        LIBRARY_BLOCK, SECOND_SUM, f"y = {SECOND_SUM[7:]}\n        return torch.cat([y[:, :1], x[:, 1:]], 1)"
    )
    trial = modules._trial(encoder_block.PART, student(text), encoder_block.PART.sizes[0])
    step, evidence = encoder_block.PART.probes[0](trial) or ("", "")
    found = re.search(r"u \+ w: (\S+) \+ (\S+) \+ (\S+); yours becomes ([-.\d]+)", evidence)
    assert step == "second residual" and found is not None
    x, u, w, out = map(float, found.groups())
    assert out != pytest.approx(x + u + w, rel=1e-5)


def test_a_branch_that_is_dropped_in_eval_mode() -> None:
    branch = "self.attn(self.norm1(x))"
    text = changed(LIBRARY_BLOCK, branch, f"{branch} * x.new_empty(len(x), 1, 1).bernoulli_(0.8)")
    assert_wrong("encoder_block", text, "enc_random", "attention")


LAYERS = "self.layers = nn.ModuleList(EncoderBlock(embed_dim, num_heads, mlp_dim) for _ in range(depth))"


@pytest.mark.parametrize(
    ("mistake", "step", "edits"),
    [
        ("vit_plain_list", "parameters", (
            LAYERS, LAYERS.replace("nn.ModuleList(", "{'all': [").replace("(depth))", "(depth)]}"),
            "in self.layers:", "in self.layers['all']:",
        )),
        ("vit_depth_minus_one", "encoder blocks", ("            x = layer(x)", "            before, x = x, layer(x)", "x[:, 0]\n", "before[:, 0]\n")),
        (None, "pooling", ("self.classifier(cls)", "self.classifier(x[0])[:len(x)]")),
    ],
)  # fmt: skip
def test_model_of_the_librarys_parts(mistake: str | None, step: str, edits: tuple[str, ...]) -> None:
    problem = assert_wrong("vision_transformer", changed(NORM_IN_CLASSIFIER, *edits), mistake, step)
    assert mistake or problem.what == (
        "You let a picture's logits depend on its neighbours in the batch; they should not."
    )


def test_another_convolution_in_front_is_no_missing_stride() -> None:
    text = changed(
        BARE_PROJECTION,
        "self.p = patch_size",
        "self.p = patch_size\n        self.first = nn.Conv2d(in_channels, in_channels, 3, padding=1)",
        "conv2d(images,",
        "conv2d(self.first(images),",
    )
    assert_wrong("patch_embedding", text, None, "parameters")


def test_a_number_for_each_position() -> None:
    text = changed(answer("tokens"), "torch.empty(1, 1 + num_patches, embed_dim)", "torch.empty(1, 1 + num_patches, 1)")
    problem = assert_wrong("tokens", text, None, "position embedding")
    assert "of pos_embed (1, 8, 1) the shape should be (1, 8, 11)" in problem.evidence


def test_dropout_on_the_positions_is_not_drawing_them() -> None:
    text = changed(answer("tokens"), "+ self.pos_embed", "+ nn.functional.dropout(self.pos_embed, 0.1)")
    assert_wrong("tokens", text, "tok_dropout", "position embedding")
