"""Exercise 3: class token and position embedding."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from traceback import walk_tb
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vitscratch.exercises.checks import failing, prepending
from vitscratch.exercises.checks.compare import difference, draw, same
from vitscratch.exercises.checks.modes import in_both_modes
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.checks.prepending import CLASS_TOKEN, POSITION, Table, batch_copies, find_table
from vitscratch.exercises.checks.roles import awaken, call_anew, hidden_in_containers
from vitscratch.exercises.checks.student import (
    WrongError,
    another,
    built,
    construct,
    describe,
    differs,
    drawn,
    going_back,
    in_place,
    is_about_a_size,
    line_of,
    low_precision,
    not_kept,
    noted,
    pick_tensor,
    place_of,
    run,
    shape_of,
    tensor_in,
    unregistered,
)
from vitscratch.exercises.exercise import Mistake, Outcome, Passed, Problem

MISTAKES: dict[str, Mistake] = {
    **prepending.MISTAKES,
    "tok_global_name": Mistake(
        "tok_global_name",
        "You take a size from somewhere else (a global name, or a number such as 197); it should come from the "
        "arguments.",
        POSITION,
        (
            "How many rows does the table have for 7 patches?",
            "Use num_patches and embed_dim in __init__, and in forward the shape of what comes in.",
        ),
        section="A position for each token",
    ),
}
SIZES = [(7, 11), (13, 5)]  # patches, width
BATCHES = (1, 3, 5)
CALLS, FEW = 16, 4  # calls with the same input; of how many values dropout makes a number, if it is used twice


def check(student: ModuleType) -> Iterator[Outcome]:
    """Parameters, shapes for several batches, independence of the batch, and the values."""
    try:
        yield from in_both_modes(_check, student)
    except WrongError as error:
        yield error.problem
    except NameError as error:
        if not is_about_a_size(error):
            raise
        *_, (_, line) = walk_tb(error.__traceback__)
        evidence = f"line {line}: NameError: {error}; it is no argument, and no attribute of self"
        yield named(MISTAKES, "tok_global_name", evidence)


def _made_for_others(student: ModuleType) -> Problem | None:
    """What is made for the 196 patches of ViT-B/16, whatever is asked for."""
    try:
        layer = student.Tokens(num_patches=196, embed_dim=768)
        table = find_table(dict(layer.named_parameters()), 196, 768)
        found = tensor_in(layer(draw(2, 196, 768).float()), (2, 197, 768))
    except Exception:
        return None
    if shape_of(found) != "(2, 197, 768)" or not table.cls or not table.pos:
        return None
    evidence = "Tokens(num_patches=196, embed_dim=768) has a fitting table, those for other numbers have not"
    return named(MISTAKES, "tok_global_name", evidence)


def _check(student: ModuleType) -> Iterator[Outcome]:
    layers = [(_construct(student, patches, width), patches, width) for patches, width in SIZES]
    for layer, num_patches, width in layers:
        if problem := parameters_problem(layer, num_patches, width):
            table = find_table(dict(layer.named_parameters()), num_patches, width)
            fits = problem.mistake or (table.cls and table.pos)
            yield problem if fits else _made_for_others(student) or problem
            return
    yield Passed("one class token and one table of positions are registered as parameters")
    runs = []
    for layer, num_patches, width in layers:
        awaken(layer)
        before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
        for batch in BATCHES:
            patches = draw(batch, num_patches, width, seed=batch)
            sizes = {"num_patches": num_patches, "embed_dim": width}
            drawings = drawn((BATCHES[0], num_patches, width), BATCHES[0]), drawn(patches.shape, batch)
            with not_kept(
                built("Tokens", sizes), drawings, CLASS_TOKEN, partial(call_anew, student, "Tokens", sizes, patches)
            ):
                tokens = _run(layer, patches)
            if problem := _shape_problem(layer, patches, tokens) or _changed(layer, before, patches):
                yield problem
                return
            runs.append((layer, patches, tokens))
    yield Passed("N patches become N + 1 tokens, for batches of 1, 3 and 5")
    yield from _values(runs)


def _construct(student: ModuleType, num_patches: int, width: int) -> nn.Module:
    sizes = {"num_patches": num_patches, "embed_dim": width}
    with noted(f"called as in {built('Tokens', sizes)}"):
        layer = construct(student, "Tokens", sizes)
        with _memory_is_nan():
            again = construct(student, "Tokens", sizes)
    if empty := [name for name, parameter in again.named_parameters() if bool(parameter.isnan().any())]:
        raise WrongError(
            Problem(
                "You leave a parameter as it was found in memory (torch.empty, torch.Tensor); it should start at zero "
                "or at random.",
                f"{built('Tokens', sizes)} has {', '.join(empty)} without a value: any number may be in it, nan, too",
                "parameters",
                (
                    "Which numbers does torch.empty(2, 3) have?",
                    "torch.zeros, torch.randn(...) * 0.02, or nn.init.trunc_normal_ after torch.empty.",
                ),
            )
        )
    return layer


@contextmanager
def _memory_is_nan() -> Iterator[None]:
    """Torch fills what nobody has set with nan, as long as it is to be deterministic."""
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


def parameters_problem(layer: nn.Module, num_patches: int, width: int) -> Problem | None:
    """What is registered, if it is not one class token and one table of N + 1 positions."""
    parameters = dict(layer.named_parameters())
    has = f"Tokens(num_patches={num_patches}, embed_dim={width}) has the parameters: {describe(layer)}"
    for name, parameter, copies in batch_copies(parameters, num_patches, width):
        surplus = (copies - 1) * parameters[parameter].numel() // copies
        evidence = f"{has}; {parameter} holds {copies} copies, {copies - 1} of them surplus ({surplus:,} numbers)"
        return named(MISTAKES, name, evidence)
    table = find_table(parameters, num_patches, width)
    if not table.cls or not table.pos:
        code = _code((2, num_patches, width))
        return missing(layer, table, num_patches, width, has, code, lambda: _try(layer, num_patches, width))
    if surplus_names := [name for name in parameters if name not in table.names]:
        norms = all("Norm" in type(layer.get_submodule(name.rpartition(".")[0])).__name__ for name in surplus_names)
        if norms:
            return named(MISTAKES, "tok_norm", f"{has}; {', '.join(surplus_names)} belong to a norm")
        return Problem(
            "There are more parameters than a class token and a table of positions.",
            f"{has}; not expected: {', '.join(surplus_names)}",
            "parameters",
            ("What is learned here? One vector and one table.", "(N + 2) * embed_dim numbers in all."),
        )
    if table.rows == num_patches:
        found, rows = _try(layer, num_patches, width), f"{table.pos} has {table.rows} rows for {num_patches + 1} tokens"
        if shape_of(found) == str((2, num_patches + 1, width)):
            return named(MISTAKES, "vit_pos_not_on_cls", f"{has}; {rows}")
        if prepending.is_a_row_short(found, num_patches):  # added after the class token was put in front
            return prepending.a_row_short(f"{has}; {rows}{line_of(found)}")
    return None


def missing(
    layer: nn.Module, table: Table, num_patches: int, width: int, has: str, code: str, attempt: Callable[[], Any]
) -> Problem:
    """Why class token or positions are not among the parameters.

    `has` says what its parameters are, and `code` how a student runs it; `attempt` does, or returns an exception.
    """
    layer.eval()
    first, again = attempt(), attempt()
    if isinstance(first, Tensor) and isinstance(again, Tensor) and not torch.equal(first, again):
        apart = differs(code, first, again)
        return named(MISTAKES, "vit_pos_random_each_forward", f"{apart}; {has}")
    return (
        _kept_elsewhere(layer, num_patches, width, has)
        or _one_is_missing(layer, table, num_patches, width, has, runs=isinstance(first, Tensor))
        or Problem(
            "You have no class token, or no positions, among the parameters; both should be there.",
            f"{has}; expected a class token of {width} numbers and positions of ({num_patches + 1}, {width})",
            "parameters",
            (
                "What does dict(module.named_parameters()) list?",
                "nn.Parameter(torch.zeros(1, 1, embed_dim)) for the one, N + 1 rows for the other.",
            ),
        )
    )


def _kept_elsewhere(layer: nn.Module, num_patches: int, width: int, has: str) -> Problem | None:
    """A buffer, a plain tensor, or parameters in a plain list."""
    tensors = {
        name: thing
        for module in layer.modules()
        for name, thing in (*vars(module).items(), *module._buffers.items())
        if isinstance(thing, Tensor)
    }
    for name, tensor in tensors.items():
        if tensor.numel() in (width, num_patches * width, (num_patches + 1) * width):
            kept = any(name in module._buffers for module in layer.modules())
            kind = "a buffer" if kept else "a plain tensor, neither saved nor moved to a GPU with the model"
            return named(MISTAKES, "tok_not_parameter", f"{has}; {name} {tuple(tensor.shape)} is {kind}")
    path = hidden_in_containers(layer)
    return unregistered(path, has) if path else None


def _one_is_missing(
    layer: nn.Module, table: Table, num_patches: int, width: int, has: str, runs: bool
) -> Problem | None:
    """What the parameters that are there, by shape and by name, say about the one that is not."""
    others = [
        f"{name} {tuple(tensor.shape)}"
        for name, tensor in layer.named_parameters()
        if "pos" in name.lower() or num_patches + 1 in tensor.shape
    ]
    if runs and table.cls and not table.pos and not others:
        return named(MISTAKES, "tok_no_position", f"{has}; no table of ({num_patches + 1}, {width}) for the positions")
    rest = {
        name: tensor
        for name, tensor in layer.named_parameters()
        if name != table.pos and not isinstance(layer.get_submodule(name.rpartition(".")[0]), nn.Linear)
    }
    for name, tensor in rest.items():
        likely = len(rest) == 1 or re.search("cls|class|token", name.lower())
        if table.pos and not table.cls and likely and tensor.ndim == 2 and tensor.shape[1] == width:
            return named(MISTAKES, "vit_cls_batch_dim", f"{has}; {name} has {len(tensor)} rows of {width} numbers")
    if table.pos and not table.cls:
        return named(MISTAKES, "tok_no_class_token", f"{has}; no vector of {width} numbers for the class token")
    both = any(tuple(tensor.squeeze().shape) == (num_patches + 2, width) for tensor in rest.values())
    if both and not table.cls and not table.pos:
        return _in_one_table(num_patches, width, has)
    if table.cls and len(others) == 1:
        return Problem(
            "Your table of positions has another shape; it should have N + 1 rows of embed_dim numbers.",
            f"{has}; of {others[0]} the shape should be (1, {num_patches + 1}, {width})",
            POSITION,
            (
                "How many numbers has one token, and how many has its position?",
                "A position is a vector of embed_dim numbers, as a token is; there is one for each of N + 1 tokens.",
            ),
        )
    return None


def _in_one_table(num_patches: int, width: int, has: str) -> Problem:
    """One parameter of N + 2 rows."""
    return Problem(
        "You keep class token and positions in one table, which the checker cannot take apart; they should be two "
        "parameters.",
        f"{has}; expected a class token of {width} numbers and positions of ({num_patches + 1}, {width})",
        "parameters",
        (
            "Nothing is said about your computation: it could not be compared.",
            "nn.Parameter(torch.zeros(1, 1, embed_dim)) for the one, N + 1 rows for the other.",
        ),
    )


def _code(shape: Sequence[int], seed: int = 0) -> str:
    """How a student computes the tokens."""
    _, num_patches, width = shape
    layer = built("Tokens", {"num_patches": num_patches, "embed_dim": width})
    return f"awaken({layer})({drawn(shape, seed)})"


def _code_of(layer: nn.Module, patches: Tensor) -> str:
    """The same, where the tokens may be a part of what comes out."""
    batch, num_patches, width = patches.shape
    with torch.no_grad():
        result = layer(patches.clone())
    tokens = pick_tensor(result, (batch, num_patches + 1, width))
    return _code(patches.shape, batch) + place_of(result, tokens)


def _try(layer: nn.Module, num_patches: int, width: int) -> Any:
    """What comes out for a batch of two, or the exception."""
    try:
        with torch.no_grad():
            return tensor_in(layer(draw(2, num_patches, width).float()), (2, num_patches + 1, width))
    except Exception as error:
        return error


def _run(layer: nn.Module, patches: Tensor) -> Any:
    with torch.no_grad():
        return _call(layer, patches)


def _call(layer: nn.Module, patches: Tensor) -> Any:
    """What the student's layer makes of these patches."""
    batch, num_patches, width = patches.shape
    code = _code(patches.shape, batch)
    with noted(f"called as in {code}", lambda: layer(patches.clone()), failing.in_tokens):
        result = run(layer, patches.clone(), step=CLASS_TOKEN, code=code)
    return tensor_in(result, (batch, num_patches + 1, width))


