"""What an exception says about a student's code: one line, where it was, and hints that fit it."""

from bdb import BdbQuit
from pathlib import Path
from types import ModuleType

import pytest

from vitscratch.exercises.errors import STEP, explain, explain_broken, explain_missing, message_of
from vitscratch.exercises.exercise import Problem

SYNTAX = "Python cannot read this line; look at it and at the one above it"
SIGNATURE = "The stub has the names of the arguments"
NAMES = "Is the name spelled as where it is defined"
IMPORT = "Is the name spelled as in the library's documentation"
SELF = "What does Python hand to a method first, whatever it is called with?"
DTYPE = "Look at the line: print the .dtype of each tensor in it."
ERROR = "Look at the line: print the shapes of what goes into it."


def told(folder: Path, code: str, call: str = "", **names: object) -> Problem | None:
    """Run a student's file, and then what the checker does with it."""
    path = folder / "06_mlp.py"
    path.write_text(code)
    try:
        exec(compile(code, str(path), "exec"), names)
        exec(compile(call, "checker.py", "exec"), names)
    except BaseException as error:
        return explain(error, path)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("code", "what", "line", "hint"),
    [
        ("def f(\n", "SyntaxError: '(' was never closed", "line 1: `def f(`", SYNTAX),
        ("raise SystemExit", "the code ends the program: sys.exit(), exit() or quit()", "line 1: `raise SystemExit`",
         "A file that is imported only defines things"),
        ("raise EOFError", "the code waits for input: input() finds no keyboard in the checker",
         "line 1: `raise EOFError`", "The checker calls your functions itself"),
        ("raise BdbQuit", "the code stops in the debugger: breakpoint() finds no keyboard in the checker",
         "line 1: `raise BdbQuit`", "The checker runs alone"),
        ("def f(): f()\nf()", "the code calls itself without an end (RecursionError)", "line 1: `def f(): f()`",
         "Which function does this line call?"),
        ("raise MemoryError", "the code asks for more memory than the checker gives: MemoryError",
         "line 1: `raise MemoryError`", "How many numbers does the tensor of this line have?"),
        ("raise RuntimeError('std::bad_alloc')",
         "the code asks for more memory than the checker gives: RuntimeError: std::bad_alloc",
         "line 1: `raise RuntimeError('std::bad_alloc')`", "How many numbers"),
        ("x = 1\nraise RuntimeError(\"can't allocate memory: you tried to allocate 3221225472 bytes.\")",
         "the code asks for more memory than the checker gives: 3.0 GiB at once", "line 2: `raise", "How many numbers"),
        ("raise OSError(27, 'File too large')", "the code prints or writes without an end: more than 16 MB",
         "line 1: `raise OSError", "Which loop is this line in"),
        ("raise AttributeError('cannot assign module before Module.__init__() call')",
         "the code ends with AttributeError: cannot assign module before Module.__init__() call: super().__init__() "
         "has to run first", "line 1: `raise", "What has to happen in __init__ of a torch module"),
        ("x = valeu", "the code ends with NameError: name 'valeu' is not defined", "line 1: `x = valeu`", NAMES),
        ("value = 1\nx = valeu", "the code ends with NameError: name 'valeu' is not defined; nearest: value",
         "line 2: `x = valeu`", NAMES),
        ("x = rearrange", "the code ends with NameError: name 'rearrange' is not defined",  # `range` is not near
         "line 1: `x = rearrange`", NAMES),
        ("import einopz", "the code ends with ModuleNotFoundError: No module named 'einopz'; nearest: einops",
         "line 1: `import einopz`", IMPORT),
        ("from math import xyzzy",
         "the code ends with ImportError: cannot import name 'xyzzy' from 'math'", "line 1: `from math", IMPORT),
        ("'a'.uper()", "the code ends with AttributeError: 'str' object has no attribute 'uper'; nearest: upper",
         "line 1: `'a'.uper()`", NAMES),
        ("class A:\n    def __dir__(self): 1 / 0\nA().b",
         "the code ends with AttributeError: 'A' object has no attribute 'b'", "line 3: `A().b`", NAMES),
        ("assert 1 > 2, 'no'", "the code ends with AssertionError: no", "line 1: `assert", "Which condition does the assert"),
        ("{}['a']", "the code ends with KeyError: 'a'", "line 1: `{}", "Which keys are there?"),
        ("[][1]", "the code ends with IndexError: list index out", "line 1: `[]", ERROR),
        ("import torch\n(torch.ones(3) > 2).mean()", "the code ends with ", "line 2: `(torch", DTYPE),
        ("import torch\ntorch.arange(3).softmax(0)", "the code ends with ", "line 2: `torch", DTYPE),
        ("import torch\ntorch.ones(2, 3) @ torch.ones(3, 5).double()", "the code ends with RuntimeError: ",
         "line 2: `torch", DTYPE),
        ("import torch\ntorch.ones(2, 3) @ torch.ones(2, 3)", "the code ends with RuntimeError: ", "line 2: `torch",
         "A linear layer takes a last axis"),
        ("import torch\ntorch.ones(2, 3) / torch.ones(2)", "the code ends with RuntimeError: The size", "line 2: `torch",
         "Write the two shapes below each other"),
        ("import torch\ntorch.ones(2, 3).view(2, 2)", "the code ends with RuntimeError: shape", "line 2: `torch",
         "Multiply the sizes that this line asks for"),
        ("import torch\ntorch.cat([torch.ones(2, 3), torch.ones(2, 2)])", "the code ends with RuntimeError: Sizes",
         "line 2: `torch", "Every axis has to be equal"),
        ("def f(): 1\nf() + 2", "the code ends with TypeError: unsupported operand type(s) for +: 'NoneType' and 'int'; "
         "perhaps a function without a return gave it None", "line 2: `f() + 2`", "Something in this line is None"),
        ("def f(): 1\nf().shape", "the code ends with AttributeError: 'NoneType' object has no attribute 'shape'; perhaps",
         "line 2: `f().shape`", "Something in this line is None"),
        ("from torch import nn\nnn.ModuleList()(3)", "the code ends with NotImplementedError: Module [ModuleList] is missing",
         "line 2: `nn.ModuleList()(3)`", "What does nn.ModuleList do besides"),
        ("from torch import nn\nnn.Conv2d(1, 1, 1).num_patches",  # dump_patches is torch's own, and not near enough
         "the code ends with AttributeError: 'Conv2d' object has no attribute 'num_patches'", "line 2: `nn.Conv2d", NAMES),
        ("from torch import nn\nnn.Conv2d(1, 1, 1).kernelsize",
         "the code ends with AttributeError: 'Conv2d' object has no attribute 'kernelsize'; nearest: kernel_size",
         "line 2: `nn.Conv2d", NAMES),
        ("from torch import nn\nnn.Conv2d(1, 1, 1).paramters",
         "the code ends with AttributeError: 'Conv2d' object has no attribute 'paramters'; nearest: parameters",
         "line 2: `nn.Conv2d", NAMES),
        ("def f(): return 1, 2\nf().shape", "the code ends with AttributeError: 'tuple' object has no attribute 'shape'",
         "line 2: `f().shape`", "Something in this line is a tuple"),
        ("import torch\ntorch.nn.Identity()((1, 2)).T", "the code ends with AttributeError: 'tuple'", "line 2: `torch",
         "Something in this line is a tuple"),
        ("f = print,\nf(1)", "the code ends with TypeError: 'tuple' object is not callable", "line 2: `f(1)`",
         "What is called here is a tuple"),
        ("import torch\ntorch.nn.Linear(1, 1)(torch.nn.GELU())", "the code ends with TypeError: linear()", "line 2: `torch",
         "A layer stands where a tensor is wanted"),
        ("import torch\ntorch.ones(1) + torch.nn.GELU()", "the code ends with TypeError: unsupported", "line 2: `torch",
         "A layer stands where a tensor is wanted"),
        ("import torch\ntorch.zeros(1, 4 / 2)", "the code ends with TypeError: zeros()", "line 2: `torch",
         "A size has to be a whole number"),
        ("import torch\ntorch.nn.Linear(4 / 2, 1)", "the code ends with TypeError: empty()", "line 2: `torch",
         "A size has to be a whole number"),
        ("range(4 / 2)", "the code ends with TypeError: 'float' object", "line 1: `range", "A size has to be a whole number"),
        ("import torch\ntorch.cat(torch.ones(1), torch.ones(1), dim=0)", "the code ends with TypeError: cat()",
         "line 2: `torch", "torch.cat and torch.stack take a list"),
        ("import torch\ntorch.ones(1).permute('a')", "the code ends with TypeError: permute()", "line 2: `torch",
         ERROR),
        ("for name, tensor in {'one': 1}: pass", "the code ends with ValueError: too many values to unpack",
         "line 1: `for", "How many things come at once here"),
        ("d = {1: 2}\nfor k in d: d[k + 1] = 1", "the code ends with RuntimeError: dictionary changed size", "line 2: `for",
         "A loop runs over the same dict"),
        ("from torch import nn\nnn.Sequential(nn.GELU() for _ in range(2))", "the code ends with TypeError: ",
         "line 2: `nn", "nn.Sequential takes modules"),
        ("x = [1]\nx[:, 0]", "the code ends with TypeError: list indices", "line 2: `x[:, 0]`", ERROR),
        ("import torch\n(1, 2) + torch.ones(1)", "the code ends with TypeError: ", "line 2: `(1, 2)",
         "Something in this line is a tuple"),
        ("def f(x): pass\nf()", "the code ends with TypeError: f() missing 1 required", "line 2: `f()`",
         "Compare this call with the line `def`"),
        ("def f(x): pass\nf(1, 2)", "the code ends with TypeError: f() takes 1 positional", "line 2: `f(1, 2)`",
         "Compare this call with the line `def`"),
        ("class A:\n  def f(x): pass\nA().f(1)", "the code ends with TypeError: A.f() takes 1 positional",
         "line 3: `A().f(1)`", SELF),
        ("class A:\n  def f(y, x): pass\n  def g(self): return self.f(1, 2)\nA().g()",
         "the code ends with TypeError: A.f() takes 2 positional", "line 3: `def g", SELF),
        ("class A:\n  def f(this): pass\nA().f(1)", "the code ends with TypeError: A.f() takes 1 positional",
         "line 3: `A().f(1)`", "Compare this call with the line `def`"),
        ("from torch import nn\nnn.Linear(1, 1).device", "the code ends with AttributeError: 'Linear' object has no "
         "attribute 'device'", "line 2: `nn", "A module has no device or dtype of its own"),
        ("class A:\n  def f(self): pass\nA().f(1)", "the code ends with TypeError: A.f() takes 1 positional",
         "line 3: `A().f(1)`", "Compare this call with the line `def`"),
        ("class A:\n  def __init__(self): fc1 = 1\nA().fc1",
         "the code ends with AttributeError: 'A' object has no attribute 'fc1'; its __init__ has a fc1, but does not "
         "keep it", "line 3: `A().fc1`", "What keeps something that __init__ makes"),
        ("class A:\n  def __init__(self, fc1): pass\nA(1).fc1", "the code ends with AttributeError: 'A' object has no "
         "attribute 'fc1'; its __init__ has a fc1", "line 3: `A(1).fc1`", "What keeps something that __init__ makes"),
        ("from torch import nn\nnn.GELU().shape", "the code ends with AttributeError: 'GELU' object has no attribute "
         "'shape'", "line 2: `nn.GELU().shape`", "A layer stands where a tensor is wanted"),
        ("for x in {}.items: pass", "the code ends with TypeError: 'builtin_function_or_method' object is not iterable",
         "line 1: `for x", "A function stands here where what it returns is wanted"),
        ("import torch\ntorch.ones(2, 3, 4) @ torch.ones(2, 3, 4)", "the code ends with RuntimeError: Expected size for "
         "first two dimensions of batch2", "line 2: `torch", "A product (..., i, j) @ (..., j, k) needs"),
        ("import torch\ntorch.ones(2, 3).mT.view(6)", "the code ends with RuntimeError: view size is not compatible",
         "line 2: `torch", "view cannot read the numbers in this order"),
        ("import mlpp", "the code ends with ModuleNotFoundError: No module named 'mlpp'", "line 1: `import mlpp`",
         "Is the name spelled as the file's, without the number? 06_mlp.py is found as mlp."),
        ("import mlp", "the code ends with ModuleNotFoundError: No module named 'mlp'", "line 1: `import mlp`",
         "Is 06_mlp.py in the folder of this file, under this name?"),
        ("import torch\ntorch.ones(1) + 'a'", "the code ends with TypeError", "line 2: `torch", ERROR),
        ("import torch\ntorch.ones(1) + (1, 2)", "the code ends with TypeError: unsupported operand type(s) for +",
         "line 2: `torch", "Something in this line is a tuple"),
        ("import torch\ntorch.nn.Linear(1, 1)((1, 2))", "the code ends with TypeError: linear(): argument 'input'",
         "line 2: `torch", "Something in this line is a tuple"),
        ("raise ValueError('one\\ntwo')", "the code ends with ValueError: one", "line 1: `raise", ERROR),
        ("raise ValueError", "the code ends with ValueError", "line 1: `raise ValueError`", ERROR),
        ("raise ValueError('x' * 999)", f"the code ends with ValueError: {'x' * 366}...", "line 1: `raise", ERROR),
    ],
)  # fmt: skip
def test_an_error_in_the_students_code(code: str, what: str, line: str, hint: str, tmp_path: Path) -> None:
    problem = told(tmp_path, code, BdbQuit=BdbQuit)
    assert problem is not None
    assert problem.what.startswith(what) and len(problem.what) <= 400
    assert ("nearest" in problem.what) is ("nearest" in what)
    assert problem.evidence.startswith(f"06_mlp.py, {line}") and problem.step == STEP and problem.mistake is None
    assert problem.hints[0].startswith(hint) and len(problem.hints) == 2 and problem.hints[1]


