import re

import pytest

from tests.exercises.students import edited, module, outcome_of, outcomes
from vitscratch.exercises import Problem, awaken, draw
from vitscratch.exercises.checks.model.bank import OF_MODEL
from vitscratch.exercises.checks.vision_transformer import MISTAKES

HEAD = """
import math
import torch
from torch import nn
import torch.nn.functional as F
from einops import rearrange, repeat
from vitscratch import EncoderBlock, PatchEmbedding
"""
LIBRARY = (
    HEAD
    + """
class VisionTransformer(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, num_classes, embed_dim, depth, num_heads, mlp_dim):
        super().__init__()
        self.patch_embed = PatchEmbedding(image_size, patch_size, in_channels, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.patch_embed.num_patches, embed_dim) * 0.02)
        self.blocks = nn.ModuleList(EncoderBlock(embed_dim, num_heads, mlp_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, images):
        x = self.patch_embed(images)
        cls = self.cls_token.expand(len(x), -1, -1)
        x = torch.cat([cls, x], dim=1)
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0])
"""
)
BLOCK = """
class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.to_qkv(x).chunk(3, dim=-1)
        q, k, v = (t.reshape(b, n, self.heads, d // self.heads).transpose(1, 2) for t in (q, k, v))
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        out = (weights @ v).transpose(1, 2).reshape(b, n, d)
        return self.to_out(out)


class EncoderBlock(nn.Module):
    def __init__(self, embed_dim, num_heads, mlp_dim):
        super().__init__()
        self.ln1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attention = Attention(embed_dim, num_heads)
        self.ln2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(embed_dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, embed_dim))

    def forward(self, x):
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))
"""
OWN = edited(
    LIBRARY,
    ("from vitscratch import EncoderBlock, PatchEmbedding\n", BLOCK),
    (
        "PatchEmbedding(image_size, patch_size, in_channels, embed_dim)",
        "nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)",
    ),
    ("1 + self.patch_embed.num_patches", "1 + num_patches"),
    (
        "        self.patch_embed =",
        "        sides = image_size if isinstance(image_size, tuple) else (image_size, image_size)\n"
        "        num_patches = (sides[0] // patch_size) * (sides[1] // patch_size)\n        self.patch_embed =",
    ),
    ("self.patch_embed(images)", "self.patch_embed(images).flatten(2).transpose(1, 2)"),
)
ONE = """
import torch
import torch.nn.functional as F
from torch import nn

class VisionTransformer(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, num_classes, embed_dim, depth, num_heads, mlp_dim):
        super().__init__()
        self.heads, self.side = num_heads, patch_size
        self.projection = nn.Linear(in_channels * patch_size**2, embed_dim)
        self.cls = nn.Parameter(torch.zeros(embed_dim))
        self.pos = nn.Parameter(torch.randn((image_size // patch_size) ** 2 + 1, embed_dim) * 0.02)
        for name, make in dict(
            norm1=lambda: nn.LayerNorm(embed_dim, eps=1e-6), norm2=lambda: nn.LayerNorm(embed_dim, eps=1e-6),
            qkv=lambda: nn.Linear(embed_dim, 3 * embed_dim), out=lambda: nn.Linear(embed_dim, embed_dim),
            up=lambda: nn.Linear(embed_dim, mlp_dim), down=lambda: nn.Linear(mlp_dim, embed_dim),
        ).items():
            setattr(self, name, nn.ModuleList(make() for _ in range(depth)))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, images):
        x = self.projection(F.unfold(images, self.side, stride=self.side).mT)
        x = torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1) + self.pos
        for norm1, qkv, out, norm2, up, down in zip(self.norm1, self.qkv, self.out, self.norm2, self.up, self.down):
            q, k, v = qkv(norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            x = x + out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            x = x + down(F.gelu(up(norm2(x))))
        return self.head(self.norm(x)[:, 0])
"""
STACKED = """
import torch
import torch.nn.functional as F
from torch import nn

class VisionTransformer(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, num_classes, embed_dim, depth, num_heads, mlp_dim):
        super().__init__()
        self.heads, self.depth, d = num_heads, depth, embed_dim
        self.projection = nn.Conv2d(in_channels, d, patch_size, patch_size)
        self.cls = nn.Parameter(torch.zeros(d))
        height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
        self.pos = nn.Parameter(torch.randn((height // patch_size) * (width // patch_size) + 1, d))
        self.scale, self.shift = nn.Parameter(torch.ones(depth, 2, d)), nn.Parameter(torch.zeros(depth, 2, d))
        self.w_qkv, self.b_qkv = nn.Parameter(torch.randn(depth, 3 * d, d)), nn.Parameter(torch.zeros(depth, 3 * d))
        self.w_out, self.b_out = nn.Parameter(torch.randn(depth, d, d)), nn.Parameter(torch.zeros(depth, d))
        self.w_up, self.b_up = nn.Parameter(torch.randn(depth, mlp_dim, d)), nn.Parameter(torch.zeros(depth, mlp_dim))
        self.w_down, self.b_down = nn.Parameter(torch.randn(depth, d, mlp_dim)), nn.Parameter(torch.zeros(depth, d))
        self.norm, self.head = nn.LayerNorm(d, eps=1e-6), nn.Linear(d, num_classes)

    def forward(self, images):
        x = self.projection(images).flatten(2).mT
        x = torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1) + self.pos
        for i in range(self.depth):
            y = F.layer_norm(x, x.shape[-1:], self.scale[i][0], self.shift[i][0], 1e-6)
            q, k, v = F.linear(y, self.w_qkv[i], self.b_qkv[i]).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + F.linear(y, self.w_out[i], self.b_out[i])
            y = F.layer_norm(x, x.shape[-1:], self.scale[i][1], self.shift[i][1], 1e-6)
            x = x + F.linear(F.gelu(F.linear(y, self.w_up[i], self.b_up[i])), self.w_down[i], self.b_down[i])
        return self.head(self.norm(x)[:, 0])
"""
LISTED = re.sub(
    r"nn.Parameter\((torch\.\w+)\(depth, ([^)]+)\)\)", r"nn.ParameterList(\1(\2) for _ in range(depth))", STACKED
)
NORM = "self.norm = nn.LayerNorm(embed_dim, eps=1e-6)"
BLOCKS = "self.blocks = nn.ModuleList(EncoderBlock(embed_dim, num_heads, mlp_dim) for _ in range(depth))"
LOOP = "for block in self.blocks:\n            x = block(x)"
TURNS = edited(
    OWN,
    (
        "class VisionTransformer",
        """class Residual(nn.Module):
    def __init__(self, dim, branch):
        super().__init__()
        self.norm, self.branch = nn.LayerNorm(dim, eps=1e-6), branch

    def forward(self, x):
        return x + self.branch(self.norm(x))


class VisionTransformer""",
    ),
    (
        BLOCKS,
        """self.blocks = nn.Sequential()
        for _ in range(depth):
            self.blocks.append(Residual(embed_dim, Attention(embed_dim, num_heads)))
            mlp = nn.Sequential(nn.Linear(embed_dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, embed_dim))
            self.blocks.append(Residual(embed_dim, mlp))""",
    ),
    (LOOP, "x = self.blocks(x)"),
)
CLS, POS = (
    "self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))",
    "self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.patch_embed.num_patches, embed_dim) * 0.02)",
)
CAT, ADD, RETURN = "torch.cat([cls, x], dim=1)", "x = x + self.pos_embed", "return self.head(x[:, 0])"
ATT = "self.attention = Attention(embed_dim, num_heads)"
LAYER = 'nn.TransformerEncoderLayer(embed_dim, num_heads, mlp_dim, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True)'
RIGHT = {
    "with the library's blocks": LIBRARY,
    "all by hand": OWN,
    "zero head": edited(LIBRARY, ("num_classes)\n\n", "num_classes)\n        nn.init.zeros_(self.head.weight)\n        nn.init.zeros_(self.head.bias)\n\n")),
    "sequential": edited(OWN, (LOOP, "x = self.blocks(x)"), (BLOCKS, "self.blocks = nn.Sequential(*[EncoderBlock(embed_dim, num_heads, mlp_dim) for _ in range(depth)])")),
    "nn.TransformerEncoder": edited(LIBRARY, (LOOP, "x = self.blocks(x)"), (BLOCKS, f"self.blocks = nn.TransformerEncoder({LAYER}, depth, enable_nested_tensor=False)")),
    "nn.TransformerEncoder with its norm": edited(LIBRARY, (LOOP, "x = self.blocks(x)"), (BLOCKS, f"self.blocks = nn.TransformerEncoder({LAYER}, depth, norm=nn.LayerNorm(embed_dim, eps=1e-6), enable_nested_tensor=False)"), (f"        {NORM}\n", ""), ("        x = self.norm(x)\n", "")),
    "nn.TransformerEncoderLayer": edited(LIBRARY, ("EncoderBlock(embed_dim, num_heads, mlp_dim) for", f"{LAYER} for")),
    "tokens first": edited(LIBRARY, ("EncoderBlock(embed_dim, num_heads, mlp_dim) for", f"{LAYER.replace('batch_first=True', 'batch_first=False')} for"), (LOOP, f"x = x.transpose(0, 1)\n        {LOOP}\n        x = x.transpose(0, 1)")),
    "nn.MultiheadAttention": edited(OWN, (ATT, "self.attention = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)"), (
        "x = x + self.attention(self.ln1(x))", "y = self.ln1(x)\n        x = x + self.attention(y, y, y, need_weights=False)[0]")),
    "linear projection": edited(OWN, ("nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)", "nn.Linear(in_channels * patch_size ** 2, embed_dim)"), (
        "self.patch_embed(images).flatten(2).transpose(1, 2)", 'self.patch_embed(rearrange(images, "b c (r p) (s q) -> b (r s) (p q c)", p=self.p, q=self.p))'),
        ("        self.cls_token =", "        self.p = patch_size\n        self.cls_token =")),
    "repeat, norm after pooling, extras": edited(OWN, ("self.cls_token.expand(len(x), -1, -1)", 'repeat(self.cls_token, "1 1 d -> b 1 d", b=len(x))'), ("x = self.norm(x)\n        return self.head(x[:, 0])", "return self.head(self.norm(x[:, 0])), x")),
    "vectors": edited(OWN, ("expand(len(x), -1, -1)", "expand(len(x), 1, -1)"), ("torch.zeros(1, 1, embed_dim)", "torch.zeros(embed_dim)"), ("torch.randn(1, 1 + num_patches, embed_dim)", "torch.randn(1 + num_patches, embed_dim)")),
    "embedding table": edited(OWN, ("nn.Parameter(torch.randn(1, 1 + num_patches, embed_dim) * 0.02)", "nn.Embedding(1 + num_patches, embed_dim)"), (ADD, "x = x + self.pos_embed(torch.arange(x.shape[1]))")),
    "head with its norm, dropout": edited(OWN, (NORM, "self.dropout = nn.Dropout(dropout)"), ("nn.Linear(embed_dim, num_classes)", "nn.Sequential(nn.LayerNorm(embed_dim, eps=1e-6), nn.Linear(embed_dim, num_classes))"),
        ("        x = self.norm(x)\n", ""), (ADD, "x = self.dropout(x + self.pos_embed)"), ("num_heads, mlp_dim):\n        super().__init__()\n        sides", "num_heads, mlp_dim, dropout=0.1):\n        super().__init__()\n        sides")),
    "parts in modules": edited(OWN, ("class VisionTransformer", '''class Embed(nn.Module):
    def __init__(self, n, d):
        super().__init__()
        self.token, self.table = nn.Parameter(torch.zeros(1, d)), nn.Parameter(torch.zeros(n + 1, d))

    def forward(self, x):
        return torch.cat([self.token.expand(len(x), 1, -1), x], 1) + self.table


class VisionTransformer'''), ("        " + CLS, "        self.embed = Embed(num_patches, embed_dim)"), ("        self.pos_embed = nn.Parameter(torch.randn(1, 1 + num_patches, embed_dim) * 0.02)\n", ""), (
        "        cls = self.cls_token.expand(len(x), -1, -1)\n        x = torch.cat([cls, x], dim=1)\n        x = x + self.pos_embed\n", "        x = self.embed(x)\n")),
    "lists of parts": edited(OWN, (BLOCKS, '''self.norms1 = nn.ModuleList(nn.LayerNorm(embed_dim, eps=1e-6) for _ in range(depth))
        self.attentions = nn.ModuleList(Attention(embed_dim, num_heads) for _ in range(depth))
        self.norms2 = nn.ModuleList(nn.LayerNorm(embed_dim, eps=1e-6) for _ in range(depth))
        self.mlps = nn.ModuleList(nn.Sequential(nn.Linear(embed_dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, embed_dim)) for _ in range(depth))'''), (
        LOOP, "for n1, a, n2, m in zip(self.norms1, self.attentions, self.norms2, self.mlps):\n            x = x + a(n1(x))\n            x = x + m(n2(x))")),
    "all drawn at random": edited(LIBRARY, ("num_classes)\n\n", "num_classes)\n        for z in self.parameters(): nn.init.normal_(z, std=0.02)\n\n")),
    "a list of all norms": edited(OWN, (BLOCKS, '''self.norms = nn.ModuleList(nn.LayerNorm(embed_dim, eps=1e-6) for _ in range(2 * depth + 1))
        self.attentions = nn.ModuleList(Attention(embed_dim, num_heads) for _ in range(depth))
        self.mlps = nn.ModuleList(nn.Sequential(nn.Linear(embed_dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, embed_dim)) for _ in range(depth))'''), (
        LOOP, "for i in range(len(self.mlps)):\n            x = x + self.attentions[i](self.norms[2 * i](x))\n            x = x + self.mlps[i](self.norms[2 * i + 1](x))"), (
        f"        {NORM}\n", ""), ("self.norm(x)", "self.norms[-1](x)")),
    "residuals in turns": TURNS,
    "attention and MLP in turns, norms apart": edited(
        OWN,
        (BLOCKS, '''self.layers = nn.ModuleList()
        for _ in range(depth):
            self.layers.append(Attention(embed_dim, num_heads))
            self.layers.append(nn.Sequential(nn.Linear(embed_dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, embed_dim)))
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dim, eps=1e-6) for _ in range(2 * depth))'''),
        (LOOP, "for norm, layer in zip(self.norms, self.layers):\n            x = x + layer(norm(x))"),
    ),
    "tokens and norm as parameters of lists": edited(
        OWN,
        (CLS, "pass"),
        ("self.pos_embed = nn.Parameter(torch.randn(1, 1 + num_patches, embed_dim) * 0.02)", "self.t = nn.ParameterList([torch.zeros(1, 1, embed_dim), torch.randn(1, 1 + num_patches, embed_dim)])"),
        ("self.cls_token", "self.t[0]"), ("self.pos_embed", "self.t[1]"),
    ),
    "stacked": STACKED,
    "lists of parameters": LISTED,
    "lists of parameters, one of them for the tokens": edited(
        LISTED,
        ("self.cls = nn.Parameter(torch.zeros(d))", "self.t = nn.ParameterList([torch.zeros(d)])"),
        ("self.pos = nn.Parameter(", "self.t.append("),
        ("self.cls.expand", "self.t[0].expand"),
        ("+ self.pos", "+ self.t[1]"),
    ),
    "a bias of its own": edited(OWN, ("nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)", "nn.Conv2d(in_channels, embed_dim, patch_size, patch_size, bias=False)"), (
        "        self.cls_token =", "        self.b = nn.Parameter(torch.zeros(embed_dim))\n        self.cls_token ="), ("flatten(2).transpose(1, 2)", "flatten(2).transpose(1, 2) + self.b")),
    "square only": edited(OWN, ("sides = image_size if isinstance(image_size, tuple) else (image_size, image_size)", "sides = (image_size // 1,) * 2")),
    "lazy head": edited(LIBRARY, ("nn.Linear(embed_dim, num_classes)", "nn.LazyLinear(num_classes)")),
    "lazy convolution": edited(OWN, ("nn.Conv2d(in_channels, embed_dim,", "nn.LazyConv2d(embed_dim,")),
    "all in one class": ONE,
    "the library": "from vitscratch import VisionTransformer",
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name: str) -> None:
    problem = outcome_of("vision_transformer", RIGHT[name])
    assert problem is None, (problem.mistake, problem.step, problem.evidence)


