"""Which shapes fit which role, and which biases belong to which matrices."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from math import prod

from vitscratch.exercises.checks.roles.pieces import Piece, RoleMap, axes_of, covered, short_name
from vitscratch.exercises.checks.roles.registered import Found

# A parameter, the library's name and the index there, as in `Piece`.
Role = tuple[Found, str, tuple[int | slice, ...]]


def role_map(way: Sequence[Piece], sizes: Mapping[str, int], found: Sequence[Found], targets: Sequence[str]) -> RoleMap:
    """With what this way of reading the parameters leaves over, and what it lacks of the targets."""
    used = {piece.name for piece in way}
    return RoleMap(
        tuple(way),
        sizes,
        tuple(one.name for one in found if one.name not in used),
        tuple(target for target in targets if not covered(target, way, sizes).all()),
    )


def is_mixed(way: Sequence[Piece]) -> bool:
    """Whether some matrices have their output first, as F.linear wants it, and others their input."""
    last = {"qkv.weight": "(d)", "proj.weight": "(h k)", "fc1.weight": "(d)", "fc2.weight": "(m)"}
    there = [(piece.axes, last[short]) for piece in way if (short := short_name(piece.target)) in last]
    return len({axes.endswith(end) for axes, end in there}) > 1


def readings_of(one: Found, target: str, index: tuple[int | slice, ...], sizes: Mapping[str, int]) -> list[Piece]:
    """The pieces that a parameter can be for a role: one, two where it may be transposed; none if it does not fit."""
    _, own = RoleMap((), sizes, ()).atoms_of(Piece(one.name, "", target, index))
    labels = list(_labelled(one.shape, own))
    if one.kind == "linear":  # its first axis is the output
        output = {"d": "(d)", "m": "(m)"}.get(axes_of(target)[0])
        labels = [label for label in labels if (label.startswith(output) if output else label.endswith("(d)"))]
    return [Piece(one.name, label, target, index) for label in labels]


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


def with_biases(
    roles: Sequence[Role], vectors: Sequence[Found], sizes: Mapping[str, int], prefix: str, matrices: Sequence[Found]
) -> Iterator[list[Piece]]:
    """The roles of matrices, and of the vectors that belong to them, in every way that fits."""
    choices = [readings_of(one, target, index, sizes) for one, target, index in roles]
    left = list(vectors)
    for one, target, index in roles:  # the vector of the same layer
        alone = one.owner and sum(other.owner == one.owner for other in matrices) == 1
        for vector in [vector for vector in vectors if alone and vector.owner == one.owner]:
            bias = target.replace("weight", "bias")
            readings = readings_of(vector, bias, index, sizes) if len(index) <= len(axes_of(bias)) else []
            if readings:
                choices.append(readings)
                left = [other for other in left if other is not vector]
                break
    taken = [(piece.target, piece.index) for readings in choices for piece in readings]
    for vector, target, index in _bare_biases(left, roles, prefix, sizes):
        if (target, index) not in taken:
            choices.append(readings_of(vector, target, index, sizes))
            taken.append((target, index))
    yield from sorted((list(pieces) for pieces in product(*choices)), key=is_mixed)


def _bare_biases(
    vectors: Sequence[Found], roles: Sequence[Role], prefix: str, sizes: Mapping[str, int]
) -> Iterator[Role]:
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
