"""The whole model as a function of a student's parameters, right or with mistakes (exercise 8)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from vitscratch.exercises.checks import prepending, projecting
from vitscratch.exercises.checks.projecting import Project, Projection
from vitscratch.exercises.checks.reference import RIGHT, Flags, encoder_block


@dataclass
class Numbers:
    """A student's parameters in the library's shapes."""

    matrix: Tensor
    bias: Tensor
    cls: Tensor
    pos: Tensor
    blocks: list[dict[str, Tensor]]
    norm: tuple[Tensor, Tensor]
    head: tuple[Tensor, Tensor]


Tail = Callable[[Tensor, Numbers], Tensor]  # tokens after the last block (b, n, d) -> logits
Prepend = Callable[[Tensor, Tensor, Tensor], Tensor]


def embedded(images: Tensor, patch: int, numbers: Numbers, project: Project, prepend: Prepend) -> Tensor:
    """What the first block gets."""
    return prepend(project(images, patch, numbers.matrix, numbers.bias), numbers.cls, numbers.pos)


def encoded(x: Tensor, numbers: Numbers, num_heads: int, mistakes: Flags = RIGHT) -> Tensor:
    """All blocks one after the other."""
    for block in numbers.blocks:
        x = encoder_block(x, block, num_heads, mistakes)
    return x


def final_norm(x: Tensor, numbers: Numbers, eps: float = 1e-6) -> Tensor:
    """LayerNorm over the width."""
    return F.layer_norm(x, x.shape[-1:], *numbers.norm, eps)


def classified(x: Tensor, numbers: Numbers) -> Tensor:
    """The head's linear map."""
    return F.linear(x, *numbers.head)


def tail(x: Tensor, numbers: Numbers) -> Tensor:
    """Eq. 4 and the head: what is right."""
    return classified(final_norm(x, numbers)[:, 0], numbers)


def wrong_tails() -> Iterator[tuple[tuple[str, ...], Tail]]:
    """Mistakes after the last block: one, then two of different stages."""
    composed = [
        (tuple(name for name in (norm, pool, head) if name), _composed(normed, pooled, classify))
        for (norm, normed), (pool, pooled), (head, classify) in product(_NORMS, _POOLS, _HEADS)
    ]
    yield from (pair for pair in composed if len(pair[0]) == 1)
    yield ("vit_mean_with_cls",), lambda x, n: classified(final_norm(x.mean(1), n), n)
    yield ("vit_mean_pool",), lambda x, n: classified(final_norm(x[:, 1:].mean(1), n), n)
    yield ("vit_max_pool",), lambda x, n: classified(final_norm(x.amax(1), n), n)
    yield from (pair for pair in composed if len(pair[0]) == 2)


def tails_of_few() -> Iterator[Tail]:
    """How the head may read where there is no class token: the first patch, or the mean of all."""
    yield tail
    yield from (compute for names, compute in wrong_tails() if names == ("vit_mean_with_cls",))


def _composed(norm: Tail, pool: Callable[[Tensor], Tensor], head: Tail) -> Tail:
    return lambda x, numbers: head(pool(norm(x, numbers)), numbers)


_NORMS: list[tuple[str, Tail]] = [
    ("", final_norm),
    ("vit_no_final_norm", lambda x, n: x),
    ("vit_final_norm_twice", lambda x, n: final_norm(final_norm(x, n), n)),
    ("vit_final_norm_added", lambda x, n: x + final_norm(x, n)),
    ("enc_eps_1e-5", lambda x, n: final_norm(x, n, eps=1e-5)),
    *(("enc_eps_other", lambda x, n, eps=eps: final_norm(x, n, eps)) for eps in (1e-12, 1e-8, 1e-7, 1e-4, 1e-3)),
    ("vit_final_norm_other", lambda x, n: F.layer_norm(x, x.shape[-1:], eps=1e-6)),
    ("vit_final_norm_other", lambda x, n: F.rms_norm(x, x.shape[-1:], n.norm[0], 1e-6)),
    ("vit_final_norm_other", lambda x, n: F.normalize(x, dim=-1)),
    ("vit_final_norm_other", lambda x, n: _over_tokens(x, n, (1,))),
    ("vit_final_norm_other", lambda x, n: _over_tokens(x, n, (1, 2))),
    ("vit_activation_before_head", lambda x, n: torch.tanh(final_norm(x, n))),
    ("vit_activation_before_head", lambda x, n: F.gelu(final_norm(x, n))),
    ("vit_activation_before_head", lambda x, n: F.relu(final_norm(x, n))),
]


def _over_tokens(x: Tensor, numbers: Numbers, dims: tuple[int, ...]) -> Tensor:
    apart = x - x.mean(dim=dims, keepdim=True)
    scale = (apart.square().mean(dim=dims, keepdim=True) + 1e-6).sqrt()
    return apart / scale * numbers.norm[0] + numbers.norm[1]