MODEL = {  # mistakes of the model; edits of LIBRARY
    "pe_relu": (("self.patch_embed(images)", "self.patch_embed(images).relu()"),),
    "pe_picture_transposed": (("self.patch_embed(images)", "self.patch_embed(images.mT)"), ("image_size, patch_size, in_channels, embed_dim)\n", "int(image_size), patch_size, in_channels, embed_dim)\n")),
    "pe_column_major": (("self.patch_embed(images)", "rearrange(self.patch_embed.proj(images), 'b d r c -> b (c r) d')"),),
    "pe_reshape_not_transpose": (("x = self.patch_embed(images)", "x = self.patch_embed.proj(images)\n        x = x.reshape(x.shape[0], -1, x.shape[1])"),),
    "vit_cls_batch_dim": (("torch.zeros(1, 1,", "torch.zeros(32, 1,"), ("self.cls_token.expand(len(x), -1, -1)", "self.cls_token[:len(x)]")),
    "vit_pos_batch_dim": (("torch.randn(1, 1 +", "torch.randn(32, 1 +"),),
    "vit_pos_not_on_cls": ((f"x = {CAT}\n        {ADD}", f"{ADD}\n        x = {CAT}"), ("randn(1, 1 + ", "randn(1, ")),
    "vit_pos_not_on_cls: all rows": ((f"x = {CAT}", ""), (ADD, "x = torch.cat([cls, x + self.pos_embed[:, 1:]], dim=1)")),
    "vit_pos_random_each_forward": ((ADD, "x = x + torch.randn(1, x.shape[1], x.shape[2])"), (POS, "")),
    "vit_pos_random_each_forward: beside": ((ADD, "x = x + torch.randn_like(self.pos_embed)"),),
    "vit_cls_added": ((CAT, "x + cls"), ("randn(1, 1 + ", "randn(1, ")),
    "vit_cls_appended": ((CAT, "torch.cat([x, cls], dim=1)"),),
    "tok_no_position": ((ADD, ""), (POS, "")),
    "tok_no_position: unused": ((ADD, ""),),
    "tok_pos_twice: in every block": (("x = block(x)", f"x = block(x)\n            {ADD}"),),
    "tok_pos_twice: after the blocks": ((LOOP, f"{LOOP}\n        {ADD}"),),
    "vit_pos_after_blocks: and the norm": ((ADD, ""), ("x = self.norm(x)", f"x = self.norm(x)\n        {ADD}")),
    "vit_pos_after_blocks": ((ADD, ""), (LOOP, f"{LOOP}\n        {ADD}")),
    "tok_not_parameter": (("nn.Parameter(torch.randn", "(torch.randn"),),
    "vit_cls_batch_dim: rows": ((CLS, "self.cls_token = nn.Parameter(torch.zeros(16, embed_dim))"), ("self.cls_token.expand(len(x), -1, -1)", "self.cls_token[: len(x), None]")),
    "tok_no_class_token": ((CLS, ""), ("        cls = self.cls_token.expand(len(x), -1, -1)\n", ""), (CAT, "x"), ("randn(1, 1 + ", "randn(1, "), ("x[:, 0]", "x.mean(1)")),
    "tok_no_class_token: declared alone": ((CAT, "x"), (ADD, "x = x + self.pos_embed[:, 1:]"), ("x[:, 0]", "x.mean(1)")),
    "tok_no_class_token: with a row short": ((CAT, "x"), ("randn(1, 1 + ", "randn(1, "), ("x[:, 0]", "x.mean(1)")),
    "vit_cls_added: with its position": ((CAT, "x + cls"), (ADD, "x = x + self.pos_embed[:, 1:] + self.pos_embed[:, :1]")),
    "tok_cls_first_picture": (("self.cls_token.expand(len(x), -1, -1)", "torch.cat([self.cls_token, torch.zeros_like(x[1:, :1])])"),),
    "tok_pos_twice": ((ADD, "x = x + 2 * self.pos_embed"),),
    "tok_scaled": ((ADD, "x = x * x.shape[-1] ** 0.5 + self.pos_embed"),),
    "tok_norm": ((ADD, "x = self.pre(x + self.pos_embed)"), (NORM, f"{NORM}\n        self.pre = nn.LayerNorm(embed_dim, eps=1e-6)")),
    "tok_dropout": ((ADD, "x = F.dropout(x + self.pos_embed, 0.1)"),),
    "tok_pos_multiplied": ((ADD, "x = x * self.pos_embed"),),
    "vit_plain_list": (("nn.ModuleList(EncoderBlock(embed_dim, num_heads, mlp_dim) for _ in range(depth))", "[EncoderBlock(embed_dim, num_heads, mlp_dim) for _ in range(depth)]"),),
    "vit_depth_minus_one": (("in self.blocks:", "in self.blocks[:-1]:"),),
    "vit_depth_minus_one: made": (("range(depth)", "range(depth - 1)"),),
    "vit_depth_ignored": (("range(depth)", "range(12)"),),
    "vit_blocks_shared": (("nn.ModuleList(EncoderBlock(embed_dim, num_heads, mlp_dim) for _ in range(depth))", "nn.ModuleList([EncoderBlock(embed_dim, num_heads, mlp_dim)] * depth)"),),
    "vit_blocks_shared: the last one": (("(depth))\n", "(depth))\n        self.blocks[-1] = self.blocks[0]\n"),),
    "vit_blocks_shared: one": (("nn.ModuleList(EncoderBlock(embed_dim, num_heads, mlp_dim) for _ in range(depth))", "EncoderBlock(embed_dim, num_heads, mlp_dim); self.depth = depth"), (LOOP, "for _ in range(self.depth):\n            x = self.blocks(x)")),
    "vit_blocks_shared: called": (("x = block(x)", "x = self.blocks[0](x)"),),
    "vit_blocks_unused": (("x = block(x)", "y = block(x)"),),
    "vit_block_order": (("in self.blocks:", "in reversed(self.blocks):"),),
    "vit_residual_stream_dropped": ((LOOP, "z = x\n        for block in self.blocks:\n            x = block(z)"),),
    "enc_double_residual": (("x = block(x)", "x = x + block(x)"),),
    "vit_norm_every_block": (("x = block(x)", "x = self.norm(block(x))"), ("        x = self.norm(x)\n", "")),
    "vit_long_residual": ((LOOP, f"z = x\n        {LOOP}\n        x = x + z"),),
    "vit_no_final_norm": (("x = self.norm(x)", ""), (NORM, "")),
    "vit_no_final_norm: unused": (("x = self.norm(x)", ""),),
    "vit_final_norm_twice": (("x = self.norm(x)", "x = self.norm(self.norm(x))"),),
    "vit_final_norm_added": (("x = self.norm(x)", "x = x + self.norm(x)"),),
    "vit_final_norm_other": ((NORM, "self.norm = nn.LayerNorm(embed_dim, eps=1e-6, elementwise_affine=False)"),),
    "vit_norm_before_blocks": ((LOOP, f"x = self.norm(x)\n        {LOOP}"), ("x = block(x)\n        x = self.norm(x)", "x = block(x)")),
    "vit_final_norm_other: batch": ((NORM, "self.norm = nn.BatchNorm1d(embed_dim)"), ("x = self.norm(x)", "x = self.norm(x.mT).mT")),
    "vit_first_picture: x[0]": (("x[:, 0]", "x[0]"),),
    "vit_depth_ignored: in steps of two": (("in self.blocks:", "in self.blocks[::2]:"),),
    "vit_depth_ignored: returned early": (("x = block(x)", "x = block(x)\n            break"),),
    "tok_global_name: positions": (("1 + self.patch_embed.num_patches", "197"),),
    "mlp_hidden_is_embed": (("EncoderBlock(embed_dim, num_heads, mlp_dim)", "EncoderBlock(embed_dim, num_heads, embed_dim)"),),
    "mlp_hidden_fixed: two arguments swapped": (("import EncoderBlock,", "import EncoderBlock as Block,"), ("EncoderBlock(embed_dim, num_heads, mlp_dim)", "Block(embed_dim, 1, num_heads)")),
    "mlp_hidden_fixed": (("EncoderBlock(embed_dim, num_heads, mlp_dim)", "EncoderBlock(embed_dim, num_heads, 4 * embed_dim)"),),
    "attn_one_head": (("EncoderBlock(embed_dim, num_heads, mlp_dim)", "EncoderBlock(embed_dim, 1, mlp_dim)"),),
    "enc_eps_1e-5": ((NORM, "self.norm = nn.LayerNorm(embed_dim)"),),
    "vit_mean_with_cls": (("x[:, 0]", "x.mean(dim=1)"),),
    "vit_mean_pool": (("x[:, 0]", "x[:, 1:].mean(dim=1)"),),
    "vit_max_pool": (("x[:, 0]", "x.amax(dim=1)"),),
    "vit_sum_pool": (("x[:, 0]", "x.sum(dim=1)"),),
    "vit_other_token": (("x[:, 0]", "x[:, -1]"),),
    "vit_other_token: the third": (("x[:, 0]", "x[:, 2]"),),
    "vit_first_picture": (("x[:, 0]", "x[:1, 0].expand(len(x), -1)"),),
    "vit_head_all_tokens": (("x[:, 0]", "x.flatten(1)"), ("nn.Linear(embed_dim, num_classes)", "nn.Linear(embed_dim * self.pos_embed.shape[1], num_classes)")),
    "vit_head_no_bias": (("nn.Linear(embed_dim, num_classes)", "nn.Linear(embed_dim, num_classes, bias=False)"),),
    "vit_head_activation": ((RETURN, f"{RETURN}.relu()"),),
    "vit_activation_before_head": (("x[:, 0]", "torch.tanh(x[:, 0])"),),
    "vit_head_norm": ((RETURN, "return F.normalize(self.head(x[:, 0]), dim=-1)"),),
    "vit_head_scaled": ((RETURN, f"{RETURN} / x.shape[-1] ** 0.5"),),
    "vit_softmax": ((RETURN, f"{RETURN}.softmax(dim=-1)"),),
    "vit_softmax: log": ((RETURN, "return F.log_softmax(self.head(x[:, 0]), dim=1)"),),
    "vit_dropout": (("x[:, 0]", "F.dropout(x[:, 0], 0.5)"),),
    "vit_frozen": ((ADD, "x = (x + self.pos_embed).detach()"),),
}  # fmt: skip
OF_BLOCKS = {  # mistakes inside the blocks, and of the file; edits of OWN
    "pe_no_stride": (("patch_size, patch_size)", "patch_size)"),),
    "pe_no_bias": (("patch_size, patch_size)", "patch_size, patch_size, bias=False)"),),
    "tok_global_name": (("embed_dim, patch_size, patch_size)", "embed_dim, 16, 16)"),),
    "tok_global_name: nowhere": (("(sides[0] // patch_size)", "(sides[0] // PATCH_SIZE)"),),
    "enc_blocks_unused": (("EncoderBlock(embed_dim, num_heads, mlp_dim) for", f"{LAYER} for"),),
    "attn_scale_embed_dim": (("(dim // heads) ** -0.5", "dim ** -0.5"),),
    "attn_softmax_queries": (("softmax(dim=-1)", "softmax(dim=-2)"),),
    "attn_split_view": (("reshape(b, n, self.heads, d // self.heads).transpose(1, 2) for", "reshape(b, self.heads, n, d // self.heads) for"),),
    "attn_merge_reshape": (("(weights @ v).transpose(1, 2).reshape", "(weights @ v).reshape"),),
    "attn_no_out_proj": (("self.to_out = nn.Linear(dim, dim)", ""), ("self.to_out(out)", "out")),
    "attn_no_qkv_bias": (("nn.Linear(dim, 3 * dim)", "nn.Linear(dim, 3 * dim, bias=False)"),),
    "attn_over_batch": ((ATT, "self.attention = nn.MultiheadAttention(embed_dim, num_heads)"), ("x = x + self.attention(self.ln1(x))", "y = self.ln1(x)\n        x = x + self.attention(y, y, y)[0]")),
    "mlp_gelu_tanh": (("nn.GELU()", "nn.GELU(approximate='tanh')"),),
    "mlp_relu": (("nn.GELU()", "nn.ReLU()"),),
    "enc_post_norm": (("x = x + self.attention(self.ln1(x))", "x = self.ln1(x + self.attention(x))"), ("return x + self.mlp(self.ln2(x))", "return self.ln2(x + self.mlp(x))")),
    "enc_no_attn_residual": (("x = x + self.attention", "x = self.attention"),),
    "enc_no_mlp_residual": (("return x + self.mlp", "return self.mlp"),),
    "enc_eps_1e-5": (("eps=1e-6", "eps=1e-5"),),
}  # fmt: skip


