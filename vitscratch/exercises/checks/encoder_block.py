"""Exercise 7: EncoderBlock(embed_dim, num_heads, mlp_dim)."""

import ast
import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor, nn

from vitscratch.exercises.checks import failing, mlp, multi_head_self_attention, reference
from vitscratch.exercises.checks.compare import draw, number, same, say
from vitscratch.exercises.checks.modules import Part, Sizes, Trial, check_part
from vitscratch.exercises.checks.naming import named, table
from vitscratch.exercises.checks.reference import Flags, Parameters, inside
from vitscratch.exercises.checks.roles import block_maps
from vitscratch.exercises.checks.student import WrongError, built, pick_tensor
from vitscratch.exercises.exercise import Mistake, Outcome

STEPS = ("parameters", "norms", "attention", "first residual", "MLP", "second residual")

NUDGES = {
    "parameters": "Print the names and shapes of `named_parameters()`: two norms, attention, MLP, and nothing else.",
    "norms": "What does each norm get, over which axis does it run, and what is its eps?",
    "attention": "Call your attention alone with a few tokens: is it right by itself, and what does the block give it?",
    "first residual": "Eq. 2: which tensor is added to the output of attention?",
    "MLP": "Call your MLP alone with a few tokens: is it right by itself, and what does the block give it?",
    "second residual": "Eq. 3: which tensor is added to the output of the MLP?",
}

_OWN = table(
    """
    enc_no_attn_residual | first residual | Your first residual is missing; Eq. 2 adds the token to what attention gives. | The output of attention alone does not replace x.
    enc_no_mlp_residual | second residual | Your second residual is missing; Eq. 3 adds the token to what the MLP gives. | The output of the MLP alone does not replace x.
    enc_residual_after_norm | first residual | You add the normalised token to what the branch gives; add the token as it was before the norm. | Do not overwrite x with its norm; the branch alone sees the norm.
    enc_post_norm | norms | You put the norm behind the sum (post-norm); in the ViT it stands before attention and before the MLP. | Nothing comes after the sum; the norm is the first thing in the branch.
    enc_norm_on_branch_output | norms | You apply the norm to what comes out of the branch; it should be applied before attention and before the MLP. | Norm first, then attention or MLP, then the sum.
    enc_eps_1e-5 | norms | Your eps is 1e-5, PyTorch's default; the ViT's is 1e-6. | Look at the arguments of nn.LayerNorm.
    enc_eps_other | norms | Your eps is not 1e-6, or does not stand under the root, beside the variance; it should be 1e-6, and there. | Look at the arguments of nn.LayerNorm.
    enc_double_residual | first residual | You add a residual twice, once inside the branch and once more outside; once is right. | Look at what attention and MLP return, and at what the block adds.
    enc_mlp_residual_from_input | second residual | Your second residual adds the block's input; Eq. 3 adds what came out of Eq. 2. | A name kept from the start of forward is used where the newer one belongs.
    enc_x_plus_x | first residual | You overwrite the token's name and then add the branch's output to itself; the token should be added to it. | After `x = branch(x)`, x is no longer the token.
    enc_dead_residual | first residual | You keep a variable for the residual and never use it, which misleads whoever reads it; the sum should add it, or the line should go. | Delete the line, or use the variable in the sum.
    enc_no_norm | norms | You leave out the norm before attention or before the MLP; both should have one. | Both branches begin with a norm.
    enc_norm_twice | norms | You apply a norm twice in a row; once is right. | Once is enough: count the calls.
    enc_norm_on_residual | norms | You normalise the token that is added, not what the branch gets; the branch should get the norm, and the token be added as it is. | x + branch(norm(x)).
    enc_norm_unbiased | norms | You divide the variance by D - 1; LayerNorm divides by D. | torch.var and torch.std have an argument for it.
    enc_norm_variance | norms | You divide the token by its variance; LayerNorm divides by the root of it. | A root is missing.
    enc_rms_norm | norms | You do not subtract the mean, which is RMSNorm; the ViT has LayerNorm. | Which class is it?
    enc_norm_centres_only | norms | Your norm only subtracts the mean; LayerNorm also divides by the standard deviation. | Two things happen to a token in a norm.
    enc_norm_wrong_axis | norms | Your norm runs over another axis; each token should be normalised by itself, over its width. | Mean and variance are taken over the last axis alone.
    enc_norm_is_batch_norm | norms | You use a BatchNorm; the ViT has LayerNorm. | Which class is it?
    enc_norm_no_affine | norms | Your norm's weight or bias is missing or not used; LayerNorm should have both. | Look at the arguments of nn.LayerNorm.
    enc_shared_norm | norms | You use one norm for both halves; each should have a norm of its own. | There are two norms with two sets of parameters; is one of them never called?
    enc_residual_scaled | first residual | You scale a sum, or what is added; Eq. 2 and 3 add, and nothing else. | Look for a factor in the sums.
    enc_residual_subtracted | first residual | You subtract in a residual; Eq. 2 and 3 add. | Look at the signs.
    enc_residual_multiplied | first residual | You multiply the token with what a branch gives; Eq. 2 and 3 add. | Look at the operators.
    enc_branch_twice | attention | You run attention or the MLP twice; once is right. | Count how often attention and MLP are called.
    enc_half_unused | attention | You do not use what attention or the MLP gives; the block should add both. | Follow x through forward: what does it pass?
    enc_attention_input_mixed | attention | You make some of queries, keys and values from other tokens; all three should come from the normalised ones. | All three of them get the output of the first norm.
    enc_parallel | second residual | You give the block's input to the MLP; it should get what came out of Eq. 2. | One after the other.
    enc_mlp_first | first residual | You run the MLP before attention; attention, Eq. 2, should be first. | Swap the two lines.
    enc_halves_not_added | second residual | You count the block's input twice, since both halves add it; Eq. 3 should add what Eq. 2 gave, and nothing more. | Eq. 3 works on what Eq. 2 gave.
    enc_half_twice | second residual | You run one half of the block twice; once is right. | Two lines, one for each equation.
    enc_random | attention | You leave dropout on in eval mode, so that two calls differ; there it should do nothing. | nn.Dropout, made in __init__, knows about eval; F.dropout needs `training=self.training`.
    """,  # noqa: E501 - a table
    NUDGES,
)

