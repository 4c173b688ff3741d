"""Which parameter of a student's module plays which role, whatever its name, its shape or the kind of its layer.

A student may pack q, k and v or not, write layers, convolutions with kernel 1 or bare parameters, transposed or cut
into heads. All of that is a question of how one tensor is laid out in another: a `Piece` says it for one parameter, a
`RoleMap` for all, and reads the student's parameters under the library's names (and writes them).

Sizes decide where they can; where they leave a choice, names, then order of registration come first, and all other
choices follow: the caller takes the first under which the student's output is right. Call it with sizes that differ
from each other: width of a head, number of heads (not 3), hidden width.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import combinations, islice, permutations, product
from math import prod

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vitscratch.exercises.checks.reference import inside

# The library's name without its prefix -> its axes; "(h k)" and "(three h k)" are one axis there.
AXES = {
    "qkv.weight": "three h k d",
    "qkv.bias": "three h k",
    "proj.weight": "d h k",
    "proj.bias": "d",
    "fc1.weight": "m d",
    "fc1.bias": "m",
    "fc2.weight": "d m",
    "fc2.bias": "d",
    "weight": "d",
    "bias": "d",
}
_PACKED = {"qkv.weight": "(three h k) d", "qkv.bias": "(three h k)", "proj.weight": "d (h k)"}
_LIMIT = 400  # choices tried at most
_BARE_LIMIT = 96  # of parameters that no layer holds together


class UnmatchedError(Exception):
    """What could not be matched, and what the student has."""


@dataclass(frozen=True)
class Piece:
    """One parameter of the student, and where it lies in one of the library's."""

    name: str
    """The student's."""
    axes: str
    """Of the student's tensor, axes of length 1 left out: "d (h k)"."""
    target: str
    """The library's name, with its prefix: "attn.qkv.weight"."""
    index: tuple[int | slice, ...] = ()
    """Of the leading axes of the target, as AXES has them: (1,) for the keys, (slice(None), 4) for the fifth head."""


@dataclass(frozen=True)
class RoleMap:
    """The student's parameters by role."""

    pieces: tuple[Piece, ...]
    sizes: Mapping[str, int]
    surplus: tuple[str, ...]
    """Names of parameters that have no role."""
    missing: tuple[str, ...] = field(default=())
    """The library's names that no parameter stands for."""

    @property
    def shared(self) -> bool:
        """One parameter stands for two."""
        names = [piece.name for piece in self.pieces]
        return len(set(names)) < len(names)

    def read(self, module: nn.Module) -> dict[str, Tensor]:
        """The library's parameters made of the student's; gradients flow back to these."""
        parameters = dict(module.named_parameters())
        found: dict[str, Tensor] = {}
        for piece in self.pieces:
            tensor = parameters[piece.name]
            atoms, sizes = self._atoms(piece)
            part = rearrange(tensor.reshape(_squeezed(tensor)), f"{piece.axes} -> {' '.join(atoms)}", **sizes)
            if not piece.index:
                found[piece.target] = part
                continue
            if piece.target not in found:
                found[piece.target] = part.new_zeros([self.sizes[atom] for atom in _axes(piece.target)])
            found[piece.target][piece.index] = part
        return {name: self._packed(name, tensor) for name, tensor in found.items()}

    def write(self, module: nn.Module, values: Mapping[str, Tensor]) -> None:
        """Set the student's parameters so that `read` gives `values`; names that it does not have are passed over."""
        parameters = dict(module.named_parameters())
        for piece in self.pieces:
            if piece.target not in values:
                continue
            tensor = parameters[piece.name]
            atoms, sizes = self._atoms(piece)
            whole = values[piece.target].reshape([self.sizes[atom] for atom in _axes(piece.target)])
            part = rearrange(whole[piece.index], f"{' '.join(atoms)} -> {piece.axes}", **sizes)
            with torch.no_grad():
                tensor.copy_(part.reshape(tensor.shape))

    def name_of(self, target: str) -> str:
        """What the student calls it: "to_q.weight, to_k.weight, to_v.weight"; the library's name if it is not there."""
        return ", ".join(piece.name for piece in self.pieces if piece.target == target) or target

    def _atoms(self, piece: Piece) -> tuple[list[str], dict[str, int]]:
        axes = _axes(piece.target)
        sizes = {}
        for atom, place in zip(axes, [*piece.index, *[slice(None)] * len(axes)], strict=False):
            if isinstance(place, slice):
                sizes[atom] = len(range(self.sizes[atom])[place])
        return list(sizes), sizes

    def _packed(self, name: str, tensor: Tensor) -> Tensor:
        short = _short(name)
        return rearrange(tensor, f"{AXES[short]} -> {_PACKED[short]}") if short in _PACKED else tensor