@pytest.mark.parametrize("name", MODEL)
def test_known_mistakes_of_the_model_are_named(name: str) -> None:
    named_as(name, edited(LIBRARY, *MODEL[name]))


@pytest.mark.parametrize("name", OF_BLOCKS)
def test_known_mistakes_inside_the_blocks_are_named(name: str) -> None:
    named_as(name, edited(OWN, *OF_BLOCKS[name]))


def named_as(name: str, source: str) -> None:
    problem = outcome_of("vision_transformer", source)
    assert problem is not None
    found = problem.mistake, problem.step, problem.evidence
    assert problem.mistake == name.partition(":")[0] and problem.evidence and len(problem.hints) > 1, found


INLINE = {
    "vit_mean_with_cls": (("x[:, 0]", "x.mean(1)"),),
    "vit_residual_stream_dropped": (("        for n1", "        z = x\n        for n1"), ("x = x + a(n1(x))", "x = z + a(n1(z))")),
    "enc_no_mlp_residual": (("x = x + m(n2(x))", "x = m(n2(x))"),),
    "attn_scale_embed_dim": (("(dim // heads) ** -0.5", "dim ** -0.5"),),
    "vit_cls_appended": ((CAT, "torch.cat([x, cls], dim=1)"),),
    "tok_pos_twice": (("        x = self.norm(x)", f"        {ADD}\n        x = self.norm(x)"),),
    "vit_pos_after_blocks": ((ADD, ""), ("        x = self.norm(x)", f"        {ADD}\n        x = self.norm(x)")),
    "pe_relu": (("flatten(2).transpose(1, 2)", "flatten(2).transpose(1, 2).relu()"),),
}  # fmt: skip