@pytest.mark.parametrize(
    ("code", "call", "what", "line"),
    [
        ("class MLP:\n    def __init__(self, d): pass", "MLP(d=1, m=2)",
         "MLP.__init__ cannot be used as the exercise does: TypeError: MLP.__init__() got an unexpected keyword "
         "argument 'm'", 2),
        ("class MLP:\n    def forward(x): pass", "MLP().forward(1)",
         "MLP.forward cannot be used as the exercise does: TypeError: MLP.forward() takes 1 positional argument but 2 "
         "were given", 2),
        ("class MLP:\n    pass", "MLP().forward",
         "MLP cannot be used as the exercise does: AttributeError: 'MLP' object has no attribute 'forward'", 1),
        ("from torch import nn\nclass MLP(nn.Module):\n    def __init__(self): pass", "MLP().training",
         "MLP was not set up as a torch module: super().__init__() has not run", 2),
    ],
)  # fmt: skip
def test_an_error_that_is_about_what_the_student_defines(
    code: str, call: str, what: str, line: int, tmp_path: Path
) -> None:
    problem = told(tmp_path, code, call)
    assert problem is not None and problem.what.startswith(what) and f"line {line}: `" in problem.evidence
    assert problem.hints[0].startswith((SIGNATURE, SELF)[" takes 1 positional" in what])


