"""The parameters that a student has: their shapes, the kind of their layer, and what their names tell."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from torch import Tensor, nn

from vitscratch.exercises.checks.roles.pieces import long_axes

NORMS = nn.LayerNorm | nn.RMSNorm | nn.modules.batchnorm._BatchNorm | nn.GroupNorm


@dataclass(frozen=True)
class Found:
    """A parameter that a student has."""

    name: str
    shape: tuple[int, ...]
    owner: str
    """Path of the module that has it."""
    kind: str
    """"linear": its first axis is the output; "norm": of a module without matrices; "bare": anything else."""
    factor: bool
    """A norm's weight, as far as can be seen: torch calls it so, or all its numbers are 1, as they are at the start."""

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


def likeness(name: str, other: str) -> float:
    """How alike two names are, from 0 to 2: 1 for the same number at the end, the rest for their letters."""
    one, two = re.findall(r"\d+$", name), re.findall(r"\d+$", other)
    return SequenceMatcher(None, name, other).ratio() + (one == two)


def collect(module: nn.Module) -> list[Found]:
    """Every parameter, in the order of registration."""
    modules = dict(module.named_modules())
    found = []
    for name, parameter in module.named_parameters():
        owner = name.rpartition(".")[0]
        layer, own = modules[owner], list(modules[owner].parameters())
        of_torch = isinstance(layer, NORMS)
        ones = bool((parameter == 1).all()) if parameter.numel() else False
        bag = isinstance(layer, nn.ParameterList | nn.ParameterDict)  # of biases, unless one is a norm's weight
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and parameter.ndim > 1:
            kind = "linear"
        elif of_torch or (
            owner
            and all(len(long_axes(other)) <= 1 for other in own)
            and (not bag or any(bool((other == 1).all()) for other in own))
        ):
            kind = "norm"
        else:
            kind = "norm" if parameter.ndim == 1 and is_norm(name.rpartition(".")[2]) else "bare"
        factor = name.endswith("weight") if of_torch else ones
        found.append(Found(name, tuple(long_axes(parameter)), owner, kind, factor))
    return found


def is_shift(name: str) -> bool:
    """Whether a parameter's own name says that it is added: "bias", "beta", "shift", "b_2"."""
    own = name.rpartition(".")[2].lower()
    if re.search("scale|gain|gamma|weight", own):
        return False
    return re.search(r"bias|beta|shift|offset|^b(_|\d|$)|_b$", own) is not None


def is_norm(name: str) -> bool:
    """Whether a parameter's own name says that it is a norm's: "gamma", "ln_weight", "shift"."""
    return re.search(r"gamma|beta|norm|^ln|shift|alpha|(?<!q)(?<!k)(?<!v)scale", name.lower()) is not None


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