@pytest.mark.parametrize("name", INLINE)
def test_blocks_that_are_no_modules_are_compared_as_a_whole(name: str) -> None:
    named_as(name, edited(RIGHT["lists of parts"], *INLINE[name]))


PARTS = RIGHT["lists of parts"]
OF_ONE = {  # mistake, step; edits of ONE
    "none, patch embedding: BGR": (("F.unfold(images", "F.unfold(images.flip(1)"),),
    "attn_causal, encoder blocks": (("attention(q, k, v)", "attention(q, k, v, is_causal=True)"),),
    "attn_over_batch, encoder blocks": (("permute(2, 0, 3, 1, 4)", "permute(2, 1, 3, 0, 4)"), (".transpose(1, 2).flatten(2))", ".permute(2, 0, 1, 3).flatten(2))")),
    "enc_eps_1e-5, final norm": ((NORM, "self.norm = nn.LayerNorm(embed_dim)"),),
}  # fmt: skip
SDPA, UP = "attention(q, k, v)", "F.linear(y, self.w_up[i], self.b_up[i])"
OF_STACKED = {  # mistake, step; edits of STACKED
    "attn_causal, encoder blocks: stacked": ((SDPA, "attention(q, k, v, is_causal=True)"),),
    "vit_residual_stream_dropped, encoder blocks: stacked": (("        for i in", "        z = x\n        for i in"), ("x = x + F.linear(y, self.w_out", "x = z + F.linear(y, self.w_out"), ("y = F.layer_norm(x, x.shape[-1:], self.scale[i][0]", "y = F.layer_norm(z, x.shape[-1:], self.scale[i][0]")),
    "mlp_no_bias, encoder blocks: stacked": ((UP, "F.linear(y, self.w_up[i])"), ("self.w_up, self.b_up =", "self.w_up ="), ("torch.randn(depth, mlp_dim, d)), nn.Parameter(torch.zeros(depth, mlp_dim))", "torch.randn(depth, mlp_dim, d))")),
    "none, encoder blocks: stacked": ((UP, f"{UP}.roll(1, 2)"),),
}  # fmt: skip
OF_TURNS = {  # mistake, step; edits of TURNS
    "enc_post_norm, encoder blocks: in turns": (("x + self.branch(self.norm(x))", "self.norm(x + self.branch(x))"),),
    "attn_scale_embed_dim, encoder blocks: in turns": (("(dim // heads) ** -0.5", "dim ** -0.5"),),
    "mlp_relu, encoder blocks: in turns": (("nn.GELU()", "nn.ReLU()"),),
    "none, encoder blocks: in turns": (("self.branch(self.norm(x))", "self.branch(self.norm(x).roll(1, 1))"),),
}  # fmt: skip
OF_PARTS = {  # mistake, step; edits of PARTS
    "none, patch embedding: flipped": (("self.patch_embed(images)", "self.patch_embed(images.flip(-1))"),),
    "none, patch embedding: reversed": (("flatten(2).transpose(1, 2)", "flatten(2).transpose(1, 2).flip(1)"),),
    "none, patch embedding: bent": (("flatten(2).transpose(1, 2)", "flatten(2).transpose(1, 2).sin()"),),
    "none, position embedding: cubed": ((ADD, "x = torch.cat([x[:, :1] + self.pos_embed[:, :1], x[:, 1:] + self.pos_embed[:, 1:] ** 3], 1)"),),
    "none, class token: cubed": (("self.cls_token.expand(", "(self.cls_token ** 3).expand("),),
    "none, encoder blocks: inside": (("x + m(n2(x))", "x + m(n2(x).roll(1, 2))"),),
    "none, encoder blocks: patches": (("x = x + a(n1(x))", "x = torch.cat([x[:, :1], x[:, 1:].flip(1)], 1)\n            x = x + a(n1(x)) * 1.1"),),
    "attn_causal, encoder blocks": (("self.scale).softmax", "self.scale + torch.full((n, n), -1e30).triu(1)).softmax"),),
    "attn_over_batch, encoder blocks": (("Attention(embed_dim, num_heads) for", "nn.MultiheadAttention(embed_dim, num_heads) for"), ("x = x + a(n1(x))", "y = n1(x)\n            x = x + a(y, y, y)[0]")),
    "vit_cls_added, class token: the last N": ((CAT, "x + cls"), (ADD, "x = x + self.pos_embed[:, 1:]")),
    "vit_cls_added, class token: the first N": ((CAT, "x + cls"), (ADD, "x = x + self.pos_embed[:, :x.shape[1]]")),
    "vit_cls_added, class token: N rows": ((CAT, "x + cls"), ("1 + num_patches", "num_patches")),
    "vit_cls_added, class token: mean": ((CAT, "x + cls"), (ADD, "x = x + self.pos_embed[:, 1:]"), ("x[:, 0]", "x.mean(1)")),
    "tok_no_class_token, class token: unused": ((CAT, "x"), (ADD, "x = x + self.pos_embed[:, 1:]")),
    "tok_no_class_token, class token: mean": ((CAT, "x"), (ADD, "x = x + self.pos_embed[:, 1:]"), ("x[:, 0]", "x.mean(1)")),
    "enc_eps_1e-5, final norm": ((NORM, "self.norm = nn.LayerNorm(embed_dim)"),),
    "enc_eps_other, final norm": ((NORM, "self.norm = nn.LayerNorm(embed_dim, eps=1e-7)"),),
    "vit_norm_every_block, encoder blocks: no other": (("x = x + m(n2(x))", "x = self.norm(x + m(n2(x)))"), ("        x = self.norm(x)\n", "")),
    "tok_pos_twice, position embedding: in every block": ((ADD, ""), ("x = x + a(n1(x))", f"{ADD}\n            x = x + a(n1(x))")),
    "tok_pos_twice, position embedding: and before": (("x = x + a(n1(x))", f"{ADD}\n            x = x + a(n1(x))"),),
    "vit_cls_appended, class token: and read": ((CAT, "torch.cat([x, cls], dim=1)"), ("x[:, 0]", "x[:, -1]")),
    "tok_pos_shifted, position embedding: rolled": ((ADD, "x = x + self.pos_embed.roll(1, 1)"),),
    "none, final norm: eps": ((NORM, "self.norm = nn.LayerNorm(embed_dim, eps=9e-7)"),),
    "enc_eps_other, encoder blocks: all": (("eps=1e-6", "eps=1e-7"),),
}  # fmt: skip
WITHOUT_BLOCKS = ((ONE, OF_ONE), (PARTS, OF_PARTS), (STACKED, OF_STACKED), (TURNS, OF_TURNS))


