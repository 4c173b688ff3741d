import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.training.test_doctor import assert_same, everything
from vitscratch import vit_nano_8
from vitscratch.training import explain_out_of_memory, first_nonfinite, is_out_of_memory


class Part(nn.Module):
    """What it does between its two layers is the argument."""

    def __init__(self, between: Callable[[Tensor], Tensor] = F.gelu) -> None:
        super().__init__()
        self.fc1, self.fc2, self.between = nn.Linear(6, 6), nn.Linear(6, 6), between

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.between(self.fc1(x)))


class Whole(nn.Module):
    def __init__(self, between: Callable[[Tensor], Tensor] = F.gelu) -> None:
        super().__init__()
        self.flatten, self.bn = nn.Flatten(), nn.BatchNorm1d(6)
        self.parts = nn.ModuleList([Part(), Part(between)])
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn(self.flatten(images))
        for part in self.parts:
            x = x + part(x)
        return self.head(self.drop(x))


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 1, 2, 3, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3


def spoiled(name: str, value: float) -> nn.Module:
    torch.manual_seed(0)  # one model in a hundred overflows a layer later
    model = Whole()
    tensor = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        tensor[name].view(-1)[0] = value
    return model


def test_finite_is_none() -> None:
    images, labels = batch()
    assert first_nonfinite(Whole(), images) is None and first_nonfinite(Whole(), images, labels) is None
    assert first_nonfinite(vit_nano_8(depth=2), torch.randn(3, 1, 8, 8), torch.arange(3)) is None


def test_the_input_is_named_first() -> None:
    images, labels = batch()
    images[2, 0, 1, 1], images[3, 0, 0, 0] = torch.nan, -torch.inf
    assert first_nonfinite(Whole(), images, labels) == "the input holds 1 nan and 1 infinite of 30 numbers"


def test_a_parameter_and_a_buffer_are_named() -> None:
    images, labels = batch()
    found = first_nonfinite(spoiled("parts.1.fc1.weight", torch.nan), images, labels)
    assert found == "parameter parts.1.fc1.weight holds 1 nan of 36 numbers"
    found = first_nonfinite(spoiled("bn.running_var", torch.inf), images, labels)
    assert found == "buffer bn.running_var holds 1 infinite of 6 numbers"
    model = vit_nano_8(depth=2)
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight[3, 5] = torch.nan
    found = first_nonfinite(model, torch.randn(2, 1, 8, 8))
    assert found is not None and found.startswith("parameter blocks.0.attn.qkv.weight holds 1 nan")


@pytest.mark.parametrize(
    ("model", "place"),
    [
        (spoiled("parts.1.fc1.weight", 3e38), "the output of layer parts.1.fc1 (Linear) holds"),
        (Whole(lambda x: (x - x) / (x - x)),
         "the input of layer parts.1.fc2 holds 30 nan of 30 numbers: made in the forward of parts.1, just before it"),
        (Whole(lambda x: x.double().exp().mul(1e300).exp().float()), "the input of layer parts.1.fc2 holds 30 inf"),
    ],
)  # fmt: skip
def test_the_first_layer_is_named(model: nn.Module, place: str) -> None:
    images, labels = batch()
    images = images * 1e3 if "fc1" in place else images
    found = first_nonfinite(model, images, labels)
    assert found is not None and found.startswith(place), found


def test_an_overflow_of_half_precision_is_found_in_half_precision() -> None:
    """65,504 is the end of float16: 300 squared is past it, and nothing in float32."""
    images, labels = batch()
    model = Whole(lambda x: (300 * torch.ones_like(x)).square() / 1e4)
    assert first_nonfinite(model, images, labels) is None
    half = model.half().eval()
    found = first_nonfinite(half, images.half(), labels)
    assert found is not None and found.startswith("the input of layer parts.1.fc2 holds 30 infinite"), found


def test_an_overflow_under_autocast_is_found_under_autocast() -> None:
    images, labels = batch()
    model = spoiled("parts.1.fc1.bias", 1e5)
    assert first_nonfinite(model, images, labels) is None
    with torch.autocast("cpu", torch.float16):
        found = first_nonfinite(model, images, labels)
    assert found is not None and found.startswith("the output of layer parts.1.fc1 (Linear) holds"), found


