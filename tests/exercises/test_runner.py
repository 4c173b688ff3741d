"""A student's file may do what it likes: the checker tells what it did, with the line, and is not harmed."""

import json
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.exercises import course
from tests.exercises.course import DOUBLE, HALVE, TRIPLE, run
from vitscratch.exercises import Exercise, Passed, check, child, runner
from vitscratch.exercises.catalog import EXERCISES
from vitscratch.exercises.child import FORKS, Request
from vitscratch.exercises.errors import is_students
from vitscratch.exercises.report import Report
from vitscratch.exercises.runner import Limits, Runner, _start
from vitscratch.exercises.verdict import read_report

_end_runner = course._end_runner


def test_right(tmp_path: Path) -> None:
    report = run(tmp_path, "def double(x):\n    return x + x\n")
    assert report.ok and report.status == "ok" and report.problem is None and report.mistake is None
    assert report.outcomes == (Passed("0 stays 0"), Passed("3 becomes 6")) and report.printed_size == 0


def test_known_mistake(tmp_path: Path) -> None:
    report = run(tmp_path, "def double(x):\n    return x * x\n")
    assert report.status == "wrong" and report.mistake == "squared"
    assert report.problem is not None and report.problem.evidence == "double(3) is 9, expected 6"
    assert report.mistakes == ("it squares instead of doubling",)
    assert report.tutorial == 'tutorials/01_patches.ipynb, section "Twice"'
    assert report.outcomes[0] == Passed("0 stays 0") and len(report.outcomes) == 2


