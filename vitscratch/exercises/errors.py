"""What an exception of a student's code says about the student's code: one line, and the line it is in."""

import ast
import builtins
import os
import re
import sys
from bdb import BdbQuit
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from pkgutil import iter_modules
from traceback import walk_tb
from types import FunctionType, ModuleType, TracebackType

from vitscratch.exercises.catalog import EXERCISES
from vitscratch.exercises.exercise import Problem
from vitscratch.exercises.files import SOLUTIONS, exercise_of_name, is_stub

PACKAGE = Path(__file__).parents[1]
STANDARD = Path(os.__file__).parent  # Python's own library

# The step of problems that no step of the exercise's computation has.
STEP = "running the code"

# Attributes that every torch module has once its __init__ was called.
_OF_MODULE = {"_modules", "_parameters", "_buffers", "training", "_forward_hooks", "_backward_hooks"}


@dataclass(frozen=True)
class Line:
    """A line of a student's file."""

    file: Path
    number: int

    def __str__(self) -> str:
        """Name, number and text: "05_mlp.py, line 7: `return x`"."""
        text = self.text()
        return f"{self.file.name}, line {self.number}" + (f": `{shorten(text)}`" if text else "")

    def text(self) -> str:
        """What stands there; "" if it cannot be read."""
        try:
            return self.file.read_text(encoding="utf-8", errors="replace").splitlines()[self.number - 1].strip()
        except (OSError, IndexError):
            return ""


