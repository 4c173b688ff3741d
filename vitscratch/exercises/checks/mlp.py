"""Exercise 6: MLP(embed_dim, mlp_dim)."""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscratch.exercises.checks import failing, reference
from vitscratch.exercises.checks.compare import draw, number, same, say
from vitscratch.exercises.checks.modules import Part, Sizes, Trial, check_part
from vitscratch.exercises.checks.naming import table
from vitscratch.exercises.checks.reference import Flags, Parameters
from vitscratch.exercises.checks.roles import mlp_maps
from vitscratch.exercises.checks.student import WrongError, built, counted
from vitscratch.exercises.exercise import Mistake, Outcome, Problem

STEPS = ("parameters", "first layer", "activation", "second layer")

NUDGES = {
    "parameters": "Print the names and shapes of `named_parameters()`: which widths should the two layers have?",
    "first layer": "What does the first layer get, and what does it give, before any activation?",
    "activation": "How often does an activation appear, between what, and which function is it exactly?",
    "second layer": "What is the very last thing that happens to a token?",
}

MISTAKES: dict[str, Mistake] = table(
    """
    mlp_gelu_tanh | activation | You approximate GELU with tanh; the ViT's is exact, x * Phi(x). | Look at the argument `approximate`, or use erf in your own formula.
    mlp_quick_gelu | activation | You use CLIP's x * sigmoid(1.702 x); the ViT's GELU is exact, x * Phi(x). | torch.nn.functional has the exact one.
    mlp_no_activation | activation | You have no activation between the layers (or do not use what it returns), and two linear layers in a row are one; there should be a GELU. | Between the layers stands a GELU, and the second layer gets what it returns.
    mlp_relu | activation | You use ReLU; it should be GELU. | See section 3.1 of the paper: which non-linearity?
    mlp_silu | activation | You use SiLU; it should be GELU. | See section 3.1 of the paper: which non-linearity?
    mlp_other_activation | activation | Your activation is another function; it should be GELU, x * Phi(x). | Compare your activation at -1, 0 and 1 with -0.1587, 0 and 0.8413.
    mlp_activation_last | second layer | You put an activation after the second layer, too; there should be none: what the MLP adds to a token must be free to be negative. | The second layer is the last thing.
    mlp_activation_misplaced | activation | Your activation stands elsewhere; it should stand between the two layers. | Layer, activation, layer, in this order.
    mlp_activation_twice | activation | You apply the activation twice; once is right. | Once, between the layers.
    mlp_residual_inside | second layer | You add the input to the output of the MLP; the residual belongs to the block, outside. | Return what the second layer gives.
    mlp_no_bias | parameters | You leave out the bias of a layer; both layers should have one. | Look at the arguments of the layers.
    mlp_hidden_is_embed | parameters | Your hidden layer is as wide as a token; it should be mlp_dim wide. | Which argument is never used?
    mlp_hidden_fixed | parameters | Your hidden layer has a width of its own; it should be mlp_dim wide. | No 4 * embed_dim and no number: the caller says how wide.
    mlp_random | activation | You leave dropout on in eval mode, so that two calls differ; there it should do nothing. | nn.Dropout, made in __init__, knows about eval; F.dropout needs `training=self.training`.
    """,  # noqa: E501 - a table
    NUDGES,
)


def check(student: ModuleType) -> Iterator[Outcome]:
    """What is right about the student's `MLP`, then the first thing that is wrong."""
    yield from check_part(PART, student)


def count(sizes: Sizes) -> int:
    """How many numbers a right one learns."""
    d, m = sizes["embed_dim"], sizes["mlp_dim"]
    return 2 * d * m + d + m


