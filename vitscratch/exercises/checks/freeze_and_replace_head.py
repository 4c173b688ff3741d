"""Check of exercise 14: a new head for a pretrained body, and only the head learns.

Two models are given to the student's functions, a small one with BatchNorm and dropout, and a Vision Transformer with
dropout: what was forgotten shows in what the head reads, and in what moves.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vitscratch.exercises.checks.naming import bank, problem
from vitscratch.exercises.checks.spies import close, seeded
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem
from vitscratch.vit import VisionTransformer

HERE = f"(from {__name__} import models; _, model, images = models()[{{}}])"
OLD_CLASSES, NEW_CLASSES, RATE = 7, 5, 0.03

MISTAKES = bank(
    Mistake(
        "th_not_replaced",
        "You leave the old head in the model; it should have a new one.",
        "head",
        (
            "What is model.head after your function?",
            "A new layer in a variable, in a copy, or returned, changes nothing; nor does another number in "
            "model.head.out_features.",
            "Assign it: model.head = ...",
        ),
    ),
    Mistake(
        "th_head_inputs",
        "Your new head does not fit the body; its inputs should be as many as the old head's.",
        "head",
        (
            "How wide is what the old head reads?",
            "Not every model is 768 wide: ask model.head.in_features. nn.Linear takes the inputs first.",
        ),
    ),
    Mistake(
        "th_head_stacked",
        "You put the new head behind the old one; it should replace it.",
        "head",
        (
            "How many numbers does your new layer read: the body's, or the old classes'?",
            "The old classes' logits say little about new ones; the body's output says more. Replace the layer.",
        ),
    ),
    Mistake(
        "th_not_linear",
        "Your new head is more, or something else, than a linear layer; it should be an nn.Linear.",
        "head",
        (
            "What is type(model.head) after your function?",
            "Whoever reads model.head.in_features or model.head.weight next needs the layer itself there.",
        ),
    ),
    Mistake(
        "th_no_bias",
        "Your new head has no bias; it should be W y + b.",
        "head",
        ("Is model.head.bias None?", "nn.Linear has a bias unless bias=False is said."),
    ),
    Mistake(
        "tf_head_cpu",
        "Your new head has the default device and dtype; it should have those of the old one.",
        "head",
        (
            "Where is a new nn.Linear, if the model was moved to a GPU before?",
            "On the CPU, in float32: the next forward pass fails.",
            "nn.Linear takes device= and dtype=; model.head.weight has both.",
        ),
    ),
    Mistake(
        "th_requires_grad_on_module",
        "You set requires_grad on modules, where it is only a new attribute that nobody reads; it should be set on "
        "parameters.",
        "what learns",
        (
            "What is a module's requires_grad, and what is a parameter's?",
            "Set it for each of module.parameters(), or call module.requires_grad_(False).",
        ),
    ),
    Mistake(
        "th_nothing_frozen",
        "You freeze nothing: everything still learns; only the head should.",
        "what learns",
        (
            "Which parameters have requires_grad = True after your function?",
            "eval() does not stop a weight from learning, and a gradient of None comes back with the next backward().",
        ),
    ),
    Mistake(
        "th_head_frozen",
        "You freeze the head, too, so that nothing learns; it should learn.",
        "what learns",
        (
            "Which parameters have requires_grad = True after your function?",
            "Freeze all, and then let the head learn: model.head.requires_grad_(True).",
        ),
    ),
    Mistake(
        "th_partly_frozen",
        "You forget a part of the body, and it still learns; all of it should be frozen.",
        "what learns",
        (
            "Which parameters have requires_grad = True after your function?",
            "A parameter that belongs to the model itself, such as a class token, is in none of its layers; and a "
            "body has more layers than its blocks.",
            "Go through model.parameters(), and leave out only the head's.",
        ),
    ),
    Mistake(
        "th_by_name",
        'You take every parameter for the head\'s that has "head" in its name; only those of model.head are.',
        "what learns",
        (
            "Which names has this model that begin with head, or have it in them?",
            "model.head.parameters() are the head's, whatever others are called. Of names, those that begin with "
            '"head.", with the dot.',
        ),
    ),
    Mistake(
        "th_gradients_kept",
        "You leave the body the gradients that it had; they should be gone.",
        "what learns",
        (
            "What does an optimizer of all parameters do in its next step?",
            "It skips a parameter whose grad is None; one with an old gradient moves, frozen or not.",
        ),
    ),
    Mistake(
        "th_train_returns_nothing",
        "The train that you give the model returns nothing; it should return the model, as nn.Module's does.",
        "mode",
        (
            "What is model.train() after your function, and model.eval(), which calls it?",
            "model.train().to(device) and model.eval()(images) are written every day; end your train with a return of "
            "the model.",
        ),
    ),
    Mistake(
        "tf_frozen_train_mode",
        "You let model.train() put the frozen body back into train mode; it should stay in eval mode.",
        "mode",
        (
            "Call model.train() and then the model twice with one picture. Do the results agree?",
            "requires_grad does not concern dropout, nor BatchNorm's statistics; and model.train() undoes an eval() "
            "that was called once.",
            "Every model.train() has to end with the body in eval mode: give the model another train, or a hook that "
            "runs before each forward pass.",
        ),
    ),
    Mistake(
        "th_body_changed",
        "Your body computes something else than before; it should stay as it was.",
        "what stays",
        (
            "Which line writes to the weights?",
            "What was learned in pretraining is in the body: neither function touches a weight of it.",
        ),
    ),
    Mistake(
        "th_head_stuck",
        "Your head does not move when it is trained; it should.",
        "what stays",
        (
            "Does model.head.weight have a gradient after backward()?",
            "Its output must be followed by autograd: no no_grad and no detach behind the head.",
        ),
    ),
    Mistake(
        "tf_opt_before_head",
        "You make the optimizer before the head, so that it holds the old one; it should be made after.",
        "optimizer",
        (
            "Whose parameters are in optimizer.param_groups?",
            "A new layer has new parameters; an optimizer does not hear of them.",
            "First the head, then the optimizer.",
        ),
    ),
    Mistake(
        "th_optimizer_of_all",
        "You give the frozen body to the optimizer, too; it should have what learns, and nothing else.",
        "optimizer",
        (
            "How many of the optimizer's parameters have requires_grad = False?",
            "Today it skips those, for they have no gradients; one that gets a gradient again is moved without a word.",
            "Give it the head's parameters, or those with requires_grad.",
        ),
    ),
    Mistake(
        "th_rate_ignored",
        "You give the optimizer another learning rate than was asked for; it should be that one.",
        "optimizer",
        ("What is optimizer.param_groups[0]['lr']?", "Use the argument."),
    ),
)

# What is said where nobody foresaw the mistake: the step is known, the name is not.
OTHERWISE = {
    "head fails": Mistake(
        "",
        "The model cannot be called with its new head.",
        "head",
        (
            "Call the model after replace_head.",
            "Only the number of outputs is another one: the rest is as in the old head.",
        ),
    ),
    "no gradient": Mistake(
        "",
        "No gradient reaches the head, so that it cannot learn.",
        "what learns",
        (
            "Does model(images).requires_grad say True after freeze?",
            "requires_grad of the body's parameters is enough; no_grad around the whole model stops the head, too.",
        ),
    ),
    "fails": Mistake(
        "",
        "The frozen model cannot be called any more.",
        "mode",
        (
            "Call model.eval(), model.train() and the model after freeze.",
            "A train of your own takes the mode, True or False, as the model's does, and returns the model.",
        ),
    ),
    "deaf": Mistake(
        "",
        "You keep the model itself in eval mode; model.train() should set its .training, as before, and what is below "
        "it, the head apart, should stay in eval mode.",
        "mode",
        (
            "What is model.training after model.train()? Others ask it, to put the mode back.",
            "A train of your own first calls type(model).train(model, mode), then eval() of each child but the head.",
        ),
    ),
    "no optimizer": Mistake(
        "",
        "Your prepare returns no optimizer.",
        "optimizer",
        ("What does your function return?", "An optimizer of torch.optim, made from what learns."),
    ),
    "not prepared": Mistake(
        "",
        "Your prepare does not do what replace_head and freeze do.",
        "optimizer",
        ("Look at the model after prepare: at model.head, and at requires_grad.", "Call both functions in it."),
    ),
    "optimizer": Mistake(
        "",
        "Parameters of the new head are not in the optimizer.",
        "optimizer",
        (
            "Compare optimizer.param_groups[0]['params'] with model.head.parameters().",
            "All that learns belongs into the optimizer.",
        ),
    ),
}


class SmallModel(nn.Module):
    """A body with all that a freeze can forget: a parameter of its own, BatchNorm, dropout, and a misleading name."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(12))
        self.first = nn.Linear(12, 11)
        self.head_norm = nn.BatchNorm1d(11)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(11, OLD_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.drop(self.head_norm(self.first(images.flatten(1) + self.shift))))


