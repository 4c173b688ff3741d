"""Feed two models the same pictures and compare what every pair of layers gives, forwards and backwards."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscratch.parity.mapping import LayerPair, Mapping, ParameterPair, pair_layers, pair_parameters, unmapped
from vitscratch.parity.report import Report, Row

Inputs = Tensor | tuple[Tensor, ...]


def compare(
    ours: nn.Module,
    theirs: nn.Module,
    inputs: Inputs,
    mapping: Mapping,
    *,
    atol: float = 1e-10,
    rtol: float = 0.0,
    gradients: bool = True,
    complete: bool = True,
    seed: int = 0,
) -> Report:
    """Compare two models layer by layer: shapes, parameters, values and, after a backward pass, gradients.

    Both models run as they are: same dtype and device as `inputs`, in the mode (train or eval) they are in,
    each from the same random seed. The backward pass starts from a random direction, the same for both.
    Neither model, nor any `.grad`, nor the global random state is changed.

    Args:
        ours, theirs: any two modules that return a tensor (or a tuple or dict whose first tensor counts).
        inputs: a tensor, or a tuple of the positional arguments.
        mapping: layer or parameter of ours -> its counterpart in theirs; see `Mapping` and `Reference`.
            Names of parameters alone do: layers that hold a pair of them are compared as well.
        atol, rtol: a difference passes if it is at most atol, or at most rtol times the largest absolute
            number of the reference's tensor. The defaults suit float64.
        gradients: also run backwards.
        complete: a parameter that the mapping leaves out makes the comparison fail.
        seed: for dropout and for the direction of the backward pass.

    Returns:
        A `Report`: rows in the order in which ours computes them, `passed`, `first_divergence`, `table()`.

    Raises:
        ValueError: a mapping that does not fit the models (see `pair_parameters`).
    """
    parameter_pairs = pair_parameters(ours, theirs, mapping)
    layer_pairs = pair_layers(ours, theirs, mapping)
    our_run = _Run(ours, inputs, [pair.ours for pair in layer_pairs], gradients, seed)
    their_run = _Run(theirs, inputs, [pair.theirs for pair in layer_pairs], gradients, seed)
    return Report(
        rows=_rows(our_run, their_run, layer_pairs, parameter_pairs),
        parameters_mapped=len(parameter_pairs),
        atol=atol,
        rtol=rtol,
        unmapped_ours=unmapped(ours, {pair.ours for pair in parameter_pairs}),
        unmapped_theirs=unmapped(theirs, {name for pair in parameter_pairs for name in pair.theirs}),
        complete=complete,
    )


def assert_parity(ours: nn.Module, theirs: nn.Module, inputs: Inputs, mapping: Mapping, **options: Any) -> Report:
    """`compare`, and an AssertionError with verdict and table if the models diverge anywhere."""
    report = compare(ours, theirs, inputs, mapping, **options)
    if not report.passed:
        raise AssertionError(f"{report.verdict()}\n\n{report.table()}")
    return report


def compare_updates(
    ours: nn.Module,
    theirs: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    mapping: Mapping,
    make_optimizer: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer],
    *,
    atol: float = 1e-10,
    rtol: float = 0.0,
) -> Report:
    """Train both models on the same batches and compare every parameter afterwards.

    Args:
        ours, theirs: changed in place: one step of cross-entropy for each batch.
        batches: (images, labels) pairs.
        mapping, atol, rtol: as for `compare`.
        make_optimizer: builds an optimizer from the mapped parameters, in the same order for both.

    Returns:
        A `Report` with one row for each parameter: its value, and its gradient of the last step.
    """
    pairs = pair_parameters(ours, theirs, mapping)
    our_parameters, their_parameters = dict(ours.named_parameters()), dict(theirs.named_parameters())
    in_order = {
        ours: [our_parameters[pair.ours] for pair in pairs],
        theirs: [their_parameters[name] for pair in pairs for name in pair.theirs],
    }
    batches = list(batches)
    for model, parameters in in_order.items():
        optimizer = make_optimizer(parameters)
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(_first_tensor(model(images)), labels).backward()
            optimizer.step()
    rows = []
    for pair in pairs:
        mine, other = our_parameters[pair.ours], [their_parameters[name] for name in pair.theirs]
        value = _difference(mine.detach(), pair.to_ours(*[tensor.detach() for tensor in other]))
        gradient = _gradient_difference(mine.grad, [tensor.grad for tensor in other], pair.to_ours)
        shape = tuple(pair.to_ours(*other).shape)
        rows.append(_row(pair.ours, tuple(mine.shape), shape, mine.numel(), [value], [gradient]))
    return Report(
        rows,
        len(pairs),
        atol,
        rtol,
        unmapped(ours, {pair.ours for pair in pairs}),
        unmapped(theirs, {name for pair in pairs for name in pair.theirs}),
    )


class _Run:
    """One forward (and backward) pass of a model: outputs of the named layers, gradients, and who ran when."""

    def __init__(self, model: nn.Module, inputs: Inputs, layers: list[str], gradients: bool, seed: int) -> None:
        self.outputs: dict[str, list[Tensor]] = {name: [] for name in layers}
        self.entered: dict[str, int] = {}
        self.finished: dict[str, int] = {}
        self.parameters = dict(model.named_parameters())
        self.inputs = [
            tensor.detach().clone().requires_grad_(gradients and tensor.is_floating_point())
            for tensor in ((inputs,) if isinstance(inputs, Tensor) else inputs)
        ]
        devices = [tensor.device for tensor in self.inputs if tensor.is_cuda]
        live: dict[str, list[Tensor]] = {name: [] for name in layers}
        with torch.random.fork_rng(devices=devices), torch.set_grad_enabled(gradients), self._listening(model, live):
            torch.manual_seed(seed)
            output = _first_tensor(model(*self.inputs))
        self.gradients = self._backward(output, live, seed) if gradients else None

    @contextmanager
    def _listening(self, model: nn.Module, live: dict[str, list[Tensor]]) -> Any:
        clock = itertools.count()

        def listen(name: str, layer: nn.Module) -> list[Any]:
            def before(layer: nn.Module, inputs: Any) -> None:
                self.entered.setdefault(name, next(clock))

            def after(layer: nn.Module, inputs: Any, output: Any) -> None:
                self.finished.setdefault(name, next(clock))
                if name in live:
                    live[name].append(_first_tensor(output))
                    # a copy, since an in-place layer may overwrite its input later
                    self.outputs[name].append(_first_tensor(output).detach().clone())

            return [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]

        handles = [handle for name, layer in model.named_modules() for handle in listen(name, layer)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _backward(self, output: Tensor, live: dict[str, list[Tensor]], seed: int) -> dict[Any, Tensor | None]:
        """Gradients of a weighted sum of the output, by ("input", i), ("layer", name, i) and ("parameter", name)."""
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
        tensors: dict[Any, Tensor] = {("input", i): tensor for i, tensor in enumerate(self.inputs)}
        tensors |= {("layer", name, i): tensor for name, calls in live.items() for i, tensor in enumerate(calls)}
        tensors |= {("parameter", name): parameter for name, parameter in self.parameters.items()}
        tensors = {key: tensor for key, tensor in tensors.items() if tensor.requires_grad}
        if not output.requires_grad or not tensors:
            return {}
        found = torch.autograd.grad((output * direction).sum(), list(tensors.values()), allow_unused=True)
        return dict(zip(tensors, found, strict=True))

    def gradient(self, *key: Any) -> Tensor | None:
        """A gradient found by `_backward`; None if there is none."""
        return None if self.gradients is None else self.gradients.get(key)


Difference = tuple[float, float]  # absolute, and relative to the largest absolute number of the reference


def _rows(ours: _Run, theirs: _Run, layer_pairs: list[LayerPair], parameter_pairs: list[ParameterPair]) -> list[Row]:
    rows: dict[tuple[float, str], Row] = {}
    counted: set[str] = set()
    for layer in layer_pairs:
        calls, their_calls = ours.outputs[layer.ours], theirs.outputs[layer.theirs]
        if layer.implied and not (calls and their_calls):
            continue  # one side uses the parameters without calling the layer: they get rows of their own
        own = [pair for pair in parameter_pairs if pair.ours.rpartition(".")[0] == layer.ours and layer.ours]
        own = [] if any(name.startswith(f"{layer.ours}.") for name in ours.outputs) else own
        counted |= {pair.ours for pair in own}
        values, gradients = _parameter_differences(ours, theirs, own)
        converted = [layer.to_ours(call) for call in their_calls]
        for i, (mine, other) in enumerate(zip(calls, converted, strict=False)):
            values.append(_difference(mine, other))
            mine_gradient = ours.gradient("layer", layer.ours, i)
            gradients.append(
                _gradient_difference(mine_gradient, [theirs.gradient("layer", layer.theirs, i)], layer.to_ours)
            )
        note = ""
        if len(calls) != len(their_calls) or not calls:
            values.append((math.inf, math.inf))
            note = f"called {len(calls)} times, the reference {len(their_calls)} times"
        rows[ours.finished.get(layer.ours, math.inf), layer.ours] = _row(
            layer.ours or "output",
            tuple(calls[0].shape) if calls else (),
            tuple(converted[0].shape) if converted else (),
            sum(ours.parameters[pair.ours].numel() for pair in own),
            values,
            gradients,
            note,
        )
    for pair in parameter_pairs:
        if pair.ours not in counted:
            values, gradients = _parameter_differences(ours, theirs, [pair])
            mine, other = ours.parameters[pair.ours], pair.to_ours(*[theirs.parameters[name] for name in pair.theirs])
            position = ours.entered.get(pair.ours.rpartition(".")[0], math.inf)
            rows[position, pair.ours] = _row(
                pair.ours, tuple(mine.shape), tuple(other.shape), mine.numel(), values, gradients
            )
    ordered = [rows[key] for key in sorted(rows, key=lambda key: key[0])]
    return [*_input_rows(ours, theirs), *ordered]


def _input_rows(ours: _Run, theirs: _Run) -> list[Row]:
    rows = []
    for i, (mine, other) in enumerate(zip(ours.inputs, theirs.inputs, strict=True)):
        gradient = _gradient_difference(ours.gradient("input", i), [theirs.gradient("input", i)])
        name = "input" if len(ours.inputs) == 1 else f"input.{i}"
        rows.append(_row(name, tuple(mine.shape), tuple(other.shape), 0, [_difference(mine, other)], [gradient]))
    return rows


def _parameter_differences(
    ours: _Run, theirs: _Run, pairs: list[ParameterPair]
) -> tuple[list[Difference], list[Difference]]:
    values, gradients = [], []
    for pair in pairs:
        others = [theirs.parameters[name].detach() for name in pair.theirs]
        values.append(_difference(ours.parameters[pair.ours].detach(), pair.to_ours(*others)))
        their_gradients = [theirs.gradient("parameter", name) for name in pair.theirs]
        gradients.append(_gradient_difference(ours.gradient("parameter", pair.ours), their_gradients, pair.to_ours))
    return values, gradients


def _row(
    name: str,
    shape: tuple[int, ...],
    reference_shape: tuple[int, ...],
    parameters: int,
    values: list[Difference],
    gradients: list[Difference],
    note: str = "",
) -> Row:
    return Row(
        name,
        shape,
        reference_shape,
        parameters,
        _largest(absolute for absolute, _ in values),
        _largest(absolute for absolute, _ in gradients),
        _largest(relative for _, relative in values),
        _largest(relative for _, relative in gradients),
        note,
    )


def _largest(differences: Iterable[float]) -> float:
    differences = list(differences)
    return math.nan if any(map(math.isnan, differences)) else max(differences, default=0.0)


def _difference(mine: Tensor, other: Tensor) -> Difference:
    if mine.shape != other.shape:
        return math.inf, math.inf
    if mine.numel() == 0:
        return 0.0, 0.0
    mine, other = mine.detach().to("cpu", torch.float64), other.detach().to("cpu", torch.float64)
    absolute = (mine - other).abs().max().item()
    scale = other.abs().max().item()
    return absolute, absolute / scale if scale else (math.inf if absolute else 0.0)


def _gradient_difference(
    mine: Tensor | None, others: Sequence[Tensor | None], to_ours: Callable[..., Tensor] = lambda tensor: tensor
) -> Difference:
    """Difference of two gradients; one that autograd did not reach counts as zeros."""
    present = [tensor for tensor in others if tensor is not None]
    if len(present) == len(others):
        other = to_ours(*present)
        return _difference(torch.zeros_like(other) if mine is None else mine, other)
    if present:  # some of several were reached, so they cannot be joined
        return math.inf, math.inf
    return (0.0, 0.0) if mine is None else _difference(mine, torch.zeros_like(mine))


def _first_tensor(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    for part in output.values() if isinstance(output, dict) else output:
        if isinstance(part, Tensor):
            return part
    raise ValueError(
        f"a layer returned {type(output).__name__} without a tensor; compare takes layers that return tensors"
    )
