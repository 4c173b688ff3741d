"""Exercise 14: what the check says of right answers, and of wrong ones."""

import pytest

from tests.exercises.students import answer, assert_right, assert_wrong, changed
from vitscratch.exercises.checks.freeze_and_replace_head import MISTAKES, OTHERWISE

NAME = "freeze_and_replace_head"
RIGHT = answer(NAME)
NEW = "nn.Linear(old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype)"
SLEEP = "        parameter.requires_grad_(False)\n"
FORGET, WAKE = "        parameter.grad = None\n", "    model.head.requires_grad_(True)\n"
BODY = RIGHT[RIGHT.index("    def train(mode") : RIGHT.index("def prepare")].rstrip() + "\n"
BOTH = "    replace_head(model, num_classes)\n    freeze(model)\n"
LEARNING = "[parameter for parameter in model.parameters() if parameter.requires_grad]"
OPTIMIZER = f"    learning = {LEARNING}\n    return torch.optim.AdamW(learning, lr=learning_rate)\n"

HOOK = """    def rest(module, inputs):
        for child in module.children():
            if child is not module.head:
                child.eval()

    model.register_forward_pre_hook(rest)
"""
SUBCLASS = """    class Frozen(type(model)):
        def train(self, mode=True):
            super().train(mode)
            [child.eval() for name, child in self.named_children() if name != "head"]
            return self

    model.__class__ = Frozen
    return model.train(model.training)
"""
DEAF = """    head = set(model.head.modules())
    for module in model.modules():
        if module is not model and module not in head:
            module.eval()
            module.train = lambda mode=True, module=module: module
"""
OURS = """
import torch
from vitscratch.transfer import freeze, parameter_groups, replace_head

def prepare(model, num_classes, learning_rate):
    replace_head(model, num_classes)
    freeze(model)
    return torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=learning_rate)
"""

BY_NAME = changed(
    RIGHT,
    f"    for parameter in model.parameters():\n{SLEEP}{FORGET}{WAKE}",
    "    for name, parameter in model.named_parameters():\n"
    "        parameter.requires_grad = name.startswith('head.')\n"
    "        if not parameter.requires_grad:\n            parameter.grad = None\n",
)
BY_NAME_IN = BY_NAME.replace("name.startswith('head.')", "'head' in name")

VARIANTS = {
    "as it is": RIGHT,
    "the library's": OURS.replace("parameter_groups, ", ""),
    "hook": changed(RIGHT, BODY, HOOK),
    "subclass, returns the model": changed(RIGHT, BODY, SUBCLASS),
    "every layer deaf": changed(RIGHT, BODY, DEAF),
    "by name": BY_NAME,
    "module.requires_grad_": changed(
        RIGHT,
        f"    for parameter in model.parameters():\n{SLEEP}{FORGET}",
        "    model.requires_grad_(False)\n    model.zero_grad()\n",
    ),
    "moved with to": changed(RIGHT, NEW, "nn.Linear(old.in_features, num_classes).to(old.weight)"),
    "zero head": changed(RIGHT, NEW, NEW + "\n    nn.init.zeros_(model.head.weight)"),
    "new weights for the old layer": changed(
        RIGHT,
        f"model.head = {NEW}",
        f"fresh = {NEW}\n    old.weight, old.bias, old.out_features = fresh.weight, fresh.bias, num_classes",
    ),
    "frozen first": changed(RIGHT, BOTH, "    freeze(model)\n    replace_head(model, num_classes)\n"),
    "filtered": changed(RIGHT, LEARNING, "filter(lambda p: p.requires_grad, model.parameters())"),
    "the head's": changed(RIGHT, LEARNING, "model.head.parameters()"),
    "SGD with groups": changed(
        RIGHT,
        OPTIMIZER,
        "    groups = [{'params': [p]} for p in model.head.parameters()]\n"
        "    return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9)\n",
    ),
}