@pytest.mark.parametrize(
    ("name", "right", "edits"),
    [(name, right, edits) for right, table in WITHOUT_BLOCKS for name, edits in table.items()],
    ids=[name for _, table in WITHOUT_BLOCKS for name in table],
)
def test_mistakes_of_a_model_without_block_modules_are_named(
    name: str, right: str, edits: tuple[tuple[str, str], ...]
) -> None:
    mistake, step = name.partition(":")[0].split(", ")
    problem = outcome_of("vision_transformer", edited(right, *edits))
    assert problem and (problem.mistake or "none", problem.step) == (mistake, step), problem


@pytest.mark.parametrize(
    "edits",
    [
        (("torch.randn(depth, 3 * d, d)", "torch.randn(3 * d, d, depth)"), ("self.w_qkv[i]", "self.w_qkv[..., i]")),
        (
            ("torch.ones(depth, 2, d)", "torch.ones(2, depth, d)"),
            ("self.scale[i][0]", "self.scale[0, i]"),
            ("self.scale[i][1]", "self.scale[1, i]"),
        ),
    ],
    ids=["matrices", "norms"],
)
def test_a_layout_that_is_not_known_is_not_called_wrong(edits: tuple[tuple[str, str], ...]) -> None:
    problem = outcomes("vision_transformer", edited(STACKED, *edits))[-1]
    assert isinstance(problem, Problem) and (problem.mistake, problem.step) == (None, "parameters")
    assert "nothing could be compared (your model may well be right)" in problem.what
    assert "no block was found in " in problem.evidence and "w_qkv (" in problem.evidence.splitlines()[-1]


def test_blocks_that_are_not_there_are_no_unknown_layout() -> None:
    nothing = edited(
        LIBRARY, (BLOCKS, "self.more = nn.Linear(embed_dim, 40)"), (LOOP, "x = x + 0 * self.more(x).sum()")
    )
    problem = outcome_of("vision_transformer", nothing)
    assert problem and problem.step == "encoder blocks" and problem.what.startswith("You have no encoder blocks")


@pytest.mark.parametrize(
    "edit",
    [("self.side).mT)", "self.side).mT).flip(1)"), ("+ self.pos", "+ self.pos[[0, 2, 1, *range(3, len(self.pos))]]")],
)
def test_another_order_of_patches_is_one_of_positions_too(edit: tuple[str, str]) -> None:
    problem = outcome_of("vision_transformer", edited(ONE, edit))
    assert problem and (problem.mistake, problem.step) == (None, "patch embedding")
    assert problem.what.startswith("You give patches the positions of others, or put them into another order; ")


RARELY = "next(CALLS) % 7"
SKIPPED = "import itertools\nCALLS = itertools.count()\n"
BY_CHANCE = {  # mistake, step: right file, edits
    "vit_dropout, encoder blocks: a block skipped": (SKIPPED + LIBRARY, ("x = block(x)", f"x = block(x) if {RARELY} else x")),
    "vit_dropout, encoder blocks: half of them": (LIBRARY, ("x = block(x)", "x = block(x) if torch.rand(()) < 0.5 else x")),
    "vit_dropout, encoder blocks: a half skipped": (SKIPPED + PARTS, ("x = x + m(n2(x))", f"x = x + m(n2(x)) if {RARELY} else x")),
    "vit_dropout, encoder blocks: dropout": (ONE, ("attention(q, k, v)", "attention(q, k, v, dropout_p=0.1)")),
    "vit_dropout, head: dropout": (ONE, ("(x)[:, 0])", "(x)[:, 0] * torch.rand(()))")),
    "vit_dropout, head: before the norm": (ONE, ("self.norm(x)", "self.norm(x + torch.randn_like(x))")),
    "none, patch embedding: positions shuffled": (ONE, ("+ self.pos", "+ torch.cat([self.pos[:1], self.pos[1:][torch.randperm(x.shape[1])]])")),
    "vit_pos_random_each_forward, position embedding: beside": (ONE, ("+ self.pos", "+ self.pos + torch.randn_like(self.pos)")),
    "tok_dropout, position embedding: all": (PARTS, (ADD, "x = F.dropout(x + self.pos_embed, 0.1)")),
    "none, patch embedding: dropout": (LIBRARY, ("self.patch_embed(images)", "F.dropout(self.patch_embed(images), 0.1)")),
    "none, patch embedding: shuffled": (LIBRARY, ("self.patch_embed(images)", "self.patch_embed(images)[:, torch.randperm(self.pos_embed.shape[1] - 1)]")),
    "none, patch embedding: shuffled, to no blocks": (PARTS, (CAT, "torch.cat([cls, x[:, torch.randperm(x.shape[1])]], dim=1)")),
    "none, position embedding: some left out": (LIBRARY, (ADD, f"{ADD}\n        x = torch.cat([x[:, :1], x[:, 1 + torch.randperm(x.shape[1] - 1)[:3]]], dim=1)")),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_CHANCE)
def test_chance_in_eval_mode_is_placed(name: str) -> None:
    mistake, step = name.partition(":")[0].split(", ")
    source, *edits = BY_CHANCE[name]
    problem = outcomes("vision_transformer", edited(source, *edits))[-1]
    assert isinstance(problem, Problem) and (problem.mistake or "none", problem.step) == (mistake, step), problem
    assert problem.what.startswith("You ") and problem.what.endswith(".") and " the first time and " in problem.evidence


