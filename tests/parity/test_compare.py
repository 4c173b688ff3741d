"""The tool itself, on small models that have nothing to do with ViTs."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from vitscratch.parity import (
    Reference,
    assert_parity,
    awaken,
    compare,
    compare_updates,
    copy_parameters,
    pair_parameters,
)


class Ours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.norm = nn.LayerNorm(7)
        self.second = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.norm(self.first(x))))


def theirs() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 3))


LAYERS = {"first": "0", "norm": "1", "second": "3"}
PARAMETERS = {f"{ours}.{kind}": f"{their}.{kind}" for ours, their in LAYERS.items() for kind in ("weight", "bias")}


@pytest.fixture
def twins() -> tuple[nn.Module, nn.Module, Tensor]:
    ours, reference = Ours().double(), theirs().double()
    awaken(ours)
    copy_parameters(ours, reference, LAYERS)
    return ours, reference, torch.randn(2, 5, dtype=torch.float64)


@pytest.mark.parametrize(
    "mapping", [LAYERS, PARAMETERS, {**LAYERS, **PARAMETERS, "": ""}], ids=["layers", "names", "both"]
)
def test_equal_models_agree_by_layers_or_by_parameters(mapping: dict, twins: tuple) -> None:
    report = assert_parity(*twins, mapping)
    assert report.passed and report.first_divergence is None
    assert report.parameters_mapped == 6
    assert [row.name for row in report.rows] == ["input", "first", "norm", "second", "output"]
    assert [row.parameters for row in report.rows] == [0, 42, 14, 24, 0]
    assert [row.shape for row in report.rows] == [(2, 5), (2, 7), (2, 7), (2, 3), (2, 3)]
    assert report.max_value_diff <= 1e-10 and report.max_gradient_diff <= 1e-10
    assert report.verdict().startswith("AGREES: 6 parameter tensors")


def spoil_first(model: nn.Module) -> None:
    model[0].weight.data[0, 0] += 1e-6


def spoil_norm(model: nn.Module) -> None:
    model[1].eps = 1e-4


def spoil_activation(model: nn.Module) -> None:
    model[2] = nn.Hardtanh()


@pytest.mark.parametrize(
    ("spoil", "culprit"), [(spoil_first, "first"), (spoil_norm, "norm"), (spoil_activation, "second")]
)
def test_names_the_first_layer_that_diverges(spoil: Callable, culprit: str, twins: tuple) -> None:
    ours, reference, x = twins
    spoil(reference)
    report = compare(ours, reference, x, LAYERS)
    assert not report.passed
    assert report.first_divergence is not None and report.first_divergence.name == culprit
    with pytest.raises(AssertionError, match=f"DIVERGES first at {culprit}: values differ") as caught:
        assert_parity(ours, reference, x, LAYERS)
    marked = [line.split()[1] for line in str(caught.value).splitlines() if line.startswith("x")]
    assert culprit in marked and "output" in marked
    before = [row.name for row in report.rows][: [row.name for row in report.rows].index(culprit)]
    assert all(row.value_diff <= 1e-10 for row in report.rows if row.name in before)


class HalfGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient / 2


class Halved(nn.LayerNorm):
    """Right forwards, wrong backwards: what only a comparison of gradients sees."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(HalfGradient.apply(x))


def test_a_mistake_in_the_backward_pass_alone_is_caught_at_the_layer_it_comes_from(twins: tuple) -> None:
    ours, reference, x = twins
    state, reference[1] = reference[1].state_dict(), Halved(7).double()
    reference[1].load_state_dict(state)
    report = compare(ours, reference, x, LAYERS)
    assert report.max_value_diff <= 1e-10
    assert not report.passed and report.first_divergence.name == "first"  # what the wrong gradient reaches first
    assert "gradients differ" in report.verdict()
    assert compare(ours, reference, x, LAYERS, gradients=False).passed