# What the file does; what the report says; the line, and the text, that it names.
HOSTILE = {
    "loops": ("def double(x):\n    while True:\n        pass\n", "stopped after 1 seconds of computing", (2, 3)),
    "loops in C": ("def double(x):\n    return sum(range(10**15))\n", "does not end", (2,)),
    "loops at import": ("n = 1\nwhile n:\n    n += 1\n", "does not end", (2, 3)),
    "exits": ("import sys\ndef double(x):\n    sys.exit(0)\n", "ends the program", (3,)),
    "exits at import": ("def double(x):\n    return 2 * x\nexit()\n", "ends the program", (3,)),
    "exits at once": ("import os\ndef double(x):\n    os._exit(0)\n", "ends the whole process", (3,)),
    "waits for input": ("def double(x):\n    return 2 * int(input())\n", "waits for input", (2,)),
    "debugs": ("def double(x):\n    breakpoint()\n    return 2 * x\n", "breakpoint()", (2, 3)),
    "debugs by hand": (
        "import pdb\ndef double(x):\n    try:\n        pdb.set_trace()\n    except OSError:\n        pass\n    return 2 * x\n",
        "breakpoint()",
        (4,),
    ),
    "debugs at the end": ("def double(x):\n    y = 2 * x\n    if x:\n        return y\n    breakpoint()\n", "breakpoint()", (5,)),
    "50 GB": ("import torch\ndef double(x):\n    torch.ones(50, 1000, 1000, 250)\n", "46.6 GiB at once", (3,)),
    "a long list": ("def double(x):\n    return [0] * 10**10\n", "more memory", (2,)),
    "segfault": ("import ctypes\ndef double(x):\n    ctypes.string_at(0)\n", "crashes Python: SIGSEGV", (3,)),
    "abort": ("import os\ndef double(x):\n    os.abort()\n", "crashes Python: SIGABRT", (3,)),
    "prints for ever": ("def double(x):\n    while 1:\n        print('x' * 1000)\n", "more than 16 MB", (3,)),
    "raises at import": ("\n\n1 / 0\n", "ZeroDivisionError: division by zero", (3,)),
    "raises": ("def double(x):\n    return x.half()\n", "AttributeError: 'int' object has no attribute 'half'", (2,)),
    "recursion": ("def double(x):\n    return double(x)\n", "calls itself without an end", (2,)),
    "shape": ("import torch\ndef double(x):\n    return torch.ones(2, 3) @ torch.ones(5, 7)\n", "multiplied", (3,)),
    "strange text": ("def double(x):\n    raise OSError('\\udc80 \\x1b[1m ünï')\n", r"\udc80 \x1b[1m ünï", (2,)),
    "own exception": (
        "class E(Exception):\n    def __str__(self):\n        raise self\n\ndef double(x):\n    raise E\n",
        "with E",
        (6,),
    ),
    "syntax": ("x = 1\ndef double(x)\n    return x\n", "SyntaxError: expected ':'", (2,)),
    "indentation": ("def double(x):\n  y = x\n    return y\n", "IndentationError", (3,)),
    "no such module": ("import numpi\n", "No module named 'numpi'; nearest: numpy", (1,)),
    "no such submodule": ("import torch\nimport torch.nnn\n", "No module named 'torch.nnn'; nearest: nn", (2,)),
    "no such import": ("from torch.nn import Linaer\n", "nearest: Linear", (1,)),
    "no such name": ("def double(x):\n    valeu = x\n    return value\n", "nearest: valeu", (3,)),
    "no such attribute": ("import torch\ndouble = torch.stakc\n", "nearest: stack", (2,)),
    "wrong name": ("\n\ndef doubel(x):\n    return 2 * x\n", "defines no double; nearest: doubel", (3,)),
    "wrong case": ("class DOUBLE:\n    pass\n", "defines no double; nearest: DOUBLE", (1,)),
    "wrong signature": ("\ndef double():\n    return 1\n", "double cannot be used as the exercise does", (2,)),
    "breaks isinstance": ("import builtins\ndef double(x):\n    builtins.isinstance = None\n    return 0\n",
                          "replaces Python's own isinstance", ()),
    "kills itself": ("import os\ndef double(x):\n    os.kill(os.getpid(), 9)\n", "SIGKILL (the system", ()),
    "ends itself": ("import os\ndef double(x):\n    os.kill(os.getpid(), 15)\n", "SIGTERM", ()),
    "null byte": ("def double(x): return 2 * x\0", "null bytes", ()),
    "no text": (b"\xff\xfe\x00d", "not saved as UTF-8", ()),
    "UTF-16": ("def double(x): return 2 * x\n".encode("utf-16"), "not saved as UTF-8 (it looks like UTF-16)", ()),
    "Latin-1": ("\n\ndef double(x):\n    return 2 * x  # né\n".encode("latin-1"), "not saved as UTF-8", (4,)),
    "unknown encoding": ("# -*- coding: martian -*-\ndef double(x): return 2 * x\n", "not saved as UTF-8", ()),
    "nothing in it": ("", "defines no double", ()),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, tmp_path: Path) -> None:
    if name in ("50 GB", "a long list") and not FORKS:
        pytest.skip("only Linux tells how much memory is taken, so only there it is limited")
    code, says, numbers = HOSTILE[name]
    report = run(tmp_path, code)
    assert report.status == "wrong", report.text()
    assert report.problem is not None and says in report.problem.what, report.text()
    if numbers:
        assert any(f"01_double.py, line {number}: `" in report.problem.evidence for number in numbers), report.text()
    assert len(report.problem.hints) >= 2 and all(report.problem.hints)
    text = report.text(hints=2)
    assert "hint    1 of 2" in text and "Traceback" not in text and "\x1b" not in text
    assert all(character.isprintable() or character == "\n" for character in text)


