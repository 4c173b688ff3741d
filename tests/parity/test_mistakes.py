"""Proof that the suite can fail: mistakes that people really make, planted one at a time into copies of the source.

The first name of each row says which check must catch it; that check passes on the library as it stands
(test_suite.py). Most are in the literature of issue threads: softmax over the wrong axis, heads split by view,
a class token without position, norms in the wrong place.
"""

import pytest

from tests.parity.checks import CHECKS
from tests.parity.library import library_with

A, P, M, E, U, V = "attention", "patches", "mlp", "encoder", "untouched", "vit"
SPLIT = '"b n (three h k) -> three b h n k", three=3'
MERGE = 'rearrange(out, "b h n k -> b n (h k)")'
SDPA = "out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)"
SCALE = "scores = q @ k.mT / head_dim**0.5"
SOFTMAX = "weights = F.dropout(scores.softmax(dim=-1), dropout)"
EQ2, EQ3 = "x = x + self.attn(self.norm1(x))", "return x + self.mlp(self.norm2(x))  # Eq. 3"
NORM1 = "self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)"
NORM2 = "self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)"
NORM = "self.norm = nn.LayerNorm(embed_dim, eps=1e-6)"
HIDDEN, OUT = "hidden = self.dropout(F.gelu(self.fc1(x)))", "return self.dropout(self.fc2(hidden))"
TOKENS = 'rearrange(self.proj(images), "b d rows columns -> b (rows columns) d")'
EQ1 = "x = torch.cat([cls_token, patches], dim=1) + self.pos_embed"
BLOCKS = "for block in self.blocks:  # Eq. 2 and Eq. 3\n            x = block(x)"
CLS, MEAN = "self.tokens(images)[:, 0]", "self.tokens(images)[:, 1:].mean(dim=1)"
QKV = "return q, k, v"
FUSED = "if self.fused and not (q.is_cpu and q.dtype == bfloat16):"
Q, OUTPUT = 'q = einsum(x[:, 0], w_q, "b d, h k d -> b h k") + b_q', '"b h d, h k d -> b h k") + b_v'
SCORES, SEEN = "@ x.mT / q.shape[-1] ** 0.5", "seen = scores.softmax(dim=-1) @ x"
PATCHIFY = '"b c (rows p) (columns q) -> b (rows columns) (c p q)"'
UNFIT = "if type(self.qkv) is not nn.Linear or self.qkv.bias is None or (self.training and self.attention_dropout):"
ONE = "return self.norm(last(x, one_query=True))[:, 0]"

square, readable, attention = "torchvision_square", "torchvision_readable_attention", "attention_against_torch"
rectangles, training, spread = (
    "timm_rectangles",
    "torchvision_training_with_dropout",
    "torchvision_dropout_in_distribution",
)
block, mlp, patches = "encoder_block_against_torch", "mlp_against_torchvision", "patch_embedding_against_convolution"
features, updates, undropped = "features_and_tokens", "updates", "training_without_dropout"
ungraded, tiny = "torchvision_without_gradients", "torchvision_tiny_input"
one, asked = "one_query_against_all", "all_queries_where_somebody_asks"

