"""Which layer and which parameter of one model corresponds to which of another."""

import collections.abc
from collections.abc import Callable
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


Mapping = collections.abc.Mapping[str, str | Reference]
"""Name in ours -> name in theirs (or a `Reference`). Names are of layers or of parameters; "" is the model."""


@dataclass(frozen=True)
class ParameterPair:
    """A parameter of ours and the parameter (or parameters) of theirs that hold the same numbers."""

    ours: str
    theirs: tuple[str, ...]
    to_ours: Callable[..., Tensor] = _same


@dataclass(frozen=True)
class LayerPair:
    """A layer of ours and its counterpart. Implied: nobody named it, two of its parameters were."""

    ours: str
    theirs: str
    to_ours: Callable[..., Tensor] = _same
    implied: bool = False


def pair_parameters(ours: nn.Module, theirs: nn.Module, mapping: Mapping) -> list[ParameterPair]:
    """The parameter pairs that a mapping means, each parameter at most once on either side.

    A pair of parameters is taken as it stands. A pair of layers also pairs the parameters below them that
    bear the same relative name ("fc1" -> "0" pairs "fc1.weight" with "0.weight"), inner layers first.
    Works on models on the meta device, too.

    Raises:
        ValueError: a name that a model does not have, a layer paired with a parameter, or a parameter of
            theirs that two entries name.
    """
    our_parameters, their_parameters = dict(ours.named_parameters()), dict(theirs.named_parameters())
    our_layers, their_layers = dict(ours.named_modules()), dict(theirs.named_modules())
    pairs: dict[str, ParameterPair] = {}
    layers: list[tuple[str, str]] = []
    for name, reference in _references(mapping).items():
        names = reference.names if isinstance(reference.names, tuple) else (reference.names,)
        if name in our_parameters:
            for their_name in names:
                _require(their_name, their_parameters, their_layers, "theirs")
                _refuse_kind(name, "parameter", their_name, "layer", their_name not in their_parameters)
            pairs[name] = ParameterPair(name, names, reference.to_ours)
            continue
        _require(name, our_layers, our_parameters, "ours")
        for their_name in names:
            _require(their_name, their_layers, their_parameters, "theirs")
            _refuse_kind(name, "layer", their_name, "parameter", their_name not in their_layers)
        layers.append((name, names[0]))

    taken = [their_name for pair in pairs.values() for their_name in pair.theirs]
    if twice := sorted({name for name in taken if taken.count(name) > 1}):
        raise ValueError(f"the mapping names {', '.join(twice)} of theirs more than once; expected once")
    used = set(taken)
    for name, their_name in sorted(layers, key=lambda pair: -len(pair[0])):
        for suffix, _ in our_layers[name].named_parameters():
            our_full, their_full = _join(name, suffix), _join(their_name, suffix)
            free = our_full not in pairs and their_full not in used
            if free and our_full in our_parameters and their_full in their_parameters:
                pairs[our_full] = ParameterPair(our_full, (their_full,))
                used.add(their_full)
    return [pairs[name] for name in our_parameters if name in pairs]


def pair_layers(ours: nn.Module, theirs: nn.Module, mapping: Mapping) -> list[LayerPair]:
    """The layer pairs whose outputs are to be compared: those named, those implied, and the whole models."""
    our_layers, their_layers = dict(ours.named_modules()), dict(theirs.named_modules())
    pairs = {"": LayerPair("", "")}
    for parameter in pair_parameters(ours, theirs, mapping):
        layer, _, leaf = parameter.ours.rpartition(".")
        their_layer, _, their_leaf = parameter.theirs[0].rpartition(".")
        alone = len(parameter.theirs) == 1 and leaf == their_leaf
        if alone and layer and their_layer and not list(our_layers[layer].children()):
            pairs[layer] = LayerPair(layer, their_layer, implied=True)
    for name, reference in _references(mapping).items():
        if name in our_layers:
            their_name = reference.names if isinstance(reference.names, str) else reference.names[0]
            assert their_name in their_layers  # pair_parameters has checked it
            pairs[name] = LayerPair(name, their_name, reference.to_ours)
    return list(pairs.values())


def unmapped(model: nn.Module, mapped: set[str]) -> list[str]:
    """Parameters of a model that no pair covers."""
    return [name for name, _ in model.named_parameters() if name not in mapped]


def _references(mapping: Mapping) -> dict[str, Reference]:
    return {ours: Reference(theirs) if isinstance(theirs, str) else theirs for ours, theirs in mapping.items()}


def _join(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name


def _require(name: str, wanted: dict[str, Any], other: dict[str, Any], whose: str) -> None:
    if name not in wanted and name not in other:
        near = get_close_matches(name, [*wanted, *other], n=1, cutoff=0.3)
        hint = f"; nearest: {near[0]!r}" if near else ""
        raise ValueError(f"the mapping names {name!r}, which {whose} does not have{hint}")


def _refuse_kind(ours: str, our_kind: str, theirs: str, their_kind: str, wrong: bool) -> None:
    if wrong:
        raise ValueError(
            f"the mapping pairs the {our_kind} {ours!r} with the {their_kind} {theirs!r}; pair like with like"
        )