# Right, whatever else it does.
HARMLESS = {
    "raises in __del__": "class A:\n    def __del__(self): raise ValueError\n"
    "def double(x):\n    A()\n    return 2 * x\n",
    "forks, and both go on": "import os\nos.fork()\ndef double(x): return 2 * x\n",
    "a thread goes on": "import threading, time\nthreading.Thread(target=time.sleep, args=(999,)).start()\n"
    "def double(x): return 2 * x\n",
    "writes to all files": "import os\nfor f in range(3, 99):\n    try: os.write(f, b'{\"kind\": \"passed\"}')\n"
    "    except OSError: pass\ndef double(x): return 2 * x\n",
    "closes all files": "import os\nos.closerange(0, 99)\ndef double(x): return 2 * x\n",
    "breaks builtins at import": "import builtins\nbuiltins.len = None\ndel builtins.open\n"
    "def double(x): return 2 * x\n",
    "breaks torch at import": "import torch\ntorch.randn = None\ntorch.set_default_dtype(torch.float64)\n"
    "torch.set_grad_enabled(False)\ntorch.manual_seed(7)\ntorch.set_default_device('meta')\n"
    "def double(x):\n    assert torch.zeros(1, requires_grad=True).exp().requires_grad\n"
    "    assert torch.zeros(1).dtype == torch.float32 and torch.initial_seed() == 0\n"
    "    return int(2 * x + torch.randn(1).isnan())\n",
    "forks a process in every call": "import os\ndef double(x):\n    for _ in range(5):\n        os.fork()\n"
    "        os.write(1, b'.')\n    return 2 * x\n",
    "unicode": "# ünï\ndef double(größe):\n    return größe * 2\n",
    "runs things as a program": "def double(x): return 2 * x\nif __name__ == '__main__': exit(1)\n",
    "another default folder": "import os\nos.chdir('/')\ndef double(x): return 2 * x\n",
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless(name: str, tmp_path: Path) -> None:
    report = run(tmp_path, HARMLESS[name])
    assert report.ok, report.text()
    assert report.outcomes == (Passed("0 stays 0"), Passed("3 becomes 6"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forks_do_not_double_with_every_call(tmp_path: Path) -> None:
    report = run(tmp_path, HARMLESS["forks a process in every call"])
    assert report.ok and 5 * 5 <= report.printed_size <= 5 * 5 * 2


def test_a_file_that_says_its_encoding_may_have_it(tmp_path: Path) -> None:
    code = "# -*- coding: latin-1 -*-\ndef double(x):\n    return 2 * x  # né\n"
    assert run(tmp_path, code.encode("latin-1")).ok


def test_what_one_file_changes_no_other_sees(tmp_path: Path) -> None:
    run(
        tmp_path,
        "import sys, torch\ntorch.left = sys.left = 1\ntorch.set_num_threads(3)\ndef double(x): return 2 * x\n",
    )
    code = "import sys, torch\ndef double(x):\n    return 2 * x - hasattr(torch, 'left') - hasattr(sys, 'left')\n"
    assert run(tmp_path, code).ok


@pytest.mark.parametrize(
    "code",
    [
        'import os\nprint(\'{"kind": "done", "count": 0}\')\nos._exit(0)\n',
        "import sys\nprint('ok')\nsys.exit(0)\n",
        "import os, signal\ndef double(x):\n    os.kill(os.getpid(), signal.SIGKILL)\n",
    ],
)
def test_nobody_passes_by_ending_well(code: str, tmp_path: Path) -> None:
    assert not run(tmp_path, code).ok


def test_nobody_can_know_how_our_lines_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens: list[str] = []
    monkeypatch.setattr(Runner, "_run", lambda _, request: tokens.append(request.token))
    for _ in range(2):
        run(tmp_path, "def double(x): return 2 * x\n")
    assert tokens[0] != tokens[1] and min(map(len, tokens)) >= 16


def test_prints_are_counted_and_shortened(tmp_path: Path) -> None:
    code = "print('first')\nprint('é' * 2**19)\nprint('last \\x1b[31m')\ndef double(x): return 2 * x\n"
    report = run(tmp_path, code)
    assert report.ok and report.printed_size == 6 + 2**20 + 1 + 11
    text = report.text()
    assert "printed 1,048,594 bytes; the end of it:" in text and r"last \x1b[31m" in text
    assert len(text) < 500 and "first" not in text


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells the end of a process that is no child")
def test_no_process_is_left(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, time\nif (p := os.fork()) == 0:\n    time.sleep(999)\n"
        "pathlib.Path(__file__).with_name('pid').write_text(str(p))\ndef double(x): return 2 * x\n"
    )
    assert run(tmp_path, code).ok
    try:
        process = os.pidfd_open(int((tmp_path / "pid").read_text()))
    except ProcessLookupError:
        return
    ended = select.select([process], [], [], 30)[0]
    os.close(process)
    assert ended


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells the end of a process that is no child")
def test_ctrl_c_ends_the_students_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes: list[int] = []

    def interrupted(*arguments: Any) -> Iterator[int]:
        number = next(replies(*arguments))
        processes.append(os.pidfd_open(number))
        yield number
        raise KeyboardInterrupt

    replies = runner._replies
    monkeypatch.setattr(runner, "_replies", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "while True: pass\n")
    assert select.select(processes, [], [], 30)[0]
    os.close(processes[0])
    monkeypatch.undo()
    assert run(tmp_path, "def double(x): return 2 * x\n").ok


@pytest.mark.skipif(not FORKS, reason="elsewhere the process that checks is the one that loads torch")
def test_who_ends_the_process_that_keeps_torch_ready_does_not_pass(tmp_path: Path) -> None:
    report = run(tmp_path, "import os\ndef double(x):\n    os.kill(os.getppid(), 9)\n    return 2 * x\n")
    assert report.status == "error" and "or took more than 15 seconds on the clock" in report.failure, report.text()
    assert run(tmp_path, "def double(x): return 2 * x\n").ok


def test_the_process_that_keeps_torch_ready_ends_with_the_block() -> None:
    with Runner() as runner:
        runner._server = server = _start()
    assert server.returncode is not None and server.stdout is not None and server.stdout.closed


@pytest.mark.skipif(not hasattr(os, "getsid"), reason="sessions of POSIX")
def test_what_a_terminal_sends_does_not_reach_the_code(tmp_path: Path) -> None:
    code = "import os\nprint(os.getsid(0))\ndef double(x): return 2 * x\n"
    report = run(tmp_path, code)
    assert report.ok and int(report.printed) != os.getsid(0)


@pytest.mark.skipif(not FORKS, reason="elsewhere waiting is part of the time on the clock")
def test_code_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course.runner(), "limits", Limits(1.0, 2.0))
    report = run(tmp_path, "import time\ndef double(x):\n    time.sleep(999)\n")
    assert report.problem is not None
    assert report.problem.what == "the code does not end: it has waited for 2 seconds without computing"
    assert report.problem.evidence == "01_double.py, line 3: `time.sleep(999)`"


@pytest.mark.skipif(not FORKS, reason="elsewhere waiting is part of the time on the clock")
def test_who_gets_no_core_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "IDLE", 100.0)  # as if many others had the cores: whatever it computes is too little
    request = child.Request("", "", (), "", {}, str(tmp_path), "", 1.0, 0.1, 9.0, 0, True)
    process = os.fork()
    if not process:
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass
        os._exit(7)
    assert os.waitstatus_to_exitcode(child._wait(process, request)) == 7


@pytest.mark.skipif(not FORKS, reason="only Linux tells how much memory is taken, so only there it is limited")
def test_memory_is_limited_whatever_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course.runner(), "limits", Limits(1.0, memory=2**28))
    code = "import torch\ndef double(x):\n    torch.empty({}, dtype=torch.uint8)\n    return 2 * x\n"
    report = run(tmp_path, code.format(2**29))  # nothing is written to it: it takes no memory
    assert report.problem is not None and "more memory than the checker gives: 0.5 GiB" in report.problem.what
    assert run(tmp_path, code.format(2**27)).ok


