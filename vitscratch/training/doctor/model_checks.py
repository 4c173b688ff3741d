"""Checks of what the model computes. All but `registered`, `modes`, `logits` and `batch_sizes` run on a woken copy."""

import copy
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitscratch.training.aside import held_values
from vitscratch.training.doctor.case import (
    Case,
    Failure,
    Outcome,
    Skip,
    first_difference,
    listed,
    one_line,
    relative,
    wake,
)

# Differences relative to the largest logit. Rounding makes 1e-6 (float32), and with batches of other sizes 1e-4
# (other kernels, TF32 convolutions); the mistakes that are looked for make 1e-2 and more on a woken model.
SAME_BATCH, OTHER_BATCH = 1e-5, 1e-3


def logits(case: Case) -> Outcome:
    """The model turns pictures into logits: floats (b, classes), finite."""
    images = case.images[:3]
    try:
        found = case.logits(images)
    except Exception as error:
        if len(images) == len(case.images):
            raise _does_not_run(case, error) from error
        try:
            found = case.logits(images := case.images)  # does it work for this number of pictures only?
        except Exception:
            raise _does_not_run(case, error) from error
    if not isinstance(found, Tensor) or found.dim() != 2 or not found.is_floating_point():
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        meaning = "the model returns features, a prediction (argmax), or a structure that holds the logits"
        advice = "return logits, or wrap the model in a module that picks them out (Hugging Face: output.logits)"
        raise Failure(f"the model returns {what}; expected float logits (b, classes)", meaning, advice)
    classes = found.shape[1]
    case.num_classes = classes if case.num_classes is None else case.num_classes
    if classes != case.num_classes or classes < 2:
        meaning = "the head is another task's (1000 for ImageNet), or sized for other data; one output cannot be wrong"
        advice = f"replace the head by one with {max(2, case.num_classes)} outputs"
        raise Failure(f"{classes} logits for {case.num_classes} classes", meaning, advice, logits=classes)
    if not bool(found.isfinite().all()):
        meaning = "weights that hold nan, inputs far too large, or a division by zero in the forward pass"
        advice = "vitscratch.training.first_nonfinite(model, images) names the first layer"
        raise Failure("nan or infinity among the logits", meaning, advice)
    case.picture_flops = _picture_flops(case)
    if case.large:
        case.notes.append(
            f"looked at {case.probes} pictures at a time, as one takes {case.picture_flops / 1e9:.0f} GFLOP"
        )
    evidence = f"(b, {classes}), finite; {case.picture_flops / 1e6:,.3g} million FLOP a picture"
    return evidence, {"classes": classes, "picture_flops": case.picture_flops}


def _picture_flops(case: Case) -> int:
    """Forward FLOPs of one picture: matrix products and convolutions, counted; at least one use of every parameter."""
    least = 2 * sum(map(Tensor.numel, case.model.parameters()))
    images = case.images[:1]
    try:
        with FlopCounterMode(display=False) as counter:
            case.forward(images)
    except Exception:  # the counter cannot follow every model
        return least
    return max(least, counter.get_total_flops())


def _does_not_run(case: Case, error: Exception) -> Failure:
    where = {str(parameter.device) for parameter in case.model.parameters()}
    dtypes = {str(parameter.dtype) for parameter in case.model.parameters()}
    mixed = [f"parameters on {listed(sorted(kinds))}" for kinds in (where, dtypes) if len(kinds) > 1]
    images = f"{tuple(case.images.shape)} {case.images.dtype}"
    meaning = "; ".join(mixed) or "the picture's size, channels or dtype is not what the model was built for"
    advice = "run model(images) by itself and read the traceback; call .to(device) after the last layer was replaced"
    return Failure(f"the forward pass of images {images} fails with {one_line(error)}", meaning, advice)


def batch_sizes(case: Case) -> Outcome:
    """Batches of 1, 3 and 5 pictures go through, and as many rows of logits come out."""
    meaning = "a class token or position embedding with a batch axis, or a batch size written into a reshape"
    advice = "make tokens (1, 1, D) and positions (1, n, D) parameters and expand them to images.shape[0] in forward"
    sizes = (1, 3) if case.large else (1, 3, 5)
    suspects = _with_batch_axis(case.model)
    for size in sizes:
        try:
            rows = len(case.logits(case.noise(size)))
        except Exception as error:
            raise Failure(f"a batch of {size} fails: {one_line(error)}{suspects}", meaning, advice, size=size) from None
        if rows != size:
            raise Failure(f"a batch of {size} gives {rows} rows of logits{suspects}", meaning, advice, size=size)
    return f"batches of {', '.join(map(str, sizes))} work", {"sizes": list(sizes)}


