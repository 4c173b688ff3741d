"""Layer-wise learning rates: every parameter once, at the right rate, as timm and BEiT have them; and the table."""

import pytest
import torch
from torch import nn

from tests.transfer.kinds import KINDS, build, pictures, timm_vit
from vitscratch import vit_nano_8
from vitscratch.training import TrainingConfig, decay_groups, fit
from vitscratch.transfer import freeze, head_name, parameter_groups, trainable_table, unfreeze
from vitscratch.transfer.layers import block_names


def settings(model: nn.Module, groups: list) -> dict[str, tuple[float, float]]:
    """(rate, weight decay) of every parameter by name; each may be in one group only."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(names[id(p)], (group["lr"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert len(found) == len(dict(found))
    return dict(found)


@pytest.mark.parametrize("kind", KINDS)
def test_rates_fall_towards_the_picture(kind: str) -> None:
    _, blocks, tail = KINDS[kind]
    model = build(kind)
    groups = parameter_groups(model, lr=0.3, layer_decay=0.7, weight_decay=0.11)
    assert [group["lr"] for group in groups] == sorted(group["lr"] for group in groups)
    assert all(group["params"] for group in groups)
    found = settings(model, groups)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    places = {name: above for above, name in enumerate(reversed(block_names(model)), start=1)}
    places |= dict.fromkeys((*tail, head_name(model)), 0)
    below = blocks + 1
    for name, (rate, _) in found.items():
        above = next((above for place, above in places.items() if name.startswith(f"{place}.")), below)
        assert rate == pytest.approx(0.3 * 0.7**above), name
    decays = settings(model, [{**group, "lr": 0.0} for group in decay_groups(model, 0.11)])
    assert {name: decay for name, (_, decay) in found.items()} == {name: decay for name, (_, decay) in decays.items()}
    assert {name for name in found if name.endswith(("token", "pos_embed", "pos_embedding"))} <= {
        name for name, (_, decay) in found.items() if decay == 0.0
    }


@pytest.mark.parametrize("options", [{}, {"global_pool": "avg", "reg_tokens": 2, "init_values": 0.1}])
def test_the_same_as_timm(options: dict) -> None:
    """But for the norm after the last block: timm counts it as part of the block, BEiT and MAE with the head.

    (unilm/beit/optim_factory.py, get_num_layer_for_vit; mae/util/lr_decay.py, get_layer_id_for_vit.)
    """
    from timm.optim import param_groups_layer_decay

    model = timm_vit(**options)
    theirs = param_groups_layer_decay(
        model, weight_decay=0.11, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.7
    )
    expected = settings(model, [{**group, "lr": 0.3 * group["lr_scale"]} for group in theirs])
    found = settings(model, parameter_groups(model, lr=0.3, layer_decay=0.7, weight_decay=0.11))
    assert found.keys() == expected.keys()
    for name, (rate, decay) in expected.items():
        own = 1 / 0.7 if name.startswith("norm.") else 1.0
        assert found[name] == (pytest.approx(rate * own), decay), name


def test_frozen_parameters_are_left_out() -> None:
    model = build("ours")
    unfreeze(model, last=1)
    found = settings(model, parameter_groups(model, lr=0.3, layer_decay=0.5))
    assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert found["blocks.2.mlp.fc1.weight"] == (0.15, 0.05) and found["norm.weight"] == (0.3, 0.0)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="every parameter of the model is frozen"):
        parameter_groups(model, lr=0.3, layer_decay=0.5)


def test_the_schedule_of_fit_scales_every_rate() -> None:
    model = build("ours")
    optimizer = torch.optim.AdamW(parameter_groups(model, lr=0.3, layer_decay=0.5))
    bases = [group["lr"] for group in optimizer.param_groups]
    seen: list[list[float]] = []
    batches = [(pictures("ours"), torch.tensor([0, 2, 4])) for _ in range(4)]
    fit(
        model,
        batches,
        TrainingConfig(epochs=1, warmup_epochs=0.5, learning_rate=99.0),  # the optimizer has its own rates
        optimizer=optimizer,
        on_step=lambda run: seen.append([group["lr"] for group in run.optimizer.param_groups]),
    )
    for rates, factor in zip(seen, (1.0, 1.0, 0.5, 0.0), strict=True):  # of the step that comes next
        assert rates == pytest.approx([factor * base for base in bases])


@pytest.mark.parametrize(
    "values", [(0.0, 0.5, 0.1), (float("nan"), 0.5, 0.1), (0.1, 0.0, 0.1), (0.1, 1.5, 0.1), (0.1, 1.0, -1.0)]
)
def test_settings_out_of_range_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(
        ValueError, match=f"lr {values[0]}, layer_decay {values[1]}, weight_decay {values[2]}: expected"
    ):
        parameter_groups(vit_nano_8(), *values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_shows_what_is_trained(kind: str) -> None:
    model, images = build(kind).train(), pictures(kind)
    freeze(model)
    model.get_submodule(head_name(model)).eval()  # a mixture of modes that no train() makes
    before, random = [layer.training for layer in model.modules()], torch.get_rng_state()
    rows = trainable_table(model, tuple(images.shape)).splitlines()
    assert [layer.training for layer in model.modules()] == before and torch.equal(torch.get_rng_state(), random)
    head = head_name(model)
    linear = [row for row in rows if f"({head.rpartition('.')[2]})" in row and "Linear" in row]
    learns = sum(parameter.numel() for parameter in model.get_submodule(head).parameters())
    assert len(linear) == 1 and linear[0].endswith("True") and f" {learns:,} " in linear[0]
    assert sum("False" in row for row in rows) > 5
    total = sum(parameter.numel() for parameter in model.parameters())
    assert rows[-1] == f"Trained: {learns:,} of {total:,} parameters ({learns / total:.3%})"
    assert all("True" not in row for row in rows if "└─" in row and row not in linear)


def test_a_table_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"input_size \(2, 1, 9, 8\) does not fit the model: images of shape") as error:
        trainable_table(vit_nano_8(), (2, 1, 9, 8))
    assert "\n" not in str(error.value)