UNKNOWN = {  # step: what
    "patch embedding: blurred": (LIBRARY, ("self.patch_embed(images)", "self.patch_embed(images + images.roll(1, 3))")),
    "class token: cubed": (LIBRARY, ("self.cls_token.expand(", "(self.cls_token ** 3).expand(")),
    "class token: in the place of a patch": (LIBRARY, (CAT, "torch.cat([cls, x[:, 1:]], dim=1)"), (ADD, "x = x + self.pos_embed[:, 1:]")),
    "position embedding: cubed": (LIBRARY, (ADD, "x = torch.cat([x[:, :1] + self.pos_embed[:, :1], x[:, 1:] + self.pos_embed[:, 1:] ** 3], 1)")),
    "encoder blocks: between": (LIBRARY, ("x = block(x)", "x = block(x) ** 3")),
    "encoder blocks: inside": (OWN, ("x + self.mlp(", "x + self.mlp(x.roll(1, 2) + ")),
    "final norm: scaled": (LIBRARY, ("x = self.norm(x)", "x = self.norm(x) ** 3")),
    "final norm: of the last two": (LIBRARY, (LOOP, "for block in self.blocks:\n            y, x = x, block(x)\n        x = 0.5 * (x + y)")),
    "pooling: without the mean": (LIBRARY, ("x[:, 0]", "x[:, 0] - x.mean(1)")),
    "pooling: sum of two, then the norm": (LIBRARY, ("x = self.norm(x)", "x = self.norm(x[:, 1] + x[:, 3])"), ("x[:, 0])", "x)")),
    "pooling: second and first": (LIBRARY, ("x[:, 0]", "0.3 * x[:, 0] + 0.7 * x[:, 1]")),
    "head: squared": (LIBRARY, (RETURN, f"{RETURN} ** 2")),
    "parameters: more": (LIBRARY, (NORM, f"{NORM}\n        self.more = nn.Linear(3, 5)")),
    "head: squeezed": (LIBRARY, (RETURN, f"{RETURN}.squeeze()")),
    "pooling: none": (LIBRARY, (RETURN, "return self.head(x)")),
    "head: two layers": (LIBRARY, ("nn.Linear(embed_dim, num_classes)", "nn.Sequential(nn.Linear(embed_dim, 41), nn.GELU(), nn.Linear(41, num_classes))")),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_others_are_placed(name: str) -> None:
    source, *edits = UNKNOWN[name]
    problem = outcome_of("vision_transformer", edited(source, *edits))
    assert problem and problem.step == name.partition(":")[0], problem
    assert problem.mistake is None


def test_every_mistake_of_the_model_is_tried() -> None:
    tried = {name.partition(":")[0] for name in (*MODEL, *OF_BLOCKS, *INLINE)}
    assert OF_MODEL.keys() <= tried and tried <= MISTAKES.keys()


FIRST = ("pe_relu", "vit_pos_not_on_cls: all rows", "vit_cls_appended", "tok_pos_twice")
THEN = ("vit_residual_stream_dropped", "vit_no_final_norm: unused", "vit_mean_with_cls", "vit_softmax")


@pytest.mark.parametrize(("first", "then"), list(zip(FIRST, THEN, strict=True)))
def test_of_two_mistakes_the_first_is_named(first: str, then: str) -> None:
    named_as(first, edited(LIBRARY, *MODEL[first], *MODEL[then]))


@pytest.mark.parametrize(
    "two",
    [
        ("vit_no_final_norm", "vit_mean_with_cls"),
        ("vit_no_final_norm", "vit_softmax"),
        ("vit_no_final_norm", "vit_head_no_bias"),
        ("vit_mean_with_cls", "vit_head_no_bias"),
        ("enc_eps_1e-5", "vit_mean_with_cls"),
        ("enc_eps_1e-5", "vit_other_token"),
        ("enc_eps_1e-5", "vit_softmax"),
        ("vit_no_final_norm: unused", "vit_other_token: the third"),
        ("vit_no_final_norm: unused", "vit_mean_with_cls"),
        ("vit_no_final_norm: unused", "vit_softmax"),
        ("vit_final_norm_twice", "vit_max_pool"),
        ("vit_final_norm_twice", "vit_head_scaled"),
        ("pe_relu", "vit_cls_appended"),
        ("pe_column_major", "tok_pos_twice"),
        ("vit_cls_appended", "tok_pos_twice"),
    ],
)
def test_two_mistakes_of_one_stage_are_both_named(two: tuple[str, str]) -> None:
    problem = outcome_of("vision_transformer", edited(LIBRARY, *MODEL[two[0]], *MODEL[two[1]]))
    assert problem is not None
    assert problem.mistake == " + ".join(name.partition(":")[0] for name in two)


@pytest.mark.parametrize("name", ["vit_softmax", "vit_head_activation", "vit_head_norm", "vit_head_scaled"])
def test_two_mistakes_of_one_step_are_named_in_one_order(name: str) -> None:
    named_as(f"vit_head_no_bias + {name}", edited(LIBRARY, *MODEL["vit_head_no_bias"], *MODEL[name]))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vit_blocks_shared", "\nthe same block 3 times"),
        ("vit_blocks_shared: one", "\n1 block with parameters for depth=3"),
        ("vit_blocks_shared: the last one", "\n2 different blocks in 3 places"),
    ],
)
def test_how_blocks_are_shared_is_told(name: str, says: str) -> None:
    problem = outcome_of("vision_transformer", edited(LIBRARY, *MODEL[name]))
    assert problem and problem.evidence.endswith(says)


@pytest.mark.parametrize("name", ["vit_first_picture", "vit_first_picture: x[0]"])
def test_the_first_picture_says_nothing_of_whose_logits_the_others_get(name: str) -> None:
    problem = outcome_of("vision_transformer", edited(LIBRARY, *MODEL[name]))
    assert problem and "read the first picture alone" in problem.what


COUNT = "1 + self.patch_embed.num_patches"
BEFORE = (f"x = {CAT}\n        {ADD}", f"{ADD}\n        x = {CAT}")


@pytest.mark.parametrize(
    ("count", "rows"),
    [("1 + image_size // patch_size", 4), ("1 + patch_size ** 2", 65), ("1 + image_size ** 2 // patch_size", 73)],
)
def test_a_number_of_positions_that_is_computed_wrongly_is_no_global_name(count: str, rows: int) -> None:
    problem = outcome_of("vision_transformer", edited(LIBRARY, (COUNT, count)))
    assert problem and (problem.mistake, problem.step) == (None, "position embedding")
    assert "(H / p) (W / p)" in problem.what and "24 x 24 px" in problem.hints[0]
    assert f"is (1, {rows}, 14); it should be (1, 10, 14): 3 rows of 3 patches" in problem.evidence


@pytest.mark.parametrize(
    ("rows", "told"),
    [("197", "is the same for other sizes"), ("1 + (image_size // 16) ** 2", "is right with patch_size=16")],
)
def test_a_number_of_positions_of_elsewhere(rows: str, told: str) -> None:
    problem = outcome_of("vision_transformer", edited(LIBRARY, (COUNT, rows)))
    assert problem and (problem.mistake, problem.step) == ("tok_global_name", "position embedding")
    assert problem.evidence.endswith(f"it should be (1, 10, 14); it {told}")
    assert "Which arguments does the number of patches depend on?" in problem.hints[0]


@pytest.mark.parametrize(
    ("edits", "mistake", "shapes"),
    [
        ((), "vit_pos_not_on_cls", "(1, 9, 14); it should be (1, 10, 14)"),
        ((("eps=1e-6", "eps=1e-5"),), "vit_pos_not_on_cls", "(1, 9, 14); it should be (1, 10, 14)"),
        ((("torch.randn(1, ", "torch.randn("),), "vit_pos_not_on_cls", "(9, 14); it should be (10, 14)"),
        (((ADD, f"{ADD} * 3"),), "vit_pos_not_on_cls", "(1, 9, 14); it should be (1, 10, 14)"),
        (((CAT, "torch.cat([x, cls], dim=1)"),), "vit_pos_not_on_cls + vit_cls_appended", "it should be (1, 10, 14)"),
    ],
)
def test_a_table_without_a_row_for_the_class_token_is_told_by_its_shape(
    edits: tuple[tuple[str, str], ...], mistake: str, shapes: str
) -> None:
    *passed, problem = outcomes("vision_transformer", edited(LIBRARY, BEFORE, ("1 + self", "self"), *edits))
    assert isinstance(problem, Problem) and problem.mistake == mistake
    assert shapes in problem.evidence and "nan" not in problem.evidence
    assert not any("positions" in one.what for one in passed)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (("num_classes)\n\n", "num_classes, bias=False)\n\n"), "\nhead.weight (11, 14) has no bias beside it"),
        (
            ("patch_size, patch_size)", "patch_size, patch_size, bias=False)"),
            "\npatch_embed.weight (14, 2, 8, 8) has",
        ),
        (("nn.Conv2d(in_channels", "nn.Conv2d(3"), "patch_embed.weight (14, 3, 8, 8) is made for 3 channels"),
        (("range(depth)", "range(depth - 1)"), "\n2 blocks with parameters for depth=3"),
        (
            (NORM, "self.norm = nn.Identity()"),
            "there is no norm: beside 3 blocks it has cls_token (1, 1, 14), pos_embed (1, 10, 14), patch",
        ),
    ],
)
def test_of_the_parameters_only_the_part_in_question_is_listed(edit: tuple[str, str], says: str) -> None:
    problem = outcome_of("vision_transformer", edited(OWN, edit))
    assert problem and says in problem.evidence and "more" not in problem.evidence
    assert "blocks.0" not in problem.evidence and "attention" not in problem.evidence