def test_a_class_without_forward(tmp_path: Path) -> None:
    problem = told(tmp_path, "from torch import nn\nclass MLP(nn.Module):\n    def foward(self, x): pass", "MLP()(3)")
    assert problem is not None and problem.evidence == "06_mlp.py, line 2: `class MLP(nn.Module):`"
    assert 'Module [MLP] is missing the required "forward" function' in problem.what
    assert problem.hints[0].startswith("Is there a `def forward`, spelled so, and at the indentation")


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("from 06_mlp import MLP", "from mlp import MLP`, which finds 06_mlp.py"),
        ("import 06_mlp as m  # mine", "import mlp as m`, which finds 06_mlp.py"),
        ("from .06_mlp import MLP", "from mlp import MLP`, which finds 06_mlp.py"),
        ("from 08_vision_transformer import *", "from vision_transformer import *`, which finds 08_vision_transformer.py"),
        ("from .encoder_block import EncoderBlock", "from encoder_block import EncoderBlock`, which finds 07_encoder_block"),
        ("from . import mlp", "import mlp`, which finds 06_mlp.py"),
        ("from my_vit import mlp as m", "import mlp as m`, which finds 06_mlp.py"),
        ("from my_vit.encoder_block import EncoderBlock", "from encoder_block import EncoderBlock`, which finds 07_enc"),
        ("from elsewhere.tokens import Tokens", "from tokens import Tokens`, which finds 03_tokens.py"),
        ("import my_vit.mlp", "import mlp`, which finds 06_mlp.py"),
        ("import my_vit", "by a file's plain name, as in `from mlp import MLP`"),
        ("from my_vit.helper import f", "by a file's plain name, as in `from mlp import MLP`"),
    ],
)  # fmt: skip
def test_an_import_that_is_none_of_the_plain_name(line: str, right: str, tmp_path: Path) -> None:
    folder = tmp_path / "my_vit"
    folder.mkdir()
    problem = told(folder, f"import torch\n{line}\n", __name__="attention", __package__="")
    assert problem is not None and problem.what.startswith("You import ") and problem.what.endswith(".")
    assert right in problem.what and right in problem.hints[1] and problem.step == STEP
    assert problem.evidence == f"06_mlp.py, line 2: `{line}`"


