"""Check of exercise 11: what happens to one batch.

The student's function trains a small linear model whose gradients are known, with an optimizer that notes which
gradients it is given: so each line of the step shows by itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscratch.exercises.checks.compare import say
from vitscratch.exercises.checks.naming import bank, problem
from vitscratch.exercises.checks.spies import (
    NLL_OF_LOGITS,
    NLL_OF_PROBABILITIES,
    SWAPPED,
    SpiedModel,
    SpiedSGD,
    close,
    gradients,
    is_number,
    is_swapped_cross_entropy,
    seeded,
    weights,
)
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem

# How a student makes the same case.
CASE = (
    "torch.manual_seed(0); model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)); images = 3 * torch.randn(7, 1, 2, 3); "
    "labels = torch.arange(7) % 3; optimizer = torch.optim.SGD(model.parameters(), lr=0.1)"
)
RATE, NO_CLIP, CLIP = 0.1, 1e6, 0.25

MISTAKES = bank(
    Mistake(
        "tr_stays_eval",
        "You leave the model in eval mode while it is trained; it should be in train mode.",
        "mode",
        (
            "In which mode is a model that was just evaluated?",
            "evaluate() may leave the model in eval mode; dropout is off then, and BatchNorm learns nothing.",
            "Call model.train() in every step, before the forward pass.",
        ),
    ),
    Mistake(
        "ts_puts_eval",
        "You put the model into eval mode; training should run in train mode.",
        "mode",
        (
            "What do dropout and BatchNorm do in each of the two modes?",
            "eval() is for measuring; training needs train() before the forward pass.",
        ),
    ),
    Mistake(
        "ts_softmax_first",
        "You apply softmax before the cross-entropy, which applies it itself; it should get the logits.",
        "loss",
        (
            "What does F.cross_entropy expect: logits or probabilities?",
            "It computes log softmax of what it is given. Of probabilities, all between 0 and 1, the softmax is nearly "
            "flat, so the loss cannot become small.",
            "Give it the model's output as it is.",
        ),
    ),
    Mistake(
        "ts_sum",
        "You sum the loss over the batch; it should be the mean.",
        "loss",
        (
            "What happens to your gradient if every picture is in the batch twice?",
            "A sum grows with the batch, so the right learning rate depends on the batch size.",
            'Use reduction="mean", which is what F.cross_entropy does by itself.',
        ),
    ),
    Mistake(
        "ts_divided_twice",
        "You divide the mean loss by the batch size once more; it should stay the mean.",
        "loss",
        (
            "How large is your loss for a model that guesses? It should be ln(classes).",
            "F.cross_entropy has divided by the number of pictures already.",
        ),
    ),
    NLL_OF_LOGITS,
    NLL_OF_PROBABILITIES,
    Mistake(
        "ts_softmax_over_batch",
        "Your softmax runs over the pictures of the batch; it should run over the classes.",
        "loss",
        (
            "Over which axis do the probabilities of one picture sum to one?",
            "Logits are (b, classes): axis 1 is the classes.",
        ),
    ),
    Mistake(
        "ts_bce",
        "You score every class by itself (binary cross-entropy); one softmax should run over all classes.",
        "loss",
        (
            "How many classes can a picture have at once?",
            "Sigmoids are for labels that do not exclude each other; here exactly one class is right.",
        ),
    ),
    Mistake(
        "ts_mse",
        "Your loss is a squared error; it should be the cross-entropy.",
        "loss",
        (
            "Which loss does the equation in the exercise give?",
            "Minus the logarithm of the probability that the softmax gives the label.",
        ),
    ),
    SWAPPED,
    Mistake(
        "ts_no_graph",
        "Your loss has no connection to the weights; autograd should be able to follow it back to them.",
        "gradients",
        (
            "What makes torch forget how a tensor was computed?",
            "no_grad, detach, item and argmax do, and inference_mode; between the images and the loss none may stand.",
        ),
    ),
    Mistake(
        "ts_no_backward",
        "You do not call backward(), so the loss gives no gradients; it should be called in every step.",
        "gradients",
        (
            "Where do the numbers in parameter.grad come from?",
            "loss.backward() computes them; the optimizer only reads them.",
        ),
    ),
    Mistake(
        "ts_zero_before_step",
        "You delete the gradients between backward() and step(); they should be deleted before or after both.",
        "gradients",
        (
            "What does the optimizer find in parameter.grad when it takes its step?",
            "Old gradients are forgotten before backward(), or after step(), never between the two.",
        ),
    ),
    Mistake(
        "tr_zero_grad",
        "You do not forget old gradients, so that the second step uses those of the first, too; it should use its "
        "own alone.",
        "gradients",
        (
            "What does backward() do with gradients that are there already?",
            "It adds to them.",
            "Call optimizer.zero_grad() in every step, before backward() or after step().",
        ),
    ),
    Mistake(
        "ts_clip_hard_coded",
        "You clip the gradient to length 1 whatever clip_norm is; it should be clipped to clip_norm.",
        "clipping",
        ("Where does your function use its last argument?", "Pass clip_norm to the clipping."),
    ),
    Mistake(
        "ts_always_rescaled",
        "You make short gradients longer, so that all get the length clip_norm; those that are shorter should stay "
        "as they are.",
        "clipping",
        (
            "What should happen to a gradient that is shorter than clip_norm?",
            "Nothing: the factor clip_norm / |g| is used only where it is below 1.",
        ),
    ),
    Mistake(
        "ts_clip_after_step",
        "You clip the gradients after the step that used them; it should be before.",
        "clipping",
        (
            "Which gradients does the optimizer see?",
            "Clip between backward() and step().",
        ),
    ),
    Mistake(
        "ts_no_clip",
        "Your gradient is not clipped when the optimizer uses it; it should be.",
        "clipping",
        (
            "How long is the gradient when step() runs?",
            "It must exist before it can be clipped, and be clipped before it is used.",
            "nn.utils.clip_grad_norm_, between backward() and step().",
        ),
    ),
    Mistake(
        "ts_clip_by_value",
        "You cut off each number of the gradient; the whole gradient should be scaled by one factor.",
        "clipping",
        (
            "Does your clipped gradient still point into the same direction?",
            "One factor for all numbers keeps the direction: clip_grad_norm_, not clip_grad_value_.",
        ),
    ),
    Mistake(
        "ts_clip_per_parameter",
        "You clip each parameter's gradient by itself; there should be one length for all of them together.",
        "clipping",
        (
            "Of what is |g| the length?",
            "Weight and bias together are one vector: give all parameters to one clip_grad_norm_.",
        ),
    ),
    Mistake(
        "ts_step_before_backward",
        "You take the optimizer's step before this batch has gradients; it should come after backward().",
        "update",
        (
            "Which gradients does step() use: this batch's, or the last one's?",
            "First backward(), then step().",
        ),
    ),
    Mistake(
        "ts_no_step",
        "You never take the optimizer's step, so the weights stay as they are; they should change.",
        "update",
        ("Who changes the weights?", "backward() computes gradients; optimizer.step() uses them."),
    ),
    Mistake(
        "ts_two_steps",
        "You take more than one step of the optimizer for a batch; it should be one.",
        "update",
        ("How often does your code call optimizer.step()?", "Once for each call of train_step."),
    ),
    Mistake(
        "ts_own_update",
        "You change the weights by something else than optimizer.step(); only it should change them.",
        "update",
        (
            "What else in your code writes to the weights?",
            "The rule of the update belongs to the optimizer: AdamW's is not w - lr * g.",
        ),
    ),
    Mistake(
        "ts_returns_nothing",
        "You return nothing; it should be the loss, as a number.",
        "what is returned",
        ("What does a Python function return that has no return?", "Return the loss, as a number: loss.item()."),
    ),
    Mistake(
        "pf_loss_tensor",
        "You return the loss with its graph; it should be a plain number.",
        "what is returned",
        (
            "What does the returned tensor hold on to?",
            "Whoever adds up such losses over an epoch keeps every step's activations in memory.",
            "Return loss.item().",
        ),
    ),
    Mistake(
        "ts_loss_after_step",
        "You return the loss as it is after the step; it should be the one that was trained on.",
        "what is returned",
        (
            "Which weights made the logits of the loss that you return?",
            "Return the loss of the forward pass that was trained on; a second one costs time and says something else.",
        ),
    ),
)

# What is said where nobody foresaw the mistake: the step is known, the name is not.
OTHERWISE = {
    "not asked": Mistake(
        "",
        "The model is never called.",
        "loss",
        ("Where do your logits come from?", "The loss begins with model(images)."),
    ),
    "other images": Mistake(
        "",
        "The model is called with something else than the batch.",
        "loss",
        ("What does your code do to the images?", "Give the model all of them, unchanged."),
    ),
    "loss": Mistake(
        "",
        "The loss is not the cross-entropy of this batch.",
        "loss",
        (
            "Compute your loss by hand for one picture.",
            "It is the mean over the batch of minus log softmax at the label, and nothing else.",
        ),
    ),
    "gradients": Mistake(
        "",
        "The optimizer uses other gradients than those of this batch's loss.",
        "gradients",
        (
            "Print parameter.grad just before optimizer.step().",
            "Forget old gradients, one backward(), and nothing else that writes to parameter.grad.",
        ),
    ),
    "clipping": Mistake(
        "",
        "The gradient is not clipped to clip_norm.",
        "clipping",
        ("What is |g| before and after your clipping?", "g is multiplied with clip_norm / |g|, if that is below 1."),
    ),
    "returned": Mistake(
        "",
        "What is returned is not a number.",
        "what is returned",
        ("What does float(...) say of what you return?", "Return loss.item()."),
    ),
    "value": Mistake(
        "",
        "The returned number is not the loss of this batch.",
        "what is returned",
        ("Print the loss before backward().", "Return the loss on which backward() was called."),
    ),
}

# Losses that people write instead, of logits and labels.
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
WRONG_LOSSES: tuple[tuple[str, Loss], ...] = (
    ("ts_softmax_first", lambda logits, labels: F.cross_entropy(logits.softmax(dim=1), labels)),
    ("ts_sum", lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum")),
    ("ts_divided_twice", lambda logits, labels: F.cross_entropy(logits, labels) / len(labels)),
    ("ts_nll_of_logits", F.nll_loss),
    ("ts_nll_of_probabilities", lambda logits, labels: F.nll_loss(logits.softmax(dim=1), labels)),
    ("ts_softmax_over_batch", lambda logits, labels: F.nll_loss(logits.log_softmax(dim=0), labels)),
    ("ts_bce", lambda logits, labels: F.binary_cross_entropy_with_logits(logits, _one_hot(logits, labels))),
    ("ts_mse", lambda logits, labels: F.mse_loss(logits, _one_hot(logits, labels))),
    ("ts_mse", lambda logits, labels: F.mse_loss(logits.softmax(dim=1), _one_hot(logits, labels))),
)


def check(student: ModuleType) -> Iterator[Outcome]:
    """What is right in `train_step`, until the first thing that is wrong."""
    try:
        for probe in (_mode, _loss, _gradients, _clipping, _update, _returned):
            outcome = probe(student.train_step)
            if isinstance(outcome, Problem) and probe is not _mode:
                call = f"train_step(model, images, labels, optimizer, {CLIP if probe is _clipping else NO_CLIP:.10g})"
                outcome = replace(outcome, evidence=f"{outcome.evidence}. Try it: {CASE}; {call}")
            yield outcome
            if isinstance(outcome, Problem):
                return
    except Exception as error:
        if is_swapped_cross_entropy(error):
            yield problem(SWAPPED, f"cross_entropy got whole numbers first, and failed: {error}")
        elif "does not require grad" in str(error):
            yield problem(MISTAKES["ts_no_graph"], f"backward() failed: {error}")
        else:
            raise


class Case:
    """The model, the batch and the optimizer of `CASE`, and what a function does with them."""

    def __init__(self) -> None:
        with seeded():
            self.model = SpiedModel(nn.Flatten(), nn.Linear(6, 3))
            self.images = 3 * torch.randn(7, 1, 2, 3)
        self.labels = torch.arange(7) % 3
        self.optimizer = SpiedSGD(self.model, RATE)

    def run(self, train_step: Callable[..., Any], clip_norm: float) -> Any:
        """One step; the student may do to the batch what they like."""
        return train_step(self.model, self.images.clone(), self.labels.clone(), self.optimizer, clip_norm)

    def loss(self) -> Tensor:
        """Of the batch, for the weights as they are."""
        with torch.enable_grad():
            return F.cross_entropy(self.model.logits(self.images), self.labels)

    def gradient(self) -> Tensor:
        """Of that loss by all weights, in one vector."""
        parts = torch.autograd.grad(self.loss(), list(self.model.parameters()))
        return torch.cat([part.flatten() for part in parts])


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    return F.one_hot(labels, logits.shape[1]).to(logits.dtype)


def _mode(train_step: Callable[..., Any]) -> Outcome:
    seen = {}
    for given in (False, True):
        case = Case()
        with seeded():
            layers = (nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))
            case.model = SpiedModel(*layers).train(given)
            case.optimizer = SpiedSGD(case.model, RATE)
            case.run(train_step, NO_CLIP)
        if not case.model.calls:
            return problem(OTHERWISE["not asked"], "during train_step, model.forward ran 0 times")
        calls = [call for call in case.model.calls if call.gradients] or case.model.calls
        seen[given] = all(all(call.modes) for call in calls)
    if all(seen.values()):
        return Passed("in the forward pass every layer is in train mode, also when the model came in eval mode")
    name, before = ("tr_stays_eval", "eval") if seen[True] else ("ts_puts_eval", "train")
    return problem(
        MISTAKES[name],
        f"a model with nn.BatchNorm1d and nn.Dropout, after model.{before}(): in the forward pass of train_step "
        "their .training was False",
    )


def _loss(train_step: Callable[..., Any]) -> Outcome:
    case = Case()
    case.run(train_step, NO_CLIP)
    calls = [call for call in case.model.calls if call.gradients]  # several, if the batch is taken in pieces
    images, logits = (
        torch.cat([getattr(call, what) for call in calls or case.model.calls]) for what in ("images", "logits")
    )
    if not close(images, case.images):
        given = f"images of shape {tuple(images.shape)} between {images.min():.4f} and {images.max():.4f}"
        batch = f"{tuple(case.images.shape)} between {case.images.min():.4f} and {case.images.max():.4f}"
        return problem(OTHERWISE["other images"], f"the model was given {given}; the batch was {batch}")
    if not calls:
        return problem(MISTAKES["ts_no_backward"], "no gradient reached the logits during train_step")
    found = torch.cat([call.gradients[0] for call in calls])
    expected = _gradient_by_logits(F.cross_entropy, logits, case.labels)
    if close(found, expected):
        return Passed("the gradient that reaches the logits is that of the mean cross-entropy: (softmax - one-hot) / b")
    worst = int((found - expected).abs().amax(dim=1).argmax())
    evidence = f"gradient of your loss by the logits of images[{worst}]: [{say(found[worst])}]; of the mean "
    evidence += f"cross-entropy: [{say(expected[worst])}]"
    for name, loss in WRONG_LOSSES:
        if close(found, _gradient_by_logits(loss, logits, case.labels)):
            return problem(MISTAKES[name], evidence)
    return problem(OTHERWISE["loss"], evidence)


def _gradient_by_logits(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = logits.clone().requires_grad_()
        return torch.autograd.grad(loss(leaf, labels), leaf)[0]


def _gradients(train_step: Callable[..., Any]) -> Outcome:
    case = Case()
    before, first = weights(case.model), case.gradient()
    case.run(train_step, NO_CLIP)
    if not case.optimizer.used:
        moved = not close(before, weights(case.model))
        return problem(MISTAKES["ts_own_update" if moved else "ts_no_step"], "optimizer.step ran 0 times")
    events = [event for event in case.model.events if event in ("backward", "step")]
    if events[0] == "step":
        return problem(MISTAKES["ts_step_before_backward"], f"what ran, in order: {', '.join(events)}")
    used = case.optimizer.used[0]
    if used is None or not used.any():
        return problem(
            MISTAKES["ts_zero_before_step"],
            f"|g| was {first.norm():.4f} after backward(), and 0 when step() ran",
        )
    lengths = f"clip_norm {NO_CLIP:,.0f}: |g| is {first.norm():.4f}; step() used {used.norm():.4f}"
    if not close(used, first):
        parallel = close(used / used.norm(), first / first.norm())
        for name, length in (("ts_clip_hard_coded", 1.0), ("ts_always_rescaled", NO_CLIP)):
            if parallel and close(used.norm(), length):
                return problem(MISTAKES[name], lengths)
        return problem(OTHERWISE["gradients"], lengths)
    steps, second = len(case.optimizer.used), case.gradient()
    case.run(train_step, NO_CLIP)
    used = case.optimizer.used[steps] if len(case.optimizer.used) > steps else None
    if used is not None and close(used, second):
        return Passed("in two steps on the same batch, the optimizer uses the gradients of the loss, and no older ones")
    evidence = f"clip_norm {NO_CLIP:,.0f}, the second step: |g| is {second.norm():.4f}; step() used "
    evidence += f"{0.0 if used is None else used.norm():.4f}"
    if used is not None and close(used, first + second):
        evidence += f", the length of the sum of both steps' gradients ({first.norm():.4f} the first)"
        return problem(MISTAKES["tr_zero_grad"], evidence)
    return problem(OTHERWISE["gradients"], evidence)


def _clipping(train_step: Callable[..., Any]) -> Outcome:
    case = Case()
    gradient = case.gradient()
    case.run(train_step, CLIP)
    used = case.optimizer.used[0]
    assert used is not None
    scaled = gradient * CLIP / gradient.norm()
    if close(used, scaled, 1e-3):  # clip_grad_norm_ adds 1e-6 to the length
        return Passed("a gradient longer than clip_norm is scaled to clip_norm; a shorter one stays as it is")
    evidence = f"clip_norm {CLIP}: |g| is {gradient.norm():.4f}; step() used |g| = {used.norm():.4f}"
    pieces = gradient.split([parameter.numel() for parameter in case.model.parameters()])
    apart = torch.cat([piece * min(1.0, CLIP / float(piece.norm())) for piece in pieces])
    if close(used, gradient):
        after = gradients(case.model)
        if after is not None and close(after, scaled, 1e-3):
            return problem(MISTAKES["ts_clip_after_step"], f"{evidence}; after step() it was {after.norm():.4f}")
        return problem(MISTAKES["ts_no_clip"], evidence)
    if close(used, gradient.clamp(-CLIP, CLIP)):
        return problem(MISTAKES["ts_clip_by_value"], f"{evidence}; its largest number is {used.abs().max():.4f}")
    if close(used, apart, 1e-3):
        lengths = say(torch.stack([piece.norm() for piece in used.split([len(piece) for piece in pieces])]))
        return problem(MISTAKES["ts_clip_per_parameter"], f"{evidence}; of weight and bias: {lengths}")
    return problem(OTHERWISE["clipping"], evidence)


def _update(train_step: Callable[..., Any]) -> Outcome:
    case = Case()
    before = weights(case.model)
    case.run(train_step, NO_CLIP)
    if (steps := len(case.optimizer.used)) != 1:
        return problem(MISTAKES["ts_two_steps"], f"optimizer.step ran {steps} times in one train_step")
    used, moved = case.optimizer.used[0], weights(case.model) - before
    assert used is not None
    if close(moved, -RATE * used, 1e-3):
        return Passed("one step of the optimizer, and nothing else, changes the weights")
    evidence = f"the weights moved by {moved.norm():.4f}; lr * |g| is {RATE * used.norm():.4f}"
    return problem(MISTAKES["ts_own_update"], evidence)


def _returned(train_step: Callable[..., Any]) -> Outcome:
    case = Case()
    loss = float(case.loss().detach())
    returned = case.run(train_step, NO_CLIP)
    if isinstance(returned, tuple | list) and returned:
        returned = returned[0]  # the loss, and more that somebody wanted to know
    if returned is None:
        return problem(MISTAKES["ts_returns_nothing"], f"train_step(...) is None; the loss is {loss:.4f}")
    if isinstance(returned, Tensor) and returned.requires_grad:
        return problem(MISTAKES["pf_loss_tensor"], f"what comes back has grad_fn {returned.grad_fn}")
    if not is_number(returned):
        return problem(OTHERWISE["returned"], f"train_step(...) is a {type(returned).__name__}")
    value = float(returned)
    evidence = f"returned {value:.4f}; the loss is {loss:.4f}"
    if close(value, loss, 1e-3):
        remark = " (as a tensor: .item() makes it a number)" if isinstance(returned, Tensor) else ""
        return Passed(f"the loss of the batch is returned, without its graph{remark}")
    if close(value, case.loss().detach(), 1e-3):
        return problem(MISTAKES["ts_loss_after_step"], f"{evidence}, and {value:.4f} after the step")
    return problem(OTHERWISE["value"], evidence)
