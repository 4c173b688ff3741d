"""The engine that reads and writes another ecosystem's weights by a table of names. It knows no ecosystem.

Every conversion moves numbers and changes none: what it does is renaming, transposing, splitting and joining.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reshape:
    """How tensors of theirs become one of ours, and back.

    Args:
        to_ours: takes theirs, in the order of the row. from_ours: takes ours and the number of heads.
    """

    to_ours: Callable[[list[Tensor]], Tensor]
    from_ours: Callable[[Tensor, int], list[Tensor]]


SAME = Reshape(lambda theirs: theirs[0], lambda ours, _: [ours])
# Three matrices (or biases), query, key and value, stand below each other in our qkv.
PACKED = Reshape(lambda theirs: torch.cat(theirs), lambda ours, _: list(ours.chunk(3)))


@dataclass(frozen=True)
class Row:
    """One line of a table: our tensor, theirs (several, if ours packs them), and the reshaping between.

    In both, "{i}" stands for the number of a block.
    """

    ours: str
    theirs: str | tuple[str, ...]
    reshape: Reshape = SAME

    def names(self, block: int) -> tuple[str, tuple[str, ...]]:
        """Our name and theirs for one block (any number, for a row outside the blocks)."""
        theirs = (self.theirs,) if isinstance(self.theirs, str) else self.theirs
        return self.ours.format(i=block), tuple(name.format(i=block) for name in theirs)


def both(ours: str, theirs: str) -> tuple[Row, Row]:
    """The two rows of a layer whose weight and bias have the same shape on both sides."""
    return Row(f"{ours}.weight", f"{theirs}.weight"), Row(f"{ours}.bias", f"{theirs}.bias")


@dataclass(frozen=True)
class Ecosystem:
    """One world of weights.

    Args:
        name: such as "timm".
        rows: the table. A head is "head.weight" here, also behind a norm or a pre-logits layer.
        marks: names, any of which gives a file away; what stands before it in the file is a prefix.
        separator: between the parts of a name.
        prefixes: those that are nothing special, so that no note is made of them.
        spellings: (regular expression, replacement): other names of the same thing, by which files go too.
        meanings: (pattern as for file names, what it is): tensors that our models have no place for.
        refused: (pattern, why): a file with such a tensor is no plain ViT at all.
        unused: (beginning of names, another name): what the reference leaves unused where the other is there.
        heads: a tensor of shape (heads, width of one), if there is one that tells.
    """

    name: str
    rows: tuple[Row, ...]
    marks: tuple[str, ...]
    separator: str = "."
    prefixes: tuple[str, ...] = ("",)
    spellings: tuple[tuple[str, str], ...] = ()
    meanings: tuple[tuple[str, str], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    unused: tuple[tuple[str, str], ...] = ()
    heads: str | None = None

    def spell(self, name: str) -> str:
        """The table's name for a name without prefix."""
        for pattern, replacement in self.spellings:
            name = re.sub(pattern, replacement, name)
        return name

    def prefixes_in(self, names: Iterable[str]) -> list[str]:
        """What stands before the mark, for each tensor that ends with the first mark found; none: not this world."""
        spelled = [self.separator + self.spell(name) for name in names]
        for mark in self.marks:
            found = [name.removesuffix(mark)[1:] for name in spelled if name.endswith(self.separator + mark)]
            if found:
                return found
        return []

    def without_prefix(self, name: str, prefix: str) -> str:
        """A name without the parts that it shares with the prefix: a head stands beside "backbone.", not behind it."""
        for part in prefix.split(self.separator)[:-1]:
            if not name.startswith(part + self.separator):
                break
            name = name.removeprefix(part + self.separator)
        return self.spell(name)


def check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Refuse what no parameter can be.

    Raises:
        ValueError: a tensor that is sparse, or of whole or complex numbers, or has no axis or an empty one, by name.
    """
    for name, tensor in tensors.items():
        shape, kind = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        if tensor.layout != torch.strided:
            kind = "sparse"
        elif tensor.is_floating_point() and shape and 0 not in shape:
            continue
        raise ValueError(f"{name} is {kind} of shape {shape}; expected dense floating-point numbers, no empty axis")


def blocks_of(ecosystem: Ecosystem, names: Iterable[str]) -> list[int]:
    """Numbers of the blocks of which any tensor of the table is there."""
    patterns = [
        re.compile(re.escape(name).replace(r"\{i\}", "([0-9]+)"))
        for row in ecosystem.rows
        if "{i}" in row.ours
        for name in ((row.theirs,) if isinstance(row.theirs, str) else row.theirs)
    ]
    matches = (pattern.fullmatch(name) for name in names for pattern in patterns)
    return sorted({int(match[1]) for match in matches if match})


def known(ecosystem: Ecosystem, names: Iterable[str]) -> list[str]:
    """Those of the names that the table has."""
    names = list(names)
    blocks = blocks_of(ecosystem, names)
    rows = [row.names(block)[1] for row in ecosystem.rows for block in (blocks if "{i}" in row.ours else [0])]
    listed = {name for theirs in rows for name in theirs}
    return [name for name in names if name in listed]


def to_ours(ecosystem: Ecosystem, theirs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename and reshape, as the table says.

    Args:
        theirs: by the table's names: without prefix, spelled as there.

    Returns:
        Ours by name, and the names of theirs that were not used: those that the table does not have, and those of
        which a row needs another one that is missing.

    Raises:
        ValueError: a tensor with another number of axes than its row expects.
    """
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    blocks = blocks_of(ecosystem, theirs)
    for row in ecosystem.rows:
        for block in blocks if "{i}" in row.ours else [0]:
            name, sources = row.names(block)
            unused = any(
                source.startswith(start) and beside in theirs
                for source in sources
                for start, beside in ecosystem.unused
            )
            if unused or any(source not in theirs for source in sources):
                continue
            try:
                ours[name] = row.reshape.to_ours([theirs[source] for source in sources])
            except RuntimeError as error:  # einops' error is one, too
                shapes = ", ".join(f"{source} {tuple(theirs[source].shape)}" for source in sources)
                raise ValueError(
                    f"{shapes}: cannot become {name}; another number of axes, or sizes, than expected"
                ) from error
            used |= set(sources)
    if any(name.startswith(("head.pre_logits.", "head.norm.")) for name in ours):
        ours = {_last_in_head(name): tensor for name, tensor in ours.items()}
    return ours, [name for name in theirs if name not in used]


def from_ours(ecosystem: Ecosystem, ours: Mapping[str, Tensor], num_heads: int) -> dict[str, Tensor]:
    """The way back, exactly.

    Raises:
        ValueError: a tensor that the table has no row for.
    """
    named = {name.replace("head.linear.", "head."): tensor for name, tensor in ours.items()}
    theirs: dict[str, Tensor] = {}
    used: set[str] = set()
    blocks = sorted({int(name.split(".")[1]) for name in named if re.match("blocks[.][0-9]+[.]", name)})
    for row in ecosystem.rows:
        for block in blocks if "{i}" in row.ours else [0]:
            name, targets = row.names(block)
            if name in named:
                theirs |= zip(targets, row.reshape.from_ours(named[name], num_heads), strict=True)
                used.add(name)
    if left := [name for name in named if name not in used]:
        raise ValueError(f"{ecosystem.name} has no name for {', '.join(left[:5])}; expected tensors of a plain ViT")
    return theirs


def _last_in_head(name: str) -> str:
    return name.replace("head.", "head.linear.", 1) if name in ("head.weight", "head.bias") else name