MISTAKES: dict[str, Mistake] = {
    **_OWN,
    **{
        name: replace(mistake, step="attention", hints=(NUDGES["attention"], *mistake.hints))
        for name, mistake in multi_head_self_attention.MISTAKES.items()
        if name != "attn_random"  # in a block it is enc_random
    },
    **{
        name: replace(
            mistake, step=mistake.step if mistake.step == "parameters" else "MLP", hints=(NUDGES["MLP"], *mistake.hints)
        )
        for name, mistake in mlp.MISTAKES.items()
        if name != "mlp_random"
    },
}


def check(student: ModuleType) -> Iterator[Outcome]:
    """What is right about the student's `EncoderBlock`, then the first thing that is wrong."""
    yield from check_part(PART, student)


def count(sizes: Sizes) -> int:
    """How many numbers a right one learns."""
    return multi_head_self_attention.PART.count(sizes) + mlp.PART.count(sizes) + 4 * sizes["embed_dim"]


def _check_widths(module: nn.Module, sizes: Sizes) -> None:
    mlp.check_widths(module, sizes, built("EncoderBlock", sizes), count(sizes))


def _compute(x: Tensor, parameters: Parameters, sizes: Sizes, flags: Flags) -> Tensor:
    return reference.encoder_block(x, parameters, sizes["num_heads"], flags)


# ----------------------------------------------------------------------------------------------------- localising


def _localise(trial: Trial) -> tuple[str, str]:
    x = draw(2, 4, trial.sizes["embed_dim"], seed=5)
    for half, step in (("attn.", "attention"), ("mlp.", "MLP")):
        other = {name: 2 * value for name, value in trial.parameters.items() if name.startswith(half)}
        if same(trial.probe(x, other), trial.probe(x, {})):
            return step, f"with twice the parameters of {step} the output is the same: it is not used; "
    for probe in PART.probes:
        found = probe(trial)
        if found:
            return found
    return "second residual", "each half is right while the other is off, but not both together; "


def _off(trial: Trial, *layers: str) -> dict[str, Tensor]:
    """Weight and bias of these layers at 0: "attn.proj", "mlp.fc2"."""
    return {
        name: torch.zeros_like(value) for name, value in trial.parameters.items() if name.rpartition(".")[0] in layers
    }


