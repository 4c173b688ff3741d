"""Freezing: what learns, and that the rest keeps its bytes, sleeps, and costs nothing, whatever is done to it."""

import copy
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from tests.transfer.kinds import CLASSES, KINDS, build, ours, pictures, timm_vit
from vitscratch import TrainingConfig, VisionTransformer, vit_b_16
from vitscratch.encoder import EncoderBlock
from vitscratch.training import MovingAverage, fit
from vitscratch.transfer import freeze, head_name, replace_head, unfreeze
from vitscratch.transfer.layers import block_names

OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.3),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.3),
}


def learning(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def awake(model: nn.Module) -> set[str]:
    """The layers in training mode that behave otherwise in it, or could learn: those without layers of their own."""
    return {name for name, layer in model.named_modules() if layer.training and not any(layer.children())}


def within(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def saved_by(model: nn.Module, images: Tensor) -> dict[str, list[torch.Size]]:
    """The shapes of what autograd keeps in a forward pass, by the innermost layer that computes then."""
    stack, saved = [""], dict[str, list[torch.Size]]()

    def keep(tensor: Tensor) -> Tensor:
        saved.setdefault(stack[-1], []).append(tensor.shape)
        return tensor

    handles = []
    for name, layer in model.named_modules():
        handles.append(layer.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
        handles.append(layer.register_forward_hook(lambda *_: stack.pop() and None))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(images)
    for handle in handles:
        handle.remove()
    return saved


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(images), torch.arange(len(images)) % CLASSES).backward()
    optimizer.step()


def bytes_of(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def check_moved(before: dict[str, bytes], after: dict[str, bytes], learns: set[str]) -> None:
    """Everything that learns has moved, and nothing else."""
    assert {name for name in before if before[name] != after[name]} == learns


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_frozen_body_keeps_its_bytes(kind: str, name: str) -> None:
    """Also if the optimizer has all parameters, and has moved them, and their gradients are still there."""
    model, images = build(kind).train(), pictures(kind)
    optimizer = OPTIMIZERS[name](model.parameters())
    before = bytes_of(model)
    step(model, optimizer, images)
    # torchvision's and timm's heads and layers all move; a key's bias does not change the output.
    assert learning(model) <= {key for key, value in bytes_of(model).items() if value != before[key]}
    freeze(model)
    head = {f"{head_name(model)}.weight", f"{head_name(model)}.bias"}
    assert learning(model) == head
    assert all((parameter.grad is not None) is (key in head) for key, parameter in model.named_parameters())
    before = bytes_of(model)
    for _ in range(100):
        model.train()
        step(model, optimizer, images)
    check_moved(before, bytes_of(model), head)
    assert all((parameter.grad is not None) is (key in head) for key, parameter in model.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_kept_of_a_frozen_body(kind: str) -> None:
    model, images = build(kind).train(), pictures(kind)
    head = head_name(model)
    # The method sees what it should: normally a lot is kept, and one norm that learns is noticed.
    assert len(saved_by(model, images)) > 5
    freeze(model)
    assert saved_by(model, images) == {head: [(3, model.get_submodule(head).in_features)]}
    if tail := KINDS[kind][2]:
        model.get_submodule(tail[0]).requires_grad_(True)
        assert tail[0] in saved_by(model, images)
    freeze(model)
    shapes: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: shapes.append(tensor.shape), lambda _: None):
        model(images)  # without hooks on layers, which some fast paths avoid
    assert shapes == [(3, model.get_submodule(head).in_features)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_blocks_learn_and_nothing_before_them(kind: str) -> None:
    _, blocks, tail = KINDS[kind]
    model, images = build(kind).train(), pictures(kind)
    names = block_names(model)
    assert len(names) == blocks
    for last in (1, blocks - 1, blocks, 1):
        unfreeze(model, last=last)
        parts = (*names[-last:], *tail, head_name(model))
        learns = {name for name, _ in model.named_parameters() if within(name, parts)}
        assert learning(model) == learns and len(learns) > 2
        model.train()
        assert not any(
            layer.training for name, layer in model.named_modules() if list(layer.parameters()) and name not in parts
            and not within(name, parts) and not any(part.startswith(f"{name}.") for part in parts) and name
        )  # fmt: skip
        assert all(layer.training for name, layer in model.named_modules() if within(name, parts))
        assert all(within(name, parts) for name in saved_by(model, images) if name and "heads" not in name)
        before = bytes_of(model)
        step(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.3), images)
        moved = {name for name, value in bytes_of(model).items() if value != before[name]}
        assert learns <= moved and all(within(name, parts) for name in moved)  # the others are statistics
        assert model.eval() is model and not awake(model)
