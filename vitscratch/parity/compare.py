"""Feed two models the same pictures and compare what every pair of layers gives, forwards and backwards."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves

from vitscratch.parity.names import (
    LayerPair,
    NameMapping,
    ParameterPair,
    named_layers,
    named_parameters,
    pair_layers,
    pair_parameters,
    unmapped,
)
from vitscratch.parity.report import Report, Row
from vitscratch.randomness import random_state_kept


def compare(
    ours: nn.Module,
    theirs: nn.Module,
    inputs: Any,
    mapping: NameMapping,
    *,
    atol: float = 1e-10,
    rtol: float = 0.0,
    gradients: bool = True,
    complete: bool = True,
    seed: int = 0,
) -> Report:
    """Compare two models layer by layer: shapes, parameters, values and, after a backward pass, gradients.

    Both models run as they are, in the mode (train or eval) they are in, each from the same random seed. The
    backward pass starts from a random direction, the same for both. Parameters, buffers, `.grad` and the global
    random state are as before afterwards. Buffers are not compared, only what they do.

    Args:
        ours, theirs: any two modules. All tensors of a layer's output are compared (in tuples, dicts and
            dataclasses, too); if one side returns more of them, only the first, and the row says so.
        inputs: a tensor, or a tuple of the positional arguments; of the models' dtype and device.
        mapping: layer or parameter of ours -> its counterpart in theirs; see `NameMapping` and `Reference`.
            Names of parameters alone do: a layer all of whose parameters are paired is compared as well.
        atol, rtol: a tensor passes if its largest difference is at most atol, or at most rtol times the largest
            number of the reference's tensor. The defaults suit float64.
        gradients: also run backwards.
        complete: a parameter that the mapping leaves out makes the comparison fail.
        seed: for dropout and for the direction of the backward pass.

    Returns:
        A `Report`: rows in the order in which ours computes them, `passed`, `first_divergence`, `table()`.

    Raises:
        ValueError: a mapping that does not fit the models (see `pair_parameters`), or gradients asked of two
            models whose outputs depend on nothing that has one.
    """
    parameter_pairs = pair_parameters(ours, theirs, mapping)
    layer_pairs = pair_layers(ours, theirs, mapping)
    with torch.set_grad_enabled(gradients):
        our_run = _Run(ours, inputs, {pair.ours for pair in layer_pairs}, seed)
        their_run = _Run(theirs, inputs, {pair.theirs for pair in layer_pairs}, seed)
        if gradients:
            if not (our_run.differentiable or their_run.differentiable):
                raise ValueError("neither output depends on anything that needs a gradient; pass gradients=False")
            alike = len(our_run.outputs) == len(their_run.outputs)
            our_run.backward(seed, all_outputs=alike)
            their_run.backward(seed, all_outputs=alike)
    judge = _Judge(atol, rtol, gradients)
    return Report(
        rows=_rows(our_run, their_run, layer_pairs, parameter_pairs, judge),
        parameters_mapped=len(parameter_pairs),
        unmapped_ours=unmapped(ours, {pair.ours for pair in parameter_pairs}),
        unmapped_theirs=unmapped(theirs, {name for pair in parameter_pairs for name in pair.theirs}),
        complete=complete,
    )


def assert_parity(ours: nn.Module, theirs: nn.Module, inputs: Any, mapping: NameMapping, **options: Any) -> Report:
    """`compare`, and an AssertionError with verdict and table if the models diverge anywhere."""
    report = compare(ours, theirs, inputs, mapping, **options)
    if not report.passed:
        raise AssertionError(f"{report.verdict()}\n\n{report.table()}")
    return report


def compare_updates(
    ours: nn.Module,
    theirs: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    mapping: NameMapping,
    make_optimizer: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer],
    *,
    atol: float = 1e-10,
    rtol: float = 0.0,
    seed: int = 0,
) -> Report:
    """Train both models on the same batches, each from the same random seed, and compare every parameter afterwards.

    Args:
        ours, theirs: changed in place, in the mode they are in: one step of cross-entropy for each batch.
        batches: (images, labels) pairs, at least one.
        mapping, atol, rtol, seed: as for `compare`.
        make_optimizer: builds an optimizer from the mapped parameters, in the same order for both.

    Returns:
        A `Report` with one row for each parameter: its value, and its gradient of the last step.

    Raises:
        ValueError: no batches, or a mapping that does not fit.
    """
    pairs = pair_parameters(ours, theirs, mapping)
    our_parameters, their_parameters = named_parameters(ours), named_parameters(theirs)
    in_order = {
        ours: [our_parameters[pair.ours] for pair in pairs],
        theirs: [their_parameters[name] for pair in pairs for name in pair.theirs],
    }
    batches = list(batches)
    if not batches:
        raise ValueError("no batches: expected at least one, or no parameter would be updated")
    for model, parameters in in_order.items():
        optimizer = make_optimizer(parameters)
        with random_state_kept(seed):
            for images, labels in batches:
                optimizer.zero_grad()
                F.cross_entropy(_tensors(model(images))[0], labels).backward()
                optimizer.step()
    judge = _Judge(atol, rtol, measure_gradients=True)
    rows = []
    for pair in pairs:
        mine, others = our_parameters[pair.ours], [their_parameters[name] for name in pair.theirs]
        value = judge.values(mine.detach(), pair.to_ours(*[tensor.detach() for tensor in others]))
        gradient = judge.gradients(mine.grad, [tensor.grad for tensor in others], pair.to_ours)
        shape = tuple(pair.to_ours(*others).shape)
        rows.append(_row(pair.ours, tuple(mine.shape), shape, mine.numel(), [value], [gradient]))
    mapped_theirs = {name for pair in pairs for name in pair.theirs}
    return Report(rows, len(pairs), unmapped(ours, {pair.ours for pair in pairs}), unmapped(theirs, mapped_theirs))


@dataclass
class _Call:
    """One call of a layer: when it ended, its output's tensors, and where their gradients arrive."""

    ended: int
    tensors: list[Tensor]
    edges: list[GradientEdge | None]
    gradients: list[Tensor | None]


