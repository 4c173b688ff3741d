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
from vitscratch import VisionTransformer, vit_b_16
from vitscratch.encoder import EncoderBlock
from vitscratch.training import MovingAverage, TrainingConfig, fit
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


def kept(model: nn.Module, images: Tensor) -> list[torch.Size]:
    """The shapes of what autograd keeps, without hooks on layers, which some fast paths avoid."""
    shapes: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: shapes.append(tensor.shape), lambda _: None):
        model(images)
    return shapes


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
    assert kept(model, images) == [(3, model.get_submodule(head).in_features)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_blocks_learn_and_nothing_before_them(kind: str) -> None:
    _, blocks, tail = KINDS[kind]
    model, images = build(kind).train(), pictures(kind)
    names = block_names(model)
    assert len(names) == blocks
    leaves = awake(model)
    without_weights = ("avgpool", "global_pool", "norm", "fc_norm", "head_drop", "heads.act")
    for last in (1, blocks - 1, blocks, 1):
        unfreeze(model, last=last)
        parts = (*names[-last:], *tail, head_name(model))
        learns = {name for name, _ in model.named_parameters() if within(name, parts)}
        assert learning(model) == learns and len(learns) > 2
        model.train()
        assert {name for name in leaves if within(name, parts)} <= awake(model)
        assert all(within(name, (*parts, *without_weights)) for name in awake(model))
        assert all(within(name, (*parts, "heads.act", "")) for name in saved_by(model, images))
        before = bytes_of(model)
        step(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.3), images)
        moved = {name for name, value in bytes_of(model).items() if value != before[name]}
        assert learns <= moved and all(within(name, parts) for name in moved)  # BatchNorm's statistics move, too


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_body_stays_asleep(kind: str) -> None:
    """In train mode its features are those of eval mode, for a copy of it, too, and after a detour."""
    model, images = build(kind).eval(), pictures(kind)
    expected = model(images).detach()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    usual = copy.deepcopy(model).requires_grad_(False).train()
    assert not torch.allclose(usual(images), expected)  # what freezing means elsewhere
    freeze(model)
    assert not awake(model) and not model.training  # a model in eval mode is left in it
    unfreeze(model, last=1)
    freeze(model)
    restored = KINDS[kind][0]()
    freeze(restored)
    restored.load_state_dict(state)
    for frozen in (
        model,
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        MovingAverage(model, 0.9).model,
        restored,
    ):
        assert frozen.train() is frozen and frozen.training
        assert awake(frozen) - {"head_drop"} == {head_name(frozen)}
        assert frozen.state_dict().keys() == state.keys() and isinstance(frozen, type(build(kind)))
        assert_close(frozen(images).detach(), expected)
        for name, value in frozen.state_dict().items():
            assert_close(value, state[name], rtol=0, atol=0)


