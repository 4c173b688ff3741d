"""Exercise 11: what the check says of right steps, differently written, and of wrong ones."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.students import answer, assert_right, assert_wrong, changed, module
from vitscratch.exercises.checks import train_step
from vitscratch.exercises.checks.train_step import CASE, MISTAKES, OTHERWISE

NAME = "train_step"
RIGHT = answer(NAME)
ZERO, LOSS, BACKWARD = "    optimizer.zero_grad()\n", "F.cross_entropy(model(images), labels)", "    loss.backward()\n"
CLIP, STEP = "    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)\n", "    optimizer.step()\n"
TRAIN, RETURN = "    model.train()\n", "    return loss.item()\n"

VARIANTS = {
    "as it is": (),
    "set to zero": (ZERO, "    optimizer.zero_grad(set_to_none=False)\n"),
    "the model's zero_grad": (ZERO, "    model.zero_grad()\n"),
    "zero_grad before backward": (ZERO, "", BACKWARD, ZERO + BACKWARD),
    "zero_grad after step": (ZERO, "", STEP, STEP + ZERO),
    "zero_grad by hand": (ZERO, "    for parameter in model.parameters():\n        parameter.grad = None\n"),
    "loss module": (LOSS, "nn.CrossEntropyLoss()(model(images), labels)"),
    "log_softmax": (LOSS, "F.nll_loss(F.log_softmax(model(images), dim=-1), labels)"),
    "log_softmax, needlessly": (LOSS, "F.cross_entropy(F.log_softmax(model(images), dim=1), labels)"),
    "by hand": (LOSS, "-model(images).log_softmax(1)[torch.arange(len(labels)), labels].mean()"),
    "logsumexp": (LOSS, "(z := model(images)).logsumexp(1).sub(z.gather(1, labels[:, None])[:, 0]).mean()"),
    "sum divided": (LOSS, 'F.cross_entropy(model(images), labels, reduction="sum") / len(labels)'),
    "one-hot": (LOSS, "F.cross_entropy(model(images), F.one_hot(labels, 3).float())"),
    "float logits": (LOSS, "F.cross_entropy(model(images).float(), labels.long())"),
    "float of detached": (RETURN, "    return float(loss.detach())\n"),
    "detached tensor": (RETURN, "    return loss.detach()\n"),
    "and the accuracy": (RETURN, "    return loss.item(), 0.5\n"),
    "to the device": (LOSS, "F.cross_entropy(model(images.to(next(model.parameters()).device)), labels)"),
    "train last in the head": (TRAIN, "    model.train(True)\n"),
    "retained graph": (BACKWARD, "    loss.backward(retain_graph=True)\n"),
    "autograd.grad": (
        BACKWARD,
        "    parameters = list(model.parameters())\n"
        "    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):\n"
        "        parameter.grad = gradient\n",
    ),
    "clip the optimizer's parameters": (
        CLIP,
        "    held = [p for group in optimizer.param_groups for p in group['params']]\n"
        "    torch.nn.utils.clip_grad_norm_(held, max_norm=clip_norm, error_if_nonfinite=True)\n",
    ),
    "clip by hand": (
        CLIP,
        "    with torch.no_grad():\n"
        "        length = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()\n"
        "        if length > clip_norm:\n"
        "            for p in model.parameters():\n"
        "                p.grad *= clip_norm / length\n",
    ),
    "closure": (
        f"{ZERO}    loss = {LOSS}\n{BACKWARD}{CLIP}{STEP}",
        "    def closure():\n"
        "        optimizer.zero_grad()\n"
        f"        loss = {LOSS}\n"
        "        loss.backward()\n"
        "        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)\n"
        "        return loss\n"
        "    loss = optimizer.step(closure)\n",
    ),
    "in two halves": (
        f"    loss = {LOSS}\n{BACKWARD}",
        "    losses = []\n"
        "    for part in (slice(0, 3), slice(3, None)):\n"
        '        part_loss = F.cross_entropy(model(images[part]), labels[part], reduction="sum") / len(labels)\n'
        "        part_loss.backward()\n"
        "        losses.append(part_loss.detach())\n"
        "    loss = sum(losses)\n",
    ),
    "scaler that is off": (
        BACKWARD + CLIP + STEP,
        "    scaler = torch.amp.GradScaler('cpu', enabled=False)\n    scaler.scale(loss).backward()\n"
        f"    scaler.unscale_(optimizer)\n{CLIP}    scaler.step(optimizer)\n    scaler.update()\n",
    ),
    "another name for the last argument": (
        "clip_norm: float = 1.0",
        "max_norm: float",
        "(), clip_norm",
        "(), max_norm",
    ),
}

WRONG = {
    "tr_stays_eval": [
        (TRAIN, ""),
        (RETURN, TRAIN + RETURN, TRAIN + ZERO, ZERO),
        (TRAIN, "    model.training = True\n"),
    ],
    "ts_puts_eval": [(TRAIN, "    model.eval()\n")],
    "ts_softmax_first": [(LOSS, "F.cross_entropy(model(images).softmax(dim=1), labels)")],
    "ts_sum": [(LOSS, 'F.cross_entropy(model(images), labels, reduction="sum")')],
    "ts_divided_twice": [(LOSS, LOSS + " / len(images)")],
    "ts_nll_of_logits": [(LOSS, "F.nll_loss(model(images), labels)")],
    "ts_nll_of_probabilities": [(LOSS, "F.nll_loss(model(images).softmax(dim=1), labels)")],
    "ts_softmax_over_batch": [(LOSS, "F.nll_loss(model(images).log_softmax(dim=0), labels)")],
    "ts_bce": [(LOSS, "F.binary_cross_entropy_with_logits(model(images), F.one_hot(labels, 3).float())")],
    "ts_mse": [
        (LOSS, "F.mse_loss(model(images), F.one_hot(labels, 3).float())"),
        (LOSS, "F.mse_loss(model(images).softmax(1), F.one_hot(labels, 3).float())"),
    ],
    "ev_swapped": [(LOSS, "F.cross_entropy(labels, model(images))")],
    "ts_no_graph": [
        (LOSS, "F.cross_entropy(model(images).detach(), labels)"),
        (BACKWARD, "    torch.tensor(loss.item()).backward()\n"),
    ],
    "ts_no_backward": [(BACKWARD, "")],
    "ts_zero_before_step": [(ZERO, "", STEP, ZERO + STEP), (STEP, "    model.zero_grad(set_to_none=False)\n" + STEP)],
    "tr_zero_grad": [(ZERO, ""), (ZERO, "", "    model.train()\n", "    optimizer.zero_grad\n    model.train()\n")],
    "ts_clip_hard_coded": [("(), clip_norm)", "(), 1.0)")],
    "ts_always_rescaled": [
        (
            CLIP,
            "    n = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()\n"
            "    for p in model.parameters():\n        p.grad *= clip_norm / n\n",
        )
    ],
    "ts_clip_after_step": [(CLIP, "", STEP, STEP + CLIP)],
    "ts_no_clip": [
        (CLIP, ""),
        (CLIP, "", STEP, STEP + CLIP + "    optimizer.zero_grad()\n"),
        (CLIP, "", BACKWARD, CLIP + BACKWARD),
    ],
    "ts_clip_by_value": [("clip_grad_norm_(", "clip_grad_value_(")],
    "ts_clip_per_parameter": [
        (CLIP, "    for p in model.parameters():\n        nn.utils.clip_grad_norm_(p, clip_norm)\n")
    ],
    "ts_step_before_backward": [
        (STEP, "", BACKWARD, STEP + BACKWARD),
        (CLIP + STEP, "", BACKWARD, STEP + BACKWARD + CLIP),
    ],
    "ts_no_step": [(STEP, "")],
    "ts_two_steps": [(STEP, STEP + STEP)],
    "ts_own_update": [
        (STEP, "    with torch.no_grad():\n        for p in model.parameters():\n            p -= 0.1 * p.grad\n"),
        (STEP, STEP + "    with torch.no_grad():\n        for p in model.parameters():\n            p *= 0.9\n"),
    ],
    "ts_returns_nothing": [(RETURN, "")],
    "pf_loss_tensor": [(RETURN, "    return loss\n")],
    "ts_loss_after_step": [(RETURN, f"    return {LOSS}.item()\n")],
}

UNLISTED = {
    "not asked": [("model(images)", "torch.zeros(7, 3, requires_grad=True)")],
    "other images": [
        (LOSS, "F.cross_entropy(model(images[:2]), labels[:2])"),
        (LOSS, "F.cross_entropy(model(images / 255), labels)"),
    ],
    "loss": [
        (LOSS, "-" + LOSS),
        (LOSS, "F.cross_entropy(model(images), labels, label_smoothing=0.1)"),
        (LOSS, "F.cross_entropy(model(images), labels.flip(0))"),
        (LOSS, "F.cross_entropy(model(images).relu(), labels)"),
    ],
    "gradients": [
        (BACKWARD, "    loss.backward(retain_graph=True)\n    loss.backward()\n"),
        (BACKWARD, BACKWARD + "    for p in model.parameters():\n        p.grad = p.grad.sign()\n"),
        (ZERO, "    for p in model.parameters():\n        p.grad = None if p.grad is None else p.grad / 2\n"),
    ],
    "clipping": [("clip_norm)", "clip_norm, norm_type=1.0)"), ("(), clip_norm)", "(), clip_norm ** 2)")],
    "returned": [
        (RETURN, "    return f'{loss.item():.3f} nats'\n"),
        (RETURN, "    return f'{loss.item():.3f}'\n"),
        (RETURN, "    return {'loss': loss.item()}\n"),
    ],
    "value": [(RETURN, "    return loss.item() * len(images)\n"), (RETURN, "    return loss.exp().item()\n")],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_right_steps_pass(name: str) -> None:
    assert_right(NAME, changed(RIGHT, *VARIANTS[name]))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_known_mistakes_are_named(mistake: str) -> None:
    for pairs in WRONG[mistake]:
        assert_wrong(NAME, changed(RIGHT, *pairs), mistake, MISTAKES[mistake].step)


@pytest.mark.parametrize("key", OTHERWISE)
def test_other_mistakes_are_localised(key: str) -> None:
    for pairs in UNLISTED[key]:
        problem = assert_wrong(NAME, changed(RIGHT, *pairs), None, OTHERWISE[key].step)
        assert problem.what == OTHERWISE[key].what


def test_of_two_mistakes_the_first_in_the_computation_is_told() -> None:
    assert_wrong(NAME, changed(RIGHT, ZERO, "", TRAIN, ""), "tr_stays_eval")
    assert_wrong(NAME, changed(RIGHT, ZERO, "", RETURN, "    return loss\n"), "tr_zero_grad")
    assert_wrong(NAME, changed(RIGHT, CLIP, "", STEP, STEP + STEP), "ts_no_clip")


def test_numbers_can_be_reproduced() -> None:
    """A student who types the case finds the numbers of the evidence."""
    names = {"torch": torch, "nn": nn}
    with torch.random.fork_rng():
        exec(CASE, names)
    model, images, labels = names["model"], names["images"], names["labels"]
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    length = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
    problem = assert_wrong(NAME, changed(RIGHT, CLIP, ""), "ts_no_clip")
    assert f"|g| is {length:.4f}" in problem.evidence and length > 4 * train_step.CLIP
    problem = assert_wrong(NAME, changed(RIGHT, RETURN, "    return 2 * loss.item()\n"), None)
    assert f"returned {2 * loss:.4f}; the loss is {loss:.4f}" in problem.evidence
    assert problem.evidence.endswith(f"Try it: {CASE}; train_step(model, images, labels, optimizer, 1000000)")


def test_the_loss_after_the_step_can_be_typed() -> None:
    text = changed(RIGHT, *WRONG["ts_loss_after_step"][0])
    problem = assert_wrong(NAME, text, "ts_loss_after_step")
    says, _, typed = problem.evidence.partition(". Try it: ")
    names = {"torch": torch, "nn": nn, **vars(module(text))}
    before, _, call = typed.rpartition("; ")
    with torch.random.fork_rng():
        exec(before, names)
    assert f"returned {eval(call, names):.4f};" in says


def test_a_loss_of_predictions_is_no_swap() -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):  # the runner tells its line
        assert_right(NAME, changed(RIGHT, LOSS, "F.cross_entropy(model(images).argmax(1), labels)"))


def test_students_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError):
        assert_right(NAME, changed(RIGHT, TRAIN, "    1 / 0\n"))
