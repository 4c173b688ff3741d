"""Ways to read the parameters of attention, of an MLP, and of a block that has both and norms."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, permutations, product
from math import inf, prod

from torch import nn

from vitscratch.exercises.checks.roles.fitting import Role, is_mixed, readings_of, role_map
from vitscratch.exercises.checks.roles.parts import attention_roles, ways_of_attention, ways_of_mlp, ways_of_norms
from vitscratch.exercises.checks.roles.pieces import Piece, RoleMap, UnmatchedError
from vitscratch.exercises.checks.roles.registered import Found, collect, likeness

_LIMIT = 400  # choices tried at most
_BARE_LIMIT = 96  # of parameters that no layer holds together


def attention_maps(module: nn.Module, embed_dim: int, num_heads: int) -> list[RoleMap]:
    """Ways to read a multi-head self-attention's parameters as qkv.weight, qkv.bias, proj.weight, proj.bias."""
    sizes = {"three": 3, "h": num_heads, "k": embed_dim // num_heads, "d": embed_dim}
    found = collect(module)
    ways = ways_of_attention(found, sizes, "", module)
    targets = ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")
    return [role_map(way, sizes, found, targets) for way in islice(ways, _LIMIT)]


def mlp_maps(module: nn.Module, embed_dim: int, mlp_dim: int) -> list[RoleMap]:
    """Ways to read an MLP's parameters as fc1.weight, fc1.bias, fc2.weight, fc2.bias."""
    sizes = {"d": embed_dim, "m": mlp_dim}
    found = collect(module)
    targets = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    return [role_map(way, sizes, found, targets) for way in islice(ways_of_mlp(found, sizes, "", module), _LIMIT)]


def block_maps(module: nn.Module, embed_dim: int, num_heads: int, mlp_dim: int) -> list[RoleMap]:
    """Ways to read a block's parameters under norm1., attn., norm2. and mlp. (a single norm is read as both)."""
    sizes = {"three": 3, "h": num_heads, "k": embed_dim // num_heads, "d": embed_dim, "m": mlp_dim}
    found = collect(module)
    targets = [f"{norm}.{name}" for norm in ("norm1", "norm2") for name in ("weight", "bias")]
    targets += [f"attn.{layer}.{name}" for layer in ("qkv", "proj") for name in ("weight", "bias")]
    targets += [f"mlp.{layer}.{name}" for layer in ("fc1", "fc2") for name in ("weight", "bias")]
    try:
        maps = [role_map(way, sizes, found, targets) for way in islice(_block(found, sizes, module), _LIMIT)]
    except UnmatchedError:
        maps = []
        if not any(one.kind == "bare" for one in found):
            raise
    if not maps or maps[0].missing or maps[0].surplus:
        bare = [role_map(way, sizes, found, targets) for way in islice(_bare_block(found, sizes), _BARE_LIMIT)]
        maps = [one for one in bare if not _unmatched(one)] or min(maps, bare, key=_unmatched_first)
    return maps or [role_map(way, sizes, found, targets) for way in _block(found, sizes, module)]


def _unmatched(one: RoleMap) -> int:
    return len(one.missing) + len(one.surplus)


def _unmatched_first(maps: Sequence[RoleMap]) -> float:
    return _unmatched(maps[0]) if maps else inf


def _block(found: Sequence[Found], sizes: Mapping[str, int], module: nn.Module) -> Iterator[list[Piece]]:
    """Norms by the kind of their module or by name, the MLP by its width, and attention is the rest."""
    mlp_dim = sizes["m"]
    norms = [one for one in found if one.kind == "norm"]
    hidden = {one.owner for one in found if mlp_dim in one.shape}
    of_mlp = [
        one for one in found if one not in norms and (mlp_dim in one.shape or (one.owner and one.owner in hidden))
    ]
    of_attention = [one for one in found if one not in norms and one not in of_mlp]
    norm_ways = list(ways_of_norms(norms))
    attention_ways = list(islice(ways_of_attention(of_attention, sizes, "attn.", module), _LIMIT))
    mlp_ways = list(ways_of_mlp(of_mlp, sizes, "mlp.", module))
    yield from ([*a, *m, *n] for a, m, n in product(attention_ways, mlp_ways, norm_ways))


def _bare_block(found: Sequence[Found], sizes: Mapping[str, int]) -> Iterator[list[Piece]]:
    """A block whose parameters stand side by side with no layers around them: sizes, ones, and likeness of names.

    Four biases are as wide as a token; each is given to the weight whose name is most like its own, then in any order.
    """
    d, m = sizes["d"], sizes["m"]
    vectors = [one for one in found if len(one.shape) == 1 or prod(one.shape) in (d, 3 * d, m)]
    matrices = [one for one in found if one not in vectors]
    wide = [one for one in matrices if prod(one.shape) == d * m]
    rest = [one for one in matrices if one not in wide]
    scales = [one for one in vectors if one.factor and prod(one.shape) == d]
    fixed, shifts = _certain_biases([one for one in vectors if one not in scales], sizes)
    if len(wide) != 2 or len(scales) != 2 or len(shifts) != 4:
        return
    ways: list[tuple[tuple[bool, int, float, int], list[Piece]]] = []
    for (fc1, fc2), norms, order in product(permutations(wide), permutations(scales), permutations(shifts)):
        of_mlp: list[Role] = [(fc1, "mlp.fc1.weight", ()), (fc2, "mlp.fc2.weight", ())]
        for roles in attention_roles(rest, sizes, "attn."):
            proj = next((one.name for one, target, _ in roles if "proj" in target), "")
            alike, biases = _beside((proj, fc2.name, norms[0].name, norms[1].name), order)
            biases += [
                Piece(one.name, "d", f"{name}.weight") for one, name in zip(norms, ("norm1", "norm2"), strict=True)
            ]
            for way in product(*(readings_of(*role, sizes) for role in (*roles, *of_mlp))):
                key = (is_mixed(way), scales.index(norms[0]), -alike, len(ways))
                ways.append((key, [*way, *biases, *fixed]))
    yield from (way for _, way in sorted(ways, key=lambda way: way[0]))


def _certain_biases(vectors: Sequence[Found], sizes: Mapping[str, int]) -> tuple[list[Piece], list[Found]]:
    """The biases whose role their size or their name tells, and those as wide as a token that are left."""
    d, m = sizes["d"], sizes["m"]
    fixed = [Piece(one.name, "m", "mlp.fc1.bias") for one in vectors if prod(one.shape) == m]
    packed = [one for one in vectors if prod(one.shape) == 3 * d]
    for one in packed:
        fixed += readings_of(one, "attn.qkv.bias", (), sizes)[:1]
    left = [one for one in vectors if prod(one.shape) == d]
    for one in [] if packed else [one for one in left if one.role in ("q", "k", "v")]:
        fixed += readings_of(one, "attn.qkv.bias", ("qkv".index(one.role),), sizes)[:1]
        left.remove(one)
    return fixed, left


def _beside(weights: Sequence[str], order: Sequence[Found]) -> tuple[float, list[Piece]]:
    """How alike biases in this order are to the weights of attn.proj, mlp.fc2, norm1 and norm2, and their roles."""
    alike = sum(likeness(one.name, weight) for one, weight in zip(order, weights, strict=True))
    alike += likeness(order[2].name.rstrip("12"), order[3].name.rstrip("12"))  # the norms' biases: b1 and b2
    layers = ("attn.proj", "mlp.fc2", "norm1", "norm2")
    return alike, [Piece(one.name, "d", f"{layer}.bias") for one, layer in zip(order, layers, strict=True)]