def shorten(text: str, length: int = 160) -> str:
    """One printable line of at most `length` characters."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: length + 1])
    return line if len(line) <= length else f"{line[: length - 3]}..."


def is_students(file: str, student: Path) -> bool:
    """Whether a source file is the student's: the checked one, or another in its folder that is no library's."""
    path = Path(file)
    if path == student:
        return True
    return path.is_relative_to(student.parent) and not is_a_librarys(path)


def is_a_librarys(path: Path) -> bool:
    """Whether a source file is this package's, Python's own, or was installed."""
    ours = any(path.is_relative_to(one) for one in (PACKAGE, STANDARD))
    return ours or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


_MEMORY = "the code asks for more memory than the checker gives"


def explain(error: BaseException, student: Path) -> Problem | None:
    """What is wrong with the student's code; None if the error is not the student's.

    Args:
        error: as it was caught, with its traceback; its notes say what the student's code was called with.
        student: the file that is checked, resolved.
    """
    lines = _lines(error.__traceback__, student)
    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    if isinstance(error, SyntaxError) and error.filename and is_students(error.filename, student):
        where = Line(Path(error.filename), error.lineno or 1)
        if (trap := _import_trap(error, where)) is not None:
            return trap
        return _problem(f"{type(error).__name__}: {error.msg}", where, _SYNTAX)
    if lines and isinstance(error, ImportError) and (trap := _import_trap(error, lines[-1])) is not None:
        return trap
    if lines:
        what, hints = _describe(error)
        hints = _NO_SELF if _lacks_self(error, student) else hints
        if what.startswith(_MEMORY):  # nobody should type that call outside the checker, where nothing limits it
            notes = []
        if lines[-1].file != student and (own := [line for line in lines if line.file == student]):
            notes = [f"called from {own[-1]}", *notes]
            if isinstance(error, RuntimeError | TypeError):
                hints = (*hints, _IMPORTED.format(own=student.name, other=lines[-1].file.name))
        return replace(_problem(what, lines[-1], hints, notes), step=getattr(error, "step", STEP))
    if isinstance(error, Exception) and (name := _names_student(error, student)):
        what = f"{name} cannot be used as the exercise does: {_text(error)}"
        if isinstance(error, AttributeError) and error.name in _OF_MODULE:
            what = f"{name} was not set up as a torch module: super().__init__() has not run"
        where = Line(student, _line_of(student, name))
        no_init = name.endswith(".__init__") and where.text().lstrip().startswith("class ")
        hints = _NO_FORWARD if "missing the required" in what else _NO_INIT if no_init else _SIGNATURE
        hints = _NO_SELF if _lacks_self(error, student) else hints
        return _problem(what, where, hints, notes)
    return None


_NUMBER = re.compile(r"^\d+_")


def _import_trap(error: SyntaxError | ImportError, where: Line) -> Problem | None:
    """What is wrong with an import of an exercise that is in the folder, but not by its plain name; None if nothing."""
    words = where.text().partition("#")[0].split()
    files = {one.name: one.file_name for one in EXERCISES}
    if len(words) < 2 or words[0] not in ("from", "import"):
        return None
    above, _, last = words[1].rpartition(".")
    name, right = _NUMBER.sub("", last), [words[0], _NUMBER.sub("", last), *words[2:]]
    if words[0] == "from" and name not in files and len(words) > 3:  # from . import mlp
        name, right = _NUMBER.sub("", words[3]), ["import", _NUMBER.sub("", words[3]), *words[4:]]
    code = f"`{' '.join(right)}`, which finds {files.get(name)}"
    top = words[1].partition(".")[0]
    if isinstance(error, SyntaxError):
        what = "You import a module whose name begins with a number, which Python cannot read; it should be "
        trapped = name in files and re.match(r"\d", last) is not None
    else:
        what = f"You import from {above or words[1]}, but the folder of the exercises is no package; it should be "
        absent = isinstance(error, ModuleNotFoundError)
        from_there = bool(above) and error.name == top and _NUMBER.sub("", last) in files  # my_vit.mlp
        of_folder = top.replace("-", "_") == where.file.parent.name.replace("-", "_") or from_there
        trapped = not top or (absent and of_folder)
    if not trapped:
        return None
    if name not in files:
        code = "by a file's plain name, as in `from mlp import MLP`, which finds 06_mlp.py"
    hints = (
        "The exercises of a folder import each other by name alone: no number, no dot, no folder.",
        f"It is {code}.",
    )
    return Problem(f"{what}{code}.", str(where), STEP, hints)


_SYNTAX = (
    "Python cannot read this line; look at it and at the one above it: a bracket, a colon, an indentation.",
    "Run the file by itself, `python FILE`: Python puts a mark under the place where it stopped understanding.",
)
_NO_FORWARD = (
    "Is there a `def forward`, spelled so, and at the indentation of `def __init__`, so that it belongs to the class?",
    "What stands further in than `def __init__` is a part of __init__.",
)
_NO_SELF = (
    "What does Python hand to a method first, whatever it is called with?",
    "`self` comes first in every `def` of a class: `def forward(self, x):`, and `self.forward(x)` fills it.",
)
_NO_INIT = (
    "Is there a `def __init__`, spelled so, with two underscores on both sides, and further in than `class`?",
    "Compare it with the stub's, letter by letter; without one, the class takes no arguments.",
)
_SIGNATURE = (
    "The stub has the names of the arguments; the exercise calls with just these, as keywords.",
    "A class derives from nn.Module, calls super().__init__() first, and has a method forward; `vitscratch exercises "
    "new` into another folder gives a fresh stub to compare with.",
)
_ERROR = (
    "Look at the line: print the shapes of what goes into it.",
    "Run that line by itself on a small tensor in a Python session, and compare each shape with the stub's.",
)
_LAYER = (
    "A layer stands where a tensor is wanted: was it built, or named, where it should have been called?",
    "nn.GELU(x) builds a layer; nn.GELU()(x) calls one, as does self.act(x), or a function, F.gelu(x).",
)
_NO_DEVICE = (
    "A module has no device or dtype of its own: its parameters have, and they could be on several.",
    "next(model.parameters()).device, or that of the tensor that comes in: images.device.",
)
_NOT_KEPT = (
    "What keeps something that __init__ makes, or is given, until forward runs?",
    "`self.{name} = ...`, in __init__: a name without self. is gone when __init__ ends.",
)
# What an error says, as a pattern -> what to do about it, whatever its kind.
_SAID = {
    r"'tuple' object is not callable": (
        "What is called here is a tuple. Is there a comma at the end of the line that made it? `a = b,` makes one.",
        "Look at the line in __init__ that makes what this line calls.",
    ),
    r"'tuple' object has|Tensor, not tuple|operand type.*'tuple'|can only concatenate tuple": (
        "Something in this line is a tuple: several things, as a function returns them that has a comma in its return.",
        "Take it apart where you get it, `output, weights = ...`, or take its first, `...[0]`.",
    ),
    r"missing \d+ required|positional arguments? but|unexpected keyword argument|multiple values for": (
        "Compare this call with the line `def` of what it calls: which argument is missing, surplus, or misnamed? "
        "(self comes first in a class.)",
        "`self.mlp = MLP(embed_dim, mlp_dim)` builds a layer in __init__, `self.mlp(x)` calls it in forward; MLP alone "
        "is the class.",
    ),
    r"'float' object cannot be interpreted|(element of type|but got) float": (
        "A size has to be a whole number. Which of those in this line is not?",
        "`/` gives a float, 8.0, even where it comes out even; `//` gives a whole number, 8.",
    ),
    r"must be tuple of Tensors, not Tensor|(cat|stack)\(\) received an invalid": (
        "torch.cat and torch.stack take a list of tensors. What do they get here?",
        "torch.cat([a, b], dim=1): one list, and then the axis.",
    ),
    r"values to unpack": (
        "How many things come at once here, and how many names stand on the left?",
        "A loop over a dict gives its keys; `for name, tensor in state_dict.items()` gives both.",
    ),
    r"dictionary changed size during iteration": (
        "A loop runs over the same dict that its body writes into. Which of the two should be another one?",
        "Begin with an empty dict, `out = {}`, and write into that; `out = state_dict` is only another name for it.",
    ),
    r"is not a Module subclass": (
        "nn.Sequential takes modules one after the other, nn.ModuleList takes a list of them. What does it get here?",
        "nn.Sequential(*[Block() for _ in range(depth)]) hands over what is in the list, each made by its own call.",
    ),
    r"must be Tensor, not (?!tuple|NoneType)[A-Z]|for [+@*]: '(Tensor|Parameter)' and '[A-Z]": _LAYER,
    r"The size of tensor a": (
        "Write the two shapes below each other, aligned on the right: each pair of sizes (of a product @, all but the "
        "last two) has to be equal, or one of them 1. Which pair is not?",
        "In a product, transpose(-2, -1) turns the last two axes over and leaves the others. In a sum, a mean without "
        "keepdim=True has lost its axis; unsqueeze, or [:, None], makes one of size 1.",
    ),
    r"view size is not compatible": (
        "view cannot read the numbers in this order. Which axis do you mean to cut, and where does it stand by now?",
        "torch's advice, reshape, makes the line run, but mixes numbers that do not belong together if the axes stand "
        "in another order than you mean: cut the last axis first, (b, n, heads, width), then move the heads.",
    ),
    r"first two dimensions of batch2": (
        "A product (..., i, j) @ (..., j, k) needs as many columns on the left as rows on the right. Which two sizes "
        "meet here?",
        "transpose(-2, -1) turns the last two axes of a tensor over; a product of A and B is not one of B and A.",
    ),
    r"'(builtin_function_or_method|method|function)'|must be Tensor, not (builtin|method|function)": (
        "A function stands here where what it returns is wanted: was it called?",
        "With parentheses it is called, `state_dict.items()`; without, `state_dict.items` is the function itself.",
    ),
    r"shapes cannot be multiplied": (
        "A linear layer takes a last axis of the size that it was made with; a product needs as many columns on the "
        "left as rows on the right. Which side is not as you meant it?",
        "Look at the line of __init__ that makes the layer, and at the order of its sizes; or at a transpose before "
        "this line.",
    ),
    r"is invalid for input of size": (
        "Multiply the sizes that this line asks for, and those that the tensor has: the two products have to be equal.",
        "Where does each size come from? All should come from the tensor's own shape, or from what __init__ was given.",
    ),
    r"Sizes of tensors must match except in dimension": (
        "Every axis has to be equal but the one along which you put them together (dim). Which one is not?",
        "What comes once for each picture has to be expanded to the batch, x.shape[0], before; tokens are axis 1.",
    ),
}
_DTYPE = (
    "Look at the line: print the .dtype of each tensor in it.",
    "Labels and places are whole numbers (int64), comparisons are bool; pictures, weights and means have a fraction: "
    ".float() gives one.",
)
_NONE = (
    "Something in this line is None: an attribute or argument that is, or what came from a function without a return.",
    "Follow it back: a forward that ends without `return`, or a method that changes its tensor and returns nothing.",
)
_KEY = (
    "Which keys are there? Print list(thing), for what stands before the bracket, above this line.",
    "Compare the key that is asked for with them, letter by letter, dots included.",
)
_ASSERT = (
    "Which condition does the assert of this line state, and why should it hold here?",
    "Print both sides of it just above; or take it away, if it is yours and asks for too much.",
)
_SPELLED = "Is the name spelled as where it is defined, and is it defined, or imported, above this line?"
_NAME = (
    _SPELLED,
    "A function sees its own arguments and variables, and the names of the file; what __init__ keeps for forward is "
    "self.something.",
)
_ATTRIBUTE = (
    _SPELLED,
    "Run `dir(thing)` in a Python session, for what stands before the dot: it lists the names that are there. A class "
    "of your own has what its __init__ keeps as self.something, not what the library's may have.",
)
_IMPORT = (
    "Is the name spelled as in the library's documentation, and is the library installed?",
    "Import it in a Python session: `import thing`, then `dir(thing)` lists the names that are there.",
)
_IMPORT_OF_OWN = (
    "Which names does the file that you import from define? Compare them letter by letter, capitals included.",
    "`from mlp import MLP` takes the class MLP out of 06_mlp.py; the names are those of the stubs.",
)
_NOT_THERE = "Is {file} in the folder of this file, under this name?"
_MISSPELLED = "Is the name spelled as the file's, without the number? {file} is found as {name}."
_IMPORTED = (
    "If {other} is right by itself, look at {own}: what it hands over, and the order of the sizes where it makes this "
    "layer."
)
_HINTS: tuple[tuple[type[BaseException], tuple[str, ...]], ...] = (
    (ImportError, _IMPORT),
    (NameError, _NAME),
    (AttributeError, _ATTRIBUTE),
    (AssertionError, _ASSERT),
    (KeyError, _KEY),
)


def _hints(error: BaseException, text: str) -> tuple[str, ...]:
    """By the error's kind; torch tells wrong dtypes in several kinds and many words."""
    of_kind = next((hints for kind, hints in _HINTS if isinstance(error, kind)), _ERROR)
    if isinstance(error, ImportError) and (own := next((one for one in EXERCISES if one.name == error.name), None)):
        absent = isinstance(error, ModuleNotFoundError)
        return (_NOT_THERE.format(file=own.file_name) if absent else _IMPORT_OF_OWN[0], _IMPORT_OF_OWN[1])
    if isinstance(error, ModuleNotFoundError) and error.name:
        files = {one.name: one.file_name for one in EXERCISES}
        for near in get_close_matches(error.name, files, n=1, cutoff=0.75):
            return _MISSPELLED.format(name=near, file=files[near]), _IMPORT_OF_OWN[1]
    if isinstance(error, RuntimeError | TypeError | AttributeError | ValueError):
        for said, hints in _SAID.items():
            if re.search(said, text):
                return hints
    dtype = r"dtype|scalar type|not implemented for '|Got: \w+$|requires? floating point"
    return _DTYPE if of_kind is _ERROR and re.search(dtype, text) else of_kind