class _Run:
    """A forward (and backward) pass of a model: every call of the named layers, and who ran when."""

    def __init__(self, model: nn.Module, inputs: Any, layers: set[str], seed: int) -> None:
        self.calls: dict[str, list[_Call]] = {name: [] for name in layers}
        self.started: dict[str, int] = {}
        self.parameters = named_parameters(model)
        self.parameter_gradients: dict[str, Tensor | None] = {}
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        self.inputs = [
            x.detach().clone().requires_grad_(torch.is_grad_enabled() and x.is_floating_point())
            if isinstance(x, Tensor)
            else x
            for x in given
        ]
        # A layer may change its input in place, which autograd forbids for a leaf: pass copies.
        arguments = [x.clone() if isinstance(x, Tensor) else x for x in self.inputs]
        with random_state_kept(seed), _buffers_kept(model), self._listening(model):
            self.outputs = _tensors(model(*arguments))
        self.differentiable = any(tensor.requires_grad for tensor in self.outputs)

    @contextmanager
    def _listening(self, model: nn.Module) -> Iterator[None]:
        clock = itertools.count()

        def listen(name: str, layer: nn.Module) -> list[Any]:
            def before(layer: nn.Module, inputs: Any) -> None:
                self.started.setdefault(name, next(clock))

            def after(layer: nn.Module, inputs: Any, output: Any) -> None:
                if name in self.calls:
                    tensors = _tensors(output)
                    # Copies, and edges of the graph: an in-place layer may overwrite the tensor later.
                    edges = [get_gradient_edge(tensor) if tensor.requires_grad else None for tensor in tensors]
                    copies = [tensor.detach().clone() for tensor in tensors]
                    self.calls[name].append(_Call(next(clock), copies, edges, [None] * len(tensors)))

            return [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]

        handles = [handle for name, layer in named_layers(model).items() for handle in listen(name, layer)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def backward(self, seed: int, all_outputs: bool) -> None:
        """Send a random direction back from the output (all its tensors, or the first), and keep the gradients."""
        generator = torch.Generator().manual_seed(seed)
        outputs, directions = [], []
        for tensor in self.outputs if all_outputs else self.outputs[:1]:
            direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
            if tensor.requires_grad:
                outputs.append(tensor)
                directions.append(direction)
        calls = [call for calls in self.calls.values() for call in calls]
        edges = [(call, i, edge) for call in calls for i, edge in enumerate(call.edges) if edge is not None]
        parameters = [(name, parameter) for name, parameter in self.parameters.items() if parameter.requires_grad]
        leaves = [x for x in self.inputs if isinstance(x, Tensor) and x.requires_grad]
        wanted: list[Any] = [*(edge for _, _, edge in edges), *(parameter for _, parameter in parameters), *leaves]
        if not outputs or not wanted:
            return
        found = iter(torch.autograd.grad(outputs, wanted, directions, allow_unused=True))
        for call, i, _ in edges:
            call.gradients[i] = next(found)
        self.parameter_gradients = {name: next(found) for name, _ in parameters}
        for leaf in leaves:
            leaf.grad = next(found)  # our own copy of the input


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Let the model write running statistics and the like into copies."""
    kept = [(layer, name, buffer) for layer in model.modules() for name, buffer in layer.named_buffers(recurse=False)]
    for layer, name, buffer in kept:
        setattr(layer, name, buffer.clone())
    try:
        yield
    finally:
        for layer, name, buffer in kept:
            setattr(layer, name, buffer)


@dataclass(frozen=True)
class _Difference:
    absolute: float
    relative: float  # to the largest finite number of the reference
    agrees: bool


_EQUAL, _APART = _Difference(0.0, 0.0, True), _Difference(math.inf, math.inf, False)


@dataclass(frozen=True)
class _Judge:
    """Measures how far two tensors lie apart, and decides whether that is too far."""

    atol: float
    rtol: float
    measure_gradients: bool

    def values(self, mine: Tensor, other: Tensor) -> _Difference:
        """Largest difference of two tensors; infinite if their shapes differ."""
        if mine.shape != other.shape or mine.is_complex() != other.is_complex():
            return _APART
        if mine.numel() == 0:
            return _EQUAL
        if mine.is_complex():
            mine, other = torch.view_as_real(mine.resolve_conj()), torch.view_as_real(other.resolve_conj())
        mine, other = mine.detach().to("cpu", torch.float64), other.detach().to("cpu", torch.float64)
        same = mine == other  # so that equal infinities, as in masks, do not make nan
        absolute = torch.where(same, 0.0, (mine - other).abs()).max().item()
        finite = other[other.isfinite()].abs()
        scale = finite.max().item() if finite.numel() else 0.0
        relative = absolute / scale if scale else (0.0 if absolute == 0.0 else math.inf)
        return _Difference(absolute, relative, absolute <= self.atol or (self.rtol > 0.0 and relative <= self.rtol))

    def gradients(
        self,
        mine: Tensor | None,
        others: Sequence[Tensor | None],
        to_ours: Callable[..., Tensor] = lambda tensor: tensor,
    ) -> _Difference | None:
        """The same for gradients: one that autograd did not reach counts as zeros. None if they are not compared."""
        if not self.measure_gradients:
            return None
        present = [tensor for tensor in others if tensor is not None]
        if len(present) == len(others):
            other = to_ours(*present)
            return self.values(torch.zeros_like(other) if mine is None else mine, other)
        if present:  # some of several were reached, so they cannot be joined
            return _APART
        return _EQUAL if mine is None else self.values(mine, torch.zeros_like(mine))


def _rows(
    ours: _Run, theirs: _Run, layer_pairs: list[LayerPair], parameter_pairs: list[ParameterPair], judge: _Judge
) -> list[Row]:
    """A row for every input, for every call of a layer, and for every parameter that is in none of these."""
    timed: list[tuple[float, Row]] = []
    containers = {name.rpartition(".")[0] for name in ours.calls if name}
    counted: set[str] = set()
    for layer in layer_pairs:
        calls, their_calls = ours.calls[layer.ours], theirs.calls[layer.theirs]
        if layer.implied and not (calls and their_calls):
            continue  # one side uses the parameters without calling the layer: they get rows of their own
        leaf = layer.ours not in containers and layer.ours != ""
        own = [pair for pair in parameter_pairs if leaf and pair.ours.rpartition(".")[0] == layer.ours]
        counted |= {pair.ours for pair in own}
        for number, (call, their_call) in enumerate(itertools.zip_longest(calls, their_calls), start=1):
            held = own if number == 1 else []
            name = (layer.ours or "output") + (f" (call {number})" if number > 1 else "")
            row = _call_row(name, call, their_call, layer, _parameters(ours, theirs, held, judge), judge)
            timed.append((call.ended if call else math.inf, row))
        if not calls and not their_calls:
            timed.append((math.inf, _row(layer.ours, (), (), 0, [_APART], [], "called by neither model")))
    for pair in parameter_pairs:
        if pair.ours not in counted:
            values, gradients, numel = _parameters(ours, theirs, [pair], judge)
            shape = tuple(ours.parameters[pair.ours].shape)
            other = tuple(pair.to_ours(*[theirs.parameters[name] for name in pair.theirs]).shape)
            start = ours.started.get(pair.ours.rpartition(".")[0], math.inf)
            timed.append((start, _row(pair.ours, shape, other, numel, values, gradients)))
    return [*_input_rows(ours, judge, theirs), *(row for _, row in sorted(timed, key=lambda item: item[0]))]


def _call_row(
    name: str,
    call: _Call | None,
    their_call: _Call | None,
    layer: LayerPair,
    held: tuple[list[_Difference], list[_Difference | None], int],
    judge: _Judge,
) -> Row:
    values, gradients, numel = held
    if call is None or their_call is None:
        missing = "ours does not make this call" if call is None else "the reference does not make this call"
        shape, other = (tuple(side.tensors[0].shape) if side else () for side in (call, their_call))
        return _row(name, shape, other, numel, [*values, _APART], gradients, missing)
    pairs = list(zip(call.tensors, their_call.tensors, strict=False))
    note = ""
    if len(call.tensors) != len(their_call.tensors):
        pairs = pairs[:1]
        note = f"{len(call.tensors)} tensors, the reference {len(their_call.tensors)}: the first are compared"
    for i, (mine, their_tensor) in enumerate(pairs):
        values = [*values, judge.values(mine, layer.to_ours(their_tensor))]
        gradients = [*gradients, judge.gradients(call.gradients[i], [their_call.gradients[i]], layer.to_ours)]
    first, their_first = pairs[0]
    return _row(name, tuple(first.shape), tuple(layer.to_ours(their_first).shape), numel, values, gradients, note)


def _parameters(
    ours: _Run, theirs: _Run, pairs: list[ParameterPair], judge: _Judge
) -> tuple[list[_Difference], list[_Difference | None], int]:
    """Differences of values and gradients of these parameters, and how many numbers they hold."""
    values, gradients = [], []
    for pair in pairs:
        others = [theirs.parameters[name].detach() for name in pair.theirs]
        values.append(judge.values(ours.parameters[pair.ours].detach(), pair.to_ours(*others)))
        their_gradients = [theirs.parameter_gradients.get(name) for name in pair.theirs]
        gradients.append(judge.gradients(ours.parameter_gradients.get(pair.ours), their_gradients, pair.to_ours))
    return values, gradients, sum(ours.parameters[pair.ours].numel() for pair in pairs)


def _input_rows(ours: _Run, judge: _Judge, theirs: _Run) -> list[Row]:
    rows = []
    for i, (mine, other) in enumerate(zip(ours.inputs, theirs.inputs, strict=True)):
        if isinstance(mine, Tensor):
            name = "input" if len(ours.inputs) == 1 else f"input.{i}"
            gradient = judge.gradients(mine.grad, [other.grad])
            rows.append(_row(name, tuple(mine.shape), tuple(other.shape), 0, [judge.values(mine, other)], [gradient]))
    return rows


def _row(
    name: str,
    shape: tuple[int, ...],
    reference_shape: tuple[int, ...],
    parameters: int,
    values: list[_Difference],
    gradients: Sequence[_Difference | None],
    note: str = "",
) -> Row:
    measured = [difference for difference in gradients if difference is not None]
    return Row(
        name=name,
        shape=shape,
        reference_shape=reference_shape,
        parameters=parameters,
        value_diff=_largest([difference.absolute for difference in values]),
        gradient_diff=_largest([difference.absolute for difference in measured]) if measured else None,
        value_diff_relative=_largest([difference.relative for difference in values]),
        gradient_diff_relative=_largest([difference.relative for difference in measured]) if measured else None,
        values_agree=all(difference.agrees for difference in values),
        gradients_agree=all(difference.agrees for difference in measured),
        note=note,
    )


def _largest(differences: list[float]) -> float:
    return math.nan if any(map(math.isnan, differences)) else max(differences)


def _tensors(output: Any) -> list[Tensor]:
    """All tensors in an output, in order."""
    if is_dataclass(output) and not isinstance(output, type):
        output = vars(output)
    found = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    if not found:
        raise ValueError(
            f"a layer returned {type(output).__name__} without a tensor; compare needs layers that return one"
        )
    return found