def _shape_problem(layer: nn.Module, patches: Tensor, tokens: Any) -> Problem | None:
    batch, num_patches, width = patches.shape
    shape = (batch, num_patches + 1, width)
    if shape_of(tokens) == str(shape):
        return None
    evidence = f"patches of shape {tuple(patches.shape)}: the result is {shape_of(tokens)}; expected {shape}"
    if shape_of(tokens) == str(tuple(patches.shape)) and (name := _not_in_front(layer, patches, tokens)):
        return named(MISTAKES, name, evidence)
    if shape_of(tokens) == str((num_patches + 1, num_patches + 1, width)):
        parameters = dict(layer.named_parameters())
        table = find_table(parameters, num_patches, width)
        if problem := taken_for_the_batch(table, parameters, evidence):
            return problem
    return Problem(
        "The result has another shape than (batch, 1 + patches, embed_dim).",
        evidence,
        CLASS_TOKEN,
        ("N patches become N + 1 tokens.", "Concatenate along the axis of tokens, dim=1."),
    )


def _changed(layer: nn.Module, before: Mapping[str, Tensor], patches: Tensor) -> Problem | None:
    """A call, the first after awakening or after others that left all as it was, has to leave the parameters alone."""
    changed = [name for name, parameter in layer.named_parameters() if not torch.equal(parameter, before[name])]
    if not changed:
        return None
    batch, num_patches, width = patches.shape
    name, made = changed[0], built("Tokens", {"num_patches": num_patches, "embed_dim": width})
    made = f"awaken({made}).requires_grad_(False)"  # else autograd may complain first
    code = f"m = {made}; _ = m({drawn(patches.shape, batch)}); m.get_parameter({name!r})"
    return Problem(
        "You change a parameter in forward; it should stay as it is until an optimizer changes it.",
        difference(layer.get_parameter(name).detach(), before[name], code),
        CLASS_TOKEN if name == find_table(before, num_patches, width).cls else POSITION,
        (
            f"Print self.{name} before and after a call.",
            "Add to a new tensor, `first = self.cls_token + ...`; do not assign to .data or write into a parameter.",
        ),
    )