def test_a_parameter_left_out_fails_unless_said_to_be_partial(twins: tuple) -> None:
    ours, reference, x = twins
    part = {"first": "0"}
    report = compare(ours, reference, x, part)
    assert not report.passed
    assert report.unmapped_ours == ["norm.weight", "norm.bias", "second.weight", "second.bias"]
    assert report.unmapped_theirs == ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert "4 parameters of ours are not mapped: norm.weight, " in report.verdict()
    assert compare(ours, reference, x, part, complete=False).passed


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"frist": "0"}, "names 'frist', which ours does not have; nearest: 'first'"),
        ({"first": "first.weigth"}, "which theirs does not have"),
        ({"first": "0.weight"}, "pairs the layer 'first' with the parameter '0.weight'"),
        ({"first.weight": "0"}, "pairs the parameter 'first.weight' with the layer '0'"),
        ({"first.weight": "0.weight", "second.weight": "0.weight"}, "names 0.weight of theirs more than once"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_in_one_line(mapping: dict, message: str, twins: tuple) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        compare(*twins, mapping)
    assert "\n" not in str(caught.value)


def test_shapes_that_differ_diverge_and_are_shown() -> None:
    ours, reference = nn.Sequential(nn.Linear(5, 7)), nn.Sequential(nn.Linear(5, 8))
    report = compare(ours, reference, torch.randn(2, 5), {"0": "0"})
    assert not report.passed
    assert "shapes (2, 7) and (2, 8) differ" in report.verdict()
    assert "2 x 8" in report.table()
    with pytest.raises(ValueError, match=r"0.weight \(7, 5\) cannot be copied into 0.weight \(8, 5\)"):
        copy_parameters(ours, reference, {"0": "0"})


def test_nan_never_passes(twins: tuple) -> None:
    ours, reference, x = twins
    for model in (ours, reference):
        model.get_parameter("norm.bias" if model is ours else "1.bias").data[0] = torch.nan
    report = compare(ours, reference, x, LAYERS)
    assert not report.passed and report.first_divergence.name == "norm"
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["max_value_diff"] is None


def test_a_layer_that_is_never_called_fails(twins: tuple) -> None:
    ours, reference, x = twins
    ours.unused = nn.Identity()
    report = compare(ours, reference, x, {**LAYERS, "unused": "2"})
    assert not report.passed
    assert "ours does not make this call" in report.verdict()


def test_separate_projections_can_stand_for_a_packed_one() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(5, 21)

        def forward(self, x: Tensor) -> Tensor:
            return self.qkv(x)

    class Separate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(5, 7), nn.Linear(5, 7), nn.Linear(5, 7)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)

    ours, reference = Packed().double(), Separate().double()
    with torch.no_grad():
        for i, layer in enumerate((reference.q, reference.k, reference.v)):
            layer.weight.copy_(ours.qkv.weight[7 * i : 7 * i + 7])
            layer.bias.copy_(ours.qkv.bias[7 * i : 7 * i + 7])
    mapping = {
        f"qkv.{kind}": Reference(tuple(f"{name}.{kind}" for name in "qkv"), lambda *parts: torch.cat(parts))
        for kind in ("weight", "bias")
    }
    x = torch.randn(2, 5, dtype=torch.float64)
    report = assert_parity(ours, reference, x, mapping)
    assert [row.name for row in report.rows] == ["input", "qkv.weight", "qkv.bias", "output"]
    assert max(row.gradient_diff for row in report.rows) <= 1e-10
    reference.k.weight.data[0, 0] += 1e-6
    assert compare(ours, reference, x, mapping).first_divergence.name == "qkv.weight"
    with pytest.raises(ValueError, match="expected one parameter of the same shape"):
        copy_parameters(ours, reference, mapping)


def test_outputs_in_tuples_and_dicts_and_several_inputs() -> None:
    class Sum(nn.Module):
        def __init__(self, wrap: Callable[[Tensor], object]) -> None:
            super().__init__()
            self.wrap = wrap

        def forward(self, a: Tensor, b: Tensor) -> object:
            return self.wrap(a + b)

    inputs = (torch.randn(2, 3), torch.randn(2, 3))
    for wrap in (lambda t: t, lambda t: (None, t), lambda t: {"state": None, "logits": t}):
        assert assert_parity(Sum(lambda t: t), Sum(wrap), inputs, {}).rows[-1].name == "output"
    with pytest.raises(ValueError, match="returned tuple without a tensor"):
        compare(Sum(lambda t: t), Sum(lambda t: (None,)), inputs, {})


@pytest.mark.parametrize("gradients", [True, False])
def test_in_place_layers_do_not_spoil_what_was_recorded(gradients: bool) -> None:
    ours = nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)).double()
    reference = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    reference.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, dtype=torch.float64)
    report = compare(ours, reference, x, {"0": "0", "1": "1", "2": "2"}, gradients=gradients)
    assert report.passed, report.verdict()
    first = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3)).double()  # overwrites the model's own input
    assert compare(first, first, x, {"1": "1"}, gradients=gradients).passed and (x < 0).any()


def test_every_call_of_a_layer_has_a_row_and_the_fault_between_two_calls_is_found() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.middle = nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.middle(self.block(x)))

    ours, reference = Twice().double(), Twice().double()
    reference.load_state_dict(ours.state_dict())
    mapping, x = {"block": "block", "middle": "middle"}, torch.randn(2, 5, dtype=torch.float64)
    report = assert_parity(ours, reference, x, mapping)
    assert [row.name for row in report.rows] == ["input", "block", "middle", "block (call 2)", "output"]
    reference.middle.bias.data[0] += 1e-3
    assert compare(ours, reference, x, mapping).first_divergence.name == "middle"