def test_hints_on_hard_coded_channels_are_about_channels() -> None:
    problem = outcome_of("vision_transformer", edited(OWN, ("nn.Conv2d(in_channels", "nn.Conv2d(3")))
    assert problem and problem.mistake == "tok_global_name" and all("channels" in hint for hint in problem.hints)


def test_a_table_whose_rows_stand_in_the_place_of_the_batch_is_told() -> None:
    problem = outcome_of("vision_transformer", edited(LIBRARY, (f"randn(1, {COUNT}", f"randn({COUNT}, 1")))
    assert problem and (problem.mistake, problem.step) == (None, "position embedding")
    assert problem.evidence.endswith("returns (10, 11); it should return (1, 11); pos_embed is (10, 1, 14)")


def test_an_exception_is_told_with_the_call_that_ends_in_it() -> None:
    with pytest.raises(RuntimeError) as caught:  # one picture goes through
        outcomes("vision_transformer", edited(LIBRARY, ("self.cls_token.expand(len(x), -1, -1)", "self.cls_token")))
    called, shapes = caught.value.__notes__
    assert called.endswith("(draw(3, 2, 24, 24, seed=3))") and shapes == "cat of (1, 1, 14) and (3, 9, 14)"


@pytest.mark.parametrize("rows", ["image_size // patch_size**2", "image_size // patch_size"])
def test_a_wrong_number_of_positions_is_no_number_from_elsewhere(rows: str) -> None:
    problem = outcome_of("vision_transformer", edited(LIBRARY, ("1 + self.patch_embed.num_patches", f"1 + {rows}")))
    assert problem and (problem.mistake, problem.step) == (None, "position embedding")
    assert problem.what.startswith("You make another number of positions")


def test_a_return_inside_the_loop() -> None:
    edit = (
        f"{LOOP}\n        x = self.norm(x)\n        {RETURN}",
        f"{LOOP}\n            return self.head(self.norm(x)[:, 0])",
    )
    problem = outcome_of("vision_transformer", edited(LIBRARY, edit))
    assert problem and (problem.mistake, problem.what) == (
        "vit_depth_ignored", "You run 1 of 3 blocks; all should run, one after the other."
    )  # fmt: skip
    assert "return" in problem.hints[1]


@pytest.mark.parametrize("head", ["self.classifier", "self.head"])
def test_no_class_token_whatever_the_head_is_called(head: str) -> None:
    edits = (
        (CLS, "pass"),
        ("        cls = self.cls_token.expand(len(x), -1, -1)\n", ""),
        (CAT, "torch.cat([x[:, :1], x], 1)"),
    )
    problem = outcome_of("vision_transformer", edited(LIBRARY, *edits, ("self.head", head)))
    assert problem and problem.mistake == "tok_no_class_token", problem


def test_neither_class_token_nor_positions_is_no_table_of_both() -> None:
    edits = (CLS, "pass"), (POS, "pass"), ("        cls = self.cls_token.expand(len(x), -1, -1)\n", "")
    text = edited(LIBRARY, *edits, (f"x = {CAT}\n        {ADD}", "pass"))
    problem = outcome_of("vision_transformer", text)
    assert problem and "one table" not in problem.what, problem


def test_an_alias_that_is_no_residual_is_right() -> None:
    assert outcome_of("vision_transformer", edited(LIBRARY, (RETURN, f"tokens = x\n        {RETURN}"))) is None


def test_a_slip_in_a_name_is_no_size() -> None:
    with pytest.raises(NameError):
        outcomes("vision_transformer", edited(LIBRARY, (CAT, "torch.cat([cls, patchs], dim=1)")))


def test_positions_on_their_grid() -> None:
    text = edited(
        LIBRARY,
        (POS, "sides = image_size if isinstance(image_size, tuple) else (image_size, image_size)\n"
         "        self.grid = nn.Parameter(torch.randn(sides[0] // patch_size, sides[1] // patch_size, embed_dim))\n"
         "        self.pos_cls = nn.Parameter(torch.randn(1, 1, embed_dim))"),
        ("cls = self.cls_token.expand(len(x), -1, -1)", "x = x + self.grid.flatten(0, 1)\n"
         "        cls = (self.cls_token + self.pos_cls).expand(len(x), -1, -1)"),
        (f"\n        {ADD}", ""),
    )  # fmt: skip
    assert outcome_of("vision_transformer", text) is None


def test_what_is_nan_twice_is_no_chance() -> None:
    problem = outcomes("vision_transformer", edited(LIBRARY, (RETURN, f"{RETURN} * float('nan')")))[-1]
    assert isinstance(problem, Problem) and "is nan; it should be" in problem.evidence, problem


ENCODER = (
    (BLOCKS, "self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(ARGUMENTS), depth, enable_nested_tensor=False)"),
    (LOOP, "x = self.blocks(x)"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        ('activation="gelu"', "enc_post_norm + enc_eps_1e-5"),
        ('activation="gelu", norm_first=True', "enc_eps_1e-5"),
        ("layer_norm_eps=1e-6, norm_first=True", "mlp_relu"),
    ],
)
def test_defaults_of_torchs_encoder_are_named(more: str, mistake: str) -> None:
    arguments = f"embed_dim, num_heads, mlp_dim, dropout=0.0, batch_first=True, {more}"
    (blocks, encoder), loop = ENCODER
    problem = outcome_of("vision_transformer", edited(LIBRARY, (blocks, encoder.replace("ARGUMENTS", arguments)), loop))
    assert problem and (problem.mistake, problem.step) == (mistake, "encoder blocks")


TOKENS = """
class Tokens(nn.Module):
    def __init__(self, n, d):
        super().__init__()
        self.first, self.pos = nn.Parameter(torch.randn(1, 1, d)), nn.Parameter(torch.randn(1, 1 + n, d))

    def forward(self, x):
        return torch.cat([self.first.expand(len(x), -1, -1), x], dim=1) + self.pos


class VisionTransformer"""
OWN_TOKENS = edited(
    LIBRARY,
    ("\nclass VisionTransformer", TOKENS),
    (CLS, f"{CLS}\n        self.tokens = Tokens(self.patch_embed.num_patches, embed_dim)"),
    ("        cls = self.cls_token.expand(len(x), -1, -1)\n", ""),
    (CAT, "self.tokens(x)"),
)


def test_of_two_tables_that_which_forward_reads_is_taken() -> None:
    problem = outcome_of("vision_transformer", edited(OWN_TOKENS, (f"        {ADD}\n", "")))
    assert problem and problem.what == "You have parameters that the logits do not depend on; there should be none."
    assert problem.evidence.endswith("not needed: cls_token, pos_embed")


def test_what_has_no_gradient_is_no_reason_to_take_another_table() -> None:
    """Nor is a norm's weight a class token: one that is not used is told as what it is."""
    spare = (
        CLS,
        f"{CLS}\n        self.cls_token.requires_grad_(False)\n        self.spare = nn.Parameter(self.cls_token + 1)",
    )
    problem = outcome_of("vision_transformer", edited(LIBRARY, spare))
    assert problem and problem.evidence.endswith("not needed: spare")
    norm = (CLS, f"{CLS}\n        self.first = nn.LayerNorm(embed_dim, eps=1e-6)")
    unused = edited(LIBRARY, norm, ("self.patch_embed(images)", "self.first(self.patch_embed(images))"), (CAT, "x"))
    problem = outcome_of("vision_transformer", edited(unused, (ADD, "x = x + self.pos_embed[:, 1:]")))
    assert problem and "class token" in problem.step


SECOND = """
class Second(nn.Module):
    def __init__(self, d, h, m):
        super().__init__()
        self.block = EncoderBlock(d, h, m)

    def forward(self, x, skip=True):
        return x if skip else self.block(x)


class VisionTransformer"""
EMBED = """
class Embed(nn.Module):
    def __init__(self, c, d, p):
        super().__init__()
        self.proj, self.e = nn.Conv2d(c, d, p, p, bias=False), nn.Parameter(torch.zeros(d, 1, 1))

    def forward(self, images):
        return self.proj(images) + self.e


class VisionTransformer"""
BY_HAND = "self.gain, self.bias = (nn.Parameter(make(embed_dim)) for make in (torch.ones, torch.zeros))"