def _not_in_front(layer: nn.Module, patches: Tensor, tokens: Tensor) -> str:
    """What became of the class token, where tokens are as many as patches."""
    parameters = dict(layer.named_parameters())
    cls = parameters[find_table(parameters, *patches.shape[1:]).cls]
    kept = cls.detach().clone()
    with torch.no_grad():
        cls.zero_()
        without = _run(layer, patches)
        cls.copy_(kept)
    return prepending.not_in_front(tokens, without, kept.flatten())


def taken_for_the_batch(table: Table, parameters: Mapping[str, Tensor], evidence: str) -> Problem | None:
    """What to say of a result with a row for each position where the batch should be, if the table's shape explains it.

    `evidence` tells the result's shape.
    """
    shape = tuple(parameters[table.pos].shape)
    if shape[:-1] != (table.rows, 1):
        return None
    return Problem(
        "You put the rows of your table of positions where the tokens have the batch; the first axis should have "
        "length 1, the second N + 1.",
        f"{evidence}; {table.pos} is {shape}",
        POSITION,
        (
            "Write the shapes of the tokens and of the positions below each other: which axes are added to which?",
            "The axis of length 1 is repeated: it belongs in front, so that every picture gets the same positions.",
        ),
    )


def _values(runs: list[tuple[nn.Module, Tensor, Tensor]]) -> Iterator[Outcome]:
    layer, patches, tokens = runs[1]  # a batch of three
    again = another(lambda: _run(layer, patches), tokens)
    if again is not None:
        problem = _random(layer, patches, differs(_code_of(layer, patches), tokens, again))
        alone = not bool((tokens != again)[:, 1:].any())
        yield replace(problem, step=CLASS_TOKEN) if alone else problem
        return
    yield Passed("two calls in eval mode agree")
    if changed := _in_place(layer, patches):
        yield changed
        return
    expected = [prepending.right(patches, *_numbers(layer, patches)) for layer, patches, _ in runs]
    if all(same(tokens, right) for (_, _, tokens), right in zip(runs, expected, strict=True)):
        yield Passed("row 0 is the class token plus the first position, the same for every picture")
        yield Passed("row i is patch i plus its position")
        yield from _gradients(layer, patches)
        return
    (layer, patches, tokens), right = next(
        (run, right) for run, right in zip(runs, expected, strict=True) if not same(run[2], right)
    )
    code = _code_of(layer, patches)
    evidence = difference(tokens, right, code)
    for names, compute in prepending.wrongs():
        if all(same(tokens, compute(patches, *_numbers(layer, patches))) for layer, patches, tokens in runs):
            yield named(MISTAKES, names, evidence)
            return
    if rounded := low_precision(lambda: layer(patches.clone()), failing.in_tokens, evidence):
        yield rounded
        return
    problem = unknown(tokens, right, evidence, _right_without_positions(layer, patches))
    first = difference(tokens[:, :1], right[:, :1], code)
    yield replace(problem, evidence=first) if problem.step == CLASS_TOKEN else problem


