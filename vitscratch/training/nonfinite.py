"""When numbers stop being numbers, or do not fit into memory: where, and what to do."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vitscratch.randomness import random_state_kept


def first_nonfinite(
    model: nn.Module,
    images: Float[Tensor, "b c H W"],
    labels: Int[Tensor, " b"] | None = None,
    loss_function: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> str | None:
    """Name the first place where nan or infinity shows up: input, parameter, layer, loss or gradient.

    One forward pass in the mode that the model is in, layer by layer, and, with labels, one backward pass. Nothing
    of the model changes. Numbers that only overflow in half precision need the same precision here: call it inside
    `torch.autocast`. Infinities that never reach the logits, as in masks, are nobody's fault.

    Args:
        model: returns logits (b, classes); a compiled one is looked at uncompiled.
        images, labels: the batch of the step that failed. loss_function: of (logits, labels).

    Returns:
        A sentence, or None if everything is finite.
    """
    model = getattr(model, "_orig_mod", model)
    device = next(model.parameters(), images).device
    images, labels = images.to(device), None if labels is None else labels.to(device)
    if held := _held(images):
        return f"the input holds {held}"
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            if held := _held(tensor):
                return f"{kind} {name} holds {held}"
    with random_state_kept(seed=0), _buffers_kept(model), torch.inference_mode(False), torch.enable_grad():
        return _walk(model, images.clone(), labels, loss_function)


def _walk(
    model: nn.Module, images: Tensor, labels: Tensor | None, loss_function: Callable[[Tensor, Tensor], Tensor]
) -> str | None:
    with _Watch(model) as watch:
        logits = model(images)
        if _held(logits):
            return watch.forward or f"the logits hold {_held(logits)}"
        if labels is None:
            return None
        loss = loss_function(logits.float(), labels)
        if held := _held(loss):
            return f"the loss holds {held}, although all logits are finite: look at the labels and the loss function"
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        found = torch.autograd.grad(loss.sum(), list(named.values()), allow_unused=True)
    bad = {name: held for name, gradient in zip(named, found, strict=True) if (held := _held(gradient))}
    if not bad:
        return None
    name = max(bad, key=lambda name: watch.order.get(name.rpartition(".")[0], -1))  # the first, going backwards
    return f"the gradient of parameter {name} holds {bad[name]}, although the loss is finite{watch.backward}"


class _Watch:
    """Hooks on every layer, that remember where the first non-finite number came out, forwards and backwards."""

    def __init__(self, model: nn.Module) -> None:
        self.forward = self.backward = ""
        self.order: dict[str, int] = {}  # of the layers, as they finish
        self.names = {layer: name for name, layer in model.named_modules()}
        self.hooks: list[Any] = []

    def __enter__(self) -> "_Watch":
        for layer in self.names:
            self.hooks += [layer.register_forward_pre_hook(self._before), layer.register_forward_hook(self._after)]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _before(self, layer: nn.Module, inputs: Any) -> None:
        held = _held(*tree_leaves(inputs))
        if held and not self.forward:
            name = self.names[layer]
            outer = name.rpartition(".")[0] or "the model"
            self.forward = f"the input of layer {name} holds {held}: made in the forward of {outer}, just before it"

    def _after(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        name, leaves = self.names[layer] or "the model itself", tree_leaves(output)
        self.order[name] = len(self.order)
        held = _held(*leaves)
        if held and not self.forward:
            self.forward = f"the output of layer {name} ({type(layer).__name__}) holds {held}; its input is finite"
        for leaf in leaves:
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                self.hooks.append(leaf.register_hook(lambda gradient, name=name: self._flows_back(name, gradient)))

    def _flows_back(self, name: str, gradient: Tensor) -> None:
        if not self.backward and _held(gradient):
            self.backward = f"; going backwards it begins at the output of layer {name}: look at what uses that"


def _held(*tensors: Any) -> str:
    """How many numbers of which kind are not finite, in words; "" if all are."""
    counts = {"nan": 0, "infinite": 0}
    total = 0
    for tensor in tensors:
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            total += tensor.numel()
            if not bool(tensor.isfinite().all()):
                counts["nan"] += int(tensor.isnan().sum())
                counts["infinite"] += int(tensor.isinf().sum())
    found = [f"{count:,} {kind}" for kind, count in counts.items() if count]
    return f"{' and '.join(found)} of {total:,} numbers" if found else ""


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Let the pass write running statistics and the like into copies."""
    kept = [(layer, name, buffer) for layer in model.modules() for name, buffer in layer.named_buffers(recurse=False)]
    for layer, name, buffer in kept:
        setattr(layer, name, buffer.clone())
    try:
        yield
    finally:
        for layer, name, buffer in kept:
            setattr(layer, name, buffer)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a CPU or a GPU."""
    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def explain_out_of_memory(error: BaseException, batch_size: int, device: torch.device | str) -> str:
    """One line: the batch size, how much memory was wanted and is there, and what to try.

    Args:
        error: for which `is_out_of_memory` is true. batch_size: pictures per step, at least 1.
        device: where it happened.
    """
    device = torch.device(device)
    facts = []
    if wanted := re.search(r"tried to allocate ([\d.]+ ?\w+)", str(error), re.IGNORECASE):
        facts.append(f"{_readable(wanted[1])} more were wanted")
    if total := _memory(device, str(error)):
        facts.append(f"the {'machine' if device.type == 'cpu' else 'device'} has {total / 2**30:.1f} GiB")
    stated = f" ({', '.join(facts)})" if facts else ""
    same = " (the same gradient)" if batch_size % 2 == 0 else ""
    smaller = f"--batch-size {batch_size // 2} --accumulate 2{same}, " if batch_size > 1 else ""
    precision = "" if device.type == "cpu" else "--precision bf16, "
    tries = f"{smaller}{precision}--activation-checkpointing, or a smaller model or picture"
    return f"out of memory on {device} with batches of {batch_size}{stated}; try {tries}"


def _readable(amount: str) -> str:
    """ "1073741824 bytes", as the CPU's allocator says, in GiB; what a GPU's says is readable already."""
    number, unit = re.fullmatch(r"([\d.]+) ?(\w+)", amount).groups()  # type: ignore[union-attr]  # as it was found
    return f"{float(number) / 2**30:.1f} GiB" if unit == "bytes" else f"{number} {unit}"


def _memory(device: torch.device, message: str) -> float:
    """Bytes that the device has altogether; 0 if nobody tells."""
    if stated := re.search(r"(?:total capacity of|max allowed:) ([\d.]+) (GiB|GB)", message):
        return float(stated[1]) * 2**30
    if device.type == "cuda" and torch.cuda.is_available():
        return float(torch.cuda.mem_get_info(device)[1])
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return 0.0