def _short(target: str) -> str:
    """Without the prefix: "attn.qkv.weight" -> "qkv.weight", "norm1.bias" -> "bias"."""
    return next(name for name in AXES if target == name or target.endswith(f".{name}"))


def _axes(target: str) -> list[str]:
    return AXES[_short(target)].split()


def _squeezed(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]


# ------------------------------------------------------------------------------------------- what a student has


@dataclass(frozen=True)
class _Found:
    name: str
    shape: tuple[int, ...]
    owner: str
    """Path of the module that has it."""
    kind: str
    """"linear": its first axis is the output; "norm": of a module without matrices; "bare": anything else."""
    ones: bool
    """All its numbers are 1, as a norm's weight at the start."""

    @property
    def role(self) -> str:
        """ "q", "k", "v" or "out" where the name says so, else ""."""
        return role_of(self.name)


def role_of(name: str) -> str:
    """The role that a parameter's name tells: "to_q.weight" is "q", "heads.0.key" is "k", "W_O" is "out", else ""."""
    words = {
        "q": ("q", "query", "querie", "queries"),
        "k": ("k", "key"),
        "v": ("v", "value", "val"),
        "out": ("o", "out", "output", "unify", "unifyheads", "merge", "combine", "final", "mix"),
    }
    for part in re.split(r"[._\d]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()):
        word = re.sub(
            r"^(w|b|to|lin|linear|fc|proj)|(proj|projection|projections|linear|lin|layer|maps?|mappings?|s)$", "", part
        )
        for role, spellings in words.items():
            if part in spellings or word in spellings:
                return role
    return ""


def _collect(module: nn.Module) -> list[_Found]:
    modules = dict(module.named_modules())
    found = []
    for name, parameter in module.named_parameters():
        owner = name.rpartition(".")[0]
        layer, own = modules[owner], list(modules[owner].parameters())
        ones = bool((parameter == 1).all()) if parameter.numel() else False
        bag = isinstance(layer, nn.ParameterList | nn.ParameterDict)  # of biases, unless one is a norm's weight
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and parameter.ndim > 1:
            kind = "linear"
        elif isinstance(layer, nn.LayerNorm | nn.RMSNorm | nn.modules.batchnorm._BatchNorm | nn.GroupNorm) or (
            owner
            and all(len(_squeezed(other)) <= 1 for other in own)
            and (not bag or any(bool((other == 1).all()) for other in own))
        ):
            kind = "norm"
        else:
            kind = "norm" if parameter.ndim == 1 and _is_norm(name.rpartition(".")[2]) else "bare"
        found.append(_Found(name, tuple(_squeezed(parameter)), owner, kind, ones))
    return found


def _is_norm(name: str) -> bool:
    return re.search(r"gamma|beta|norm|^ln|shift|alpha|(?<!q)(?<!k)(?<!v)scale", name.lower()) is not None


def listed(module: nn.Module) -> str:
    """The student's parameters with their shapes, for a message."""
    names = [f"{name} {tuple(parameter.shape)}" for name, parameter in module.named_parameters()]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) + more) if names else "none"


def in_containers(value: object, deep: int = 3) -> Iterator[object]:
    """What lists, tuples and dicts hold, in each other, too; nothing of anything else."""
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for thing in held:
        yield thing
        yield from in_containers(thing, deep - 1) if deep else ()


