"""What is told of a process that ended before it had said everything, in the words that a student reads."""

import json
from pathlib import Path

import pytest

from tests.exercises.course import DOUBLE
from vitscratch.exercises.child import EXITED, OUTCOMES, PRINTED, TRACE, WAITED, Request
from vitscratch.exercises.report import BUSY, Report
from vitscratch.exercises.verdict import read_report

TOKEN = "5e3a"
CODE = "def double(x):\n    y = x\n    return y + x\n"


def report(
    folder: Path, code: int | None, trace: str | None = None, said: tuple[str, ...] = (), printed: str | None = ""
) -> Report:
    """Of a process that left this behind; "LINE" in a trace is where the student's third line was running."""
    student = folder / "01_double.py"
    student.write_text(CODE)
    if printed is not None:
        (folder / PRINTED).write_text(printed)
    if trace is not None:
        (folder / TRACE).write_text(trace.replace("LINE", f'  File "{student}", line 3 in double\n'))
    if said:
        (folder / OUTCOMES).write_text("\n".join(f"{TOKEN} {line}" for line in said))
    request = Request(
        str(student), "double", ("double",), "", {}, str(folder), TOKEN, seconds=7.0, waiting=11.0, clock=105.0,
        memory=1, fork=True,
    )  # fmt: skip
    return read_report(student, DOUBLE, request, code)


PASSED = json.dumps({"kind": "passed", "what": "0 stays 0", "but": "late"})
LOOP = "Which loop, or which call that waits, is this line in, and what ends it?"
CRASH = "Python itself stopped at this line: memory that is not yours, or an endless recursion."
MEMORY = "How much does this file keep: which list or tensor grows in a loop, and how many numbers has the largest one?"
LEFT = "Nothing in the file may end the process: os._exit, os.kill, os.abort."


@pytest.mark.parametrize(
    ("code", "trace", "what", "hint"),
    [
        (0, f"{EXITED}\nLINE", "the code ends the whole process: os._exit()", LEFT),
        (-11, "Fatal Python error: Segmentation fault\nLINE", "the code crashes Python: SIGSEGV", CRASH),
        (1, "Fatal Python error: Aborted\nLINE", "the code crashes Python: Python's own error", CRASH),
        (-24, f"{WAITED}\nLINE", "the code does not end: it has waited for 11 seconds without computing", LOOP),
        (1, "Timeout (0:01:45)!\nLINE", "the code does not end: stopped after 105 seconds on the clock", LOOP),
        (None, "LINE", "the process was ended from outside, or took more than 105 seconds on the clock", LOOP),
        (-24, "Thread 0x1 (most recent call first):\nLINE", "the code does not end: stopped after 7 seconds of computing", LOOP),
    ],
)  # fmt: skip
def test_why_it_ended(code: int | None, trace: str, what: str, hint: str, tmp_path: Path) -> None:
    found = report(tmp_path, code, trace, (PASSED,))
    assert found.status == "wrong" and found.problem is not None and len(found.outcomes) == 2
    assert found.problem.what == what and found.problem.hints[0] == hint and found.problem.hints[1]
    assert found.problem.evidence == "01_double.py, line 3: `return y + x`"


@pytest.mark.parametrize(
    ("code", "what", "hint"),
    [
        (3, "the code ends the whole process, with exit code 3", LEFT),
        (-15, "the process was ended from outside, by SIGTERM", LEFT),
        (-9, "the process was ended from outside, by SIGKILL (the system does that when memory runs out)", MEMORY),
    ],
)
def test_an_end_without_a_traceback(code: int, what: str, hint: str, tmp_path: Path) -> None:
    found = report(tmp_path, code)
    assert found.status == "wrong" and found.problem is not None
    assert found.problem.what == what and found.problem.hints[0] == hint
    assert found.problem.evidence == "01_double.py: the line is not known"


@pytest.mark.parametrize("code", [-11, None])
def test_where_no_line_of_the_students_ran_it_is_not_their_mistake(code: int | None, tmp_path: Path) -> None:
    found = report(tmp_path, code, 'Fatal Python error: Segmentation fault\n  File "/elsewhere.py", line 1 in f\n')
    assert found.status == "error" and found.problem is None
    name = "SIGSEGV" if code else "Python's own error"
    says = f"the code crashes Python: {name}; "
    assert found.failure.startswith(f"{says}no line of the student's was running (exit code {code})\nFatal Python")


@pytest.mark.parametrize(("code", "trace"), [(-24, f"{WAITED}\n"), (1, "Timeout (0:01:45)!\n"), (None, None)])
def test_where_the_clock_stopped_none_of_the_students_lines_it_is_to_be_checked_again(
    code: int | None, trace: str | None, tmp_path: Path
) -> None:
    found = report(tmp_path, code, trace)
    assert found.status == "error" and found.failure.startswith(BUSY)
    text = found.text()
    assert "busy or asleep, which is not your mistake: check again" in text and "checker itself failed" not in text


def test_a_process_that_ended_before_the_students_file_was_run(tmp_path: Path) -> None:
    found = report(tmp_path, 1, printed=None)
    assert found.status == "error" and not found.printed_size
    assert found.failure.startswith("the code ends the whole process, with exit code 1; no line of the student's was")


@pytest.mark.parametrize(
    "said", [(), (PASSED,), (PASSED, '{"kind": "done", "count": 2}'), ('{"kind": "done", "count": 1}', PASSED)]
)
def test_only_who_said_all_and_counted_rightly_passes(said: tuple[str, ...], tmp_path: Path) -> None:
    assert not report(tmp_path, 0, None, said).ok
    right = report(tmp_path, 0, None, (PASSED, '{"kind": "done", "count": 1}'))
    assert right.ok and str(right.outcomes[0]) == "0 stays 0; but late"
    assert not report(tmp_path, 1, None, (PASSED, '{"kind": "done", "count": 1}')).ok
