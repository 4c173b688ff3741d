"""Exercise 12: what the check says of right ways to measure, and of wrong ones."""

from itertools import combinations

import pytest
import torch

from tests.exercises.students import answer, assert_right, assert_wrong, changed
from vitscratch.exercises.checks.evaluate import (
    MISTAKES,
    OTHERWISE,
    accuracies,
    case_values,
    loss_values,
    right_mean,
)

NAME = "evaluate"
RIGHT = answer(NAME)
NO_GRAD, EVAL, BACK = "@torch.no_grad()\n", "    model.eval()\n", "    model.train(was_training)\n"
LOOP, CORRECT, TOTAL = "in batches:\n", "    correct += (logits.argmax(dim=1) == labels).sum().item()\n", "len(labels)"
LOSS = 'F.cross_entropy(logits, labels, reduction="sum").item()'
SUMS, RETURN = "    loss, correct, total = 0.0, 0, 0\n", "    return loss / total, correct / total\n"

# Each batch's means in two lists, to be put together in one way or another.
MEANS = (
    SUMS,
    "    losses, accuracies, sizes = [], [], []\n",
    f"        loss += {LOSS}\n    {CORRECT}        total += len(labels)\n",
    "        losses.append(F.cross_entropy(logits, labels).item())\n"
    "        accuracies.append((logits.argmax(1) == labels).float().mean().item())\n"
    "        sizes.append(len(labels))\n",
)
MEAN_OF = "    return sum(losses) / len(losses), sum(accuracies) / len(accuracies)\n"

# Images in one pass, labels in the next.
TWO_LOOPS = (
    SUMS + "    for images, labels in batches:\n        logits = model(images)\n"
    f"        loss += {LOSS}\n    {CORRECT}        total += len(labels)\n",
    "    logits = torch.cat([model(images) for images, _ in batches])\n"
    "    labels = torch.cat([labels for _, labels in batches])\n"
    "    loss, correct, total = F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean(), 1\n",
)

CONCATENATED = """
@torch.inference_mode()
def evaluate(model, batches):
    was_training = model.training
    model.eval()
    pairs = [(model(images), labels) for images, labels in batches]
    model.train(was_training)
    logits, labels = (torch.cat(each) for each in zip(*pairs))
    return F.cross_entropy(logits, labels).item(), (logits.argmax(-1) == labels).float().mean().item()
"""
IMPORTS = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
WITH = """
def evaluate(model, batches):
    before = {module: module.training for module in model.modules()}
    model.eval()
    criterion = nn.CrossEntropyLoss()
    loss = accuracy = count = 0
    with torch.no_grad():
        for batch in batches:
            images, labels = batch
            outputs = model(images.to(next(model.parameters()).device))
            predicted = torch.max(outputs.softmax(1), 1).indices
            for picture in range(images.size(0)):
                count += 1
                accuracy += int(predicted[picture] == labels[picture])
                loss += criterion(outputs[picture:picture + 1], labels[picture:picture + 1]).item()
    for module, mode in before.items():
        module.training = mode
    return loss / count, accuracy / count
"""
RUNNING = """
@torch.no_grad()
def evaluate(model, batches):
    mode, loss, accuracy, seen = model.training, 0.0, 0.0, 0
    try:
        model.eval()
        for images, labels in batches:
            logits, b = model(images), labels.size(0)
            seen += b
            loss += (F.cross_entropy(logits, labels).item() - loss) * b / seen
            accuracy += ((logits.argmax(1) == labels).double().mean().item() - accuracy) * b / seen
        return [loss, accuracy]
    finally:
        model.train(mode)
"""
OURS = """
from vitscratch.training import evaluate as measure

def evaluate(model, batches):
    metrics = measure(model, batches)
    return metrics.loss, metrics.accuracy
"""

VARIANTS = {
    "as it is": RIGHT,
    "inference_mode": changed(RIGHT, NO_GRAD, "@torch.inference_mode()\n"),
    "all logits together": IMPORTS + CONCATENATED,
    "picture by picture": IMPORTS + WITH,
    "running means with weights": IMPORTS + RUNNING,
    "the library's": OURS,
    "means weighted by batch size": changed(
        RIGHT,
        *MEANS,
        RETURN,
        "    n = sum(sizes)\n    return sum(a * b for a, b in zip(losses, sizes)) / n, "
        "sum(a * b for a, b in zip(accuracies, sizes)) / n\n",
    ),
    "of a copy": changed(RIGHT, EVAL, "    import copy\n    model = copy.deepcopy(model).eval()\n", BACK, ""),
    "tensors": changed(RIGHT, LOSS, 'F.cross_entropy(logits, labels, reduction="sum")', ".sum().item()", ".sum()"),
    "mode back, if it was": changed(RIGHT, BACK, "    if was_training:\n        model.train()\n"),
    "and counts": changed(RIGHT, RETURN, "    return loss / total, correct / total, total\n"),
    "images.shape": changed(RIGHT, TOTAL, "images.shape[0]"),
    "topk": changed(RIGHT, "logits.argmax(dim=1) == labels", "logits.topk(1).indices[:, 0] == labels"),
}