@pytest.mark.parametrize(
    "line",
    ["from torch import 3", "from mlp import", "from torch.mlp import MLP", "import mlq", "from math import mlp", "x = 3mlp",
     "from transformerz import mlp", "from xformerz.components import attention"],
)  # fmt: skip
def test_another_import_that_fails_is_told_as_what_it_is(line: str, tmp_path: Path) -> None:
    problem = told(tmp_path, f"import torch\n{line}\n", __name__="attention", __package__="")
    assert problem is not None and not problem.what.startswith("You import ")


def test_the_nearest_of_the_folders_modules_has_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "07_encoder_block.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    problem = told(tmp_path, "from encoderblock import EncoderBlock")
    assert problem is not None and problem.what.endswith("No module named 'encoderblock'; nearest: encoder_block")


EINOPS = "from einops import rearrange\nimport torch\nrearrange(torch.ones(3, 6, 35), {})"


@pytest.mark.parametrize(
    ("call", "start", "reason"),
    [
        ("'b n (p p) -> b n p', p=5", 'pattern "b n (p p) -> b n p". Input', "contains duplicate dimension \"p\""),
        ("'b n (h k) -> b h n k', h=4", "Input tensor shape: torch.Size([3, 6, 35]). Additional info: {'h': 4}. Shape",
         "Shape mismatch, can't divide axis of length 35 in chunks of 4"),
        (f"'b n {'x' * 120} -> b n'", 'pattern "b n xxx', "xxx'}"),
        (f"'b n (h k) -> b h n k{' ' * 400}', h=4", "Error while processing", "length 35 in chunks of 4"),
    ],
)  # fmt: skip
def test_einops_reason_is_kept(call: str, start: str, reason: str, tmp_path: Path) -> None:
    problem = told(tmp_path, EINOPS.format(call))
    assert problem is not None and problem.what.startswith("the code ends with EinopsError: Error while processing")
    assert start in problem.what and "\n" not in problem.what and len(problem.what) <= 400
    assert problem.what.endswith(reason)


