"""Which parameter of a student's module plays which role, whatever its name, its shape or the kind of its layer.

A student may pack q, k and v or not, write layers, convolutions with kernel 1 or bare parameters, transposed or cut
into heads. All of that is a question of how one tensor is laid out in another: a `Piece` says it for one parameter, a
`RoleMap` for all, and reads the student's parameters under the library's names (and writes them).

Sizes decide where they can; where they leave a choice, names, then order of registration come first, and all other
choices follow: the caller takes the first under which the student's output is right. Call it with sizes that differ
from each other: width of a head, number of heads (not 3), hidden width.

In the order of reading: `pieces`, `registered`, `fitting`, `parts`, `search`; each imports from those before it alone.
"""

from vitscratch.exercises.checks.roles.awakening import awaken, call_anew
from vitscratch.exercises.checks.roles.pieces import Piece, RoleMap, UnmatchedError
from vitscratch.exercises.checks.roles.registered import hidden_in_containers, in_containers, likeness
from vitscratch.exercises.checks.roles.search import attention_maps, block_maps, mlp_maps

__all__ = [
    "Piece",
    "RoleMap",
    "UnmatchedError",
    "attention_maps",
    "awaken",
    "block_maps",
    "call_anew",
    "hidden_in_containers",
    "in_containers",
    "likeness",
    "mlp_maps",
]