def test_a_failure_of_the_check_is_nobodys_mistake_and_no_success(tmp_path: Path) -> None:
    report = run(tmp_path, "def double(x):\n    return 'fail' if x else 0\n")
    assert report.status == "error" and report.problem is None and not report.ok
    assert "ZeroDivisionError: the check is wrong" in report.failure
    assert "which is not your mistake; please report this" in report.text() and "WRONG" not in report.text()


def test_a_check_that_is_not_there_is_nobodys_mistake(tmp_path: Path) -> None:
    (tmp_path / "nowhere.py").write_text("x = 1\n")
    report = course.runner().check(
        tmp_path / "nowhere.py", Exercise(1, "nowhere", ("x",), (), 5, 1, "01_patches.ipynb")
    )
    assert report.status == "error" and "No module named 'vitscratch.exercises.checks.nowhere'" in report.failure


@pytest.mark.parametrize(
    "code", ["while True:\n        pass", "import os; os._exit(0)", "import ctypes; ctypes.string_at(0)"]
)
def test_the_line_is_found_in_a_folder_of_any_name(code: str, tmp_path: Path) -> None:
    """Where the process ends early, faulthandler names the file, in ASCII."""
    folder = tmp_path / "Übung 1 日本 🎓"
    folder.mkdir()
    report = run(folder, f"def double(x):\n    {code}\n")
    assert report.status == "wrong" and report.problem is not None, report.text()
    assert "01_double.py, line " in report.problem.evidence