def check(student: ModuleType) -> Iterator[Outcome]:
    """What is right in the three functions, until the first thing that is wrong."""
    for probe in (_head, _learns, _mode, _stays, _optimizer):
        for outcome in probe(student):
            if isinstance(outcome, Problem):
                which = 1 if "models()[1]" in outcome.evidence else 0
                yield replace(outcome, evidence=f"{outcome.evidence} {HERE.format(which)}")
                return
            yield outcome


def models() -> list[tuple[str, nn.Module, Tensor]]:
    """Name, model and pictures, the same every time. All weights are awake: a zero hides what is before it."""
    with seeded():
        vit = VisionTransformer(8, 4, 3, OLD_CLASSES, embed_dim=12, depth=2, num_heads=3, mlp_dim=20, dropout=0.5)
        found = [
            ("models()[0], a SmallModel with BatchNorm and Dropout", SmallModel(), torch.randn(6, 3, 2, 2)),
            ("models()[1], a VisionTransformer(8, 4, 3, 7, 12, 2, 3, 20, dropout=0.5)", vit, torch.randn(6, 3, 8, 8)),
        ]
        for _, model, _ in found:
            for parameter in model.parameters():
                nn.init.normal_(parameter, std=0.3)
    return found


def _read_by_head(model: nn.Module, images: Tensor) -> Tensor:
    """What the head is given."""
    read: list[Tensor] = []
    head = model.get_submodule("head")
    hook = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].detach().clone()))
    try:
        model(images)
    finally:
        hook.remove()
    return read[0]