WRONG: dict[str, list[str]] = {
    "th_not_replaced": [
        changed(RIGHT, f"model.head = {NEW}", f"head = {NEW}"),
        changed(RIGHT, f"model.head = {NEW}", f"model.fc = {NEW}"),
        changed(RIGHT, f"model.head = {NEW}", "model.head.out_features = num_classes"),
        changed(
            RIGHT,
            f"model.head = {NEW}",
            f"import copy\n    model = copy.deepcopy(model)\n    model.head = {NEW}\n    return model",
        ),
        changed(RIGHT, "num_classes, device", "5 * num_classes, device"),
    ],
    "th_head_inputs": [
        changed(RIGHT, "nn.Linear(old.in_features", "nn.Linear(768"),
        changed(RIGHT, "(old.in_features, num_classes,", "(num_classes, old.in_features,"),
        changed(RIGHT, "nn.Linear(old.in_features", "nn.Linear(old.out_features"),
    ],
    "th_not_linear": [
        changed(
            RIGHT,
            "    old = model.head\n    assert isinstance(old, nn.Linear)\n",
            "    old = model.head\n    if isinstance(old, nn.Sequential):\n        old = old[-1]\n",
            f"model.head = {NEW}",
            f"model.head = nn.Sequential(nn.LayerNorm(old.in_features), {NEW})",
        )
    ],
    "th_no_bias": [changed(RIGHT, "num_classes, device", "num_classes, bias=False, device")],
    "th_by_name": [BY_NAME.replace("startswith('head.')", "startswith('head')"), BY_NAME_IN],
    "th_train_returns_nothing": [changed(RIGHT, "        return model\n\n    model.train", "\n    model.train")],
    "th_optimizer_of_all": [changed(RIGHT, LEARNING, "model.parameters()")],
    "th_head_stacked": [
        changed(
            RIGHT, f"model.head = {NEW}", "model.head = nn.Sequential(old, nn.Linear(old.out_features, num_classes))"
        )
    ],
    "tf_head_cpu": [
        changed(RIGHT, NEW, "nn.Linear(old.in_features, num_classes)"),
        changed(RIGHT, NEW, "nn.Linear(old.in_features, num_classes, device=old.weight.device)"),
        changed(RIGHT, NEW, "nn.Linear(old.in_features, num_classes, dtype=old.weight.dtype)"),
    ],
    "th_requires_grad_on_module": [
        changed(RIGHT, SLEEP, "").replace(WAKE, "    model.requires_grad = False\n"),
        changed(RIGHT, SLEEP, "").replace(
            WAKE, "    for child in model.children():\n        child.requires_grad = False\n"
        ),
    ],
    "th_nothing_frozen": [
        changed(RIGHT, SLEEP, ""),
        changed(RIGHT, "requires_grad_(False)", "requires_grad_(True)"),
        changed(RIGHT, f"model.head = {NEW}", f"model.head = {NEW}\n    model.requires_grad_(True)"),
    ],
    "th_head_frozen": [changed(RIGHT, WAKE, "")],
    "th_partly_frozen": [
        changed(
            RIGHT,
            "    for parameter in model.parameters():\n",
            "    for parameter in [p for child in model.children() for p in child.parameters()]:\n",
        ),
        changed(RIGHT, "in model.parameters():\n", "in list(model.parameters())[:-3]:\n"),
        changed(RIGHT, SLEEP, "        parameter.requires_grad_(parameter.dim() < 2)\n"),
    ],
    "th_gradients_kept": [changed(RIGHT, FORGET, "")],
    "tf_frozen_train_mode": [
        changed(RIGHT, BODY, ""),
        changed(RIGHT, BODY, "    model.eval()\n"),
        changed(
            RIGHT, BODY, BODY.replace("                child.eval()\n", "                child.training = False\n")
        ),
        changed(RIGHT, BODY, BODY.replace("if child is not model.head", "if isinstance(child, nn.Dropout)")),
        changed(
            RIGHT,
            BODY,
            "    for module in model.modules():\n"
            "        if isinstance(module, nn.Dropout):\n            module.p = 0.0\n"
            "        if isinstance(module, nn.BatchNorm1d):\n            module.track_running_stats = False\n",
        ),
    ],
    "th_body_changed": [
        changed(RIGHT, SLEEP, SLEEP + "        nn.init.normal_(parameter, std=0.02)\n"),
        changed(
            RIGHT,
            "    old = model.head\n",
            "    old = model.head\n    for p in model.parameters():\n        p.data *= 2\n",
        ),
    ],
    "th_head_stuck": [
        changed(
            RIGHT, BODY, BODY + "    model.head.register_forward_hook(lambda m, i, o: o.detach().requires_grad_())\n"
        )
    ],
    "tf_opt_before_head": [
        changed(
            RIGHT,
            BOTH + OPTIMIZER,
            OPTIMIZER.replace("return ", "optimizer = ") + BOTH + "    return optimizer\n",
        ),
        changed(
            RIGHT,
            BOTH + OPTIMIZER,
            "    freeze(model)\n"
            "    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=learning_rate)\n"
            "    replace_head(model, num_classes)\n    return optimizer\n",
        ),
    ],
    "th_rate_ignored": [changed(RIGHT, ", lr=learning_rate", "")],
}