def test_pythons_own_library_is_not_the_students_wherever_it_lies(tmp_path: Path) -> None:
    home = Path(json.__file__).parents[2]  # as if somebody worked in the folder that Python is installed in
    assert is_students(str(home / "mine.py"), home / "mine.py") and is_students(str(home / "mlp.py"), home / "mine.py")
    assert not is_students(json.__file__, home / "mine.py") and not is_students(pytest.__file__, home / "mine.py")


def test_the_evidence_says_what_the_code_was_called_with(tmp_path: Path) -> None:
    report = run(tmp_path, "def double(x):\n    return x and 1 / (x - 5)\n")
    assert report.problem is not None
    assert report.problem.evidence == "01_double.py, line 2: `return x and 1 / (x - 5)`\nit was called with 5"


def test_an_instruction_is_no_mistake(tmp_path: Path) -> None:
    report = run(tmp_path, "def double(x):\n    raise NotImplementedError('write double: x twice')\n")
    assert report.status == "not begun" and not report.ok
    to_do, line, *_ = report.text().splitlines()[1:]
    assert to_do == "  to do   write double: x twice" and "WRONG" not in report.text()
    assert line.startswith("          01_double.py, line 2: `raise NotImplementedError(") and "delete this line" in line
    noted = "    try:\n        raise NotImplementedError('write it')\n    except NotImplementedError as e:\n"
    report = run(tmp_path, f"def double(x):\n{noted}        e.add_note('called as in double(0)')\n        raise\n")
    assert "called as in" not in report.text() and "write it" in report.text()
    half = run(tmp_path, "def double(x):\n    if x: raise NotImplementedError('the rest')\n    return 0\n")
    assert half.status == "wrong" and half.outcomes[0] == Passed("0 stays 0")


def test_what_torch_has_not_implemented_is_a_mistake(tmp_path: Path) -> None:
    report = run(tmp_path, "import torch\ndef double(x):\n    return (torch.ones(3) > x).mean()\n")
    assert report.status == "wrong" and report.problem is not None and "Got: Bool" in report.problem.what
    assert report.problem.evidence.startswith("01_double.py, line 3: `return (torch.ones(3) > x).mean()`")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "from torch import nn\nclass Halve(nn.Module):\n    def __init__(self, side):\n        self.x = nn.ELU()\n",
            "super().__init__() has to run first",
        ),
        ("class Halve:\n    def __init__(self, side): pass\n", "'Halve' object has no attribute 'double'"),
        ("from torch import nn\nclass Halve(nn.Module):\n    def __init__(self): pass\n", "argument 'side'"),
        ("from torch import nn\nclass Halve(nn.Module):\n    def __init__(self, side): pass\n", "super().__init__()"),
    ],
)
def test_a_class_that_cannot_be_used(code: str, says: str, tmp_path: Path) -> None:
    report = run(tmp_path, code, HALVE)
    assert report.problem is not None and report.status == "wrong", report.failure
    assert says in report.problem.what
    assert any(line in report.problem.evidence for line in ("class Halve", "def __init__", "self.x ="))


def test_earlier_exercises_can_be_imported(tmp_path: Path) -> None:
    names = {one.name: one for one in EXERCISES}
    (tmp_path / names["mlp"].file_name).write_text("def add(x, y):\n    return x + y\n")
    (tmp_path / "helper.py").write_text("from mlp import add\n")
    assert run(
        tmp_path, "from helper import add\nimport mlp\ndef triple(x):\n    return add(x, mlp.add(x, x))\n", TRIPLE
    ).ok
    (tmp_path / names["mlp"].file_name).write_text("def add(x, y):\n    return x + y + None\n")
    report = run(tmp_path, "from mlp import add\ndef triple(x):\n    return add(x, x + x)\n", TRIPLE)
    assert report.problem is not None
    called = "called from 02_triple.py, line 3: `return add(x, x + x)`"
    assert report.problem.evidence == f"06_mlp.py, line 2: `return x + y + None`\n{called}"
    report = run(tmp_path, "from mlp import Add\n", TRIPLE)
    assert report.problem is not None and report.problem.what.endswith("; nearest: add")
    assert report.problem.hints[0].startswith("Which names does the file that you import from define?")
    (tmp_path / names["mlp"].file_name).write_text("def add(x, y)\n")
    report = run(tmp_path, "from mlp import add\ndef triple(x):\n    return add(x, x + x)\n", TRIPLE)
    assert report.problem is not None and report.problem.evidence == "06_mlp.py, line 1: `def add(x, y)`"
    assert not (tmp_path / "__pycache__").exists()


