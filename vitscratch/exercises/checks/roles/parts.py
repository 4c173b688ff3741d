"""Ways to read the parameters of one part: attention, MLP, or two norms."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations, product
from math import prod

from torch import nn

from vitscratch.exercises.checks.roles.fitting import Role, with_biases
from vitscratch.exercises.checks.roles.pieces import Piece, UnmatchedError
from vitscratch.exercises.checks.roles.registered import Found, is_shift
from vitscratch.exercises.checks.student import describe

WithOut = Callable[[list[Role], Sequence[Found]], Iterator[list[Role]]]


def ways_of_attention(
    found: Sequence[Found], sizes: Mapping[str, int], prefix: str, module: nn.Module
) -> Iterator[list[Piece]]:
    """Attention's layers, with their biases.

    Raises:
        UnmatchedError: no way fits.
    """
    matrices = [one for one in found if len(one.shape) > 1]
    vectors = [one for one in found if len(one.shape) == 1 or prod(one.shape) in (sizes["d"], 3 * sizes["d"])]
    matrices = [one for one in matrices if one not in vectors]
    if not matrices:
        raise UnmatchedError(f"no parameter makes queries, keys and values; registered are: {describe(module)}")
    any_way = False
    for roles in attention_roles(matrices, sizes, prefix):
        for way in with_biases(roles, vectors, sizes, prefix, matrices):
            any_way = True
            yield way
    if not any_way:
        d, k = sizes["d"], sizes["k"]
        slices = sum(prod(one.shape) == k * k for one in matrices)
        why = f" ({slices} of them are {k} x {k}: a head would see only its own slice of a token)" if slices > 2 else ""
        raise UnmatchedError(
            f"expected weights for q, k, v ({3 * d} x {d}, or three of {d} x {d}) and for the output ({d} x {d}); "
            f"registered are: {describe(module)}{why}"
        )


def attention_roles(matrices: Sequence[Found], sizes: Mapping[str, int], prefix: str) -> Iterator[list[Role]]:
    """Matrices that make q, k and v, packed or not, for all heads or for each, and the output."""
    d, h, k = sizes["d"], sizes["h"], sizes["k"]
    weight, out = f"{prefix}qkv.weight", f"{prefix}proj.weight"

    def of_size(size: int) -> list[Found]:
        return [one for one in matrices if prod(one.shape) == size]

    def with_out(roles: list[Role], rest: Sequence[Found]) -> Iterator[list[Role]]:
        """The projection of the output is cut into heads, or one of the rest, by name first, or not there."""
        if cut:
            yield [*roles, *cut]
            return
        for one in sorted(rest, key=lambda one: one.role != "out"):
            yield [*roles, (one, out, ())]
        if not rest:
            yield roles

    slices = of_size(d * k)
    cut = _out_per_head(slices, out, h, d)
    slices = [one for one in slices if one not in [role[0] for role in cut]]
    packed, pairs, ones = of_size(3 * d * d), of_size(2 * d * d), of_size(d * d)
    if packed:
        yield from with_out([(packed[0], weight, ())], ones)
    elif pairs and ones:
        yield from _paired(ones, pairs[0], weight, out, with_out)
    elif len(ones) >= 3:
        yield from _separate(ones, weight, out, with_out)
    elif len(ones) == 2:
        yield from _one_twice(ones, weight, out)
        for places in permutations(range(3), 2):  # and no output
            yield [(one, weight, (place,)) for one, place in zip(ones, places, strict=True)]
    elif len(of_size(3 * d * k)) == h > 1:
        per_head = [(one, weight, (slice(None), head)) for head, one in enumerate(of_size(3 * d * k))]
        yield from with_out(list(per_head), ones)
    elif len(slices) == 3 * h > 3:
        for order in _per_head(slices, h):
            yield from with_out([(one, weight, place) for one, place in order], ones)


def _separate(ones: Sequence[Found], weight: str, out: str, with_out: WithOut) -> Iterator[list[Role]]:
    """Three or more matrices of the same size: by name if q, k and v are named, else in order, else in any order."""
    named = {role: [one for one in ones if one.role == role] for role in "qkv"}
    if all(len(of_role) == 1 for of_role in named.values()):
        three = [named[role][0] for role in "qkv"]
        yield from with_out(
            [(one, weight, (i,)) for i, one in enumerate(three)], [one for one in ones if one not in three]
        )
        return
    if len(ones) == 3:
        yield from _one_twice(ones, weight, out)
    for order in permutations(ones, min(len(ones), 4)):
        roles: list[Role] = [(one, weight, (i,)) for i, one in enumerate(order[:3])]
        yield [*roles, *[(one, out, ()) for one in order[3:]]]


def _one_twice(ones: Sequence[Found], weight: str, out: str) -> Iterator[list[Role]]:
    """The output, and fewer than three matrices for q, k and v: one stands for two of them, or for all.

    The output is the one that is named so, else each of those without a name that says more.
    """
    for last in [one for one in ones if one.role == "out"] or [one for one in ones if one.role not in ("q", "k", "v")]:
        rest = [one for one in ones if one is not last]
        named = {"qkv".index(one.role): one for one in rest if one.role in ("q", "k", "v")}
        for three in product(rest, repeat=3):
            if len(set(three)) == len(rest) and all(three[place] is one for place, one in named.items()):
                yield [*[(one, weight, (place,)) for place, one in enumerate(three)], (last, out, ())]


def _paired(ones: Sequence[Found], pair: Found, weight: str, out: str, with_out: WithOut) -> Iterator[list[Role]]:
    """Queries beside keys and values in one, or queries and keys in one beside the values: by name first.

    If one matrix alone is there, it may be the output, and queries or values have none.
    """
    named = [(one, one.role) for one in ones if one.role in ("q", "v")]
    as_out: list[list[Role]] = [[(pair, weight, (both,)), (ones[0], out, ())] for both in (slice(0, 2), slice(1, 3))]
    if len(ones) == 1 and ones[0].role == "out":
        yield from as_out
        return
    for one, role in [*named, (ones[0], "q"), (ones[0], "v")]:
        alone, both = (0, slice(1, 3)) if role == "q" else (2, slice(0, 2))
        roles: list[Role] = [(one, weight, (alone,)), (pair, weight, (both,))]
        yield from with_out(roles, [other for other in ones if other is not one])
    if len(ones) == 1:
        yield from as_out


def _per_head(ones: Sequence[Found], h: int) -> Iterator[list[tuple[Found, tuple[int | slice, ...]]]]:
    """q, k and v of every head in a layer of its own: by name, else head by head, else q of all heads first."""
    named = {role: [one for one in ones if one.role == role] for role in "qkv"}
    if all(len(of_role) == h for of_role in named.values()):
        yield [(one, (i, head)) for i, role in enumerate("qkv") for head, one in enumerate(named[role])]
        return
    yield [(one, (place % 3, place // 3)) for place, one in enumerate(ones)]
    yield [(one, (place // h, place % h)) for place, one in enumerate(ones)]


def _out_per_head(slices: Sequence[Found], out: str, h: int, d: int) -> list[Role]:
    """The projections of the heads' outputs, which are summed, by name, else by their shape; [] if there are none."""
    last = [one for one in slices if one.role == "out"]
    last = last or [one for one in slices if one.kind == "linear" and one.shape[0] == d]
    return [(one, out, (slice(None), head)) for head, one in enumerate(last)] if len(last) == h > 1 else []