def test_a_copy_is_a_model_of_its_own() -> None:
    model = build("ours").train()
    freeze(model)
    twin = copy.deepcopy(model)
    unfreeze(twin)
    assert twin.train().get_submodule("blocks").training and not model.train().get_submodule("blocks").training
    assert len(learning(model)) == 2 and len(learning(twin)) == len(list(twin.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_unfreezing_gives_the_whole_model_back(kind: str) -> None:
    model, images = build(kind).train(), pictures(kind)
    layers, saved = awake(model), saved_by(model, images)
    for change in (freeze, lambda model: unfreeze(model, last=2), freeze):
        change(model)
        unfreeze(model)
        assert awake(model) == layers and len(learning(model)) == len(list(model.parameters()))
        assert saved_by(model, images).keys() == saved.keys()


def test_statistics_of_the_last_stage_move_and_no_others() -> None:
    model, images = build("torchvision's ResNet").train(), pictures("torchvision's ResNet")
    unfreeze(model, last=2)
    before = bytes_of(model)
    model(images)
    moved = {name for name, value in bytes_of(model).items() if value != before[name]}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert moved == {name for name in before if name.startswith(("layer3", "layer4")) and name.endswith(statistics)}


@pytest.mark.skipif(torch.__version__ < "2.12", reason="torch 2.11 cannot compile code whose shapes are checked")
def test_frozen_after_it_was_compiled() -> None:
    model, images = VisionTransformer(10, 5, 3, CLASSES, 14, 1, 2, 22, dropout=0.3).train(), pictures("ours")
    nn.init.normal_(model.head.weight)
    compiled = torch.compile(model, backend="aot_eager")
    assert len(kept(compiled, images)) > 5
    freeze(model)
    expected, before = model.eval()(images).detach(), bytes_of(model)
    compiled.train()
    assert model.training and awake(model) == {"head"}
    assert_close(compiled(images).detach(), expected)
    assert kept(compiled, images) == [(3, 14)]
    step(compiled, torch.optim.AdamW(compiled.parameters(), lr=0.1, weight_decay=0.3), images)
    check_moved(before, bytes_of(model), {"head.weight", "head.bias"})
    unfreeze(model)
    assert len(kept(compiled, images)) > 5


def test_a_new_head_of_a_frozen_model_learns() -> None:
    model = build("torchvision's ViT, pre-logits").train()
    freeze(model)
    replace_head(model, 2)
    assert learning(model) == {"heads.head.weight", "heads.head.bias"}
    assert model.train() and awake(model) == {"heads.head"}


def test_a_frozen_model_spares_the_last_block_its_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    one_query = EncoderBlock._one_query
    monkeypatch.setattr(EncoderBlock, "_one_query", lambda self, x: asked.append(x.shape) or one_query(self, x))
    model = build("ours").train()
    freeze(model)
    assert isinstance(model, VisionTransformer) and type(model).__name__ == "VisionTransformer"
    model(pictures("ours"))
    assert asked == [(3, 5, 14)]


def test_the_dropout_of_a_timm_head_is_its_own() -> None:
    model = timm_vit(drop_rate=0.5).train()
    freeze(model)
    assert awake(model.train()) == {"head_drop", "head"}
    assert not awake(model.eval())


@pytest.mark.parametrize("how", [freeze, lambda model: unfreeze(model, last=1)])
def test_fit_trains_what_is_not_frozen(how: Callable[[nn.Module], None]) -> None:
    """With our loop's own optimizer, clipping and moving average."""
    model = build("ours")
    how(model)
    before, learns = bytes_of(model), learning(model)
    batches = [(pictures("ours"), torch.tensor([0, 2, 4])) for _ in range(3)]
    fit(
        model,
        batches,
        TrainingConfig(epochs=2, warmup_epochs=0.0, ema_decay=0.5, learning_rate=0.1),
        validation=batches,
    )
    check_moved(before, bytes_of(model), learns)
    assert learning(model) == learns


def test_vit_b_16_with_two_classes() -> None:
    """The head alone learns: 2 x 768 weights and 2 biases."""
    with torch.device("meta"):
        model = vit_b_16(num_classes=2)
        freeze(model)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    assert sum(size for size, _ in sizes) == 85_800_194
    assert sum(size for size, learns in sizes if learns) == 1_538


def test_what_cannot_be_is_refused_in_a_line() -> None:
    model = ours("cls")
    freeze(model)
    for last in (0, 4, -1):
        with pytest.raises(
            ValueError, match=rf"last {last}: VisionTransformer has 3 blocks; expected 1 to 3; freeze"
        ) as error:
            unfreeze(model, last=last)
        assert "\n" not in str(error.value) and len(learning(model)) == 2  # as it was
    with pytest.raises(ValueError, match="ResNet has 4 blocks; expected 1 to 4"):
        unfreeze(build("timm's ResNet"), last=5)
    plain = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten())
    with pytest.raises(ValueError, match="Sequential has no linear head"):
        freeze(plain)
    with pytest.raises(ValueError, match=r"Sequential has no encoder blocks in any of blocks, encoder\.layers"):
        unfreeze(plain, last=1)
    assert len(learning(plain)) == 2