def hidden_in_containers(module: nn.Module) -> str:
    """The path of a list or dict that keeps layers or parameters where torch does not see them, else ""."""
    for path, layer in module.named_modules():
        for name, value in vars(layer).items():
            if name.startswith("_"):
                continue
            if any(
                isinstance(thing, nn.Module) or (isinstance(thing, Tensor) and thing.requires_grad)
                for thing in in_containers(value)
            ):
                return f"{path}.{name}".lstrip(".")
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.requires_grad:
                return f"{path}.{name}".lstrip(".")
    return ""


# --------------------------------------------------------------------------------------------------- the matching

_Role = tuple[_Found, str, tuple[int | slice, ...]]


def attention_maps(module: nn.Module, embed_dim: int, num_heads: int) -> list[RoleMap]:
    """Ways to read a multi-head self-attention's parameters as qkv.weight, qkv.bias, proj.weight, proj.bias."""
    sizes = {"three": 3, "h": num_heads, "k": embed_dim // num_heads, "d": embed_dim}
    found = _collect(module)
    ways = _attention(found, sizes, "", module)
    targets = ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")
    return [_role_map(way, sizes, found, targets) for way in islice(ways, _LIMIT)]


def mlp_maps(module: nn.Module, embed_dim: int, mlp_dim: int) -> list[RoleMap]:
    """Ways to read an MLP's parameters as fc1.weight, fc1.bias, fc2.weight, fc2.bias."""
    sizes = {"d": embed_dim, "m": mlp_dim}
    found = _collect(module)
    targets = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    return [_role_map(way, sizes, found, targets) for way in islice(_mlp(found, sizes, "", module), _LIMIT)]


def block_maps(module: nn.Module, embed_dim: int, num_heads: int, mlp_dim: int) -> list[RoleMap]:
    """Ways to read a block's parameters under norm1., attn., norm2. and mlp. (a single norm is read as both)."""
    sizes = {"three": 3, "h": num_heads, "k": embed_dim // num_heads, "d": embed_dim, "m": mlp_dim}
    found = _collect(module)
    targets = [f"{norm}.{name}" for norm in ("norm1", "norm2") for name in ("weight", "bias")]
    targets += [f"attn.{layer}.{name}" for layer in ("qkv", "proj") for name in ("weight", "bias")]
    targets += [f"mlp.{layer}.{name}" for layer in ("fc1", "fc2") for name in ("weight", "bias")]
    try:
        maps = [_role_map(way, sizes, found, targets) for way in islice(_block(found, sizes, module), _LIMIT)]
    except UnmatchedError:
        maps = []
        if not any(one.kind == "bare" for one in found):
            raise
    if not maps or maps[0].missing or maps[0].surplus:
        bare = [_role_map(way, sizes, found, targets) for way in islice(_bare_block(found, sizes), _BARE_LIMIT)]
        maps = [one for one in bare if not one.missing and not one.surplus] or maps
    return maps or [_role_map(way, sizes, found, targets) for way in _block(found, sizes, module)]


def _block(found: Sequence[_Found], sizes: Mapping[str, int], module: nn.Module) -> Iterator[list[Piece]]:
    """Norms by the kind of their module or by name, the MLP by its width, and attention is the rest."""
    mlp_dim = sizes["m"]
    norms = [one for one in found if one.kind == "norm"]
    hidden = {one.owner for one in found if mlp_dim in one.shape}
    of_mlp = [
        one for one in found if one not in norms and (mlp_dim in one.shape or (one.owner and one.owner in hidden))
    ]
    of_attention = [one for one in found if one not in norms and one not in of_mlp]
    norm_ways = list(_norms(norms))
    attention_ways = list(islice(_attention(of_attention, sizes, "attn.", module), _LIMIT))
    mlp_ways = list(_mlp(of_mlp, sizes, "mlp.", module))
    yield from ([*a, *m, *n] for a, m, n in product(attention_ways, mlp_ways, norm_ways))


def _bare_block(found: Sequence[_Found], sizes: Mapping[str, int]) -> Iterator[list[Piece]]:
    """A block whose parameters stand side by side with no layers around them: sizes, ones, and likeness of names.

    Four biases are as wide as a token; each is given to the weight whose name is most like its own, then in any order.
    """
    d, m = sizes["d"], sizes["m"]
    vectors = [one for one in found if len(one.shape) == 1 or prod(one.shape) in (d, 3 * d, m)]
    matrices = [one for one in found if one not in vectors]
    wide = [one for one in matrices if prod(one.shape) == d * m]
    rest = [one for one in matrices if one not in wide]
    scales = [one for one in vectors if one.ones and prod(one.shape) == d]
    fixed, shifts = _certain_biases([one for one in vectors if one not in scales], sizes)
    if len(wide) != 2 or len(scales) != 2 or len(shifts) != 4:
        return
    ways: list[tuple[tuple[bool, int, float, int], list[Piece]]] = []
    for (fc1, fc2), norms, order in product(permutations(wide), permutations(scales), permutations(shifts)):
        of_mlp: list[_Role] = [(fc1, "mlp.fc1.weight", ()), (fc2, "mlp.fc2.weight", ())]
        for roles in _attention_roles(rest, sizes, "attn."):
            proj = next((one.name for one, target, _ in roles if "proj" in target), "")
            alike, biases = _beside((proj, fc2.name, norms[0].name, norms[1].name), order)
            biases += [
                Piece(one.name, "d", f"{name}.weight") for one, name in zip(norms, ("norm1", "norm2"), strict=True)
            ]
            for way in product(*(_readings(*role, sizes) for role in (*roles, *of_mlp))):
                key = (_mixed(way), scales.index(norms[0]), -alike, len(ways))
                ways.append((key, [*way, *biases, *fixed]))
    yield from (way for _, way in sorted(ways, key=lambda way: way[0]))


def _certain_biases(vectors: Sequence[_Found], sizes: Mapping[str, int]) -> tuple[list[Piece], list[_Found]]:
    """The biases whose role their size or their name tells, and those as wide as a token that are left."""
    d, m = sizes["d"], sizes["m"]
    fixed = [Piece(one.name, "m", "mlp.fc1.bias") for one in vectors if prod(one.shape) == m]
    packed = [one for one in vectors if prod(one.shape) == 3 * d]
    for one in packed:
        fixed += _readings(one, "attn.qkv.bias", (), sizes)[:1]
    left = [one for one in vectors if prod(one.shape) == d]
    for one in [] if packed else [one for one in left if one.role in ("q", "k", "v")]:
        fixed += _readings(one, "attn.qkv.bias", ("qkv".index(one.role),), sizes)[:1]
        left.remove(one)
    return fixed, left


def _beside(weights: Sequence[str], order: Sequence[_Found]) -> tuple[float, list[Piece]]:
    """How alike biases in this order are to the weights of attn.proj, mlp.fc2, norm1 and norm2, and their roles."""
    alike = sum(likeness(one.name, weight) for one, weight in zip(order, weights, strict=True))
    alike += likeness(order[2].name.rstrip("12"), order[3].name.rstrip("12"))  # the norms' biases: b1 and b2
    layers = ("attn.proj", "mlp.fc2", "norm1", "norm2")
    return alike, [Piece(one.name, "d", f"{layer}.bias") for one, layer in zip(order, layers, strict=True)]


def _mixed(way: Sequence[Piece]) -> bool:
    """Whether some matrices have their output first, as F.linear wants it, and others their input."""
    last = {"qkv.weight": "(d)", "proj.weight": "(h k)", "fc1.weight": "(d)", "fc2.weight": "(m)"}
    there = [(piece.axes, last[short]) for piece in way if (short := _short(piece.target)) in last]
    return len({axes.endswith(end) for axes, end in there}) > 1


def likeness(name: str, other: str) -> float:
    """How alike two names are, from 0 to 2: 1 for the same number at the end, the rest for their letters."""
    one, two = re.findall(r"\d+$", name), re.findall(r"\d+$", other)
    return SequenceMatcher(None, name, other).ratio() + (one == two)


def _role_map(
    way: Sequence[Piece], sizes: Mapping[str, int], found: Sequence[_Found], targets: Sequence[str]
) -> RoleMap:
    used = {piece.name for piece in way}
    return RoleMap(
        tuple(way),
        sizes,
        tuple(one.name for one in found if one.name not in used),
        tuple(target for target in targets if not _is_whole(target, way, sizes)),
    )


def _is_whole(target: str, way: Sequence[Piece], sizes: Mapping[str, int]) -> bool:
    """Whether parameters stand for all of it; keys need no bias, which softmax would not see."""
    there = torch.zeros([sizes[atom] for atom in _axes(target)], dtype=torch.bool)
    for piece in way:
        if piece.target == target:
            there[piece.index] = True
    return bool((there[[0, 2]] if _short(target) == "qkv.bias" else there).all())


def _labelled(shape: Sequence[int], atoms: Mapping[str, int]) -> Iterator[str]:
    """All ways to read a shape as products of the atoms, each used once: (15, 15) is "(d) (h k)" and "(h k) (d)"."""
    if not shape:
        if not atoms:
            yield ""
        return
    for count in range(1, len(atoms) + 1):
        for group in combinations(atoms, count):
            if prod(atoms[atom] for atom in group) != shape[0] or (count > 1 and {"d", "m"} & set(group)):
                continue
            rest = {atom: size for atom, size in atoms.items() if atom not in group}
            for tail in _labelled(shape[1:], rest):
                yield f"({' '.join(group)}) {tail}".strip()


def _readings(one: _Found, target: str, index: tuple[int | slice, ...], sizes: Mapping[str, int]) -> list[Piece]:
    """The pieces that a parameter can be for a role: one, two where it may be transposed; none if it does not fit."""
    _, own = RoleMap((), sizes, ())._atoms(Piece(one.name, "", target, index))
    labels = list(_labelled(one.shape, own))
    if one.kind == "linear":  # its first axis is the output
        output = {"d": "(d)", "m": "(m)"}.get(_axes(target)[0])
        labels = [label for label in labels if (label.startswith(output) if output else label.endswith("(d)"))]
    return [Piece(one.name, label, target, index) for label in labels]


def _with_biases(
    roles: Sequence[_Role], vectors: Sequence[_Found], sizes: Mapping[str, int], prefix: str, matrices: Sequence[_Found]
) -> Iterator[list[Piece]]:
    """The roles of matrices, and of the vectors that belong to them, in every way that fits."""
    choices = [_readings(one, target, index, sizes) for one, target, index in roles]
    left = list(vectors)
    for one, target, index in roles:  # the vector of the same layer
        alone = one.owner and sum(other.owner == one.owner for other in matrices) == 1
        for vector in [vector for vector in left if alone and vector.owner == one.owner]:
            readings = _readings(vector, target.replace("weight", "bias"), index, sizes)
            if readings:
                choices.append(readings)
                left.remove(vector)
                break
    taken = [(piece.target, piece.index) for readings in choices for piece in readings]
    for vector, target, index in _bare_biases(left, roles, prefix, sizes):
        if (target, index) not in taken:
            choices.append(_readings(vector, target, index, sizes))
    yield from sorted((list(pieces) for pieces in product(*choices)), key=_mixed)


def _bare_biases(
    vectors: Sequence[_Found], roles: Sequence[_Role], prefix: str, sizes: Mapping[str, int]
) -> Iterator[_Role]:
    """Roles of biases that stand beside their matrices as parameters of their own."""
    d, m = sizes["d"], sizes.get("m", 0)
    if not any("qkv" in target for _, target, _ in roles):
        for vector in vectors:
            size = prod(vector.shape)
            if size in (d, m):
                yield vector, f"{prefix}fc1.bias" if size == m else f"{prefix}fc2.bias", ()
        return
    ones = [vector for vector in vectors if prod(vector.shape) == d]
    for vector in vectors:
        if prod(vector.shape) == 3 * d:
            yield vector, f"{prefix}qkv.bias", ()
    names = [vector.role for vector in ones]
    if not set("qkv") & set(names) and len(ones) in (3, 4):
        names = ["q", "k", "v", "out"][: len(ones)]
    for vector, name in zip(ones, names, strict=True):
        if name in ("q", "k", "v"):
            yield vector, f"{prefix}qkv.bias", ("qkv".index(name),)
        else:
            yield vector, f"{prefix}proj.bias", ()


def _attention(
    found: Sequence[_Found], sizes: Mapping[str, int], prefix: str, module: nn.Module
) -> Iterator[list[Piece]]:
    matrices = [one for one in found if len(one.shape) > 1]
    vectors = [one for one in found if len(one.shape) == 1 or prod(one.shape) in (sizes["d"], 3 * sizes["d"])]
    matrices = [one for one in matrices if one not in vectors]
    if not matrices:
        raise UnmatchedError(f"no parameter makes queries, keys and values; registered are: {listed(module)}")
    any_way = False
    for roles in _attention_roles(matrices, sizes, prefix):
        for way in _with_biases(roles, vectors, sizes, prefix, matrices):
            any_way = True
            yield way
    if not any_way:
        d, k = sizes["d"], sizes["k"]
        slices = sum(prod(one.shape) == k * k for one in matrices)
        why = f" ({slices} of them are {k} x {k}: a head would see only its own slice of a token)" if slices > 2 else ""
        raise UnmatchedError(
            f"expected weights for q, k, v ({3 * d} x {d}, or three of {d} x {d}) and for the output ({d} x {d}); "
            f"registered are: {listed(module)}{why}"
        )


def _attention_roles(matrices: Sequence[_Found], sizes: Mapping[str, int], prefix: str) -> Iterator[list[_Role]]:
    d, h, k = sizes["d"], sizes["h"], sizes["k"]
    weight, out = f"{prefix}qkv.weight", f"{prefix}proj.weight"

    def of_size(size: int) -> list[_Found]:
        return [one for one in matrices if prod(one.shape) == size]

    def with_out(roles: list[_Role], rest: Sequence[_Found]) -> Iterator[list[_Role]]:
        """The projection of the output is one of the rest, by name first; without any, it is not there."""
        for one in sorted(rest, key=lambda one: one.role != "out"):
            yield [*roles, (one, out, ())]
        if not rest:
            yield roles

    packed, pairs, ones = of_size(3 * d * d), of_size(2 * d * d), of_size(d * d)
    if packed:
        yield from with_out([(packed[0], weight, ())], ones)
    elif pairs and ones:
        yield from _paired(ones, pairs[0], weight, with_out)
    elif len(ones) >= 3:
        yield from _separate(ones, weight, out, with_out)
    elif len(of_size(3 * d * k)) == h > 1:
        per_head = [(one, weight, (slice(None), head)) for head, one in enumerate(of_size(3 * d * k))]
        yield from with_out(list(per_head), ones)
    elif len(of_size(d * k)) == 3 * h > 3:
        for order in _per_head(of_size(d * k), h):
            yield from with_out([(one, weight, place) for one, place in order], ones)


def _separate(ones: Sequence[_Found], weight: str, out: str, with_out) -> Iterator[list[_Role]]:  # type: ignore[no-untyped-def]
    """Three or more matrices of the same size: by name if q, k and v are named, else in order, else in any order."""
    named = {role: [one for one in ones if one.role == role] for role in "qkv"}
    if all(len(of_role) == 1 for of_role in named.values()):
        three = [named[role][0] for role in "qkv"]
        yield from with_out(
            [(one, weight, (i,)) for i, one in enumerate(three)], [one for one in ones if one not in three]
        )
        return
    for order in permutations(ones, min(len(ones), 4)):
        roles: list[_Role] = [(one, weight, (i,)) for i, one in enumerate(order[:3])]
        yield [*roles, *[(one, out, ()) for one in order[3:]]]


def _paired(ones: Sequence[_Found], pair: _Found, weight: str, with_out) -> Iterator[list[_Role]]:  # type: ignore[no-untyped-def]
    """Queries beside keys and values in one, or queries and keys in one beside the values: by name first."""
    named = [(one, one.role) for one in ones if one.role in ("q", "v")]
    for one, role in [*named, (ones[0], "q"), (ones[0], "v")]:
        alone, both = (0, slice(1, 3)) if role == "q" else (2, slice(0, 2))
        roles: list[_Role] = [(one, weight, (alone,)), (pair, weight, (both,))]
        yield from with_out(roles, [other for other in ones if other is not one])


def _per_head(ones: Sequence[_Found], h: int) -> Iterator[list[tuple[_Found, tuple[int | slice, ...]]]]:
    """q, k and v of every head in a layer of its own: by name, else head by head, else q of all heads first."""
    named = {role: [one for one in ones if one.role == role] for role in "qkv"}
    if all(len(of_role) == h for of_role in named.values()):
        yield [(one, (i, head)) for i, role in enumerate("qkv") for head, one in enumerate(named[role])]
        return
    yield [(one, (place % 3, place // 3)) for place, one in enumerate(ones)]
    yield [(one, (place // h, place % h)) for place, one in enumerate(ones)]


def _mlp(found: Sequence[_Found], sizes: Mapping[str, int], prefix: str, module: nn.Module) -> Iterator[list[Piece]]:
    d, m = sizes["d"], sizes["m"]
    matrices = [one for one in found if len(one.shape) > 1 and prod(one.shape) == d * m]
    vectors = [one for one in found if one not in matrices]
    any_way = False
    for first, second in permutations(matrices, 2):
        roles: list[_Role] = [(first, f"{prefix}fc1.weight", ()), (second, f"{prefix}fc2.weight", ())]
        for way in _with_biases(roles, vectors, sizes, prefix, matrices):
            any_way = True
            yield way
    if not any_way:
        raise UnmatchedError(
            f"expected two layers for the MLP, {d} -> {m} and {m} -> {d}; registered are: {listed(module)}"
        )


def _norms(found: Sequence[_Found]) -> Iterator[list[Piece]]:
    """The two norms in the order of registration, then the other way round; one alone stands for both."""
    layers: dict[str, list[_Found]] = {}
    for one in found:
        owned = one.owner or re.sub(r"gamma|beta|weight|bias|scale|shift|alpha|_[wbg]$|[_.]", "", one.name.lower())
        layers.setdefault(owned, []).append(one)
    by_layer = list(layers.values())
    if not by_layer:
        yield []
        return
    pairs = list(permutations(by_layer, 2)) if len(by_layer) > 1 else [(by_layer[0], by_layer[0])]
    for first, second in sorted(pairs, key=lambda pair: -sum(map(_as_of_a_norm, pair))):
        pieces = []
        for name, layer in (("norm1", first), ("norm2", second)):
            weight = next((one for one in layer if one.ones), None)
            pieces += [Piece(weight.name, "d", f"{name}.weight")] if weight else []
            pieces += [Piece(one.name, "d", f"{name}.bias") for one in layer if one is not weight][:1]
        yield pieces


def _as_of_a_norm(layer: Sequence[_Found]) -> int:
    """How many of weight and bias are there; a factor alone, as LayerScale's, is neither."""
    ones = sum(one.ones for one in layer)
    return min(ones, 1) + min(len(layer) - ones, 1)


# ------------------------------------------------------------------------------------------------------- awakening


def awaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter at random, so that none is 0 or 1 and none is without effect; float64, eval. In place.

    Matrices have a standard deviation of about 1.3 / sqrt(width), so that softmax is neither flat nor one-hot;
    vectors that are all ones (norm weights) get 1 + 0.3 N, all other vectors 0.5 N.
    """
    module.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if is_lazy(parameter) or not parameter.numel():
                continue
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            if sum(size != 1 for size in parameter.shape) > 1:
                parameter.copy_(1.3 * noise / parameter.numel() ** 0.25)
            elif (parameter == 1).all():
                parameter.copy_(1 + 0.3 * noise)
            else:
                parameter.copy_(0.5 * noise)
    return module


__all__ = [
    "Piece",
    "RoleMap",
    "UnmatchedError",
    "attention_maps",
    "awaken",
    "block_maps",
    "hidden_in_containers",
    "in_containers",
    "inside",
    "likeness",
    "listed",
    "mlp_maps",
    "role_of",
]