def _sums(trial: Trial) -> tuple[str, str] | None:
    """With both last layers giving constants u and w, the block gives x + u + w."""
    x = draw(2, 4, trial.sizes["embed_dim"], seed=5)
    off = _off(trial, "attn.proj", "mlp.fc2")
    u, w = draw(*x.shape[2:], seed=6), draw(*x.shape[2:], seed=7)
    if not {"attn.proj.bias", "mlp.fc2.bias"} <= off.keys():
        identity = same(trial.probe(x, off), x)
        return None if identity else ("first residual", "with both last layers at 0 the block is not the identity; ")

    def seen(x: Tensor, u: Tensor, w: Tensor) -> Tensor:
        return trial.probe(x, {**off, "attn.proj.bias": u, "mlp.fc2.bias": w})

    out, nothing = seen(x, u, w), torch.zeros_like(u)
    if same(out, x + u + w):
        of_mlp = trial.probe(x, {**_off(trial, "attn.proj"), "attn.proj.bias": u}) - seen(x, u, nothing)
        if not same(of_mlp, _of_the_mlp(trial, u.expand_as(x))):
            return None
        return "first residual", "the second norm gets attention's output alone; it should get x plus that; "
    told = "if the last layers of attention and MLP have weight 0 and biases u and w, x should become x + u + w: "
    b, n, d = (int(place) for place in torch.unravel_index((out - x - u - w).abs().argmax(), x.shape))
    told += f"{number(x[b, n, d])} + {number(u[d])} + {number(w[d])}; yours becomes {number(out[b, n, d])}; "
    read, again = (_second_norm_reads(trial, x, {**off, "attn.proj.bias": u, "mlp.fc2.bias": v}) for v in (w, nothing))
    # x: the block's input goes into the MLP; if w is in it, the norm comes after the MLP
    if read is not None and again is not None and same(read, again) and not same(read, x + u) and not same(read, x):
        b, n, d = (int(place) for place in torch.unravel_index((read - x - u).abs().argmax(), x.shape))
        told = "if the last layer of attention has weight 0 and bias u, the second norm should get x + u: "
        return "first residual", f"{told}{number(x[b, n, d])} + {number(u[d])}; yours gets {number(read[b, n, d])}; "
    before = out - w  # what the MLP's output was added to, if it was added
    if not same(before, seen(x, u, nothing)):
        return "second residual", told
    if all(
        same(
            trial.probe(scale * x, {**_off(trial, "attn.proj"), "attn.proj.bias": scale * u})
            - seen(scale * x, scale * u, nothing),
            _of_the_mlp(trial, scale * (x + u)),
        )
        for scale in (1.0, 1e-3)
    ):  # the MLP reads what Eq. 2 should give
        return "second residual", told
    factor = before[0, 0, 0] / (x + u)[0, 0, 0]
    if same(before, x) or same(before, factor * (x + u)) or float(before.abs().max()) < 1e-9:
        return "second residual", told  # Eq. 2 is right as far as it is seen, but not what Eq. 3 adds to
    return "first residual", told


def _second_norm_reads(trial: Trial, x: Tensor, values: Mapping[str, Tensor]) -> Tensor | None:
    """What the second norm is called with; None where it is no module by itself, or is not called once."""
    pieces = [piece.name for piece in trial.role_map.pieces if piece.target == "norm2.weight"]
    layers = [trial.module.get_submodule(name.rpartition(".")[0]) for name in pieces if "." in name]
    if not layers:
        return None
    given: list[Tensor] = []
    hook = layers[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach().clone()))
    try:
        trial.probe(x, values)
    finally:
        hook.remove()
    return given[0] if len(given) == 1 and given[0].shape == x.shape else None


def _of_the_mlp(trial: Trial, z: Tensor) -> Tensor:
    """Right: MLP(LN(z))."""
    normed = reference.norm(z, inside(trial.parameters, "norm2."))
    return reference.mlp(normed, inside(trial.parameters, "mlp."))