def outputs(function: Callable[[Tensor], object]) -> nn.Module:
    class Wrapped(nn.Module):
        def forward(self, x: Tensor) -> object:
            return function(x)

    return Wrapped()


@dataclass
class Output:
    logits: Tensor


@pytest.mark.parametrize(
    ("ours", "reference", "agree"),
    [
        (lambda x: (x, 2 * x), lambda x: (x, 2 * x), True),
        (lambda x: (x, 2 * x), lambda x: (x, 5 * x), False),
        (lambda x: ((x,), x), lambda x: ((7 * x,), x), False),
        (lambda x: {"a": x, "b": [x]}, lambda x: {"a": x, "b": [x + 1]}, False),
        (lambda x: Output(x), lambda x: Output(x), True),
        (lambda x: Output(x), lambda x: Output(2 * x), False),
        (lambda x: torch.complex(x, x), lambda x: torch.complex(x, 2 * x), False),
        (lambda x: x.masked_fill(x > 0, -torch.inf), lambda x: x.masked_fill(x > 0, -torch.inf), True),
        (lambda x: x.masked_fill(x > 0, -torch.inf), lambda x: 2 * x.masked_fill(x > 0, -torch.inf), False),
    ],
)
def test_all_tensors_of_an_output_count(ours: Callable, reference: Callable, agree: bool) -> None:
    x = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    assert compare(outputs(ours), outputs(reference), x, {}, rtol=1e-6).passed is agree


def test_a_side_that_returns_more_is_compared_by_its_first_tensor_and_says_so() -> None:
    report = compare(outputs(lambda x: x), outputs(lambda x: (x, 2 * x)), torch.randn(2, 3), {})
    assert report.passed and report.rows[-1].note == "1 tensors, the reference 2: the first are compared"


def test_gradients_that_were_not_compared_are_not_reported(twins: tuple) -> None:
    report = compare(*twins, LAYERS, gradients=False)
    assert report.max_gradient_diff is None and report.to_json()["max_gradient_diff"] is None
    assert report.verdict().endswith("gradients not compared")
    with pytest.raises(ValueError, match="pass gradients=False"):
        compare(outputs(torch.detach), outputs(torch.detach), torch.randn(2, 3), {})


def test_works_inside_no_grad_and_with_arguments_that_are_no_tensors(twins: tuple) -> None:
    with torch.no_grad():
        assert compare(*twins, LAYERS).max_gradient_diff is not None

    class Scaled(nn.Module):
        def forward(self, x: Tensor, factor: float, mask: Tensor | None) -> Tensor:
            return x * factor if mask is None else x

    assert [row.name for row in assert_parity(Scaled(), Scaled(), (torch.randn(2, 3), 2.0, None), {}).rows] == [
        "input.0",
        "output",
    ]


def test_buffers_are_put_back() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3)).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    compare(model, model, torch.randn(5, 3), {"0": "0"}, atol=1e-4)
    assert_close(dict(model.named_buffers()), before, rtol=0, atol=0)


def test_a_converted_parameter_does_not_imply_equal_outputs() -> None:
    class Patches(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1) if isinstance(self.layer, nn.Linear) else x).flatten(1)

    ours, reference = Patches(nn.Linear(12, 5)).double(), Patches(nn.Conv2d(3, 5, 2)).double()
    with torch.no_grad():
        ours.layer.weight.copy_(reference.layer.weight.flatten(1))
        ours.layer.bias.copy_(reference.layer.bias)
    mapping = {"layer.weight": Reference("layer.weight", lambda w: w.flatten(1)), "layer.bias": "layer.bias"}
    report = assert_parity(ours, reference, torch.randn(2, 3, 2, 2, dtype=torch.float64), mapping)
    assert [row.name for row in report.rows] == ["input", "layer.weight", "layer.bias", "output"]


def test_a_conversion_is_never_dropped_when_parameters_are_copied() -> None:
    ours, reference = nn.Linear(4, 4), nn.Linear(4, 4)
    with pytest.raises(ValueError, match="and no conversion"):
        copy_parameters(ours, reference, {"weight": Reference("weight", torch.t), "bias": "bias"})


def test_tied_weights_are_mapped_under_either_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x))

    ours, reference = Tied().double(), Tied().double()
    reference.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, dtype=torch.float64)
    for mapping in ({"head.weight": "head.weight"}, {"embed": "embed", "head": "head"}):
        report = assert_parity(ours, reference, x, mapping)
        assert report.parameters_mapped == 1