def ways_of_mlp(
    found: Sequence[Found], sizes: Mapping[str, int], prefix: str, module: nn.Module
) -> Iterator[list[Piece]]:
    """The MLP's two layers, with their biases.

    Raises:
        UnmatchedError: no way fits.
    """
    d, m = sizes["d"], sizes["m"]
    matrices = [one for one in found if len(one.shape) > 1 and prod(one.shape) == d * m]
    vectors = [one for one in found if one not in matrices]
    any_way = False
    for first, second in permutations(matrices, 2):
        roles: list[Role] = [(first, f"{prefix}fc1.weight", ()), (second, f"{prefix}fc2.weight", ())]
        for way in with_biases(roles, vectors, sizes, prefix, matrices):
            any_way = True
            yield way
    if not any_way:
        raise UnmatchedError(
            f"expected two layers for the MLP, {d} -> {m} and {m} -> {d}; registered are: {describe(module)}"
        )


def ways_of_norms(found: Sequence[Found]) -> Iterator[list[Piece]]:
    """The two norms in the order of registration, then the other way round; one alone stands for both."""
    layers: dict[str, list[Found]] = {}
    for one in found:
        owned = one.owner or re.sub(r"gamma|beta|weight|bias|scale|shift|alpha|_[wbg]$|[_.]", "", one.name.lower())
        layers.setdefault(owned, []).append(one)
    by_layer = list(layers.values())
    if not by_layer:
        yield []
        return
    pairs = list(permutations(by_layer, 2)) if len(by_layer) > 1 else [(by_layer[0], by_layer[0])]
    for pair in sorted(pairs, key=lambda pair: -sum(map(_as_of_a_norm, pair))):
        first, second = (list(_as_norm(layer, name)) for name, layer in zip(("norm1", "norm2"), pair, strict=True))
        if len(first) == len(second):  # both are kept in one way
            yield from ([*one, *other] for one, other in zip(first, second, strict=True))
        else:
            yield from ([*one, *other] for one, other in product(first, second))


def _as_norm(layer: Sequence[Found], name: str) -> Iterator[list[Piece]]:
    """Weight and bias: where no value or kind of layer tells which is which, by name and order, then the other way
    round, then with a weight that is kept as its difference from one."""
    factor = next((one for one in layer if one.factor), None)
    others = [one for one in layer if one is not factor]
    if factor or len(layer) != 2:
        pieces = [Piece(factor.name, "d", f"{name}.weight")] if factor else []
        yield [*pieces, *[Piece(one.name, "d", f"{name}.bias") for one in others][:1]]
        return
    weight, bias = sorted(layer, key=lambda one: is_shift(one.name))
    for one, other, plus in ((weight, bias, 0.0), (bias, weight, 0.0), (weight, bias, 1.0)):
        yield [Piece(one.name, "d", f"{name}.weight", plus=plus), Piece(other.name, "d", f"{name}.bias")]


def _as_of_a_norm(layer: Sequence[Found]) -> int:
    """How many of weight and bias are there; a factor alone, as LayerScale's, is neither."""
    factors = sum(one.factor for one in layer)
    return min(factors, 1) + min(len(layer) - factors, 1)
