"""The report on a file, from what the process that checked it left behind, however it ended."""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitscratch.exercises.child import EXITED, OUTCOMES, PRINTED, TRACE, WAITED, Request
from vitscratch.exercises.errors import STEP, Line, is_students
from vitscratch.exercises.exercise import Exercise, Passed, Problem
from vitscratch.exercises.files import is_stub
from vitscratch.exercises.report import BUSY, Report

SHOWN = 4_000  # bytes of what a student's code printed that a report keeps: its end


def read_report(path: Path, exercise: Exercise, request: Request, code: int | None) -> Report:
    """What was found. Only a process that said "done", counted its lines rightly and ended well can say "ok".

    Args:
        path, exercise, request: what was asked.
        code: exit code of the process, negative for a signal; None if it had to be ended from outside.
    """
    folder = Path(request.folder)
    messages = _messages(folder / OUTCOMES, request.token)
    passed = tuple(Passed(message["what"], message["but"]) for message in messages if message["kind"] == "passed")
    size, printed = _printed(folder / PRINTED)
    report = Report(path, exercise, "ok", passed, printed=printed, printed_size=size)
    problems = [message for message in messages if message["kind"] == "problem"]
    if problems:  # known, however the process ended
        return _problem_report(report, problems[0], [each["what"] for each in messages if each["kind"] == "origin"])
    if code != 0 or not messages or messages[-1] != {"kind": "done", "count": len(messages) - 1}:
        return _cut_short(report, request, code)
    last = messages[-2]
    if last["kind"] == "failed":
        return replace(report, status="error", failure=last["what"])
    if last["kind"] == "not begun":
        hints = ("The text of the stub says what to write.", "The tutorial leads to it, step by step.")
        begun = passed and not is_stub(path, exercise)
        problem = Problem(last["what"], last["where"], STEP, hints)
        return replace(report, status="wrong" if begun else "not begun", outcomes=(*passed, problem))
    return report


def _problem_report(report: Report, message: dict[str, Any], origin: list[str]) -> Report:
    problem = Problem(
        **{**message["problem"], "hints": tuple(message["problem"]["hints"]), "section": message["section"]}
    )
    problem = replace(problem, evidence="\n".join([problem.evidence, *origin]))
    return replace(report, status="wrong", outcomes=(*report.outcomes, problem), mistakes=tuple(message["mistakes"]))


def _messages(path: Path, token: str) -> list[dict[str, Any]]:
    text = path.read_text(errors="replace") if path.exists() else ""
    return [json.loads(line.removeprefix(token)) for line in text.splitlines() if line.startswith(f"{token} ")]


def _printed(path: Path) -> tuple[int, str]:
    """How many bytes were printed, and their end."""
    if not path.exists():
        return 0, ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - SHOWN))
        return size, file.read().decode(errors="replace").lstrip("\ufffd")  # half a character


def _cut_short(report: Report, request: Request, code: int | None) -> Report:
    """The report on a process that ended before it had said everything."""
    folder, student = Path(request.folder), Path(request.file)
    trace = (folder / TRACE).read_text(errors="replace") if (folder / TRACE).exists() else ""
    found = [Line(_file(name), int(number)) for name, number in re.findall(r'File "(.+)", line (\d+)', trace)]
    lines = [line for line in found if is_students(str(line.file), student)]
    what, hints = _why(trace, code, request)
    if lines or (not trace and code is not None and (folder / PRINTED).exists()):
        where = str(lines[0]) if lines else f"{student.name}: the line is not known"
        return replace(report, status="wrong", outcomes=(*report.outcomes, Problem(what, where, STEP, hints)))
    failure = f"{what}; no line of the student's was running (exit code {code})\n{trace}"
    if "Fatal Python error" not in trace and (WAITED in trace or "Timeout" in trace or code is None):
        failure = f"{BUSY}\nand if it happens once more, please report this:\n{failure}"
    return replace(report, status="error", failure=failure)


def _file(name: str) -> Path:
    """A file by its name in a traceback of faulthandler, which writes all that is not ASCII as an escape."""
    if Path(name).exists():
        return Path(name)
    codes = r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))"
    return Path(re.sub(codes, lambda code: chr(int(code[1] or code[2] or code[3], 16)), name))


_LOOP = (
    "Which loop, or which call that waits, is this line in, and what ends it?",
    "Print the loop's variable for a few rounds: does it get nearer to its end?",
)
_CRASH = (
    "Python itself stopped at this line: memory that is not yours, or an endless recursion.",
    "ctypes, as_strided with wrong strides, or sys.setrecursionlimit can do that; take them away.",
)
_LEFT = (
    "Nothing in the file may end the process: os._exit, os.kill, os.abort.",
    "Return a value, or raise an exception, instead.",
)

_MEMORY = (
    "How much does this file keep: which list or tensor grows in a loop, and how many numbers has the largest one?",
    "If it is little, other programs took the memory: close some, and check again.",
)


def _why(trace: str, code: int | None, request: Request) -> tuple[str, tuple[str, ...]]:
    """Why a process ended early, and two hints."""
    if EXITED in trace:
        return "the code ends the whole process: os._exit()", _LEFT
    if "Fatal Python error" in trace:
        name = signal.Signals(-code).name if code is not None and code < 0 else "Python's own error"
        return f"the code crashes Python: {name}", _CRASH
    if WAITED in trace:
        return f"the code does not end: it has waited for {request.waiting:g} seconds without computing", _LOOP
    if "Timeout" in trace:
        return f"the code does not end: stopped after {request.clock:g} seconds on the clock", _LOOP
    if code is None:
        return f"the process was ended from outside, or took more than {request.clock:g} seconds on the clock", _LOOP
    if trace:
        return f"the code does not end: stopped after {request.seconds:g} seconds of computing", _LOOP
    if code < 0:
        name = signal.Signals(-code).name
        if name == "SIGKILL":
            return f"the process was ended from outside, by {name} (the system does that when memory runs out)", _MEMORY
        return f"the process was ended from outside, by {name}", _LEFT
    return f"the code ends the whole process, with exit code {code}", _LEFT
