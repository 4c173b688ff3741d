"""How a student's tensors are laid out in the library's: a `Piece` says it for one parameter, a `RoleMap` for all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

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
    plus: float = 0.0
    """What the student adds: 1 for a norm's weight that is kept as its difference from one."""


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
        """One parameter stands for two of the library's."""
        roles = {(piece.name, piece.target) for piece in self.pieces}
        return len({name for name, _ in roles}) < len(roles)

    def twice(self, target: str) -> tuple[int, ...]:
        """Which of queries, keys and values (0, 1, 2) have the same parameter in this one of the library's."""
        places: dict[str, list[int]] = {}
        for piece in self.pieces:
            if piece.target == target and piece.index and isinstance(piece.index[0], int):
                places.setdefault(piece.name, []).append(piece.index[0])
        return next((tuple(found) for found in places.values() if len(set(found)) > 1), ())

    def without(self, target: str) -> list[int]:
        """Which of queries, keys and values (0, 1, 2) have nothing, or not all, in this one of the library's."""
        there = covered(target, self.pieces, self.sizes)
        return [place for place in range(3) if not there[place].all()]

    def read(self, module: nn.Module) -> dict[str, Tensor]:
        """The library's parameters made of the student's; gradients flow back to these."""
        return self.laid_out(dict(module.named_parameters()))

    def laid_out(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The student's parameters, or their gradients, in the library's layout."""
        found: dict[str, Tensor] = {}
        for piece in self.pieces:
            tensor = parameters[piece.name]
            atoms, sizes = self.atoms_of(piece)
            part = (
                rearrange(tensor.reshape(long_axes(tensor)), f"{piece.axes} -> {' '.join(atoms)}", **sizes) + piece.plus
            )
            if not piece.index:
                found[piece.target] = part
                continue
            if piece.target not in found:
                found[piece.target] = part.new_zeros([self.sizes[atom] for atom in axes_of(piece.target)])
            found[piece.target][piece.index] = part
        return {name: self._packed(name, tensor) for name, tensor in found.items()}

    def write(self, module: nn.Module, values: Mapping[str, Tensor]) -> None:
        """Set the student's parameters so that `read` gives `values`; names that it does not have are passed over."""
        parameters = dict(module.named_parameters())
        for piece in self.pieces:
            if piece.target not in values:
                continue
            tensor = parameters[piece.name]
            atoms, sizes = self.atoms_of(piece)
            whole = values[piece.target].reshape([self.sizes[atom] for atom in axes_of(piece.target)])
            part = rearrange(whole[piece.index], f"{' '.join(atoms)} -> {piece.axes}", **sizes) - piece.plus
            with torch.no_grad():
                tensor.copy_(part.reshape(tensor.shape))

    def atoms_of(self, piece: Piece) -> tuple[list[str], dict[str, int]]:
        """The axes of the library's parameter that a piece has, and their lengths."""
        axes = axes_of(piece.target)
        sizes = {}
        for atom, place in zip(axes, [*piece.index, *[slice(None)] * len(axes)], strict=False):
            if isinstance(place, slice):
                sizes[atom] = len(range(self.sizes[atom])[place])
        return list(sizes), sizes

    def _packed(self, name: str, tensor: Tensor) -> Tensor:
        short = short_name(name)
        return rearrange(tensor, f"{AXES[short]} -> {_PACKED[short]}") if short in _PACKED else tensor


def covered(target: str, pieces: Sequence[Piece], sizes: Mapping[str, int]) -> Tensor:
    """The places of the library's parameter that others stand for; one that is there twice stands for the first."""
    there = torch.zeros([sizes[atom] for atom in axes_of(target)], dtype=torch.bool)
    seen = set()
    for piece in pieces:
        if piece.target == target and piece.name not in seen:
            there[piece.index] = True
            seen.add(piece.name)
    return there


def short_name(target: str) -> str:
    """Without the prefix: "attn.qkv.weight" -> "qkv.weight", "norm1.bias" -> "bias"."""
    return next(name for name in AXES if target == name or target.endswith(f".{name}"))


def axes_of(target: str) -> list[str]:
    """Of the library's parameter: ["d", "h", "k"]."""
    return AXES[short_name(target)].split()


def long_axes(tensor: Tensor) -> list[int]:
    """The lengths of the axes that are longer than 1."""
    return [size for size in tensor.shape if size != 1]