def _problem(what: str, where: Line, hints: tuple[str, ...], notes: Sequence[str] = ()) -> Problem:
    return Problem(shorten(what, 400), "\n".join([str(where), *notes]), STEP, hints)


def _stopped(error: BaseException, text: str) -> tuple[str, tuple[str, ...]] | None:
    """The same for what ends, waits, or takes too much, rather than computes something wrong; None for all else."""
    if isinstance(error, SystemExit):
        return "the code ends the program: sys.exit(), exit() or quit()", (
            "A file that is imported only defines things; nothing in it may end the program.",
            'Put what you run yourself under `if __name__ == "__main__":`.',
        )
    if isinstance(error, EOFError):
        return "the code waits for input: input() finds no keyboard in the checker", (
            "The checker calls your functions itself, nobody types.",
            "Take the input away, or put it under `if __name__ == '__main__':`.",
        )
    if isinstance(error, BdbQuit):
        return "the code stops in the debugger: breakpoint() finds no keyboard in the checker", (
            "The checker runs alone, nobody can debug there.",
            "Take breakpoint() away; print() shows its text in the report.",
        )
    if isinstance(error, RecursionError):
        return "the code calls itself without an end (RecursionError)", (
            "Which function does this line call? Does that one come back to this line?",
            "A method that calls self(x), or forward, or itself, with nothing that stops it, never ends.",
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "bad_alloc" in text:
        size = re.search(r"allocate (\d+) bytes", text)
        asked = f"{int(size[1]) / 2**30:,.1f} GiB at once" if size else text
        return f"{_MEMORY}: {asked}", (
            "How many numbers does the tensor of this line have? Multiply its sizes.",
            "A size that was meant to be a channel or a patch may be a number of pixels; broadcasting may have "
            "multiplied two axes.",
        )
    if isinstance(error, OSError) and error.errno == 27:  # EFBIG: the size of the file of what is printed is limited
        return "the code prints or writes without an end: more than 16 MB", (
            "Which loop is this line in, and what ends it?",
            "Take the print away, or print shapes instead of tensors.",
        )
    return None


def _describe(error: BaseException) -> tuple[str, tuple[str, ...]]:
    """What happened, and two hints, for an error that was raised in the student's code or called from it."""
    text = _text(error)
    if stopped := _stopped(error, text):
        return stopped
    if "before Module.__init__() call" in text:
        return f"the code ends with {text}: super().__init__() has to run first", (
            "What has to happen in __init__ of a torch module before it gets its first layer?",
            "The first line of __init__ is the one of the stub: a call of the same method of nn.Module.",
        )
    if isinstance(error, NotImplementedError) and "Module [ModuleList]" in text:
        return f"the code ends with {text}", (
            "What does nn.ModuleList do besides keeping modules in order? It cannot be called.",
            "A loop calls them one after the other, `for block in self.blocks:`; or keep them in nn.Sequential.",
        )
    if isinstance(error, AttributeError) and _is_not_kept(error):
        name = str(error.name)
        told = f"the code ends with {text}; its __init__ has a {name}, but does not keep it"
        return told, tuple(hint.format(name=name) for hint in _NOT_KEPT)
    if isinstance(error, AttributeError) and re.search(r"object has no attribute '(device|dtype)'", text):
        return f"the code ends with {text}", _NO_DEVICE
    if isinstance(error, AttributeError) and _is_layer_for_tensor(error):
        return f"the code ends with {text}", _LAYER
    if isinstance(error, TypeError | AttributeError) and "NoneType" in text:
        return f"the code ends with {text}; perhaps a function without a return gave it None", _NONE
    return f"the code ends with {text}{_nearest(error)}", _hints(error, text)


def _is_not_kept(error: AttributeError) -> bool:
    """Whether a missing attribute is the name of a variable or an argument of its class's own __init__."""
    made = vars(type(error.obj)).get("__init__")
    if not isinstance(made, FunctionType) or is_a_librarys(Path(made.__code__.co_filename)):
        return False
    there = any(error.name in vars(cls) for cls in type(error.obj).__mro__)  # a property that failed
    return error.name in made.__code__.co_varnames and not there


def _is_layer_for_tensor(error: AttributeError) -> bool:
    """Whether a layer that is no student's was asked for what tensors have."""
    layer = type(error.obj)
    ours = layer.__module__.partition(".")[0] in ("torch", "vitscratch")
    torch = sys.modules.get("torch")
    of_tensors = {"shape", "ndim", "size", "view", "reshape", "transpose", "permute", "flatten", "unsqueeze", "mT", "T"}
    return ours and torch is not None and issubclass(layer, torch.nn.Module) and error.name in of_tensors


def message_of(error: BaseException, length: int = 400) -> str:
    """One line of at most `length` characters: the first one; of einops' also the others, the last of which has the
    reason and is kept, within 350."""
    try:
        lines = [line.strip() for line in str(error).strip().splitlines()]
    except Exception:  # a student's own exception class
        lines = []
    if len(lines) < 2 or type(error).__name__ != "EinopsError":
        return shorten("".join(lines[:1]), length)
    reason = shorten(lines[-1], 200)
    return f"{shorten(' '.join(lines[:-1]), 349 - len(reason))} {reason}"


def _text(error: BaseException) -> str:
    message = message_of(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _nearest(error: BaseException) -> str:
    """ "; nearest: ..." for a name that is not there."""
    name, there = "", list[str]()
    if isinstance(error, ModuleNotFoundError):
        missing = error.name or ""
        above, _, name = missing.rpartition(".")
        there = [module.name for module in iter_modules(getattr(sys.modules.get(above), "__path__", []))]
        if not above:  # 06_mlp.py is found as mlp
            there = [*(_NUMBER.sub("", module.name) for module in iter_modules()), *sys.stdlib_module_names]
    elif isinstance(error, ImportError) and (found := re.match(r"cannot import name '(\w+)'", str(error))):
        name, there = found[1], dir(sys.modules.get(error.name or ""))
    elif isinstance(error, NameError):
        name, there = error.name or "", [*_names_around(error.__traceback__), *dir(builtins)]
    elif isinstance(error, AttributeError) and error.name:
        name, there = error.name, _dir(error.obj)
        of_torch = {
            one for cls in type(error.obj).__mro__ if cls.__module__.startswith("torch.nn.modules") for one in vars(cls)
        }  # so many that nearly every name is near one of them
        there = [one for one in there if one not in of_torch or get_close_matches(name, [one], cutoff=0.9)]
    capitals = [one for one in there if one.lower() == name.lower()]
    near = capitals or get_close_matches(name, there, n=1, cutoff=0.75)  # `range` is not near `rearrange`
    return f"; nearest: {near[0]}" if near else ""


def _dir(thing: object) -> list[str]:
    try:
        return dir(thing)
    except Exception:  # a student's own __dir__ or __getattr__
        return []


def _names_around(trace: TracebackType | None) -> list[str]:
    """Names that the innermost frame sees."""
    frames = [frame for frame, _ in walk_tb(trace)]
    return [*frames[-1].f_locals, *frames[-1].f_globals] if frames else []


def _lines(trace: TracebackType | None, student: Path) -> list[Line]:
    """The student's lines in a traceback, the innermost last."""
    return [
        Line(Path(frame.f_code.co_filename), number)
        for frame, number in walk_tb(trace)
        if is_students(frame.f_code.co_filename, student)
    ]


def _names_student(error: Exception, student: Path) -> str | None:
    """What the student defines and the error's text is about: "MLP.forward() missing 1 required ..."."""
    found = re.findall(r"([\w.]+)\(\)|'(\w+)' object|Module \[(\w+)\]", _text(error))
    names = [name for groups in found for name in groups if name]
    return next((name for name in names if _line_of(student, name)), None)


def _line_of(student: Path, name: str) -> int:
    """The line in which a class, a method or a function is defined; 0 if it is not."""
    node = _node_of(student, name)
    return node.lineno if node else 0


def _node_of(student: Path, name: str) -> ast.ClassDef | ast.FunctionDef | None:
    """Where a class, a method or a function is defined; of a method that is inherited, the class."""
    body, found = ast.parse(student.read_bytes()).body, None
    for part in name.split("."):
        nodes = [node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part]
        if not nodes:
            break  # an __init__ that is inherited: the class is what there is to see
        found, body = nodes[-1], nodes[-1].body
    return found


def _lacks_self(error: BaseException, student: Path) -> bool:
    """Whether a call failed since a method of the student's has no self."""
    if not isinstance(error, TypeError) or "argument" not in str(error):
        return False
    name = _names_student(error, student) or ""
    node = _node_of(student, name)
    if "." not in name or not isinstance(node, ast.FunctionDef) or node.decorator_list:
        return False
    first = [one.arg for one in (*node.args.posonlyargs, *node.args.args)][:1]
    return "were given" in str(error) and first not in (["self"], ["this"], ["cls"], [])


def explain_unwritten(error: NotImplementedError, student: Path) -> Problem | None:
    """What is wrong if an instruction of a stub was met in another exercise's file; None if in none.

    Args:
        error, student: as for `explain`.
    """
    lines = _lines(error.__traceback__, student)
    exercise = exercise_of_name(lines[-1].file) if lines else None
    if exercise is None or lines[-1].file == student:
        return None
    file, uses = lines[-1].file, [line for line in lines if line.file == student]
    state = "not begun" if is_stub(file, exercise) else "not finished"
    solution = (SOLUTIONS / exercise.file_name).read_text(encoding="utf-8")
    library = re.search(rf"^from vitscratch\S* import {', '.join(exercise.defines)}$", solution, re.MULTILINE)
    without = f"import the library's for now: `{library[0]}`" if library else "write what you need of it in your file"
    return Problem(
        f"You import {exercise.name} from {file.name}, which is {state}; it should be written first.",
        "\n".join([*map(str, uses[-1:]), f"{file.name}, to do: {message_of(error)}"]),
        STEP,
        (f"Write {file.name} first, and check it: `vitscratch check {file.name}`.", f"Or {without}."),
    )


def explain_broken(names: list[str], student: Path) -> Problem | None:
    """What is wrong if the student's code replaced built-in functions and something failed then."""
    if not names:
        return None
    hints = ("Look for an assignment to a name of Python's own.", f"Call the variable something else than {names[0]}.")
    what = f"the code replaces Python's own {', '.join(names[:3])}, and then nothing works any more"
    return Problem(what, student.name, STEP, hints)


def explain_missing(module: ModuleType, student: Path, names: tuple[str, ...]) -> Problem | None:
    """What is wrong if a student's file does not define what it should; None if it does."""
    missing = [name for name in names if not hasattr(module, name)]
    if not missing:
        return None
    name, there = missing[0], [one for one in vars(module) if not one.startswith("_")]
    lower = {one.lower().replace("_", ""): one for one in there}
    near = get_close_matches(name.lower().replace("_", ""), list(lower), n=1, cutoff=0.7)
    own = [one for one in there if _line_of(student, one)]
    if near:
        found = lower[near[0]]
        where = f"{Line(student, line)}" if (line := _line_of(student, found)) else f"{student.name} has {found}"
        hints = (f"Compare the name letter by letter: {name}.", f"Rename {found} to {name}.")
    else:
        where = f"{student.name} defines {', '.join(own) or 'nothing'}"
        hints = (
            f"The exercise looks for {name} at the left margin of the file, not inside a function or a class.",
            f"Start with the line of the stub that has {name}.",
        )
    return Problem(f"the file defines no {name}" + (f"; nearest: {found}" if near else ""), where, STEP, hints)