def _random(layer: nn.Module, patches: Tensor, evidence: str) -> Problem:
    """What to say of calls that differ: dropout leaves a number as it is, but for a factor, or takes it away."""
    if not _zeros(layer, patches):
        return named(MISTAKES, "vit_pos_random_each_forward", evidence)
    calls = torch.stack([_run(layer, patches) for _ in range(CALLS)]).sort(dim=0).values
    if int((calls.diff(dim=0) != 0).sum(dim=0).max()) < FEW:
        return named(MISTAKES, "tok_dropout", evidence)
    return Problem(
        "You let chance change the tokens, or their order, so that calls differ; in eval mode they should not.",
        evidence,
        POSITION,
        (
            "Call it twice with one input, in eval mode.",
            "Which line draws random numbers (rand, randn, randperm)? Eq. 1 has nothing of that.",
        ),
    )


def _in_place(layer: nn.Module, patches: Tensor) -> Problem | None:
    """The caller's patches have to stay as they were."""
    given = patches.clone()
    with torch.no_grad():
        layer(given)
    if torch.equal(given, patches):
        return None
    batch, num_patches, width = patches.shape
    made = built("Tokens", {"num_patches": num_patches, "embed_dim": width})
    code = f"x = {drawn(patches.shape, batch)}; _ = awaken({made})(x); x"
    return in_place(difference(given, patches, code), POSITION)


