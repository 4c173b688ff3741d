"""How a module that a student wrote is checked: built, awakened, matched with the reference, and explained."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import ModuleType

import torch
from torch import Tensor, nn

from vitscratch.exercises.checks.compare import TOLERANCE, difference, draw, explain, same
from vitscratch.exercises.checks.failing import Place
from vitscratch.exercises.checks.modes import in_both_modes
from vitscratch.exercises.checks.naming import named_problem
from vitscratch.exercises.checks.reference import RIGHT, SAME_LAYER, Flags, Parameters, mistake_name
from vitscratch.exercises.checks.roles import RoleMap, UnmatchedError, awaken, call_anew, hidden_in_containers
from vitscratch.exercises.checks.student import (
    WrongError,
    another,
    built,
    construct,
    counted,
    describe,
    differs,
    drawn,
    going_back,
    in_place,
    low_precision,
    not_kept,
    noted,
    pick_tensor,
    place_of,
    run,
    shape_of,
    unregistered,
)
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem

Sizes = Mapping[str, int]

# Pictures, tokens, standard deviation. Tiny tokens show a wrong eps; one picture alone, a batch that matters.
INPUTS = ((3, 6, 1.0), (1, 13, 1e-3), (5, 2, 3.0))


@dataclass(frozen=True)
class Part:
    """What a check knows of the module that it checks."""

    name: str
    """Of the class."""
    sizes: tuple[Sizes, ...]
    """Arguments that it is built with."""
    steps: tuple[str, ...]
    bank: Mapping[str, Mistake]
    maps: Callable[[nn.Module, Sizes], list[RoleMap]]
    compute: Callable[[Tensor, Parameters, Sizes, Flags], Tensor]
    """The reference."""
    stages: Sequence[Sequence[str]]
    missing: Mapping[str, str]
    """The library's name of a parameter that is not there -> the flag of that mistake."""
    count: Callable[[Sizes], int]
    """How many numbers a right one learns."""
    random: Callable[["Trial"], str]
    """The flag of different outputs for the same input."""
    place: Place
    """The step in which its code ends with an exception."""
    ends: tuple[tuple[str, str], ...]
    """From the end to the start: a layer, by the library's name, and the step in which what it gives is added."""
    widths: Callable[[nn.Module, Sizes], None]
    """Raises WrongError for layers that have another width than was asked for."""
    localise: Callable[["Trial"], tuple[str, str]]
    """Of a mistake that has no name: the step that it is in, and what shows it."""
    details: Callable[["Trial", str], str]
    """More numbers for a mistake in this step."""
    nameless: Mapping[str, str]
    """Step -> what to say of a mistake that has no name: "You ...; it should ..."."""
    direct: Mapping[str, tuple[str, str]]
    """Step -> two hints for it."""
    facts: tuple[str, ...]
    """What is true of a right solution, in the order of the computation."""
    cut: Callable[["Trial", Collection[str], bool], str] = field(default=lambda trial, roles, partly: "parameters")
    """Roles whose gradients are wrong ("k.weight", "proj.bias"), and whether something is left of them -> the step in
    which they are cut off."""
    linked: Callable[["Trial"], None] = field(default=lambda trial: None)
    """Raises WrongError for what a right output does not show."""
    shared: str = ""
    """The flag of one layer in two roles."""
    special: Mapping[str, Mistake] = field(default_factory=dict)
    """Flags of a mistake in another step than the bank has it."""
    special_of_packed: Mapping[str, Mistake] = field(default_factory=dict)
    """The same, where one layer makes queries, keys and values."""
    absorbed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """A mistake of missing parameters -> those that explain by themselves why they are missing."""
    probes: tuple[Callable[["Trial"], tuple[str, str] | None], ...] = ()
    """What `localise` goes by: None where a probe passes. A wrong reading of the parameters passes fewer."""


