"""Which layer and which parameter of one model corresponds to which of another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Reference:
    """A counterpart in the other model that needs a word more than its name.

    Args:
        names: a layer, a parameter, or several parameters.
        to_ours: brings their tensor (tensors, if several are named) into our layout: a layer's output, or
            a parameter. `Reference(("q.weight", "k.weight", "v.weight"), lambda *qkv: torch.cat(qkv))`.
    """

    names: str | tuple[str, ...]
    to_ours: Callable[..., Tensor] = _same


NameMapping = Mapping[str, str | Reference]
"""Name in ours -> name in theirs (or a `Reference`). Names are of layers or of parameters; "" is the model."""


@dataclass(frozen=True)
class ParameterPair:
    """A parameter of ours and the parameter (or parameters) of theirs that hold the same numbers."""

    ours: str
    theirs: tuple[str, ...]
    to_ours: Callable[..., Tensor] = _same

    @property
    def converted(self) -> bool:
        """Whether theirs has another layout than ours."""
        return self.to_ours is not _same


@dataclass(frozen=True)
class LayerPair:
    """A layer of ours and its counterpart; implied if nobody named it, but all its parameters are paired there."""

    ours: str
    theirs: str
    to_ours: Callable[..., Tensor] = _same
    implied: bool = False


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters by name; one that has several names (tied weights) under each."""
    return dict(model.named_parameters(remove_duplicate=False))


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """All layers by name, the model itself as ""; one that has several names under each."""
    return dict(model.named_modules(remove_duplicate=False))


def pair_parameters(ours: nn.Module, theirs: nn.Module, mapping: NameMapping) -> list[ParameterPair]:
    """The parameter pairs that a mapping means, each parameter at most once on either side.

    A pair of parameters is taken as it stands. A pair of layers also pairs the parameters below them that
    bear the same relative name ("fc1" -> "0" pairs "fc1.weight" with "0.weight"), inner layers first.
    Works on models on the meta device, too.

    Raises:
        ValueError: a name that a model does not have, a layer paired with a parameter or with several layers,
            several parameters without a `to_ours` that joins them, or a parameter of theirs named twice.
    """
    our_parameters, their_parameters = named_parameters(ours), named_parameters(theirs)
    pairs: dict[str, ParameterPair] = {}
    layers: list[tuple[str, str]] = []
    for name, reference in _references(mapping).items():
        names = reference.names if isinstance(reference.names, tuple) else (reference.names,)
        kind = _kind(name, ours, "ours")
        for their_name in names:
            if (their_kind := _kind(their_name, theirs, "theirs")) != kind:
                raise ValueError(
                    f"the mapping pairs the {kind} {name!r} with the {their_kind} {their_name!r}; pair like with like"
                )
        if len(names) != 1 and (kind == "layer" or reference.to_ours is _same):
            raise ValueError(
                f"the mapping pairs {name!r} with {len(names)} names; expected one layer, or parameters and a to_ours "
                "that joins them"
            )
        if kind == "parameter":
            pairs[name] = ParameterPair(name, names, reference.to_ours)
        else:
            layers.append((name, names[0]))

    taken = [their_name for pair in pairs.values() for their_name in pair.theirs]
    if twice := sorted({name for name in taken if taken.count(name) > 1}):
        raise ValueError(f"the mapping names {', '.join(twice)} of theirs more than once; expected once")
    paired = {id(our_parameters[name]) for name in pairs}
    used = {id(their_parameters[name]) for name in taken}
    for name, their_name in sorted(layers, key=lambda pair: -len(pair[0])):
        for our_full, parameter in our_parameters.items():
            their_full = _join(their_name, our_full[len(name) :].lstrip("."))
            below = our_full.startswith(_join(name, "")) and their_full in their_parameters
            if below and id(parameter) not in paired and id(their_parameters[their_full]) not in used:
                pairs[our_full] = ParameterPair(our_full, (their_full,))
                paired.add(id(parameter))
                used.add(id(their_parameters[their_full]))
    return [pairs[name] for name in our_parameters if name in pairs]


def pair_layers(ours: nn.Module, theirs: nn.Module, mapping: NameMapping) -> list[LayerPair]:
    """The layer pairs whose outputs are to be compared: those named, those implied, and the whole models.

    Implied is a pair of layers if all parameters of the one (which holds no layers itself) are paired, unconverted
    and under the same names, with parameters of the other.
    """
    parameters = {pair.ours: pair for pair in pair_parameters(ours, theirs, mapping)}
    pairs = {"": LayerPair("", "")}
    for name, layer in named_layers(ours).items():
        own = [(leaf, parameters.get(_join(name, leaf))) for leaf, _ in layer.named_parameters()]
        if name and own and not list(layer.children()):
            homes = {
                None if pair is None or pair.converted or leaf != theirs_leaf else home
                for leaf, pair in own
                for home, _, theirs_leaf in [(pair.theirs[0] if pair else "").rpartition(".")]
            }
            if len(homes) == 1 and (home := homes.pop()):
                pairs[name] = LayerPair(name, home, implied=True)
    for name, reference in _references(mapping).items():
        if name not in parameters and isinstance(reference.names, str):
            pairs[name] = LayerPair(name, reference.names, reference.to_ours)
    return list(pairs.values())


def unmapped(model: nn.Module, mapped: set[str]) -> list[str]:
    """Parameters of a model that no pair covers, under any of their names."""
    parameters = named_parameters(model)
    covered = {id(parameters[name]) for name in mapped}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in covered]


def _references(mapping: NameMapping) -> dict[str, Reference]:
    return {ours: Reference(theirs) if isinstance(theirs, str) else theirs for ours, theirs in mapping.items()}


def _join(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name


def _kind(name: str, model: nn.Module, whose: str) -> str:
    parameters, layers = named_parameters(model), named_layers(model)
    if name in parameters:
        return "parameter"
    if name in layers:
        return "layer"
    known: list[Any] = [*parameters, *layers]
    near = get_close_matches(name, known, n=1, cutoff=0.3)
    hint = f"; nearest: {near[0]!r}" if near else ""
    raise ValueError(f"the mapping names {name!r}, which {whose} does not have{hint}")