def _right_without_positions(layer: nn.Module, patches: Tensor) -> bool:
    """With all positions at zero the class token stands before the patches: then it is the positions that are wrong."""
    silent = deepcopy(layer)
    parameters = dict(silent.named_parameters())
    table = find_table(parameters, *patches.shape[1:])
    with torch.no_grad():
        for name in (table.pos, table.cls_pos):
            if name:
                parameters[name].zero_()
    return same(_run(silent, patches), prepending.right(patches, *_numbers(silent, patches)))


def _zeros(layer: nn.Module, patches: Tensor) -> bool:
    """Dropout makes nothing of zeros; what is drawn is there without parameters and patches, too."""
    silent = deepcopy(layer)
    with torch.no_grad():
        for parameter in silent.parameters():
            parameter.zero_()
    return not bool(_run(silent, torch.zeros_like(patches)).any())


def _numbers(layer: nn.Module, patches: Tensor) -> tuple[Tensor, Tensor]:
    parameters = dict(layer.named_parameters())
    _, num_patches, width = patches.shape
    cls, pos = find_table(parameters, num_patches, width).numbers(parameters, width)
    return cls.detach(), pos.detach()


def unknown(tokens: Tensor, expected: Tensor, evidence: str, positions: bool = False) -> Problem:
    """No known mistake: row 0 tells of the class token, the others of the positions.

    `positions`: it is known to be these.
    """
    right = [same(one, its) for one, its in zip(tokens[:, 0], expected[:, 0], strict=True)]
    others = same(tokens[:, 1:], expected[:, 1:])
    if not all(right) and (others or not positions):
        some = (
            "You make the first token right for some pictures of a batch only; it should be the same for all of them."
        )
        none = "You make the first token of something else; it should be the class token plus its position."
        return Problem(
            some if any(right) else none,
            evidence,
            CLASS_TOKEN,
            (
                "Print row 0 of the result, and beside it the class token plus row 0 of the positions.",
                "The class token is the same for every picture, stands first, and gets the first position.",
            ),
        )
    return unknown_positions(evidence)


def unknown_positions(evidence: str) -> Problem:
    """No known mistake of the patches' rows."""
    return Problem(
        "You make the patches' tokens of something else; each should be the patch plus its position.",
        evidence,
        POSITION,
        (
            "Set the patches to zero: rows 1 to N of the result are the positions then.",
            "Row i of the table is added to token i, and nothing else happens to it.",
        ),
    )


def _gradients(layer: nn.Module, patches: Tensor) -> Iterator[Outcome]:
    tokens = _call(layer, patches)
    if tokens.requires_grad:
        with going_back(f"{_code_of(layer, patches)}.sum().backward()", POSITION):
            (tokens * draw(*tokens.shape, seed=3)).sum().backward()
    without = [name for name, parameter in layer.named_parameters() if parameter.grad is None]
    if without:
        evidence = f"after a backward pass .grad is None for {', '.join(without)}"
        yield named(MISTAKES, "tok_detached", evidence)
    else:
        yield Passed("a gradient reaches the class token and the positions")