# Pieces of `RIGHT` and what stands there instead.
WRONG: dict[str, list[tuple[str, ...]]] = {
    "ev_train_mode": [(EVAL, ""), (EVAL, "    model.train()\n"), (EVAL, "    model.training = False\n")],
    "tr_stays_eval": [(BACK, ""), (BACK, "    model.training = was_training\n")],
    "ev_always_train": [(BACK, "    model.train()\n")],
    "ev_graph": [(NO_GRAD, ""), (NO_GRAD, "@torch.enable_grad()\n")],
    "pf_loss_tensor": [(NO_GRAD, "", ' reduction="sum").item()', ' reduction="sum")')],
    "ev_grad_left_off": [(NO_GRAD, "", EVAL, EVAL + "    torch.set_grad_enabled(False)\n")],
    "ev_trains": [
        (NO_GRAD, "", LOSS, LOSS + "\n        F.cross_entropy(logits, labels).backward()"),
        (EVAL, EVAL + "    for p in model.parameters():\n        p.mul_(0.99)\n"),
        (NO_GRAD, "", EVAL, EVAL + "    model.requires_grad_(False)\n"),
    ],
    "ev_argmax_axis": [
        ("argmax(dim=1)", "argmax(dim=0)"),
        ("argmax(dim=1)", "argmax(dim=0)", RETURN, "    return loss / total, 100 * correct / total\n"),
    ],
    "ev_metric_object": [
        (
            SUMS,
            "    global loss, correct, total\n",
            "@torch.no_grad()",
            "loss, correct, total = 0.0, 0, 0\n\n@torch.no_grad()",
        )
    ],
    "ev_mean_of_means": [(*MEANS, RETURN, MEAN_OF)],
    "ev_drop_last": [
        (LOOP, "in list(batches)[:-1]:\n"),
        (LOOP, LOOP + "        if len(images) < batches.batch_size:\n            continue\n"),
        (LOOP, "in list(batches)[:-1]:\n", RETURN, "    total = len(batches.dataset)\n" + RETURN),
    ],
    "ev_sum_not_mean": [
        (RETURN, "    return loss / total, correct\n"),
        (RETURN, "    return loss, correct / total\n"),
        (RETURN, "    return loss / total, correct / len(batches)\n"),
        (RETURN, "    return loss / len(batches), correct / total\n"),
        (*MEANS, RETURN, "    return sum(losses), sum(accuracies)\n"),
        (*MEANS, RETURN, "    return sum(losses) / sum(sizes), sum(accuracies) / sum(sizes)\n"),
    ],
    "ev_last_batch": [
        (*MEANS, RETURN, "    return losses[-1], accuracies[-1]\n"),
        (CORRECT, CORRECT.replace("+=", "=")),
        (CORRECT, CORRECT.replace("+=", "="), f"total += {TOTAL}", f"total = {TOTAL}", "loss +=", "loss ="),
    ],
    "ev_first_batch": [(RETURN, "        break\n" + RETURN, BACK + "        break", "        break\n" + BACK)],
    "ev_batch_size_assumed": [(RETURN, "    total = len(batches) * batches.batch_size\n" + RETURN)],
    "ev_two_passes": [
        TWO_LOOPS,
        (LOOP, "in list(batches):\n", EVAL, EVAL + "    next(iter(batches))\n"),
        (SUMS, SUMS + "    total = sum(len(labels) for _, labels in batches)\n", "        total += len(labels)\n", ""),
    ],
    "ev_needs_loader": [
        (RETURN, "    total = len(batches.dataset)\n" + RETURN),
        (LOOP, "in [batches.dataset[:]]:\n"),
        (EVAL, EVAL + "    print(len(batches))\n"),
        (
            f"for images, labels {LOOP}",
            "for (images, _), labels in zip(batches, batches.dataset[:][1].split(batches.batch_size)):\n",
        ),
    ],
    "ts_nll_of_logits": [(LOSS, 'F.nll_loss(logits, labels, reduction="sum").item()')],
    "ts_nll_of_probabilities": [(LOSS, 'F.nll_loss(logits.softmax(1), labels, reduction="sum").item()')],
    "ev_percent": [(RETURN, "    return loss / total, 100 * correct / total\n")],
    "ev_error_rate": [("== labels", "!= labels")],
    "ev_softmax_first": [("F.cross_entropy(logits,", "F.cross_entropy(logits.softmax(dim=1),")],
    "ev_swapped": [("(logits, labels, red", "(labels, logits, red")],
    "ev_results_swapped": [(RETURN, "    return correct / total, loss / total\n")],
    "ev_inference_tensor": [(NO_GRAD, "@torch.inference_mode()\n", ' reduction="sum").item()', ' reduction="sum")')],
    "ev_returns_nothing": [(RETURN, "")],
}