def _attention_half(trial: Trial) -> tuple[str, str] | None:
    """With the MLP off the block gives x + attention(norm(x))."""
    x, off = draw(2, 4, trial.sizes["embed_dim"], seed=5), _off(trial, "mlp.fc2")
    parameters = {**trial.parameters, **off}
    expected = _compute(x, parameters, trial.sizes, reference.RIGHT)
    if same(trial.probe(x, off), expected) and same(
        trial.probe(1e-3 * x, off), _compute(1e-3 * x, parameters, trial.sizes, reference.RIGHT)
    ):
        return None
    constant = {**off, **_constant(trial, "norm1")}
    right = _compute(x, {**trial.parameters, **constant}, trial.sizes, reference.RIGHT)
    told = "with the MLP's last layer at 0 it is wrong, too; "
    if not {"norm1.weight", "norm1.bias"} <= trial.parameters.keys():
        return "attention", told
    if not same(trial.probe(x, constant), right):
        return ("norms" if _attention_gets_else(trial, constant) else "attention"), told
    # one token and an attention that is the identity: what is added is the token's norm
    d = trial.sizes["embed_dim"]
    values = torch.cat([torch.zeros(2 * d, d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)])
    identity = {"attn.qkv.weight": values, "attn.proj.weight": torch.eye(d, dtype=torch.float64)}
    identity |= {"attn.qkv.bias": values[:, 0] * 0, "attn.proj.bias": values[0] * 0}
    for scale in (1.0, 1e-3):
        one = scale * x[:1, :1]
        seen = trial.probe(one, {**off, **identity}) - one
        normed = reference.norm(one, inside(trial.parameters, "norm1."))
        if not same(seen, normed):
            told = f"the first norm gives {say(seen[0, 0, :3])}, ... for a token of deviation {scale:g}; "
            return "norms", f"{told}it should give {say(normed[0, 0, :3])}; "
    return "attention", told


def _mlp_half(trial: Trial) -> tuple[str, str] | None:
    """With attention off the block gives x + mlp(norm(x))."""
    x, off = draw(2, 4, trial.sizes["embed_dim"], seed=5), _off(trial, "attn.proj")
    parameters = {**trial.parameters, **off}
    if all(
        same(trial.probe(scale * x, off), _compute(scale * x, parameters, trial.sizes, reference.RIGHT))
        for scale in (1.0, 1e-3)
    ):
        return None
    constant = {**off, **_constant(trial, "norm2")}
    right = _compute(x, {**trial.parameters, **constant}, trial.sizes, reference.RIGHT)
    if not {"norm2.weight", "norm2.bias"} <= trial.parameters.keys():
        return "MLP", "with attention's last layer at 0 it is wrong, too; "
    if _mixed_after_norm(trial, off, x):
        return "MLP", "with attention's last layer at 0 a token's output depends on other tokens; "
    fine = same(trial.probe(x, constant), right) or _mlp_gets_else(trial, constant)
    return ("norms" if fine else "MLP"), "with attention's last layer at 0 it is wrong, too; "


def _mixed_after_norm(trial: Trial, off: dict[str, Tensor], x: Tensor) -> bool:
    """A token alone is right, several are not, and yet each is normalised by itself: a factor makes no difference."""
    for scale in (1.0, 1e-3):
        alone = scale * x[:1, :1]
        if not same(trial.probe(alone, off) - alone, _of_the_mlp(trial, alone)):
            return False
    large = 1e3 * x  # beside which eps is nothing
    larger = large.clone()
    larger[:, 1] *= 3
    return same(trial.probe(larger, off) - larger, trial.probe(large, off) - large)


def _attention_gets_else(trial: Trial, constant: dict[str, Tensor]) -> bool:
    """The norm gives c, one token's attention W z, but z is not c: something stands between norm and attention."""
    d, x = trial.sizes["embed_dim"], draw(1, 1, trial.sizes["embed_dim"], seed=5)
    eye, none = torch.eye(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)

    def given(weight: Tensor) -> Tensor:
        rows = torch.cat([torch.zeros(2 * d, d, dtype=torch.float64), weight])
        layers = {"attn.qkv.weight": rows, "attn.qkv.bias": none.repeat(3), "attn.proj.weight": eye}
        return trial.probe(x, {**constant, **layers, "attn.proj.bias": none}) - x

    z, weight = given(eye), draw(d, d, seed=9)
    return not same(z[0, 0], constant["norm1.bias"]) and same(given(weight), z @ weight.mT)