def check_widths(module: nn.Module, sizes: Sizes, code: str = "", right: int = 0) -> None:
    """Some layer is mlp_dim wide.

    Args:
        module: the student's.
        sizes: that it was built with.
        code: how a student builds it; "" for an MLP.
        right: how many numbers it should learn; 0 for an MLP's.

    Raises:
        WrongError: none is.
    """
    d, m = sizes["embed_dim"], sizes["mlp_dim"]
    shapes = [tuple(parameter.shape) for parameter in module.parameters()]
    matrices = [shape for shape in shapes if len(shape) > 1]
    if not matrices or any(m in shape for shape in shapes):
        return
    attention = {d, 3 * d, sizes.get("num_heads", 0), d // sizes.get("num_heads", 1)}
    narrow = all({*shape} <= {1, 3, *attention} for shape in matrices)
    squares = sum(prod(shape) for shape in matrices) % d**2 == 0
    mistake = MISTAKES["mlp_hidden_is_embed" if narrow and squares else "mlp_hidden_fixed"]
    evidence = f"{counted(code or built('MLP', sizes), module, right or count(sizes))}; no layer is {m} wide"
    raise WrongError(Problem(mistake.what, evidence, "parameters", mistake.hints, mistake.name, mistake.section))


Run = Callable[[Tensor, Mapping[str, Tensor]], Tensor]


def localise(run: Run, parameters: Parameters) -> tuple[str, str]:
    """The step in which an MLP goes wrong, and numbers that show it.

    Args:
        run: input and values of some parameters -> the student's output; the other parameters are `parameters`.
        parameters: as `reference.mlp` takes them.
    """
    d = parameters["fc1.weight"].shape[1]
    x = draw(2, 4, d, seed=5)
    zero = {name: torch.zeros_like(value) for name, value in parameters.items()}
    bias = parameters.get("fc2.bias", zero["fc2.weight"][:, 0])
    seen = run(x, {"fc2.weight": zero["fc2.weight"]})
    if not same(seen, bias.expand_as(x)):
        told = "with the second layer's weight at 0 the output must be its bias: "
        return "second layer", f"{told}{say(seen[0, 0, :3])} are its first numbers, not {say(bias[:3])}; "
    none = {"fc2.bias": zero["fc2.weight"][:, 0]}
    if not same(run(x, {**none, "fc2.weight": 2 * parameters["fc2.weight"]}), 2 * run(x, none)):
        return "second layer", "twice the second layer's weight does not give twice the output; "
    return _activation(run, parameters, zero, x) or ("first layer", "the activation is GELU, its input is wrong; ")


def _activation(run: Run, parameters: Parameters, zero: Mapping[str, Tensor], x: Tensor) -> tuple[str, str] | None:
    """With weight 0 and bias t in the first layer, the second picking hidden numbers: the output is GELU(t)."""
    if "fc1.bias" not in parameters:
        return None
    m, d = parameters["fc1.weight"].shape
    few, picked = min(d, m), torch.eye(d, m, dtype=torch.float64)

    def of(t: Tensor) -> Tensor:
        return run(x, {**zero, "fc1.bias": F.pad(t, (0, m - few)), "fc2.weight": picked})[..., :few]

    for far in (3, 30):  # far out, a bound shows
        t = torch.linspace(-far, far, few, dtype=torch.float64)
        seen, expected = of(t), F.gelu(t)
        if same(seen, expected.expand_as(seen)):
            continue
        factor = of(10 * far * t)[0, 0, -1] / (10 * far * far)  # far out, GELU is the identity
        if same(seen, F.gelu(factor * t).expand_as(seen)):
            told = (
                f"if the first layer has weight 0 and gives its bias, {number(t[-1])}, GELU gets {number(factor * far)}"
            )
            return "first layer", f"{told}; "
        i = int((seen[0, 0] - expected).abs().argmax())
        told = f"a hidden number {number(t[i])} comes out as {number(seen[0, 0, i])}"
        return "activation", f"{told}; GELU gives {number(expected[i])}; "
    return None


_DIRECT = {
    "parameters": "One layer is mlp_dim x embed_dim, the other embed_dim x mlp_dim, both with bias.",
    "first layer": "Compare your hidden numbers, before the activation, with the first layer applied to x by hand.",
    "activation": "Compare your activation at -1, 0 and 1 with -0.1587, 0 and 0.8413.",
    "second layer": "Compare your output with the second layer applied to the activated numbers by hand.",
}


_NAMELESS = {
    "first layer": "You give the activation something else than the first layer makes of one token; it should get just "
    "that.",
    "activation": "Your activation gives other numbers; it should be GELU, x * Phi(x), of every hidden number.",
    "second layer": "You do something more after the activation; the second layer should be the last step.",
}


def _compute(x: Tensor, parameters: Parameters, sizes: Sizes, flags: Flags) -> Tensor:
    return reference.mlp(x, parameters, flags)


def _localise(trial: Trial) -> tuple[str, str]:
    return localise(trial.probe, trial.parameters)


def _details(trial: Trial, step: str) -> str:
    where, told = _localise(trial) if step == "activation" else ("", "")
    return told if where == step else ""  # else something after the activation is wrong, too, and is what is seen


PART = Part(
    name="MLP",
    sizes=({"embed_dim": 13, "mlp_dim": 29}, {"embed_dim": 11, "mlp_dim": 7}),
    steps=STEPS,
    bank=MISTAKES,
    maps=lambda module, sizes: mlp_maps(module, **sizes),
    compute=_compute,
    stages=reference.MLP_STAGES,
    missing={"fc1.bias": "mlp_no_bias", "fc2.bias": "mlp_no_bias"},
    count=count,
    random=lambda trial: "mlp_random",
    place=failing.in_mlp,
    ends=(("fc2", "second layer"),),
    widths=check_widths,
    localise=_localise,
    details=_details,
    nameless=_NAMELESS,
    direct={step: (NUDGES[step], _DIRECT[step]) for step in STEPS},
    facts=(
        "the hidden layer is mlp_dim wide",
        "in eval mode the MLP is two layers with an exact GELU between them, and nothing else",
        "a token's output depends on that token alone",
    ),
)