def _head(student: ModuleType) -> Iterator[Outcome]:
    for name, model, images in models():
        old, read = model.get_submodule("head"), _read_by_head(model.eval(), images)
        kept = {id(parameter) for parameter in old.parameters()}
        student.replace_head(model, NEW_CLASSES)
        after = f"{name}, after replace_head(model, {NEW_CLASSES}): "
        new = model.get_submodule("head")
        if new is not old and kept & {id(parameter) for parameter in model.parameters()}:
            yield problem(MISTAKES["th_head_stacked"], f"{after}model.head is {_line(new)}")
        try:
            shape = tuple(model.eval()(images).shape)
        except RuntimeError as error:
            wrong = getattr(new, "in_features", read.shape[1]) != read.shape[1]
            evidence = f"{after}the head is given {tuple(read.shape)}; it is {_line(new)}: {error}"
            yield problem(MISTAKES["th_head_inputs"] if wrong else OTHERWISE["head fails"], evidence)
            return
        if shape != (len(images), NEW_CLASSES):
            evidence = f"{after}logits of {len(images)} pictures have shape {shape}; expected {(6, NEW_CLASSES)}"
            yield problem(MISTAKES["th_not_replaced"], evidence)
        if not isinstance(new, nn.Linear) or new.bias is None:
            name = "th_no_bias" if isinstance(new, nn.Linear) else "th_not_linear"
            yield problem(MISTAKES[name], f"{after}model.head is {_line(new)}")
            return
    yield from _place(student)
    yield Passed("the new head reads what the old one read, and lives on its device, in its dtype")