_POOLS: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("", lambda x: x[:, 0]),
    ("vit_mean_with_cls", lambda x: x.mean(1)),
    ("vit_mean_pool", lambda x: x[:, 1:].mean(1)),
    ("vit_max_pool", lambda x: x.amax(1)),
    ("vit_max_pool", lambda x: x[:, 1:].amax(1)),
    ("vit_sum_pool", lambda x: x.sum(1)),
    ("vit_sum_pool", lambda x: x[:, 1:].sum(1)),
    ("vit_sum_pool", lambda x: x[:, 0] + x[:, 1:].mean(1)),
    *(("vit_other_token", lambda x, place=place: x[:, place]) for place in (-1, 1, 2, 3, -2)),
    ("vit_first_picture", lambda x: x[:1, 0].expand(len(x), -1)),
]
_HEADS: list[tuple[str, Tail]] = [
    ("", classified),
    ("vit_softmax", lambda y, n: classified(y, n).softmax(-1)),
    ("vit_softmax", lambda y, n: classified(y, n).log_softmax(-1)),
    ("vit_softmax", lambda y, n: classified(y, n).sigmoid()),
    ("vit_softmax", lambda y, n: classified(y, n).softmax(0)),
    ("vit_head_activation", lambda y, n: classified(y, n).relu()),
    ("vit_head_activation", lambda y, n: F.gelu(classified(y, n))),
    ("vit_head_activation", lambda y, n: classified(y, n).tanh()),
    ("vit_head_no_bias", lambda y, n: F.linear(y, n.head[0])),
    ("vit_head_norm", lambda y, n: F.layer_norm(classified(y, n), n.head[1].shape)),
    ("vit_head_norm", lambda y, n: F.normalize(classified(y, n), dim=-1)),
    ("vit_head_scaled", lambda y, n: classified(y, n) * y.shape[-1] ** 0.5),
    ("vit_head_scaled", lambda y, n: classified(y, n) / y.shape[-1] ** 0.5),
]


def wrong_embeddings(projection: Projection) -> Iterator[tuple[tuple[str, ...], Project, Prepend]]:
    """Mistakes before the first block: in class token and positions, in the projection, in both."""
    for names, project in projecting.wrongs(projection):
        if len(names) == 1:
            yield names, project, prepending.right
    for names, prepend in prepending.wrongs():
        for right in projecting.rights(projection):
            yield names, right, prepend
    for names, project in projecting.wrongs(projection):
        if len(names) > 1:
            yield names, project, prepending.right
    for names, project in projecting.likely_wrongs(projection):
        for others, prepend in prepending.wrongs():
            if len(others) == 1:
                yield (*names, *others), project, prepend


Block = Callable[[Tensor], Tensor]
Loop = Callable[[Tensor, list[Block], Numbers], Tensor]
LOOPS: list[tuple[str, Loop]] = [
    ("vit_depth_minus_one", lambda x, blocks, n: _through(x, blocks[:-1])),
    ("vit_depth_minus_one", lambda x, blocks, n: _through(x, blocks[1:])),
    ("vit_block_order", lambda x, blocks, n: _through(x, blocks[::-1])),
    ("vit_blocks_shared", lambda x, blocks, n: _through(x, blocks[:1] * len(blocks))),
    ("vit_blocks_shared", lambda x, blocks, n: _through(x, blocks[-1:] * len(blocks))),
    ("vit_residual_stream_dropped", lambda x, blocks, n: blocks[-1](x)),
    ("enc_double_residual", lambda x, blocks, n: _through(x, [_added(b) for b in blocks])),
    ("vit_norm_every_block", lambda x, blocks, n: _through(x, [_normed(b, n, True) for b in blocks])),
    ("vit_norm_every_block", lambda x, blocks, n: _normed_after_each(x, blocks, n)),
    ("vit_long_residual", lambda x, blocks, n: x + _through(x, blocks)),
    ("vit_blocks_unused", lambda x, blocks, n: x),
    ("tok_pos_twice", lambda x, blocks, n: _through(x, blocks) + n.pos),
    ("tok_pos_twice", lambda x, blocks, n: _through(x - n.pos, [_placed(b, n) for b in blocks])),
    ("tok_pos_twice", lambda x, blocks, n: _through(x, [_placed(b, n) for b in blocks])),
    ("vit_pos_after_blocks", lambda x, blocks, n: _through(x - n.pos, blocks) + n.pos),
]


def loops() -> Iterator[tuple[str, Loop]]:
    """Mistakes from the first block on, as functions from the blocks' input to the logits."""
    for name, loop in LOOPS:
        yield name, partial(_ended, loop)
    # the loop's last norm is the only one after the blocks
    yield "vit_norm_every_block", lambda x, blocks, n: classified(_normed_after_each(x, blocks, n)[:, 0], n)


def _ended(loop: Loop, x: Tensor, blocks: list[Block], numbers: Numbers) -> Tensor:
    return tail(loop(x, blocks, numbers), numbers)


def _normed_after_each(x: Tensor, blocks: list[Block], numbers: Numbers) -> Tensor:
    return _through(x, [_normed(block, numbers, False) for block in blocks])


def _through(x: Tensor, blocks: list[Block]) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def _added(block: Block) -> Block:
    return lambda x: x + block(x)


def _placed(block: Block, numbers: Numbers) -> Block:
    return lambda x: block(x + numbers.pos)


def _normed(block: Block, numbers: Numbers, first: bool) -> Block:
    return lambda x: block(final_norm(x, numbers)) if first else final_norm(block(x), numbers)