def _mlp_gets_else(trial: Trial, constant: dict[str, Tensor]) -> bool:
    """The norm gives c, the MLP, far to the right where GELU is the identity, W z, but z is not c."""
    d, m, x = trial.sizes["embed_dim"], trial.sizes["mlp_dim"], draw(1, 1, trial.sizes["embed_dim"], seed=5)
    few = min(d, m)
    pick = torch.eye(d, m, dtype=torch.float64)
    far = torch.full([m], 60.0, dtype=torch.float64)

    def given(weight: Tensor) -> Tensor:
        layers = {"mlp.fc1.weight": weight, "mlp.fc1.bias": far, "mlp.fc2.weight": pick}
        none = torch.zeros(d, dtype=torch.float64)
        return (trial.probe(x, {**constant, **layers, "mlp.fc2.bias": none}) - x)[0, 0, :few] - 60

    eye = torch.eye(m, d, dtype=torch.float64)
    z = given(eye)
    weight = torch.zeros(m, d, dtype=torch.float64)
    weight[:, :few] = draw(m, few, seed=9) / d
    close = (given(weight) - (weight[:, :few] @ z)[:few]).abs().max() < 1e-9
    return not same(z, constant["norm2.bias"][:few]) and bool(close)


def _constant(trial: Trial, norm: str) -> dict[str, Tensor]:
    """A norm that gives the same for every token."""
    d = trial.sizes["embed_dim"]
    return {f"{norm}.weight": torch.zeros(d, dtype=torch.float64), f"{norm}.bias": draw(d, seed=8)}


def _details(trial: Trial, step: str) -> str:
    if step not in ("first residual", "second residual"):
        return ""
    found = _sums(trial)
    return found[1] if found else ""


def dead_residual(module: nn.Module, bank: Mapping[str, Mistake] = MISTAKES) -> None:
    """A name that forward, of this module or another class of its file, sets to another name, and never reads.

    Raises:
        WrongError: there is one.
    """
    classes = {base: None for layer in module.modules() for base in type(layer).__mro__}
    for layer in (one for one in classes if one.__module__ == type(module).__module__):
        try:
            lines, start = inspect.getsourcelines(vars(layer)["forward"])
        except (KeyError, OSError, TypeError):  # it has that of its base, or one without a text
            continue
        for name, line in unread_copies(inspect.cleandoc("\n" + "".join(lines))):
            if layer.__name__ != "EncoderBlock" and not re.search("res|skip|ident|short", name.lower()):
                continue  # elsewhere an alias is nobody's residual
            text = lines[line - 1].strip()
            evidence = f"line {start + line - 1}: `{text}`; {name} is never read, and the output is right without it"
            raise WrongError(named(bank, "enc_dead_residual", evidence))


def unread_copies(source: str) -> list[tuple[str, int]]:
    """Names (and lines) that a function sets to another variable, or a clone of it, and never reads."""
    nodes = list(ast.walk(ast.parse(source)))
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    found = []
    for node in nodes:
        if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            continue
        value = node.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "clone":
            value = value.func.value
        name = node.targets[0].id
        if isinstance(value, ast.Name) and name not in read and not name.startswith("_"):
            found.append((name, node.lineno))
    return found


def _random(trial: Trial) -> str:
    """The flag of what is drawn: in the half of the MLP if nothing is without it."""
    x, off = draw(2, 4, trial.sizes["embed_dim"], seed=5), _off(trial, "mlp.fc2")
    first = trial.probe(x, off)  # a whole branch may be dropped, or not: by chance, two calls may well agree
    return "enc_random:mlp" if all(same(trial.probe(x, off), first) for _ in range(16)) else "enc_random"


def _moved(name: str, step: str) -> Mistake:
    """A mistake of the bank in another step."""
    mistake = MISTAKES[name]
    return replace(mistake, step=step, hints=(NUDGES[step], *mistake.hints[1:]))


# The bank has the step of the first half for mistakes that both halves can have.
_LATER = {"first residual": "second residual", "attention": "MLP"}
_IN_THE_SECOND_HALF = {
    flag: _moved(name, _LATER[MISTAKES[name].step])
    for flag, name in ((flag, reference.mistake_name(flag)) for flag in (*reference.SECOND, "enc_random:mlp"))
    if MISTAKES[name].step in _LATER
}
_IN_THE_SECOND_HALF["enc_half_twice:attn"] = _moved("enc_half_twice", "first residual")

for _flags, _which in ((reference.NORM1, "first"), (reference.NORM2, "second")):
    for _flag in _flags:
        _mistake = MISTAKES[reference.mistake_name(_flag)]
        _IN_THE_SECOND_HALF[_flag] = replace(_mistake, what=f"{_mistake.what} (It is the {_which} norm.)")

