"""Checks of what the model can learn."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscratch.training.aside import set_gradients
from vitscratch.training.doctor.batch_checks import contradictions, label_entropy
from vitscratch.training.doctor.case import Case, Failure, Outcome, Skip, listed, one_line, steady_mode
from vitscratch.training.optimizer import adamw

CLOSE_TO_ZERO = 0.05  # of the loss that can be reached without looking at the pictures
BUDGET = {"cpu": 1e12, "mps": 1e13}  # FLOP for learning a batch by heart: some seconds. Other devices: 3e13
ENOUGH_STEPS = 80  # a sound model needs 10 to 60
SURE_AND_WRONG = 3.0  # nats above guessing; sound models without a zero head start with up to 2.4
RATES = (1e-3, 1e-2, 1e-4)  # one that suits; a very small model needs the second, a deep one without norms the third


def first_loss(case: Case) -> Outcome:
    """Before training, the loss is about that of guessing: ln(classes)."""
    chosen = _chosen(case.labels, 3 if case.large else 16)
    with torch.no_grad():
        steady_mode(case.model)
        logits = case.forward(case.images[chosen])
    loss = F.cross_entropy(logits, case.labels[chosen]).item()
    assert case.num_classes is not None
    guess = math.log(case.num_classes)
    measured = {"loss": loss, "guess": guess, "logits_std": logits.std().item(), "pictures": len(chosen)}
    evidence = f"{loss:.3f} nats; guessing one of {case.num_classes} classes costs ln {case.num_classes} = {guess:.3f}"
    if loss > guess + SURE_AND_WRONG:
        meaning = (
            "a head whose initial weights are too large, pictures that are not normalised, or a pretrained head whose "
            "classes are in another order: the model starts out sure, and wrong"
        )
        advice = "start the head at 0 (or with std 0.02), normalise the pictures, and compare the class order"
        raise Failure(f"{evidence}; logits have std {measured['logits_std']:.2g}", meaning, advice, **measured)
    return evidence + ("; it knows something already" if loss < guess - 0.5 else ""), measured


def gradients(case: Case) -> Outcome:
    """Every parameter gets a gradient that is not zero."""
    named = dict(case.model.named_parameters())
    total, frozen = len(named), [name for name, parameter in named.items() if not parameter.requires_grad]
    unused = "mask_token"  # of masked pretraining: part of the checkpoint, no part of the classifier
    named = {name: p for name, p in named.items() if p.requires_grad and not name.endswith(unused)}
    if not named:
        advice = "set requires_grad_(True) on what is to learn, for instance the new head"
        raise Failure(f"all {total} parameters are frozen", "requires_grad_(False) on the whole model", advice)
    best: dict[str, Tensor] = {}
    for _ in range(4 if case.large else 12):  # draws: with stochastic depth a layer may be left out now and then
        for name, gradient in _gradients(case, named).items():
            if gradient is not None and (name not in best or gradient.any()):
                best[name] = gradient
        if len(best) == len(named) and all(gradient.any() for gradient in best.values()):
            break
    if wild := [name for name, gradient in best.items() if not gradient.isfinite().all()]:
        advice = "vitscratch.training.first_nonfinite(model, images, labels) says where it begins"
        raise Failure(f"the gradient of {listed(wild)} is nan or infinite", "sqrt or a norm at 0, or 0 / 0", advice)
    advice = "follow the tensor from the last of these to the logits, and find where its path ends"
    if missing := [name for name in named if name not in best]:
        meaning = "detach(), torch.no_grad(), .data or NumPy in the forward pass, or a layer that is never used"
        evidence = f"no gradient reaches {listed(missing)} ({len(missing)} of {len(named)})"
        raise Failure(evidence, meaning, advice, missing=missing)
    if zero := [name for name, gradient in best.items() if not gradient.any()]:
        meaning = "dead units (every input of a ReLU negative), a product with 0, or a constant that a norm removes"
        evidence = f"the gradient of {listed(zero)} is exactly 0 ({len(zero)} of {len(named)})"
        raise Failure(evidence, meaning, advice, zero=zero)
    aside = f"; frozen: {listed(frozen)} ({len(frozen)} of {total})" if frozen else ""
    return f"all {len(named)} trainable parameter tensors get one{aside}", {"trainable": len(named), "frozen": frozen}


def _gradients(case: Case, named: dict[str, nn.Parameter]) -> dict[str, Tensor | None]:
    """Of the loss of a few noise pictures, in train mode."""
    images = case.noise(case.probes)
    assert case.num_classes is not None
    labels = torch.arange(len(images), device=images.device) % case.num_classes
    try:
        case.model.train()
        loss = F.cross_entropy(case.forward(images), labels)
    except Exception as error:
        meaning = "train mode returns something else than eval mode, or needs more pictures than it gets"
        advice = "return logits in both modes; auxiliary outputs need a training loop of their own"
        raise Failure(f"a pass in train mode fails with {one_line(error)}", meaning, advice) from error
    if not loss.requires_grad:
        return dict.fromkeys(named)
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True))


def overfits(case: Case) -> Outcome:
    """A few pictures are learned by heart: their loss comes near to 0."""
    pictures, steps = _size(case)
    chosen = _chosen(case.labels, pictures)
    torn = {other for _, other in contradictions(case.images[chosen], case.labels[chosen])}
    chosen = chosen[[number for number in range(len(chosen)) if number not in torn]]
    images, labels = case.images[chosen], case.labels[chosen]
    blind = label_entropy(labels)
    if blind == 0.0:
        raise Skip("the pictures have one label only: the loss would fall without looking at them")
    curves: dict[float, list[float]] = {}
    for rate in RATES:
        curves[rate] = _learn(case, images, labels, rate, steps, stop=CLOSE_TO_ZERO * blind)
        first, last = curves[rate][0], min(curves[rate])
        short = case.steps is None and steps < ENOUGH_STEPS and last < 0.75 * first
        if last <= CLOSE_TO_ZERO * blind or short:
            break
    rate, best = min(curves.items(), key=lambda item: min(item[1]))
    first, last = best[0], min(best)
    flops = 3 * len(chosen) * sum(map(len, curves.values())) * case.picture_flops
    case.notes.append(
        f"learned {len(chosen)} of {len(case.labels)} pictures for {len(best)} steps ({flops / 1e9:,.3g} GFLOP)"
    )
    measured = {"losses": best, "blind": blind, "pictures": len(chosen), "steps": len(best), "learning_rate": rate}
    evidence = f"loss {first:.3f} to {last:.3f} in {len(best)} steps on {len(chosen)} pictures"
    if last <= CLOSE_TO_ZERO * blind:
        return evidence, measured
    if short:
        return f"{evidence}; reaching 0 takes more, left out as too slow here (steps={ENOUGH_STEPS} does it)", measured
    stuck = "no better than guessing without looking" if last > 0.9 * blind else "better than guessing, but stuck"
    meaning = (
        "the model, not the amount of data, is to blame: gradients do not reach the weights, residual connections or "
        "norms are missing, outputs are squashed; or the pictures' values or labels make no sense"
    )
    advice = "mend the failures above first; then remove parts until it learns, and add them back one by one"
    raise Failure(f"{evidence}; {stuck} ({blind:.3f})", meaning, advice, **measured)


def _learn(case: Case, images: Tensor, labels: Tensor, rate: float, steps: int, stop: float) -> list[float]:
    """Train a fresh copy without dropout, and return its losses."""
    case.model = model = steady_mode(case.fresh_copy())
    optimizer = adamw(model, rate, 0.0)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    losses: list[float] = []
    while len(losses) < steps:
        loss = F.cross_entropy(model(images.clone()), labels)
        losses.append(loss.item())
        if not stop < losses[-1] < math.inf:  # nan, too
            break
        set_gradients(loss, parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return losses


def _size(case: Case) -> tuple[int, int]:
    """Pictures and steps within the budget: as many pictures as leave enough steps."""
    budget = BUDGET.get(case.images.device.type, 3e13)

    def affordable(pictures: int) -> int:
        return int(budget / (3 * pictures * max(case.picture_flops, 1)))  # forwards once, backwards twice

    pictures = next((n for n in (16, 8, 4) if affordable(n) >= ENOUGH_STEPS), 2)
    return pictures, case.steps or max(5, min(2 * ENOUGH_STEPS, affordable(pictures)))


def _chosen(labels: Tensor, pictures: int) -> Tensor:
    """Indices of a few pictures, of as many different classes as possible."""
    taken: dict[int, int] = {}
    turns = []
    for label in labels.tolist():
        turns.append(taken.setdefault(label, 0))  # the first, second, ... of its class
        taken[label] += 1
    order = sorted(range(len(turns)), key=lambda i: turns[i])
    return torch.tensor(sorted(order[:pictures]), device=labels.device)