def test_infinities_that_never_reach_the_logits_are_no_fault() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x > x.mean(), x, -torch.inf)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask, self.head = Masked(), nn.Linear(6, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.mask(images.flatten(1)).softmax(dim=1))

    images, labels = batch()
    assert first_nonfinite(Model(), images, labels) is None


def test_a_loss_of_zero_over_zero_is_named() -> None:
    images, labels = batch()

    def ignores_all(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, torch.full_like(labels, -100))  # a mean over no picture

    found = first_nonfinite(Whole(), images, labels, ignores_all)
    assert found is not None and found.startswith("the loss holds 1 nan of 1 numbers, although all logits are finite")


def test_a_gradient_that_is_not_finite_is_named_with_its_place() -> None:
    """The square root of 0 is 0, its slope infinite; times the slope of the square, 0, that is nan."""
    images, labels = batch()
    model = Whole(lambda x: x + (x - x.detach()).square().sqrt())
    found = first_nonfinite(model, images, labels)
    assert found is not None, found
    assert found.startswith("the gradient of parameter parts.1.fc1.")
    assert "although the loss is finite; going backwards it begins at the output of layer parts.1.fc1" in found


@pytest.mark.parametrize("between", [F.gelu, lambda x: x / 0, lambda x: (x - x.detach()).square().sqrt()])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(between: Callable[[Tensor], Tensor], training: bool) -> None:
    model, given = Whole(between).train(training), batch()
    state = random.getstate()
    before = everything(model, given)
    first_nonfinite(model, *given)
    random.setstate(state)  # beartype draws from it
    assert_same(everything(model, given), before)


def test_hooks_are_removed_when_the_model_fails() -> None:
    model, (images, labels) = Whole(), batch()
    with pytest.raises(RuntimeError):
        first_nonfinite(model, images[..., :2], labels)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


# Memory

CUDA = (
    "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 4.12 GiB is "
    "free. Including non-PyTorch memory, this process has 74.97 GiB memory in use."
)
CPU = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes. Error code 12"
MPS = (
    "MPS backend out of memory (MPS allocated: 17.00 GB, other allocations: 1.00 GB, max allowed: 18.13 GB). "
    "Tried to allocate 256.00 MB on private pool."
)


@pytest.mark.parametrize(
    ("error", "device", "facts"),
    [
        (torch.OutOfMemoryError(CUDA), "cuda:0", "(20.50 GiB more were wanted, the device has 79.1 GiB)"),
        (RuntimeError(CPU), "cpu", "(4.0 GiB more were wanted, the machine has "),
        (RuntimeError(MPS), "mps", "(256.00 MB more were wanted, the device has 18.1 GiB)"),
    ],
)
def test_what_was_wanted_and_what_there_is_are_said(error: Exception, device: str, facts: str) -> None:
    assert is_out_of_memory(error)
    line = explain_out_of_memory(error, 64, device)
    assert line.startswith(f"out of memory on {device} with batches of 64 {facts}") and "\n" not in line
    assert "--batch-size 32 --accumulate 2 (the same gradient)" in line and "--activation-checkpointing" in line
    assert ("--precision bf16" in line) == (device != "cpu")


def test_nothing_is_made_up() -> None:
    line = explain_out_of_memory(MemoryError(), 1, "mps")
    assert line == (
        "out of memory on mps with batches of 1; try --precision bf16, --activation-checkpointing, "
        "or a smaller model or picture"
    )
    assert "--batch-size 3 --accumulate 2, " in explain_out_of_memory(MemoryError(), 7, "mps")


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_are_not_mistaken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_true_out_of_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert f"{2**30:.1f} GiB more were wanted" in explain_out_of_memory(caught.value, 2, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_true_out_of_memory_of_a_gpu_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**45, dtype=torch.uint8, device="cuda")
    assert is_out_of_memory(caught.value)
    assert "32768.00 GiB more were wanted, the device has" in explain_out_of_memory(caught.value, 2, "cuda")