_DIRECT = {
    "parameters": "Two norms of width D, the attention's and the MLP's layers.",
    "norms": "nn.LayerNorm over D with eps 1e-6, before attention and before the MLP, and nowhere else.",
    "attention": "Compare what your attention gives for norm1(x) with exercise 5's.",
    "first residual": "With attention's last layer at 0, Eq. 2 leaves x as it is. Does yours?",
    "MLP": "Compare what your MLP gives for norm2(x) with exercise 6's.",
    "second residual": "With the MLP's last layer at 0, Eq. 3 leaves its input as it is. Does yours?",
}

_NAMELESS = {
    "norms": "You normalise in another way; each half should begin with LayerNorm of its input, over D, with eps 1e-6.",
    "attention": "Your attention gives other numbers in the block; it should be exercise 5's, of the first norm.",
    "first residual": "You do something else after attention; Eq. 2 should give the token plus attention's output.",
    "MLP": "Your MLP gives other numbers in the block; it should be exercise 6's, of the second norm's output.",
    "second residual": "You do something else after the MLP; Eq. 3 should give Eq. 2's result plus the MLP's output.",
}


def _cut(trial: Trial, roles: Collection[str], partly: bool) -> str:
    """Where a gradient is cut off that does not go around, or through, attention (then all layers have theirs), or the
    MLP (then attention's layers have a part of it)."""
    if roles and (not partly or any(role.startswith(("norm2", "mlp")) for role in roles)):
        return "parameters"
    if _goes_around(trial):
        return "MLP" if roles else "attention"
    return "second residual" if roles else "first residual"


def _goes_around(trial: Trial) -> bool:
    """Whether the whole gradient comes back to the input while both halves add nothing."""
    ends = ("attn.proj.weight", "attn.proj.bias", "mlp.fc2.weight", "mlp.fc2.bias")
    x = trial.inputs[0].clone().requires_grad_()
    with trial.replaced({name: torch.zeros_like(trial.parameters[name]) for name in ends if name in trial.parameters}):
        output = pick_tensor(trial.module(x), x.shape)
        if output is None or not output.requires_grad:
            return False
        gradient = torch.autograd.grad(output.sum(), x, allow_unused=True)[0]
    return gradient is not None and same(gradient, torch.ones_like(gradient))


PART = Part(
    name="EncoderBlock",
    sizes=(
        {"embed_dim": 35, "num_heads": 5, "mlp_dim": 29},
        {"embed_dim": 22, "num_heads": 2, "mlp_dim": 37},
    ),
    steps=STEPS,
    bank=MISTAKES,
    maps=lambda module, sizes: block_maps(module, **sizes),
    compute=_compute,
    stages=reference.BLOCK_STAGES,
    missing={
        "attn.qkv.weight": "attn_layer_used_twice",
        "attn.qkv.bias": "attn_no_qkv_bias",
        "attn.proj.weight": "attn_no_out_proj",
        "attn.proj.bias": "attn_no_out_bias",
        "mlp.fc1.bias": "mlp_no_bias",
        "mlp.fc2.bias": "mlp_no_bias",
        "norm1.bias": "enc_norm_no_affine",
        "norm2.bias": "enc_norm_no_affine",
        "norm1.weight": "enc_norm_no_affine",
        "norm2.weight": "enc_norm_no_affine",
    },
    count=count,
    random=_random,
    special=_IN_THE_SECOND_HALF,
    place=failing.in_block,
    ends=(("mlp.fc2", "second residual"), ("attn.proj", "first residual")),
    widths=_check_widths,
    localise=_localise,
    probes=(_sums, _attention_half, _mlp_half),
    details=_details,
    nameless=_NAMELESS,
    direct={step: (NUDGES[step], _DIRECT[step]) for step in STEPS},
    facts=(
        "each token is normalised by itself, with eps 1e-6, before attention and before the MLP",
        "the block is the identity when both last layers give 0: both residuals are there",
        "the MLP reads what attention has added to",
    ),
    linked=lambda trial: dead_residual(trial.module),
    cut=_cut,
    shared="enc_shared_norm",
    absorbed={
        **multi_head_self_attention.PART.absorbed,
        "enc_norm_no_affine": frozenset({"enc_no_norm", "enc_rms_norm", "enc_half_unused"}),
    },
)