def _with_batch_axis(model: nn.Module) -> str:
    """Parameters like (32, 1, 96), where (1, 1, 96) was meant."""
    axes = [
        f"{name} {tuple(parameter.shape)}"
        for name, parameter in model.named_parameters()
        if parameter.dim() == 3 and parameter.shape[0] > 1
    ]
    return f"; look at {listed(axes)}" if axes else ""


def registered(case: Case) -> Outcome:
    """Whatever takes part in learning is in model.parameters(), so that the optimizer, .to() and saving find it."""
    known = {id(tensor) for tensor in case.model.parameters()}
    hidden, plain = [], []
    for name, value in held_values(case.model):
        if isinstance(value, nn.Module):
            inside = [parameter for parameter in value.parameters() if id(parameter) not in known]
            if any(parameter.requires_grad for parameter in inside):
                hidden.append(f"{name} ({type(value).__name__}, {sum(map(Tensor.numel, inside)):,} parameters)")
        elif value.requires_grad and value.is_leaf and id(value) not in known:
            hidden.append(f"{name} {tuple(value.shape)}")
        elif value.is_floating_point() and not value.requires_grad:
            plain.append(f"{name} {tuple(value.shape)}")
    if not hidden:  # held by nothing that can be searched, a global variable for instance
        strangers = [leaf for leaf in _leaves(case) if id(leaf) not in known]
        hidden = [f"a tensor {tuple(leaf.shape)} from outside the model" for leaf in strangers]
    if hidden:
        meaning = "layers in a Python list or dict, a tensor without nn.Parameter, or a class that is no nn.Module"
        advice = "use nn.ModuleList, nn.ModuleDict and nn.Parameter, assigned to attributes of an nn.Module"
        raise Failure(f"not in model.parameters(): {listed(hidden)}", meaning, advice, hidden=hidden)
    parameters = list(case.model.parameters())
    if not parameters:
        advice = "call super().__init__() first, and assign layers to self"
        raise Failure("the model has no parameters", "its layers were never registered", advice)
    aside = f"; plain tensors, neither learned nor saved: {listed(plain)}" if plain else ""
    count = sum(map(Tensor.numel, parameters))
    return f"{count:,} parameters in {len(parameters)} tensors{aside}", {"parameters": count, "plain": plain}


def _leaves(case: Case) -> list[Tensor]:
    """The tensors that gradients of the logits end in; none if the model does not run."""
    try:
        case.model.eval()
        output = case.forward(case.images[:2])
    except Exception:
        return []
    waiting, seen, leaves = deque([getattr(output, "grad_fn", None)]), set(), []
    while waiting:
        node = waiting.popleft()
        if node is not None and node not in seen:
            seen.add(node)
            leaves += [node.variable] if hasattr(node, "variable") else []
            waiting += [following for following, _ in node.next_functions]
    return leaves


def modes(case: Case) -> Outcome:
    """train() and eval() reach every layer."""
    case.model.train()
    asleep = [name or "the model" for name, layer in case.model.named_modules() if not layer.training]
    case.model.eval()
    awake = [name or "the model" for name, layer in case.model.named_modules() if layer.training]
    if awake:
        meaning = "train() or eval() is overridden and does not pass the mode on: dropout stays active when measuring"
        advice = "in an overridden train(self, mode=True) call super().train(mode) and return self"
        raise Failure(f"eval() leaves {listed(awake)} in training mode", meaning, advice, layers=awake)
    aside = f"; train() leaves {listed(asleep)} in eval mode" if asleep else ""
    given = "train" if case.original.training else "eval"
    return f"eval() reaches every layer (it came in {given} mode){aside}", {"stay_in_eval": asleep, "given": given}


def repeatable(case: Case) -> Outcome:
    """Two passes in eval mode agree, and leave the pictures alone."""
    images = case.noise(case.probes)
    case.model.eval()
    given = images.clone()
    with torch.no_grad():
        one = case.model(given)
    if not torch.equal(given, images):
        meaning = "an in-place operation (x -= mean, x[...] = 0, relu_) on the input"
        raise Failure("the forward pass changes the pictures it is given", meaning, "write x = x - mean instead")
    apart = relative(case.logits(images) - one, one)
    if apart > SAME_BATCH:
        layer = first_difference(*_twice(case, images, images), rows=case.probes, tolerance=SAME_BATCH)
        meaning = (
            "F.dropout without training=self.training (its default is active), random numbers drawn in forward, or "
            "state that a forward pass changes"
        )
        advice = "pass training=self.training or use nn.Dropout; draw positions once, in __init__"
        evidence = f"two passes in eval mode differ by {apart:.1e} of the largest logit{_at(layer)}"
        raise Failure(evidence, meaning, advice, difference=apart, layer=layer)
    return f"two passes in eval mode agree{_to(apart)}", {"difference": apart}