def test_without_forking_and_in_a_folder_full_of_traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and Windows: each file loads torch itself; a `random.py` where one stands would be torch's."""
    (tmp_path / "random.py").write_text("raise RuntimeError('the trap')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    path = tmp_path / DOUBLE.file_name
    with Runner(Limits(1.0), fork=False) as runner:
        path.write_text(
            "import os, torch\nassert torch.get_num_threads() == 1 and not os.environ['CUDA_VISIBLE_DEVICES']\n"
            "print(1)\ndef double(x):\n    return 2 * x\n"
        )
        report = runner.check(path, DOUBLE)
        assert report.ok and report.printed_size == 2, report.text()
        path.write_text("import ctypes\ndef double(x):\n    ctypes.string_at(0)\n")
        report = runner.check(path, DOUBLE)
        assert report.problem is not None and "line 3" in report.problem.evidence


def test_without_forking_waiting_ends_by_the_clock(tmp_path: Path) -> None:
    path = tmp_path / DOUBLE.file_name
    path.write_text("import time\ndef double(x):\n    time.sleep(999)\n")
    with Runner(Limits(1.0, 0.5), fork=False) as runner:
        report = runner.check(path, DOUBLE)
    assert report.problem is not None, report.failure
    assert report.problem.what == "the code does not end: stopped after 2 seconds on the clock"
    assert report.problem.evidence == "01_double.py, line 3: `time.sleep(999)`"


@pytest.mark.parametrize(
    ("lines", "code", "status"),
    [
        ([("passed", {"what": "it", "but": ""}), ("done", {"count": 1})], 0, "ok"),
        ([("passed", {"what": "it", "but": ""}), ("done", {"count": 2})], 0, "error"),
        ([("passed", {"what": "it", "but": ""}), ("done", {"count": 1})], 1, "error"),
        ([("passed", {"what": "it", "but": ""}), ("done", {"count": 1})], -9, "error"),
        ([("passed", {"what": "it", "but": ""}), ("done", {"count": 1})], None, "error"),
        ([("passed", {"what": "it", "but": ""})], 0, "error"),
        ([], 0, "error"),
    ],
)
def test_only_who_counts_rightly_and_ends_well_can_say_ok(
    lines: list[tuple[str, dict[str, object]]], code: int | None, status: str, tmp_path: Path
) -> None:
    request = Request(
        str(tmp_path / "x.py"), "double", (), "", {}, str(tmp_path), "our-token", 1.0, 1.0, 1.0, 1, False
    )  # fmt: skip
    said = [f"our-token {json.dumps({'kind': kind, **content})}" for kind, content in lines]
    forged = ['{"kind": "done", "count": 1}', 'my-token {"kind": "done", "count": 1}']
    (tmp_path / "outcomes").write_text("\n".join([*said, *forged]))
    assert read_report(tmp_path / "x.py", DOUBLE, request, code).status == status


def test_the_seconds_that_are_given_are_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def noted(runner: Runner, path: Path) -> Report:
        given.append(runner.limits.seconds)
        return Report(path, DOUBLE, "ok")

    monkeypatch.setattr(Runner, "check", noted)
    assert check(tmp_path / "x.py", seconds=7.0).ok and check(str(tmp_path / "x.py")).ok
    assert given == [7.0, 20.0]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        check(tmp_path / "01_patchify.py")
    (tmp_path / "mine.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="expected a file that defines one of patchify, PatchEmbedding"):
        check(tmp_path / "mine.py")
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(ValueError, match=f"{path} is no regular file; expected a file of Python"):
            check(path)