def test_the_message_of_another_error_is_its_first_line() -> None:
    assert message_of(ValueError("one\ntwo")) == "one" and message_of(ValueError()) == ""
    assert message_of(ValueError("x" * 50), 20) == "x" * 17 + "..."


def test_the_hints_on_a_name_are_about_what_it_is_a_name_of(tmp_path: Path) -> None:
    name, attribute = told(tmp_path, "x = B"), told(tmp_path, "'a'.uper()")
    assert name and attribute and "dot" not in name.hints[1] and "before the dot" in attribute.hints[1]


def test_an_error_in_an_imported_file_names_the_line_that_called_it(tmp_path: Path) -> None:
    (tmp_path / "other_file.py").write_text("def f(x):\n    return 1 / x\n")
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom other_file import f\nf(0)\n"
    problem = told(tmp_path, code)
    assert problem is not None
    assert problem.evidence == "other_file.py, line 2: `return 1 / x`\ncalled from 06_mlp.py, line 4: `f(0)`"
    assert "by itself, look" not in problem.hints[-1]
    wrong = told(tmp_path, code.replace("f(0)", "f('a')"))
    assert wrong is not None
    assert wrong.hints[-1].startswith("If other_file.py is right by itself, look at 06_mlp.py: what it hands over")
    noted = told(tmp_path, code.replace("f(0)", "try: f(0)\nexcept Exception as error: error.add_note('of 0'); raise"))
    assert noted is not None and noted.evidence.endswith("called from 06_mlp.py, line 4: `try: f(0)`\nof 0")