@dataclass
class Trial:
    """One module of the student, awake, with what it gives for some inputs."""

    part: Part
    sizes: Sizes
    module: nn.Module
    maps: list[RoleMap]
    inputs: list[Tensor]
    outputs: list[Tensor]

    @cached_property
    def role_map(self) -> RoleMap:
        """The first under which the outputs are right; if none is, the first, until `explain` has found a better."""
        return next((one for one in self.maps if self.is_right(one)), self.maps[0])

    def is_right(self, role_map: RoleMap) -> bool:
        """The student's outputs are those of the reference with the parameters read in this way."""
        parameters = role_map.read(self.module)
        return all(
            same(seen, self.part.compute(x, parameters, self.sizes, RIGHT))
            for x, seen in zip(self.inputs, self.outputs, strict=True)
        )

    @cached_property
    def right(self) -> bool:
        """The student's outputs are right."""
        return self.is_right(self.role_map)

    def explain(self, pairs: bool = True) -> tuple[str, ...] | None:
        """The flags that reproduce the outputs: one under any reading of the parameters, else two under the likeliest.

        The reading is kept as `role_map`, so that all numbers that are shown come from it.
        """
        for role_map in self.maps[:24]:
            if found := self._explained(role_map, pairs=False):
                self._keep(role_map)
                return found
        self._keep(max(self.maps[:24], key=self._passed))
        return self._explained(self.role_map, pairs=True) if pairs else None

    def _explained(self, role_map: RoleMap, pairs: bool) -> tuple[str, ...] | None:
        parameters = {name: value.detach() for name, value in role_map.read(self.module).items()}
        return explain(
            self.outputs,
            lambda i, flags: self.part.compute(self.inputs[i], parameters, self.sizes, flags),
            self.part.stages,
            pairs,
        )

    def _keep(self, role_map: RoleMap) -> None:
        self.role_map = role_map
        self.__dict__.pop("parameters", None)  # of the reading before

    def _passed(self, role_map: RoleMap) -> int:
        """How many probes are fine with this reading."""
        alone = replace(self, maps=[role_map])
        return sum(probe(alone) is None for probe in self.part.probes) if len(self.maps) > 1 else 0

    def probe(self, x: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """The student's output with some of the parameters replaced, by the library's names; they are put back."""
        with self.replaced(values):
            return call(self.module, x, self.part.steps[0])

    @contextmanager
    def replaced(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Some of the parameters replaced for a while."""
        kept = {name: parameter.detach().clone() for name, parameter in self.module.named_parameters()}
        try:
            self.role_map.write(self.module, values)
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.module.named_parameters():
                    parameter.copy_(kept[name])

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """The student's, awake, by the library's names."""
        return {name: value.detach() for name, value in self.role_map.read(self.module).items()}

    @property
    def built(self) -> str:
        """How it was built: "MLP(embed_dim=35, mlp_dim=29)"."""
        return built(self.part.name, self.sizes)

    def code(self, i: int = 0, model: str = "") -> str:
        """How a student computes output `i`: "awaken(MLP(embed_dim=35, mlp_dim=29))(draw(3, 6, 35))"."""
        with torch.no_grad():
            result = self.module(self.inputs[i].clone())
        called = f"{model or f'awaken({self.built})'}({_drawn(i, self.sizes)})"
        return called + place_of(result, pick_tensor(result, self.inputs[i].shape))

    def evidence(self, step: str) -> str:
        """Numbers that the student can reproduce, and what shows the step, if anything does."""
        for i, (x, seen) in enumerate(zip(self.inputs, self.outputs, strict=True)):
            expected = self.part.compute(x, self.parameters, self.sizes, RIGHT)
            if not same(seen, expected):
                return _lines(difference(seen, expected, self.code(i)), self.part.details(self, step))
        return ""


def _drawn(i: int, sizes: Sizes) -> str:
    """For evidence: how input `i` is drawn."""
    batch, tokens, deviation = INPUTS[i]
    return drawn((batch, tokens, sizes["embed_dim"]), factor=deviation)


def _lines(*parts: str) -> str:
    """Those that say anything, each on a line of its own."""
    return "\n".join(part.removesuffix("; ") for part in parts if part)


def _beside(trial: Trial) -> str:
    """What to know of a module that returns more than its output, before another one adds it to something."""
    with torch.no_grad():
        result = trial.module(trial.inputs[1].clone())
    if isinstance(result, Tensor):
        return ""
    place = place_of(result, pick_tensor(result, trial.inputs[1].shape))
    return f"as {place} of a {type(result).__name__}: the block or model that calls it has to take it out"


def check_part(part: Part, student: ModuleType) -> Iterator[Outcome]:
    """What is right about the student's class, then the first thing that is wrong."""
    try:
        yield from in_both_modes(partial(_check, part), student)
    except WrongError as error:
        yield error.problem


def _check(part: Part, student: ModuleType) -> Iterator[Outcome]:
    trials = [_trial(part, student, sizes) for sizes in part.sizes]
    yield Passed(
        f"{trials[0].built} can be built, and gives (b, n, d) for (b, n, d): pictures 1, 3 and 5, tokens 2, 6, 13",
        _beside(trials[0]),
    )
    for trial in trials:
        if problem := _by_chance(trial):
            raise WrongError(problem)
        _in_place(trial)
        flags = [_flag(trial, name) for name in _missing(trial)]
        if trial.right and trial.role_map.shared:
            flags.append(part.shared)
        if not trial.right or flags:
            raise WrongError(_problem(trial, flags))
        if trial.role_map.surplus:
            raise WrongError(_surplus(trial, "that the output does not depend on"))
    yield Passed("its parameters are registered, as many as there should be and of the right shapes")
    _gradients(trials[0])
    part.linked(trials[0])
    for fact in part.facts:
        yield Passed(fact)
    yield Passed("outputs and gradients are right with random weights in float64, for sizes " + _all_sizes(part))


def _by_chance(trial: Trial) -> Problem | None:
    """What to say if two calls differ."""
    part = trial.part
    again = another(lambda: call(trial.module, trial.inputs[0], part.steps[0]), trial.outputs[0])
    if again is None:
        return None
    evidence = differs(trial.code(), trial.outputs[0], again)
    return named_problem([part.random(trial)], part.bank, part.steps, lambda _: evidence, part.special)


def _in_place(trial: Trial) -> None:
    """A sum in place is right where the tensor is the module's own; the caller's has to stay as it was.

    Raises:
        WrongError: the input differs after the call. The step is that of the last layer that has to be silent for it
            to stay as it was.
    """

    def after(silent: Sequence[str]) -> Tensor:
        off = {name: 0 * value for name, value in trial.parameters.items() if name.rpartition(".")[0] in silent}
        given = trial.inputs[0].clone()
        with trial.replaced(off), torch.no_grad():
            trial.module(given)
        return given

    given, x = after(()), trial.inputs[0]
    if torch.equal(given, x):
        return
    silent = [layer for layer, _ in trial.part.ends]
    steps = (step for i, (_, step) in enumerate(trial.part.ends) if torch.equal(after(silent[: i + 1]), x))
    code = f"x = {_drawn(0, trial.sizes)}; _ = awaken({trial.built})(x); x"
    raise WrongError(in_place(difference(given, x, code), next(steps, trial.part.steps[1])))


def _missing(trial: Trial) -> list[str]:
    """The library's names of what is not there; without a layer, its bias is not named as well."""
    absent = trial.role_map.missing
    return [
        name
        for name in absent
        if name in trial.part.missing and name.replace("bias", "weight") not in {*absent} - {name}
    ]


def _flag(trial: Trial, name: str) -> str:
    """Of what is missing: of a layer of q, k or v, it tells which of them share one."""
    return SAME_LAYER.get(trial.role_map.twice(name), trial.part.missing[name])


def _missing_words(trial: Trial) -> str:
    """What is not there: a bias by the name that it would have in the student's module, else the library's."""
    there = dict(trial.module.named_parameters())
    words = []
    for name in (name for name in trial.role_map.missing if name in trial.part.missing):
        weight = name.replace("bias", "weight")
        of_three = name.endswith(("qkv.weight", "qkv.bias"))
        if of_three and name not in _missing(trial):  # its layer is named
            continue
        without = trial.role_map.without(name) if of_three else []
        layers = [piece for piece in trial.role_map.pieces if piece.target == weight != name]
        biases = [f"{piece.name.removesuffix('weight')}bias" for piece in layers if piece.name.endswith("weight")]
        absent = [bias for bias in dict.fromkeys(biases) if bias not in there]
        packed = any(not piece.index for piece in layers)
        if of_three and len(without) < 3 and (packed or len(absent) != len(without)):
            words.append(_some_of_three(name, without))
        else:
            words += absent or [name]
    return ", ".join(words)


def _some_of_three(name: str, without: Sequence[int]) -> str:
    """What of a weight or bias of queries, keys and values (0, 1, 2) is not there."""
    if name.endswith("weight"):
        return f"{'a layer for one' if len(without) == 1 else 'layers for two'} of queries, keys and values"
    return f"the bias of {' and '.join(('queries', 'keys', 'values')[place] for place in without)}"


def _hidden(trial: Trial) -> str:
    """What to say if nothing but the bias of the keys is missing, which no output shows."""
    keys_alone = [name for name in _missing(trial) if name.endswith("qkv.bias") and trial.role_map.without(name) == [1]]
    if not trial.right or not keys_alone:
        return ""
    return (
        "the output is right all the same: softmax does not see what is added to all scores of a query, as a bias of "
        "the keys is; the count does"
    )


def _all_sizes(part: Part) -> str:
    return " and ".join(str(tuple(sizes.values())) for sizes in part.sizes)


def _trial(part: Part, student: ModuleType, sizes: Sizes) -> Trial:
    module = construct(student, part.name, sizes)
    step, width = part.steps[0], sizes["embed_dim"]
    codes = [f"awaken({built(part.name, sizes)})({_drawn(i, sizes)})" for i in range(len(INPUTS))]
    x = draw(3, 6, width).float()  # in float32, as it was built
    with torch.no_grad(), noted(f"called as in {codes[0]}", lambda: module(x), part.place):
        module.eval()
        result = run(module, x, step=step, code=codes[0])
    if pick_tensor(result, (3, 6, width)) is None:
        raise WrongError(_wrong_shape(part, sizes, result))
    part.widths(module, sizes)
    try:
        maps = part.maps(module, sizes)
    except UnmatchedError as error:
        raise WrongError(_unmatched(part, sizes, module, str(error))) from None
    awaken(module)
    inputs = [draw(b, n, width) * deviation for b, n, deviation in INPUTS]
    outputs = []
    for i, (x, code) in enumerate(zip(inputs, codes, strict=True)):
        drawings = (_drawn(0, sizes), _drawn(i, sizes))
        with (
            torch.no_grad(),
            not_kept(built(part.name, sizes), drawings, step, partial(call_anew, student, part.name, sizes, x)),
            noted(f"called as in {code}", lambda x=x: module(x), part.place),  # type: ignore[misc]
        ):
            outputs.append(call(module, x, step, code))
    return Trial(part, sizes, module, maps, inputs, outputs)


def call(module: nn.Module, x: Tensor, step: str, code: str = "the module") -> Tensor:
    """The student's output, which has the shape of the input; `code` is how a student writes the call."""
    with torch.no_grad():
        result = run(module, x.clone(), step=step, code=code)
    output = pick_tensor(result, x.shape)
    if output is None:
        raise WrongError(
            Problem(
                "Your output does not have the shape of the input; it should, for every size of batch and of picture.",
                f"{code} returns {shape_of(result)}; it should return {tuple(x.shape)}",
                step,
                ("Which line assumes a size?", "Take sizes from x.shape."),
            )
        )
    return output


def _wrong_shape(part: Part, sizes: Sizes, result: object) -> Problem:
    width = sizes["embed_dim"]
    tensor = next((thing for thing in (result if isinstance(result, tuple | list) else [result])), None)
    per_head = isinstance(tensor, Tensor) and (tensor.ndim != 3 or tensor.shape[-1] != width)
    step = "merging heads" if per_head and "merging heads" in part.steps else part.steps[-1]
    code = f"awaken({built(part.name, sizes)})({_drawn(0, sizes)})"
    return Problem(
        "Your output does not have the shape of the input; it should.",
        f"{code} returns {shape_of(result)}; it should return (3, 6, {width})",
        step,
        (
            "Print the shape after every line of forward: where does it first differ from the stub's comment?",
            "The last line has to return (b, n, d), as wide as it came in.",
        ),
    )


def _unmatched(part: Part, sizes: Sizes, module: nn.Module, message: str) -> Problem:
    numbers = counted(built(part.name, sizes), module, part.count(sizes))
    hidden = hidden_in_containers(module)
    if hidden:
        return unregistered(hidden, numbers)
    wide = [one for one in module.modules() if isinstance(one, nn.Conv1d) and one.kernel_size != (1,)]
    if wide:
        return Problem(
            "Your convolution looks at several tokens at once; each token should be changed by itself.",
            f"{numbers}\n{wide[0]}",
            "parameters",
            (
                "What does a kernel of 3 read beside the token itself?",
                "nn.Linear works on each token by itself; so does nn.Conv1d with a kernel_size of 1.",
            ),
        )
    if sum(parameter.numel() for parameter in module.parameters()) == part.count(sizes):
        return _unknown_layout(f"{numbers}\n{message}")
    return Problem(
        "Your parameters are not those that this computation needs; there should be one for each matrix and vector of "
        "the equations.",
        f"{numbers}\n{message}",
        "parameters",
        (
            "Count: which weights does the equation have, and how large is each?",
            "Compare your layers with the sizes in the stub, one by one. Your own names are fine.",
        ),
    )


def _problem(trial: Trial, flags: list[str]) -> Problem:
    """Why the outputs differ, or what is missing: flags of missing parameters come along."""
    part = trial.part
    found: tuple[str, ...] | None = ()
    if not trial.right:
        found = trial.explain(pairs=not (flags and trial.role_map.surplus))  # else the reading is to blame, not two
        if found is not None:  # with another reading, perhaps, under which other layers are missing
            flags = [_flag(trial, name) for name in _missing(trial)]
    if found is None and not flags:
        if trial.role_map.surplus:
            return _surplus(trial, "and the output depends on them")
        x = trial.inputs[0]
        if problem := low_precision(lambda: trial.module(x.clone()), part.place, trial.evidence("")):
            return problem
        step, evidence = part.localise(trial)
        return Problem(part.nameless[step], _lines(trial.evidence(""), evidence), step, part.direct[step])
    if found is None and trial.role_map.surplus:
        shapes = [f"{name} {tuple(trial.module.get_parameter(name).shape)}" for name in trial.role_map.surplus]
        told = f"no role was found for {', '.join(shapes)}; not there: {_missing_words(trial)} of the equations"
        if problem := _of_one_head(trial, told):
            return problem
        if any(name.endswith("proj.weight") for name in _missing(trial)):
            told += ", which takes the heads side by side: embed_dim x embed_dim"
        return _unknown_layout(f"{trial.built} has {describe(trial.module)}\n{told}")
    there = counted(trial.built, trial.module, part.count(trial.sizes)) if flags else ""
    there += f"; missing: {_missing_words(trial)}" if _missing(trial) else ""
    names = {mistake_name(flag) for flag in found or ()}
    flags = [flag for flag in flags if not part.absorbed.get(mistake_name(flag), frozenset()) & names]
    every = list(dict.fromkeys([*flags, *(found or ())]))
    packed = any(piece.target.endswith("qkv.weight") and not piece.index for piece in trial.role_map.pieces)
    special = {**part.special, **(part.special_of_packed if packed else {})}
    hidden = _hidden(trial)
    whole = not any(name.endswith("weight") for name in _missing(trial))  # without a layer, no number is the right one
    return named_problem(
        every,
        part.bank,
        part.steps,
        lambda step: _lines(there, trial.evidence(step) if whole or not there else "", hidden),
        special,
    )


def _of_one_head(trial: Trial, told: str) -> Problem | None:
    """Whether the last layer of attention takes as much as one head gives."""
    width, heads = trial.sizes["embed_dim"], trial.sizes.get("num_heads", 1)
    of_head = any(
        tuple(trial.module.get_parameter(name).shape) == (width, width // heads) for name in trial.role_map.surplus
    )
    if not of_head or not any(name.endswith("proj.weight") for name in _missing(trial)):
        return None
    return Problem(
        "You give your last layer the width of one head; it should get all of the heads, side by side.",
        f"{trial.built} has {describe(trial.module)}\n{told}",
        "merging heads" if "merging heads" in trial.part.steps else "attention",
        (
            "How many numbers does a token have when the outputs of all heads stand side by side?",
            "Heads are not added or averaged: they are put one after the other, embed_dim numbers in all.",
        ),
    )


def _unknown_layout(evidence: str) -> Problem:
    """Some parameters have no role, and some roles no parameter: it may be right, but nobody can tell."""
    return Problem(
        "Your parameters could not all be matched with those of the equations, so that nothing can be compared; each "
        "weight and bias should be one by itself.",
        evidence,
        "parameters",
        (
            "Is each weight and each bias of the equations a parameter by itself, or rows of one for q, k and v?",
            "Your own names are fine; nn.Linear and nn.LayerNorm are always recognised.",
        ),
    )


def _surplus(trial: Trial, effect: str) -> Problem:
    names = ", ".join(trial.role_map.surplus)
    hints = ("Which of your layers does no equation ask for?", f"Look at {names}.")
    what = f"You have parameters that no equation has, {effect}; there should be none."
    evidence = counted(trial.built, trial.module, trial.part.count(trial.sizes)) + f"\ntoo many: {names}"
    return Problem(what, evidence, "parameters", hints, "surplus_parameters")


def _gradients(trial: Trial) -> None:
    """The gradients of input and parameters are the reference's, too."""
    module, x = trial.module, trial.inputs[0].clone().requires_grad_()
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            raise WrongError(_frozen(trial, name))
    output = pick_tensor(module(x), x.shape)
    expected = trial.part.compute(x, trial.role_map.read(module), trial.sizes, RIGHT)
    named = {"the input": x, **dict(module.named_parameters())}
    loss = draw(*x.shape, seed=4)
    right = torch.autograd.grad((expected * loss).sum(), list(named.values()), allow_unused=True)
    found: Sequence[Tensor | None] = [None] * len(right)
    if output is not None and output.requires_grad:
        with going_back(f"{trial.code()}.sum().backward()", trial.part.ends[0][1]):
            found = torch.autograd.grad((output * loss).sum(), list(named.values()), allow_unused=True)
    largest = max(float(gradient.abs().max()) for gradient in right if gradient is not None)
    off = {
        name: _or_zero(mine, tensor) - _or_zero(its, tensor)
        for (name, tensor), mine, its in zip(named.items(), found, right, strict=True)
    }
    wrong = [name for name, gap in off.items() if bool(gap.abs().max() > TOLERANCE * largest)]
    if wrong:
        gaps = trial.role_map.laid_out(off)
        roles = {name for name, gap in _by_role(gaps).items() if bool(gap.abs().max() > TOLERANCE * largest)}
        parameters = [name for name in wrong if name != "the input"]
        gradients = dict(zip(named, found, strict=True))
        partly = all(bool(_or_zero(gradients[name], named[name]).any()) for name in parameters)
        step = trial.part.cut(trial, roles, partly)
        name = "the input" if "residual" in step or not parameters else parameters[0]  # it goes around the layers
        its = _or_zero(right[list(named).index(name)], named[name])
        flows = output is not None and output.requires_grad
        raise WrongError(_cut_gradient(trial, name, gradients[name], its, flows, step))


def _frozen(trial: Trial, name: str) -> Problem:
    return Problem(
        "You freeze a parameter, so that it never learns; all of them should.",
        f"{trial.built}.get_parameter({name!r}).requires_grad is False; it should be True",
        "parameters",
        ("Which line sets requires_grad?", "A parameter learns unless it is told otherwise: leave requires_grad out."),
        "gradient_cut",
    )


def _or_zero(gradient: Tensor | None, tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if gradient is None else gradient


def _by_role(parameters: Parameters) -> dict[str, Tensor]:
    """With those of queries, keys and values apart: "q.weight" and so on for "qkv.weight"."""
    found = {}
    for name, value in parameters.items():
        layer, _, kind = name.rpartition(".")
        packed = layer.endswith("qkv")
        parts = zip("qkv", value.chunk(3), strict=True) if packed else [(layer, value)]
        found.update({f"{part}.{kind}": one for part, one in parts})
    return found


def _cut_gradient(trial: Trial, name: str, mine: Tensor | None, its: Tensor, flows: bool, step: str) -> Problem:
    x = _drawn(0, trial.sizes)
    called = trial.code(model="m").replace(x, "x")
    grad = "x.grad" if name == "the input" else f"m.get_parameter({name!r}).grad"
    start = f"m = awaken({trial.built}); x = {x}.requires_grad_()"
    code = f"{start}; ({called} * {drawn(trial.outputs[0].shape, seed=4)}).sum().backward(); {grad}"
    evidence = f"{code} is None; it should be a tensor" if mine is None else difference(mine, its, code)
    if not flows:
        evidence = f"{start}; {called}.requires_grad is False; it should be True"
    return Problem(
        f"You cut the gradient of {name} off, or change it; it should flow as the equations say.",
        evidence,
        step,
        ("Which call takes a tensor out of the graph?", "No detach, .data, no_grad, .item() or numpy in forward."),
        "gradient_cut",
    )