def _place(student: ModuleType) -> Iterator[Outcome]:
    """No GPU is needed: "meta" is a device without numbers, and float64 another dtype."""
    moves: list[tuple[str, Callable[[nn.Module], nn.Module]]] = [
        ("model.double()", lambda model: model.double()),
        ('model.to("meta")', lambda model: model.to("meta")),
    ]
    for name, move in moves:
        model = move(models()[0][1])
        wanted = model.get_parameter("head.weight")
        student.replace_head(model, NEW_CLASSES)
        for parameter in model.get_submodule("head").parameters():
            if (parameter.dtype, parameter.device) != (wanted.dtype, wanted.device):
                evidence = (
                    f"{name}, then replace_head: the old head was {wanted.dtype} on {wanted.device}, the new one "
                )
                evidence += f"is {parameter.dtype} on {parameter.device}"
                yield problem(MISTAKES["tf_head_cpu"], evidence)
                return


def _learns(student: ModuleType) -> Iterator[Outcome]:
    for order in (("replace_head", "freeze"), ("freeze", "replace_head")):
        for name, model, images in models():
            model(images).square().sum().backward()
            _both(student, model, order)
            done = f"{name}, after model(images).square().sum().backward(), {' and '.join(order)}: "
            yield from _who_learns(model, done)
            old = [key for key, each in _body(model).items() if each.grad is not None and each.grad.any()]
            if old:
                evidence = f"{done}.grad of {old[0]} is not None ({len(old)} such parameters)"
                yield problem(MISTAKES["th_gradients_kept"], evidence)
    yield Passed("the head learns and nothing else, whichever of the two functions runs first")


def _who_learns(model: nn.Module, done: str) -> Iterator[Outcome]:
    body = _body(model)
    awake = [key for key, parameter in body.items() if parameter.requires_grad]
    asleep = [key for key, parameter in model.get_submodule("head").named_parameters() if not parameter.requires_grad]
    if len(awake) == len(body):
        flagged = [key or "model" for key, module in model.named_modules() if "requires_grad" in vars(module)]
        evidence = f"{done}requires_grad is True for all {len(body)} parameters of the body"
        if flagged:
            evidence += f"; {flagged[0]} has an attribute requires_grad"
        yield problem(MISTAKES["th_requires_grad_on_module" if flagged else "th_nothing_frozen"], evidence)
    elif awake:
        evidence = f"{done}requires_grad is True for {', '.join(awake[:3])}{' ...' if len(awake) > 3 else ''}"
        by_name = awake == [key for key in body if "head" in key]
        yield problem(MISTAKES["th_by_name" if by_name else "th_partly_frozen"], evidence)
    if asleep:
        yield problem(MISTAKES["th_head_frozen"], f"{done}requires_grad of model.head.{asleep[0]} is False")


def _mode(student: ModuleType) -> Iterator[Outcome]:
    for name, model, images in models():
        _both(student, model)
        done = f"{name}, after replace_head, freeze and model.train(): "
        try:
            returned = model.train(), model.eval()
            if any(each is not model for each in returned):
                kinds = " and ".join(type(each).__name__ for each in returned)
                evidence = f"{name}, after replace_head and freeze: model.train() and model.eval() return {kinds}; "
                yield problem(MISTAKES["th_train_returns_nothing"], evidence + "expected the model")
                return
            still = _read_by_head(model.eval(), images)
            model.train()
            if not model.training:
                yield problem(OTHERWISE["deaf"], f"{done}model.training is False")
                return
            with seeded():
                one, other = _read_by_head(model, images), _read_by_head(model, images)
        except Exception as error:
            yield problem(OTHERWISE["fails"], f"{done}{type(error).__name__}: {error}")
            return
        if not close(one, other):
            evidence = f"{done}for the same pictures, the head is given numbers that differ by up to "
            yield problem(MISTAKES["tf_frozen_train_mode"], f"{evidence}{(one - other).abs().max():.4f} in two calls")
        if not close(one, still):
            evidence = f"{done}what the head is given differs by up to {(one - still).abs().max():.4f} from eval mode"
            yield problem(MISTAKES["tf_frozen_train_mode"], evidence)
    yield Passed("the body stays in eval mode after model.train(): no dropout, and BatchNorm's statistics rest")