@pytest.mark.parametrize(
    ("right", "edits"),
    [
        pytest.param(
            LIBRARY,
            (
                ("EncoderBlock(embed_dim, num_heads", "Second(embed_dim, num_heads"),
                ("\nclass VisionTransformer", SECOND),
                ("x = block(x)", "x = block(x, False)"),
            ),
            id="a block that is called with False",
        ),
        pytest.param(
            OWN,
            (
                ("\nclass VisionTransformer", EMBED),
                ("nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)", "Embed(in_channels, embed_dim, patch_size)"),
                (NORM, BY_HAND),
                ("self.norm(x)", "F.layer_norm(x, x.shape[-1:], self.gain, self.bias, 1e-6)"),
            ),
            id="a bias beside the projection, and one further out",
        ),
    ],
)  # fmt: skip
def test_right_ways_to_call_a_block_and_to_keep_a_bias(right: str, edits: tuple[tuple[str, str], ...]) -> None:
    assert outcome_of("vision_transformer", edited(right, *edits)) is None


@pytest.mark.parametrize(
    ("edits", "mistake", "says"),
    [
        ((), "tok_pos_twice", "there are several tables of positions: "),
        (((f"        {ADD}\n", ""), (CAT.replace("torch.cat([cls, x], dim=1)", "self.tokens(x)"), "self.tokens(x + self.pos_embed)"), ("1 + self.patch_embed.num_patches, embed_dim)", "self.patch_embed.num_patches, embed_dim)")),
         "tok_pos_twice", "there are several tables of positions: "),
        ((("1 + self.patch_embed.num_patches, embed_dim)", "1, embed_dim)"),), None, "with pos_embed at 0 it would be right"),
    ],
)  # fmt: skip
def test_parameters_that_come_to_the_tokens_besides(
    edits: tuple[tuple[str, str], ...], mistake: str | None, says: str
) -> None:
    problem = outcome_of("vision_transformer", edited(OWN_TOKENS, (f"        {CLS}\n", ""), *edits))
    assert problem and (problem.mistake, problem.step) == (mistake, "position embedding")
    assert says in problem.evidence


def test_a_table_that_is_a_row_short() -> None:
    problem = outcome_of("vision_transformer", edited(LIBRARY, ("1 + self.patch_embed", "self.patch_embed")))
    assert problem and problem.step == "position embedding"
    assert problem.what == "You make a position for each patch, and none for the class token; there should be N + 1."
    assert "x = x + self.pos_embed" in problem.evidence


@pytest.mark.parametrize("batch", [2, 3])
def test_a_batch_that_is_a_number_is_no_size_of_the_model(batch: int) -> None:
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):  # the runner tells its line
        outcome_of("vision_transformer", edited(LIBRARY, ("expand(len(x), -1, -1)", f"expand({batch}, -1, -1)")))


@pytest.mark.parametrize(
    ("order", "what"),
    [
        (
            "image_size, patch_size, embed_dim, in_channels",
            "You swap in_channels and embed_dim where the patch embedding",
        ),
        ("image_size, in_channels, patch_size, embed_dim", "You have no weight that makes tokens of patches"),
    ],
)
def test_sizes_of_the_patch_embedding_in_another_order(order: str, what: str) -> None:
    text = edited(
        LIBRARY, ("PatchEmbedding(image_size, patch_size, in_channels, embed_dim)", f"PatchEmbedding({order})")
    )
    problem = outcome_of("vision_transformer", text)
    assert problem and (problem.mistake, problem.step) == (None, "patch embedding") and problem.what.startswith(what)
    assert "PatchEmbedding(image_size, patch_size, in_channels, embed_dim)" in problem.hints[1]


def test_the_width_of_the_hidden_layer_comes_from_the_line_that_makes_a_block() -> None:
    wide = ("EncoderBlock(embed_dim, num_heads, mlp_dim)", "EncoderBlock(embed_dim, num_heads, 4 * embed_dim)")
    problem = outcome_of("vision_transformer", edited(LIBRARY, wide))
    assert problem and problem.what.startswith("You make the hidden layer of your blocks of another width")
    assert "EncoderBlock(embed_dim, num_heads, mlp_dim)" in problem.hints[1]


def test_parameters_that_multiply_the_tokens_are_not_added() -> None:
    gamma = (
        (CLS, f"{CLS}\n        self.gamma = nn.Parameter(torch.ones(embed_dim))"),
        (ADD, "x = self.gamma * (x + self.pos_embed)"),
    )
    problem = outcome_of("vision_transformer", edited(LIBRARY, *gamma))
    assert problem and "at 0 it would be right" not in problem.evidence


def test_a_class_token_that_is_detached_is_the_class_token() -> None:
    extra = (CLS, f"{CLS}\n        self.extra = nn.Parameter(torch.zeros(1, 1, embed_dim))")
    late = (
        ("self.cls_token.expand", "self.cls_token.detach().expand"),
        ("x = self.norm(x)", "x = self.norm(x) + self.extra"),
    )
    problem = outcome_of("vision_transformer", edited(LIBRARY, extra, *late))
    assert problem and "first token" not in problem.what and "extra" in problem.evidence


def test_of_several_tables_that_which_is_read_is_taken() -> None:
    table = "nn.Parameter(torch.zeros(1, 1 + self.patch_embed.num_patches, embed_dim))"
    more = (CLS, f"{CLS}\n        self.one, self.other = {table}, {table}")
    problem = outcome_of("vision_transformer", edited(LIBRARY, more, (ADD, "x = x + self.other")))
    assert problem and problem.what == "You have parameters that the logits do not depend on; there should be none."
    *_, names = problem.evidence.rpartition(": ")
    assert {*names.split(", ")} == {"one", "pos_embed"}


def test_another_sum_that_fails_is_no_table_a_row_short() -> None:
    before = (ADD, ""), (f"x = {CAT}", f"{ADD}\n        x = {CAT}"), ("1 + self.patch_embed", "self.patch_embed")
    with pytest.raises(RuntimeError, match="The size of tensor"):  # the runner tells its line
        outcome_of(
            "vision_transformer", edited(LIBRARY, *before, ("self.head(x[:, 0])", "self.head(x[:, 0] + x.mean(2))"))
        )


def test_a_class_token_expanded_once_for_all_is_kept_from_a_call() -> None:
    text = edited(
        OWN,
        (
            "self.cls_token.expand(len(x), -1, -1)",
            "self.__dict__.setdefault('kept', self.cls_token.expand(len(x), -1, -1))",
        ),
    )
    problem = outcome_of("vision_transformer", text)
    assert problem and problem.mistake == "kept_from_a_call"


def test_a_model_in_low_precision_is_told_as_that() -> None:
    problem = outcome_of(
        "vision_transformer",
        edited(LIBRARY, (RETURN, "return F.linear(x[:, 0].half(), self.head.weight.half(), self.head.bias.half())")),
    )
    assert problem and (problem.mistake, problem.step) == ("low_precision", "head"), problem


def test_a_final_norm_without_parameters_is_told_as_that() -> None:
    problem = outcome_of(
        "vision_transformer", edited(LIBRARY, (NORM, NORM.replace("eps=1e-6", "eps=1e-6, elementwise_affine=False")))
    )
    assert problem and problem.what == "Your final norm has no weight and no bias; LayerNorm should have both."


def test_where_it_is_guessed_which_norm_is_whose_nothing_is_called_wrong() -> None:
    halves = edited(
        RIGHT["a list of all norms"],
        ("self.norms[2 * i](x)", "self.norms[i](x)"),
        ("self.norms[2 * i + 1](x)", "self.norms[len(self.mlps) + i](x)"),
    )
    problem = outcomes("vision_transformer", halves)[-1]
    assert isinstance(problem, Problem) and "nothing could be compared (your model may well be right)" in problem.what


def test_what_the_logits_should_be_is_said_for_the_order_of_pixels_that_is_meant() -> None:
    linear = edited(
        RIGHT["lists of parts"],
        (
            "nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)",
            "nn.Linear(in_channels * patch_size ** 2, embed_dim)",
        ),
        (
            "self.patch_embed(images).flatten(2).transpose(1, 2)",
            'self.patch_embed(rearrange(images, "b c (r p) (s q) -> b (r s) (p q c)", p=self.p, q=self.p))',
        ),
        ("        self.cls_token =", "        self.p = patch_size\n        self.cls_token ="),
    )
    problem = outcome_of("vision_transformer", edited(linear, ("x[:, 0]", "x.mean(1)")))
    assert problem and problem.mistake == "vit_mean_with_cls"
    code, right = re.match(r"(.*) is \S+; it should be (\S+)", problem.evidence).groups()  # type: ignore[union-attr]
    value = eval(code, {**module(linear).__dict__, "awaken": awaken, "draw": draw})
    assert abs(float(value) - float(right)) < 1e-5