def neighbours(case: Case) -> Outcome:
    """A picture's logits depend neither on its neighbours in the batch nor on its slot."""
    images = case.noise(case.probes)
    together = case.logits(images)
    slot = relative(case.logits(images.flip(0)).flip(0) - together, together)
    if slot > OTHER_BATCH:
        meaning = "a token or position embedding with a batch axis: every slot of the batch learns its own"
        advice = "make them (1, 1, D) and (1, n, D), and let broadcasting or expand share them"
        evidence = f"turning the batch round changes a picture's logits by {slot:.1e} of the largest"
        raise Failure(evidence + _with_batch_axis(case.model), meaning, advice, slot=slot)
    sizes = (1,) if case.large else (1, 3)
    apart = max(relative(case.logits(images[:size]) - together[:size], together) for size in sizes)
    if apart > OTHER_BATCH:
        layer = first_difference(*_twice(case, images, images[:1]), rows=1, tolerance=OTHER_BATCH)
        meaning = (
            "attention over the batch (nn.MultiheadAttention without batch_first=True), a norm or mean over axis 0, or "
            "a batch norm that uses the batch's statistics in eval mode"
        )
        advice = "check the axis order at that layer; leave track_running_stats on"
        evidence = f"its neighbours change a picture's logits by {apart:.1e} of the largest{_at(layer)}"
        raise Failure(evidence, meaning, advice, neighbours=apart, layer=layer)
    evidence = f"alone or among others, first or last: the same logits{_to(max(apart, slot))}"
    return evidence, {"neighbours": apart, "slot": slot}


def picture_used(case: Case) -> Outcome:
    """Other pictures give other logits, and every part of a picture counts."""
    images = case.noise(case.probes).requires_grad_()
    case.model.eval()
    found = case.forward(images)
    spread = relative(found - found.mean(dim=0), found)
    if spread < SAME_BATCH:
        meaning = (
            "the head reads something that no picture reaches: a class token that never attended to the patches (or, "
            "without batch_first=True, to those of other pictures only), the wrong token; or everything is saturated"
        )
        advice = "print the output of each block for two pictures, and see where the difference dies"
        raise Failure(f"different pictures give the same logits (to {spread:.0e})", meaning, advice, spread=spread)
    if not found.requires_grad:
        return f"logits of different pictures differ by {spread:.1e} of the largest", {"spread": spread}
    (gradient,) = torch.autograd.grad((found * torch.randn_like(found)).sum(), images, allow_unused=True)
    if gradient is None:
        return f"logits of different pictures differ by {spread:.1e} of the largest", {"spread": spread}
    seen = gradient.ne(0).any(dim=0)  # (c, H, W)
    blind = [i for i, channel in enumerate(seen.flatten(1).any(dim=1).tolist()) if not channel]
    blocks = nn.functional.adaptive_max_pool2d(seen.any(dim=0)[None, None].float(), min(4, *seen.shape[1:]))
    share = blocks.mean().item()
    if blind or share < 0.8:
        what = f"channel {listed(list(map(str, blind)))}" if blind else f"{1 - share:.0%} of the picture's area"
        meaning = (
            "the head reads a patch and not the class token or the mean, attention is cut off, or input is cropped"
        )
        advice = "check which token the head reads, and that every patch and channel gets into the first layer"
        raise Failure(f"{what} has no influence on the logits", meaning, advice, spread=spread, area=share)
    evidence = f"logits of different pictures differ by {spread:.1e} of the largest; all parts of a picture count"
    return evidence, {"spread": spread, "area": share}