UNLISTED = {
    "not asked": [("model(images)", "torch.zeros(len(labels), 3)")],
    "accuracy": [
        (RETURN, "    return loss / total, round(correct / total)\n"),
        (CORRECT, "    correct += (logits.argmin(dim=1) == labels).sum().item()\n"),
        ("total += len(labels)", "total += logits.numel()"),
        ("    return loss / total, correct / total", "    return loss / total, correct // total"),
        ("    return loss / total, correct / total", "    return loss / total, correct / (total - 1)"),
    ],
    "loss": [
        (RETURN, "    return (loss / total) ** 0.5, correct / total\n"),
        (LOSS, 'F.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1).item()'),
    ],
    "returned": [
        (RETURN, "    return loss / total\n"),
        (RETURN, '    return {"loss": loss / total, "accuracy": correct / total}\n'),
        (RETURN, '    return f"{loss / total:.3f}", f"{correct / total:.1%}"\n'),
    ],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_right_ways_pass(name: str) -> None:
    assert_right(NAME, VARIANTS[name])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_known_mistakes_are_named(mistake: str) -> None:
    for pairs in WRONG[mistake]:
        assert_wrong(NAME, changed(RIGHT, *pairs), mistake)


@pytest.mark.parametrize("key", OTHERWISE)
def test_other_mistakes_are_localised(key: str) -> None:
    for pairs in UNLISTED[key]:
        problem = assert_wrong(NAME, changed(RIGHT, *pairs), None, OTHERWISE[key].step)
        assert problem.what == OTHERWISE[key].what


def test_the_step_is_that_of_the_number_that_is_wrong() -> None:
    for number, pairs in (
        ("accuracy", "    return loss / total, correct\n"),
        ("loss", "    return loss, correct / total\n"),
    ):
        problem = assert_wrong(NAME, changed(RIGHT, RETURN, pairs), "ev_sum_not_mean", number)
        assert f"your {number} is" in problem.evidence


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        ("ev_mean_of_means + ev_percent", (*MEANS, RETURN, MEAN_OF.replace("sum(acc", "100 * sum(acc"))),
        (
            "ev_drop_last + ev_percent",
            (LOOP, "in list(batches)[:-1]:\n", RETURN, "    return loss / total, 100 * correct / total\n"),
        ),
        ("ev_drop_last + ev_error_rate", (LOOP, "in list(batches)[:-1]:\n", "== labels", "!= labels")),
        (
            "ev_softmax_first + ev_mean_of_means",
            (
                SUMS,
                "    losses, correct, total = [], 0, 0\n",
                f"loss += {LOSS}",
                "losses.append(F.cross_entropy(logits.softmax(1), labels).item())",
                RETURN,
                "    return sum(losses) / len(losses), correct / total\n",
            ),
        ),
    ],
)
def test_pairs_are_named(names: str, pairs: tuple[str, ...]) -> None:
    problem = assert_wrong(NAME, changed(RIGHT, *pairs), names)
    assert all(MISTAKES[name].what in problem.what for name in names.split(" + "))


def test_no_two_mistakes_without_a_common_one_give_the_same_number() -> None:
    correct, losses, twice = case_values()
    for wrong, right in ((accuracies(correct), right_mean(correct)), (loss_values(losses, twice), right_mean(losses))):
        assert all(abs(value - right) > 1e-3 for _, value in wrong)
        for (one, value), (other, its) in combinations(wrong, 2):
            assert set(one) & set(other) or abs(value - its) > 1e-3, (one, other, value)


def test_the_evidence_is_in_numbers_that_can_be_counted() -> None:
    problem = assert_wrong(NAME, changed(RIGHT, *MEANS, RETURN, MEAN_OF), "ev_mean_of_means")
    assert "your accuracy is 0.6333; it is 0.6667; the model saw 12 pictures" in problem.evidence
    problem = assert_wrong(NAME, changed(RIGHT, LOOP, "in list(batches)[:-1]:\n"), "ev_drop_last")
    assert "your accuracy is 0.7000; it is 0.6667; the model saw 10 pictures" in problem.evidence


def test_what_a_generator_has_not_is_said_of_a_generator() -> None:
    problem = assert_wrong(
        NAME, changed(RIGHT, RETURN, RETURN.replace("total", "len(batches.dataset)")), "ev_needs_loader"
    )
    says = (
        "loops over batches: 1; where it is a generator of the same pictures: AttributeError: 'generator' object has "
    )
    assert problem.evidence.startswith(f"{says}no attribute 'dataset'. There are 12 pictures")
    two = changed(RIGHT, LOOP, "in list(batches):\n", RETURN, "    for _ in batches:\n        pass\n" + RETURN)
    right_twice = changed(two, RETURN, "    total = sum(len(labels) for _, labels in batches)\n" + RETURN)
    problem = assert_wrong(NAME, right_twice, "ev_two_passes")
    assert problem.evidence.startswith("loops over batches: 3; where it is a generator")


def test_autograd_is_on_again_whatever_the_student_did() -> None:
    assert_wrong(NAME, changed(RIGHT, *WRONG["ev_grad_left_off"][0]), "ev_grad_left_off")
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("correct / total", "round(correct / total, 1)"),  # 0.7, as without the last batch
        ("correct / total", "(correct - 1) / total"),  # 7 / 12, as without the last batch's
    ],
)
def test_one_number_alone_names_nothing(right: str, wrong: str) -> None:
    assert_wrong(NAME, changed(RIGHT, right, wrong), None, "accuracy")