def test_a_call_that_takes_all_memory_is_not_to_be_typed(tmp_path: Path) -> None:
    note = "error.add_note('called as in f()')"
    code = "try:\n    raise {}\nexcept Exception as error:\n    " + note + "\n    raise\n"
    evidence = [getattr(told(tmp_path, code.format(kind)), "evidence", "") for kind in ("MemoryError", "ValueError")]
    assert ["called as in f()" in one for one in evidence] == [False, True]


def test_an_error_of_the_checker_is_not_the_students(tmp_path: Path) -> None:
    assert told(tmp_path, "class MLP: ...", "1 / 0") is None
    assert told(tmp_path, "class MLP: ...", "raise SystemExit") is None


@pytest.mark.parametrize(
    ("code", "what", "evidence", "hint"),
    [
        ("", "the file defines no MLP", "06_mlp.py defines nothing", "The exercise looks for MLP at the left margin"),
        ("import math\ndef f(): ...\nclass Other: ...", "the file defines no MLP", "06_mlp.py defines f, Other",
         "The exercise looks for MLP at the left margin"),
        ("x = 1\nclass mlp: ...", "the file defines no MLP; nearest: mlp", "06_mlp.py, line 2: `class mlp: ...`",
         "Compare the name letter by letter: MLP."),
        ("M_LP = print", "the file defines no MLP; nearest: M_LP", "06_mlp.py has M_LP",
         "Compare the name letter by letter: MLP."),
    ],
)  # fmt: skip
def test_what_is_not_defined(code: str, what: str, evidence: str, hint: str, tmp_path: Path) -> None:
    path, module = tmp_path / "06_mlp.py", ModuleType("mlp")
    path.write_text(code)
    exec(compile(code, str(path), "exec"), module.__dict__)
    problem = explain_missing(module, path, ("MLP",))
    assert problem is not None and (problem.what, problem.evidence) == (what, evidence)
    assert problem.hints[0].startswith(hint) and problem.hints[1]
    module.MLP = print
    assert explain_missing(module, path, ("MLP",)) is None


def test_functions_of_pythons_own_that_were_replaced(tmp_path: Path) -> None:
    problem = explain_broken(["len", "open", "max", "min"], tmp_path / "06_mlp.py")
    assert problem is not None and problem.evidence == "06_mlp.py"
    assert problem.what == "the code replaces Python's own len, open, max, and then nothing works any more"
    assert problem.hints[1] == "Call the variable something else than len."
    assert explain_broken([], tmp_path) is None


def test_a_line_that_is_not_there_any_more(tmp_path: Path) -> None:
    code = "import pathlib\npathlib.Path(__file__).unlink()\n1 / 0\n"
    problem = told(tmp_path, code, __file__=str(tmp_path / "06_mlp.py"))
    assert problem is not None and problem.evidence == "06_mlp.py, line 3"