def test_several_names_need_a_way_to_join_them(twins: tuple) -> None:
    with pytest.raises(ValueError, match="pairs 'first' with 2 names; expected one layer"):
        compare(*twins, {"first": Reference(("0", "3"))})


def test_updates_seed_dropout_and_refuse_no_batches() -> None:
    ours, reference = (nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.5), nn.Linear(7, 3)).double() for _ in range(2))
    reference.load_state_dict(ours.state_dict())
    batches = [(torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0]))]
    mapping = {"0": "0", "2": "2"}
    assert compare_updates(ours, reference, batches, mapping, lambda p: torch.optim.SGD(p, lr=0.1)).passed
    with pytest.raises(ValueError, match="no batches"):
        compare_updates(ours, reference, iter(()), mapping, lambda p: torch.optim.SGD(p, lr=0.1))


def test_awaken_takes_scalars() -> None:
    model = nn.Module()
    model.logit_scale = nn.Parameter(torch.tensor(0.0))
    awaken(model)
    assert model.logit_scale != 0


def test_frozen_parameters_have_no_gradient_and_agree(twins: tuple) -> None:
    ours, reference, x = twins
    for parameter in (*ours.first.parameters(), *reference[0].parameters()):
        parameter.requires_grad_(False)
    assert compare(ours, reference, x, LAYERS).passed


def test_nothing_is_left_behind(twins: tuple) -> None:
    ours, reference, x = twins
    ours.first.weight.grad = torch.ones_like(ours.first.weight)
    ours.train()
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in ours.state_dict().items()}
    compare(ours, reference, x, LAYERS)
    assert_close(torch.get_rng_state(), state)
    assert_close(dict(ours.state_dict()), before, rtol=0, atol=0)
    assert (ours.first.weight.grad == 1).all() and reference[0].weight.grad is None
    assert ours.training and not x.requires_grad
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in ours.modules())


def test_updates_find_a_different_optimizer_state(twins: tuple) -> None:
    ours, reference, _ = twins
    batches = [(torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0])) for _ in range(3)]
    report = compare_updates(ours, reference, batches, LAYERS, lambda p: torch.optim.SGD(p, lr=0.1))
    assert report.passed and len(report.rows) == 6
    rates = iter((0.1, 0.1001))
    report = compare_updates(ours, reference, batches, LAYERS, lambda p: torch.optim.SGD(p, lr=next(rates)))
    assert not report.passed and report.first_divergence.name == "first.weight"


def test_json_holds_what_the_table_shows(twins: tuple) -> None:
    report = compare(*twins, LAYERS)
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["parameters_mapped"] == 6 and data["passed"] is True and data["first_divergence"] is None
    assert [row["name"] for row in data["rows"]] == [row.name for row in report.rows]
    assert all(row.name in report.table() for row in report.rows)
    assert {"name", "shape", "reference_shape", "value_diff", "gradient_diff"} <= data["rows"][0].keys()


def test_tolerances(twins: tuple) -> None:
    ours, reference, x = twins
    spoil_first(reference)
    assert not compare(ours, reference, x, LAYERS, atol=1e-9).passed
    assert compare(ours, reference, x, LAYERS, atol=1e-4).passed
    assert compare(ours, reference, x, LAYERS, atol=0.0, rtol=1e-3).passed


def test_awaken_leaves_nothing_at_its_usual_value_and_is_repeatable() -> None:
    model = nn.Sequential(nn.Linear(50, 70), nn.LayerNorm(70), nn.Conv2d(3, 5, 2))
    assert awaken(model, seed=1) is model
    first = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert all((p != 0).all() and (p != 1).all() and p.unique().numel() == p.numel() for p in first.values())
    assert_close(first["0.weight"].std().item(), 50**-0.5, rtol=0.1, atol=0)
    assert first["1.weight"].min() >= 0.5 and first["1.weight"].max() <= 1.5
    state = torch.get_rng_state()
    awaken(model, seed=1)
    assert all((parameter == first[name]).all() for name, parameter in model.named_parameters())
    assert_close(torch.get_rng_state(), state)
    awaken(model, seed=2)
    assert all((parameter != first[name]).any() for name, parameter in model.named_parameters())


def test_pairs_of_layers_pair_what_is_below_them() -> None:
    inner = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    pairs = pair_parameters(nn.ModuleDict({"a": inner}), nn.ModuleDict({"b": inner}), {"a": "b"})
    assert [(pair.ours, pair.theirs) for pair in pairs] == [
        (f"a.{name}", (f"b.{name}",)) for name in ("0.weight", "0.bias", "1.weight", "1.bias")
    ]