TRAIN = "    def train(mode: bool = True) -> nn.Module:\n        type(model).train(model, mode)\n"
UNLISTED = {
    "no gradient": [changed(RIGHT, WAKE, WAKE + "    model.forward = torch.no_grad()(model.forward)\n")],
    "head fails": [
        changed(RIGHT, NEW, NEW + "\n    model.head.weight = nn.Parameter(model.head.weight[:, 1:].detach())")
    ],
    "fails": [
        changed(
            RIGHT,
            TRAIN,
            "    def train():\n        type(model).train(model)\n",
            "    model.train(model.training)\n",
            "",
        ),
        changed(RIGHT, "model.train = train ", "model.forward = train "),
    ],
    "deaf": [changed(RIGHT, BODY, "    model.eval()\n    model.train = lambda mode=True: model\n")],
    "no optimizer": [
        changed(RIGHT, "    return torch.optim", "    torch.optim"),
        changed(RIGHT, OPTIMIZER, "    return model\n"),
    ],
    "not prepared": [
        changed(RIGHT, BOTH, "    replace_head(model, num_classes)\n"),
        changed(RIGHT, BOTH, "    freeze(model)\n"),
    ],
    "optimizer": [changed(RIGHT, LEARNING, "[model.head.weight]")],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_right_answers_pass(name: str) -> None:
    assert_right(NAME, VARIANTS[name])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_known_mistakes_are_named(mistake: str) -> None:
    for text in WRONG[mistake]:
        assert_wrong(NAME, text, mistake, MISTAKES[mistake].step)


@pytest.mark.parametrize("key", OTHERWISE)
def test_other_mistakes_are_localised(key: str) -> None:
    for text in UNLISTED[key]:
        problem = assert_wrong(NAME, text, None, OTHERWISE[key].step)
        assert problem.what == OTHERWISE[key].what


@pytest.mark.parametrize(
    ("first", "pairs"),
    [
        ("th_not_replaced", (f"model.head = {NEW}", f"head = {NEW}", SLEEP, "")),
        ("tf_head_cpu", (NEW, "nn.Linear(old.in_features, num_classes)", FORGET, "")),
        ("th_nothing_frozen", (SLEEP, "", BODY, "    model.eval()\n")),
        ("th_gradients_kept", (FORGET, "", ", lr=learning_rate", "")),
        ("tf_frozen_train_mode", (BODY, "    model.eval()\n", ", lr=learning_rate", "")),
    ],
)
def test_of_two_mistakes_the_first_is_told(first: str, pairs: tuple[str, ...]) -> None:
    assert_wrong(NAME, changed(RIGHT, *pairs), first)


def test_the_evidence_can_be_typed() -> None:
    for text, which in (
        (WRONG["th_not_replaced"][0], 0),
        (
            changed(
                RIGHT,
                "    old = model.head\n",
                "    old = model.head\n    if hasattr(model, 'blocks'):\n        return\n",
            ),
            1,
        ),
    ):
        problem = assert_wrong(NAME, text, "th_not_replaced")
        typed = problem.evidence.rpartition("(from ")[2].removesuffix(")")
        names: dict[str, object] = {}
        exec(f"from {typed}", names)
        assert f"models()[{which}], a {type(names['model']).__name__}" in problem.evidence


def test_the_evidence_is_small() -> None:
    problem = assert_wrong(NAME, changed(RIGHT, NEW, "nn.Linear(old.in_features, num_classes)"), "tf_head_cpu")
    assert "the old head was torch.float64 on cpu, the new one is torch.float32 on cpu" in problem.evidence
    problem = assert_wrong(NAME, WRONG["th_partly_frozen"][0], "th_partly_frozen")
    assert "requires_grad is True for shift (" in problem.evidence
    problem = assert_wrong(NAME, WRONG["tf_opt_before_head"][0], "tf_opt_before_head")
    assert "2 of 2 parameters of model.head are not in the optimizer, 2 of the old head are" in problem.evidence
    problem = assert_wrong(NAME, WRONG["th_head_inputs"][0], "th_head_inputs")
    assert "the head is given (6, 11)" in problem.evidence