MISTAKES: dict[str, tuple[str, str, str, str]] = {  # name -> check, file, right, wrong
    "patches column by column": (rectangles, P, TOKENS, TOKENS.replace("(rows columns) d", "(columns rows) d")),
    "patches column by column, square": (square, P, TOKENS, TOKENS.replace("(rows columns) d", "(columns rows) d")),
    "patches reshaped instead of transposed": (
        square, P, TOKENS, "self.proj(images).reshape(images.shape[0], self.num_patches, -1)"),
    "patch embedding with an activation": (square, P, TOKENS, TOKENS.replace("self.proj(images)", "F.relu(self.proj(images))")),
    "patch embedding without bias": (square, P, TOKENS, TOKENS.replace("self.proj(images)", (
        "F.conv2d(images, self.proj.weight, stride=self.patch_size)"))),
    "pictures transposed": (square, P, "self.proj(images)", "self.proj(images.mT)"),
    "height and width swapped in pair": (rectangles, P, "return int(sides[0]), int(sides[1])", "return int(sides[1]), int(sides[0])"),
    "patchify: pixels transposed in a patch": (patches, P, PATCHIFY, PATCHIFY.replace("(c p q)", "(c q p)")),
    "patchify: channel last": (patches, P, PATCHIFY, PATCHIFY.replace("(c p q)", "(p q c)")),
    "patchify: columns first": (patches, P, PATCHIFY, PATCHIFY.replace("(rows columns)", "(columns rows)")),
    "no positions": (square, V, EQ1, EQ1.replace(" + self.pos_embed", "")),
    "no position on the class token": (
        square, V, EQ1, "x = torch.cat([cls_token, patches + self.pos_embed[:, 1:]], dim=1)"),
    "positions twice": (square, V, EQ1, EQ1.replace("self.pos_embed", "2 * self.pos_embed")),
    "positions shifted by one": (square, V, EQ1, EQ1.replace("self.pos_embed", "self.pos_embed.roll(1, dims=1)")),
    "class token last": (square, V, EQ1, EQ1.replace("[cls_token, patches]", "[patches, cls_token]")),
    "class token added, not prepended": (
        square, V, EQ1, "x = torch.cat([cls_token, patches + cls_token], dim=1) + self.pos_embed"),
    "class token of one picture only": (
        square, V, "self.cls_token.expand(images.shape[0], -1, -1)",
        "torch.cat([self.cls_token, 0 * self.cls_token.expand(images.shape[0] - 1, -1, -1)])"),
    "a class token for each picture of a batch of 32": (
        square, V, "self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))",
        "self.cls_token = nn.Parameter(torch.empty(32, 1, embed_dim))"),
    "scale sqrt(embed_dim)": (readable, A, SCALE, SCALE.replace("head_dim**0.5", "(head_dim * q.shape[1]) ** 0.5")),
    "scale sqrt(embed_dim), fused": (
        square, A, SDPA, SDPA.replace("dropout_p=dropout", "dropout_p=dropout, scale=x.shape[-1] ** -0.5")),
    "scale sqrt(num_heads)": (readable, A, SCALE, SCALE.replace("head_dim**0.5", "q.shape[1] ** 0.5")),
    "scale inverted": (readable, A, SCALE, SCALE.replace("/ head_dim", "* head_dim")),
    "no scale": (readable, A, SCALE, SCALE.replace(" / head_dim**0.5", "")),
    "scale after softmax": (
        readable, A, SOFTMAX, "weights = F.dropout((scores * head_dim**0.5).softmax(dim=-1) / head_dim**0.5, dropout)"),
    "softmax over queries": (readable, A, SOFTMAX, SOFTMAX.replace("dim=-1", "dim=-2")),
    "softmax over heads": (readable, A, SOFTMAX, SOFTMAX.replace("dim=-1", "dim=1")),
    "no softmax": (readable, A, SOFTMAX, SOFTMAX.replace("scores.softmax(dim=-1)", "scores")),
    "weights() without softmax": (
        attention, A, "return attention(*self.queries_keys_values(x))[1]",
        "q, k, v = self.queries_keys_values(x)\n        return q @ k.mT"),
    "causal mask": (square, A, SDPA, SDPA.replace("dropout_p=dropout", "dropout_p=dropout, is_causal=True")),
    "heads scrambled: head width before heads": (square, A, SPLIT, SPLIT.replace("(three h k)", "(three k h)")),
    "qkv packed per head": (square, A, SPLIT, SPLIT.replace("(three h k)", "(h three k)")),
    "qkv interleaved": (square, A, SPLIT, SPLIT.replace("(three h k)", "(h k three)")),
    "heads split by view": (
        square, A, f"rearrange(self.qkv(x), {SPLIT}, h=self.num_heads)",
        "self.qkv(x).chunk(3, -1)\n"
        "        q, k, v = (t.reshape(t.shape[0], self.num_heads, t.shape[1], -1) for t in (q, k, v))"),
    "heads merged by reshape": (square, A, MERGE, "out.reshape(x.shape)"),
    "heads merged in another order": (square, A, MERGE, MERGE.replace("(h k)", "(k h)")),
    "attention over the batch": (
        square, A, FUSED, f"q, k, v = (t.transpose(0, 2) for t in (q, k, v))\n        {FUSED}"),
    "q and k swapped": (square, A, QKV, "return k, q, v"),
    "k and v swapped": (square, A, QKV, "return q, v, k"),
    "values are the input": (
        square, A, QKV,
        'return q, k, rearrange(x, "b n (h k) -> b h n k", h=self.num_heads)'),
    "no output projection": (square, A, f"self.proj({MERGE})", MERGE),
    "no qkv bias": (square, A, "rearrange(self.qkv(x)", "rearrange(F.linear(x, self.qkv.weight)"),
    "one head too many in the fused path": (square, A, "h=self.num_heads)\n        return q", "h=1)\n        return q"),
    "attention dropout also in eval": (training, A, "self.attention_dropout if self.training else 0.0", "self.attention_dropout"),
    "attention dropout forgotten": (training, A, "self.attention_dropout if self.training else 0.0", "0.0"),
    "attention dropout forgotten, by distribution": (
        spread, A, "self.attention_dropout if self.training else 0.0", "0.0"),
    "no dropout on attention's output": (training, A, f"self.dropout(self.proj({MERGE}))", f"self.proj({MERGE})"),
    "no dropout on attention's output, by distribution": (
        spread, A, f"self.dropout(self.proj({MERGE}))", f"self.proj({MERGE})"),
    "GELU by tanh": (mlp, M, "F.gelu(self.fc1(x))", 'F.gelu(self.fc1(x), approximate="tanh")'),
    "GELU by tanh, whole model": (square, M, "F.gelu(self.fc1(x))", 'F.gelu(self.fc1(x), approximate="tanh")'),
    "quick GELU": (mlp, M, "F.gelu(self.fc1(x))", "self.fc1(x) * (1.702 * self.fc1(x)).sigmoid()"),
    "ReLU": (mlp, M, "F.gelu", "F.relu"),
    "activation after the second layer too": (mlp, M, OUT, OUT.replace("self.fc2(hidden)", "F.gelu(self.fc2(hidden))")),
    "no activation": (mlp, M, "F.gelu(self.fc1(x))", "self.fc1(x)"),
    "hidden width is embed_dim": (mlp, M, "nn.Linear(embed_dim, mlp_dim)\n", "nn.Linear(embed_dim, mlp_dim := embed_dim)\n"),
    "MLP without bias": (mlp, M, "self.fc2(hidden)", "F.linear(hidden, self.fc2.weight)"),
    "no dropout after the GELU": (mlp, M, HIDDEN, HIDDEN.replace("self.dropout(F.gelu(self.fc1(x)))", "F.gelu(self.fc1(x))")),
    "no dropout after the second layer": (mlp, M, OUT, "return self.fc2(hidden)"),
    "epsilon 1e-5, first norm": (square, E, NORM1, NORM1.replace("1e-6", "1e-5")),
    "epsilon 1e-5, second norm": (square, E, NORM2, NORM2.replace("1e-6", "1e-5")),
    "epsilon 1e-5, final norm": (square, V, NORM, NORM.replace("1e-6", "1e-5")),
    "no attention residual": (block, E, EQ2, EQ2.replace("x + ", "")),
    "no MLP residual": (block, E, EQ3, EQ3.replace("x + ", "")),
    "post-norm": (block, E, EQ2, "x = self.norm1(x + self.attn(x))"),
    "post-norm, MLP": (block, E, EQ3, "return self.norm2(x + self.mlp(x))"),
    "norm on the branch's output": (block, E, EQ2, "x = x + self.norm1(self.attn(x))"),
    "residual taken after the norm": (block, E, EQ2, "x = self.norm1(x)\n        x = x + self.attn(x)"),
    "residual twice": (block, E, EQ2, EQ2.replace("x + ", "x + x + ")),
    "x + x": (block, E, EQ3, "x = self.mlp(self.norm2(x))\n        return x + x"),
    "MLP residual from the block's input": (block, E, EQ2, (
        "y = x + self.attn(self.norm1(x))\n        return x + self.mlp(self.norm2(y))")),
    "MLP branch on the block's input": (block, E, EQ2, (
        "y = x + self.attn(self.norm1(x))\n        return y + self.mlp(self.norm2(x))")),
    "one norm used twice": (block, E, EQ3, EQ3.replace("norm2", "norm1")),
    "no norm before attention": (block, E, EQ2, EQ2.replace("self.norm1(x)", "x")),
    "MLP before attention": (block, E, EQ2, (
        "x = x + self.mlp(self.norm2(x))\n        return x + self.attn(self.norm1(x))")),
    "no final norm": (square, V, "return self.norm(x)", "return x"),
    "final norm after the blocks and before": (square, V, BLOCKS, BLOCKS.replace("block(x)", "self.norm(block(x))")),
    "last block skipped": (square, V, "for block in self.blocks:", "for block in self.blocks[:-1]:"),
    "blocks in reverse": (square, V, "for block in self.blocks:", "for block in reversed(self.blocks):"),
    "first block used for all": (square, V, BLOCKS, BLOCKS.replace("block(x)", "self.blocks[0](x)")),
    "every block fed the embedding": (
        square, V, BLOCKS, BLOCKS.replace("block(x)", "x + block(self.embed(images))")),
    "blocks in a plain list": (square, V, "self.blocks = nn.ModuleList(", "self.blocks = list("),
    "last token read": (square, V, CLS, CLS.replace("[:, 0]", "[:, -1]")),
    "mean over the class token too": (rectangles, V, MEAN, MEAN.replace("[:, 1:]", "")),
    "mean over features of the batch": (rectangles, V, MEAN, MEAN.replace("dim=1", "dim=0")),
    "no dropout after positions": (training, V, "return self.dropout(x)", "return x"),
    "dropout before positions": (
        training, V, f"{EQ1}  # Eq. 1\n        return self.dropout(x)",
        "return self.dropout(torch.cat([cls_token, patches], dim=1)) + self.pos_embed"),
    "softmax in the model": (square, V, "return self.head(self.features(images))", (
        "return self.head(self.features(images)).softmax(dim=1)")),
    "a batch statistic leaks in": (square, V, "return self.norm(x)", "return self.norm(x - x.mean(dim=0))"),
    "features of the first picture for all": (
        square, V, "return self.head(self.features(images))",
        "return self.head(self.features(images)[:1].expand(images.shape[0], -1))"),
    "head without bias": (square, V, "return self.head(self.features(images))", (
        "return self.features(images) @ self.head.weight.T")),
    "features scaled": (features, V, MEAN, f"2 * {MEAN}"),
    "tokens without the class token": (features, V, "return self.norm(x)", "return self.norm(x)[:, 1:]"),
    "another function without gradients": (
        ungraded, A, FUSED, f"if not x.requires_grad:\n            q = 2 * q\n        {FUSED}"),
    "epsilon 1e-5, seen on tiny tokens": (tiny, E, NORM1, NORM1.replace("1e-6", "1e-5")),
    "epsilon outside the root": (
        tiny, E, EQ2, "x = x + self.attn((x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + 1e-6)"
        " * self.norm1.weight + self.norm1.bias)"),
    "positions frozen": (updates, V, EQ1, EQ1.replace("self.pos_embed", "self.pos_embed.detach()")),
    "gradients halved on the way back": (
        updates, E, EQ3, "return x + self.mlp(self.norm2(x / 2 + x.detach() / 2))"),
    "dropout by default": (undropped, V, "attention_dropout: float = 0.0,\n        pool", "attention_dropout: float = 0.1,\n        pool"),
    "MLP dropout by default": (undropped, M, "dropout: float = 0.0) ->", "dropout: float = 0.1) ->"),
    "softmax that overflows": (attention, A, SOFTMAX, (
        "weights = F.dropout(scores.exp() / scores.exp().sum(-1, keepdim=True), dropout)")),
    "the fast form is never used": (attention, A, FUSED, "if False:"),
    "head count ignored": (square, A, "self.num_heads, self.attention_dropout, self.fused = num_heads,", (
        "self.num_heads, self.attention_dropout, self.fused = 1 + 0 * num_heads,")),
    "detached class token": (square, V, "self.cls_token.expand", "self.cls_token.detach().expand"),
    # The class token alone in the last block.
    "one query: the last token asks": (one, A, Q, Q.replace("x[:, 0]", "x[:, -1]")),
    "one query: the mean of tokens asks": (one, A, Q, Q.replace("x[:, 0]", "x.mean(dim=1)")),
    "one query: no bias of q": (one, A, Q, Q.replace(" + b_q", "")),
    "one query: no bias of v": (one, A, OUTPUT, OUTPUT.replace(" + b_v", "")),
    "one query: k and v swapped": (one, A, "w_q, w_k, w_v =", "w_q, w_v, w_k ="),
    "one query: q and k swapped": (one, A, "w_q, w_k, w_v =", "w_k, w_q, w_v ="),
    "one query: bias of k for that of v": (one, A, "b_q, _, b_v =", "b_q, b_v, _ ="),
    "one query: heads scrambled": (one, A, '"(three h k) d -> three h k d"', '"(three k h) d -> three h k d"'),
    "one query: biases scrambled": (one, A, '"(three h k) -> three h k"', '"(three k h) -> three h k"'),
    "one query: heads merged in another order": (one, A, '"b h k -> b 1 (h k)"', '"b h k -> b 1 (k h)"'),
    "one query: scale of the whole width": (one, A, SCORES, SCORES.replace("q.shape[-1]", "x.shape[-1]")),
    "one query: no scale": (one, A, SCORES, SCORES.replace(" / q.shape[-1] ** 0.5", "")),
    "one query: softmax over heads": (one, A, SEEN, SEEN.replace("dim=-1", "dim=1")),
    "one query: no softmax": (one, A, SEEN, SEEN.replace(".softmax(dim=-1)", "")),
    "one query: no gradient to it": (one, A, Q, Q.replace("x[:, 0]", "x[:, 0].detach()")),
    "one query: no gradient to what it sees": (one, A, SEEN, SEEN.replace("@ x", "@ x.detach()")),
    "one query: no gradient through the weights": (one, A, SEEN, SEEN.replace("scores", "scores.detach()")),
    "one query: added to another token": (one, E, "x = x[:, :1] +", "x = x[:, -1:] +"),
    "one query: sees tokens without norm": (one, E, "self.attn(self.norm1(x), one_query=True)", "self.attn(x, one_query=True)"),
    "one query: no MLP": (one, E, f"{EQ3}\n\n    def _one", "return x + self.mlp(self.norm2(x))  # Eq. 3\n\n    def _one") if False else (
        one, E, "return x + self.mlp(self.norm2(x))\n", "return x\n"),
    "one query: no final norm": (one, V, ONE, "return last(x, one_query=True)[:, 0]"),
    "one query: last block skipped": (one, V, ONE, "return self.norm(x[:, :1])[:, 0]"),
    "one query: first block last": (one, V, "*blocks, last = self.blocks", "last, *blocks = self.blocks"),
    "one query: in every block": (one, V, f"            x = block(x)\n        {ONE}", f"            x = block(x, one_query=True)\n        {ONE}"),
    "one query: all the others computed, too": (one, V, ONE, ONE.replace(", one_query=True", "")),
    "one query: keys and values made, too": (one, A, UNFIT, "if True:"),
    "one query: never": (one, V, "one_query: bool = True", "one_query: bool = False"),
    "one query: cannot be switched off": (one, V, "self.one_query and type", "type"),
    "one query: dropped weights sum to one": (one, A, UNFIT, UNFIT.replace(" or (self.training and self.attention_dropout)", "")),
    "one query: no dropout after its projection": (one, A, 'self.dropout(self.proj(rearrange(out, "b h k -> b 1 (h k)")))', (
        'self.proj(rearrange(out, "b h k -> b 1 (h k)"))')),
    "one query: also where hooks want all": (asked, U, "if before or layer._forward_hooks", "if before and layer._forward_hooks"),
    "one query: also where a backward hook wants all": (asked, U, " or layer._backward_hooks or layer._backward_pre_hooks", ""),
    "one query: also where a hook wants all inputs": (asked, U, "if before or ", "if "),
    "one query: also through layers that were put in": (asked, U, "type(layer).forward is not _FORWARD.get(type(layer)) or ", ""),
    "one query: also through a forward that was replaced": (asked, U, ' or "forward" in vars(layer)', ""),
    "one query: also through a final norm that was put in": (asked, U, "(*block.modules(), *norm.modules())", "block.modules()"),
    "one query: also through a block of another kind": (asked, U, "if not isinstance(block, EncoderBlock):", "if False:"),
    "one query: tokens of a subclass passed over": (asked, V, " and type(self).tokens is VisionTransformer.tokens", ""),
    "one query: an adapter on qkv passed over": (asked, A, UNFIT, UNFIT.replace("type(self.qkv) is not nn.Linear or ", "")),
    "no gradient through attention's weights": (readable, A, "return weights @ v, weights", "return weights.detach() @ v, weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_is_caught(name: str) -> None:
    check, file, right, wrong = MISTAKES[name]
    library = library_with({file: (right, wrong)})
    with pytest.raises(Exception) as caught:  # noqa: PT011 - a shape that does not fit stops a model as well
        CHECKS[check](library)
    # Numbers that differ, parameters that do not pair, shapes that do not fit: not a slip in the row itself.
    refused = "the mapping names" in str(caught.value) or "cannot be copied into" in str(caught.value)
    assert refused or isinstance(caught.value, AssertionError | RuntimeError), caught.value


def test_every_check_catches_something() -> None:
    assert {row[0] for row in MISTAKES.values()} == CHECKS.keys()


def test_a_copy_without_a_mistake_passes() -> None:
    """So that a row above fails for its mistake, and not because it runs on a copy."""
    library = library_with({})
    for check in CHECKS.values():
        check(library)