def positions(case: Case) -> Outcome:
    """Shuffling the patches of a picture changes the logits."""
    rows, columns, how = _patch_sides(case)
    images = case.noise(2)
    height, width = images.shape[2:]
    if (height // rows) * (width // columns) < 2:
        raise Skip(f"one patch of {rows} x {columns} pixels is the whole picture")
    shuffled = _patches_rolled(images, rows, columns)
    apart, rounding = _precise_difference(case, images, shuffled)
    cut = f"{rows} x {columns} pixels, {how}"
    if apart < rounding:
        meaning = (
            "the position embedding is missing, never added, or the same everywhere: the model sees a bag of patches"
        )
        advice = "add a parameter (1, n, D) to the tokens before the first block"
        evidence = f"shuffling the patches ({cut}) leaves the logits as they are (to {apart:.0e} of the largest)"
        raise Failure(evidence, meaning, advice, difference=apart)
    evidence = f"shuffling the patches ({cut}) moves the logits by {apart:.1e} of the largest"
    return evidence, {"difference": apart, "patch_size": [rows, columns]}


def _patches_rolled(images: Tensor, rows: int, columns: int) -> Tensor:
    """Every patch in the place of the one before it, the last in that of the first; a ragged edge stays."""
    b, c, height, width = images.shape
    down, across = height // rows, width // columns
    grid = images[:, :, : down * rows, : across * columns].reshape(b, c, down, rows, across, columns)
    patches = grid.permute(0, 1, 3, 5, 2, 4).flatten(4)  # b c rows columns n
    grid = patches.roll(1, dims=4).unflatten(4, (down, across)).permute(0, 1, 4, 2, 5, 3)
    shuffled = images.clone()
    shuffled[:, :, : down * rows, : across * columns] = grid.reshape(b, c, down * rows, across * columns)
    return shuffled


def _precise_difference(case: Case, one: Tensor, other: Tensor) -> tuple[float, float]:
    """How far the logits of two batches lie apart, and what could be rounding.

    With small initial weights positions may have very little say at first, 1e-5 of the largest logit, where float32
    has rounding of 1e-7 to 1e-6. Then float64 decides, which is much slower, so only then.
    """
    given, first = case.model, case.logits(one)
    apart = relative(case.logits(other) - first, first)
    if apart > 1e-4:
        return apart, 1e-4
    try:
        case.model = copy.deepcopy(given).double()
        first = case.logits(one.double())
        return relative(case.logits(other.double()) - first, first), 1e-11
    except Exception:  # float32 is written into the model, or the device has no float64
        return apart, 2e-6
    finally:
        case.model = given


def _patch_sides(case: Case) -> tuple[int, int, str]:
    """Height and width of a patch, and how we know."""
    size = case.patch_size
    if size is not None:
        return (size, size, "given") if isinstance(size, int) else (*size, "given")
    for layer in case.model.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == case.images.shape[1] and max(layer.stride) > 1:
            (height, width), (down, across) = layer.kernel_size, layer.stride
            if (height, width) == (down, across):
                return height, width, "from the first convolution"
    size = getattr(case.model, "patch_size", None)
    if isinstance(size, int):
        return size, size, "from the model"
    return max(1, case.images.shape[2] // 2), max(1, case.images.shape[3] // 2), "quarters of the picture"


def probabilities(case: Case) -> Outcome:
    """The logits are raw: not probabilities, and not cut off."""
    found = case.logits(case.noise(case.probes))
    low, high = found.min().item(), found.max().item()
    measured = {"min": low, "max": high}
    if low >= 0.0 and bool((found.sum(dim=1) - 1).abs().max() < 1e-3):
        what, layer = "the outputs are probabilities: each row sums to 1", "a softmax in the model"
    elif low == 0.0:
        what, layer = "no output is negative, some are exactly 0", "a ReLU behind the head"
    elif low >= 0.0 and high <= 1.0 and _always_in_unit_range(case):
        what, layer = f"all outputs lie in 0..1: {low:.2g} to {high:.2g}", "a sigmoid in the model"
    else:
        return f"from {low:.2g} to {high:.2g}, rows do not sum to 1", measured
    advice = "return the head's output as it is: cross_entropy takes logits, and applies log-softmax itself"
    raise Failure(what, f"{layer}; the loss cannot come near 0, and gradients are squashed", advice, **measured)


def _always_in_unit_range(case: Case, draws: int = 15) -> bool:
    """Whether outputs stay in 0..1 with other weights: two small logits of a new head lie there by chance, now and
    then."""
    given = case.model
    try:
        for _ in range(draws):
            case.model = case.fresh_copy()
            wake(case.model, case.noise(case.probes))
            found = case.logits(case.noise(case.probes))
            if found.min() < 0 or found.max() > 1:
                return False
        return True
    finally:
        case.model = given


def _twice(case: Case, first: Tensor, second: Tensor) -> tuple[nn.Module, Any, Any]:
    return case.model, lambda: case.logits(first), lambda: case.logits(second)


def _to(difference: float) -> str:
    return f" to {difference:.0e} of the largest" if difference else " to the last bit"


def _at(layer: str) -> str:
    return f", first at the output of {layer}" if layer else ""