def _stays(student: ModuleType) -> Iterator[Outcome]:
    for name, model, images in models():
        before = _read_by_head(model.eval(), images)
        _both(student, model)
        done = f"{name}, after replace_head and freeze"
        head = [parameter.detach().clone() for parameter in model.get_submodule("head").parameters()]
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for steps in (0, 3):
            for _ in range(steps):
                model.train()
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(images), torch.arange(6) % NEW_CLASSES)
                if not loss.requires_grad:
                    yield problem(OTHERWISE["no gradient"], f"{done}: model(images).requires_grad is False")
                    return
                loss.backward()
                optimizer.step()
            after = _read_by_head(model.eval(), images)
            if not close(before, after):
                trained = f" and {steps} steps of AdamW" if steps else ""
                evidence = f"{done}{trained}: what the head is given, in eval mode, differs by up to "
                yield problem(MISTAKES["th_body_changed"], f"{evidence}{(after - before).abs().max():.4f}")
                return
        pairs = zip(head, model.get_submodule("head").parameters(), strict=False)
        if not any((old != new).any() for old, new in pairs):
            yield problem(MISTAKES["th_head_stuck"], f"{done} and 3 steps of AdamW: model.head is the same")
    yield Passed("training moves the head, and what the body computes stays as it was")


def _optimizer(student: ModuleType) -> Iterator[Outcome]:
    for name, model, images in models():
        old = {id(parameter) for parameter in model.get_submodule("head").parameters()}
        optimizer: Any = student.prepare(model, NEW_CLASSES, RATE)
        call = f"{name}: prepare(model, {NEW_CLASSES}, {RATE})"
        if not isinstance(optimizer, torch.optim.Optimizer):
            yield problem(OTHERWISE["no optimizer"], f"{call} is a {type(optimizer).__name__}")
            return
        new = list(model.get_submodule("head").parameters())
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        classes, awake = (
            model.eval()(images).shape[1],
            [key for key, each in _body(model).items() if each.requires_grad],
        )
        if classes != NEW_CLASSES or awake:
            yield problem(
                OTHERWISE["not prepared"], f"{call}: {classes} logits; {len(awake)} parameters of the body learn"
            )
        missing = sum(id(parameter) not in held for parameter in new)
        if missing:
            evidence = f"{call}: {missing} of {len(new)} parameters of model.head are not in the optimizer, "
            evidence += f"{len(old & held)} of the old head are"
            yield problem(MISTAKES["tf_opt_before_head"] if old & held else OTHERWISE["optimizer"], evidence)
        asleep = [key for key, each in _body(model).items() if id(each) in held]
        if asleep:
            evidence = f"{call}: {len(asleep)} of the {len(held)} parameters in the optimizer are the body's: "
            yield problem(MISTAKES["th_optimizer_of_all"], evidence + f"{', '.join(asleep[:3])} ...")
        rates = sorted({float(group["lr"]) for group in optimizer.param_groups})
        if not all(close(rate, RATE) for rate in rates):
            yield problem(MISTAKES["th_rate_ignored"], f"{call}: the optimizer's lr is {rates[0]:g}")
    yield Passed("the optimizer holds the new head, and has the learning rate that was asked for")


def _both(student: ModuleType, model: nn.Module, order: tuple[str, ...] = ("replace_head", "freeze")) -> None:
    for function in order:
        if function == "freeze":
            student.freeze(model)
        else:
            student.replace_head(model, NEW_CLASSES)


def _body(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters but the head's, by name."""
    head = {id(parameter) for parameter in model.get_submodule("head").parameters()}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in head}


def _line(module: nn.Module) -> str:
    return " ".join(str(module).split())
