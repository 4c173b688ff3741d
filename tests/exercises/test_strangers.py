"""What people who never saw the checks wrote: right in unusual ways, and wrong in the second half, in the tail, ..."""

import pytest

from tests.exercises.students import answer, assert_wrong, changed, outcomes
from vitscratch.exercises import Passed

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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("patch_embedding", BARE_PROJECTION),
        ("encoder_block", BARE_BLOCK),
        ("vision_transformer", BARE_MODEL),
        ("vision_transformer", PAIRS_MODEL),
        ("vision_transformer", NORM_IN_CLASSIFIER),
    ],
    ids=["bare projection", "bare block", "bare model", "pairs", "norm in the classifier"],
)
def test_right(name: str, text: str) -> None:
    found = outcomes(name, text)
    assert found and all(isinstance(outcome, Passed) for outcome in found), found[-1]


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
        (PAIRS_MODEL, None, "head", ("nn.Linear(d, num_classes))", "nn.Linear(d, d), nn.Tanh(), nn.Linear(d, num_classes))")),
    ],
)  # fmt: skip
def test_model(text: str, mistake: str | None, step: str, edits: tuple[str, str]) -> None:
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
    first, second = problem.evidence.removeprefix("two calls with the same input in eval mode: ").split(" and then ")
    assert first.startswith("tokens[0, 0] begins ") and first != f"tokens[0, 0] begins {second}"


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
