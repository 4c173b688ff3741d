"""Runs checks of students' files, each in a process of its own that may loop, crash or end as it likes."""

import ast
import io
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from vitscratch.exercises.catalog import EXERCISES
from vitscratch.exercises.child import FORKS, Request
from vitscratch.exercises.errors import PACKAGE, STEP, Line, explain
from vitscratch.exercises.exercise import Exercise, Problem
from vitscratch.exercises.files import check_regular, exercise_of
from vitscratch.exercises.report import Report
from vitscratch.exercises.verdict import read_report

# Import of torch from a slow disk, and the time after which a process that answers nothing is ended from here.
START = 300.0
GRACE = 20.0


@dataclass(frozen=True)
class Limits:
    """What the check of one file may take.

    Args:
        seconds: of computing.
        waiting: seconds that may pass without computing. (Linux; elsewhere it is part of the time on the clock.)
        memory: bytes, in addition to what torch takes. Only Linux can limit it.
    """

    seconds: float = 20.0
    waiting: float = 20.0
    memory: int = 4 * 2**30

    def clock(self, fork: bool) -> float:
        """Seconds that may pass in all; where waiting is not noticed, they are few."""
        return 15 * self.seconds if fork else self.seconds + 2 * self.waiting


class Runner:
    """Checks files, each in a process of its own.

    A context manager: the process that keeps torch ready is started with the first file, and ended with the block.

    Args:
        limits: for each file.
        fork: whether processes are forked from one that has loaded torch, or each loads it itself.
    """

    def __init__(self, limits: Limits = Limits(), fork: bool = FORKS) -> None:
        self.limits, self.fork = limits, fork
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def check(self, path: Path, exercise: Exercise | None = None) -> Report:
        """Check a file.

        Args:
            path: a file of Python.
            exercise: None to find out from the file (`exercise_of`).

        Raises:
            ValueError: no such file, or it is about no exercise.
            OSError: it cannot be read.
        """
        check_regular(path)
        file = path.resolve()
        exercise = exercise or exercise_of(path)
        if problem := _unreadable(file):
            return Report(path, exercise, "wrong", (problem,))
        with tempfile.TemporaryDirectory(prefix="vitscratch-") as folder:
            others = {one.name: one.file_name for one in EXERCISES}
            request = Request(
                str(file),
                exercise.name,
                exercise.defines,
                exercise.checker,
                others,
                folder,
                secrets.token_hex(8),
                self.limits.seconds,
                self.limits.waiting,
                self.limits.clock(self.fork),
                self.limits.memory,
                self.fork,
            )
            code = self._run(request)
            return read_report(path, exercise, request, code)

    def close(self) -> None:
        """End the process that keeps torch ready."""
        server, self._server = self._server, None
        if server is not None:
            _kill(server.pid)
            server.kill()
            server.communicate()

    def _run(self, request: Request) -> int | None:
        """Have a file checked; the exit code of its process, or None if it had to be ended from here."""
        if self._server is None or self._server.poll() is not None:
            self.close()
            self._server = _start()
        server = self._server
        assert server.stdin is not None
        deadline = time.monotonic() + START + request.clock + GRACE
        done = False
        process: int | None = None
        try:
            server.stdin.write(f"{json.dumps(asdict(request))}\n".encode())
            server.stdin.flush()
            if not request.fork:
                code = server.wait(deadline - time.monotonic())
                self.close()
                done = True
                return code
            for number in _replies(server, request.token, deadline):
                if process is not None:
                    done = True
                    return number
                process, deadline = number, time.monotonic() + request.clock + GRACE
        except (subprocess.TimeoutExpired, BrokenPipeError):
            pass
        finally:
            if not done:  # also by Ctrl-C
                if process is not None:
                    _kill(process)
                self.close()
        return None


def _start() -> "subprocess.Popen[bytes]":
    """Start the process that keeps torch ready, with this one's search path, in a session of its own."""
    here = Path.cwd()
    paths = [Path(entry or here).absolute() for entry in sys.path]
    # Not the folder that one happens to stand in: a student's `random.py` there would be torch's.
    search = [str(path) for path in paths if path != here or path == PACKAGE.parent]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search),
        "OMP_NUM_THREADS": "1",  # one thread, so that seconds of computing are seconds
        "CUDA_VISIBLE_DEVICES": "",  # what the check makes is on the CPU
        "PYTHONIOENCODING": "utf-8",
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "vitscratch.exercises.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def _replies(server: "subprocess.Popen[bytes]", token: str, deadline: float) -> Iterator[int]:
    """Numbers that the server answers a request with, until it ends or the time is over."""
    assert server.stdout is not None
    stream, rest = server.stdout.fileno(), b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([stream], [], [], left)[0]:
            return
        if not (read := os.read(stream, 4096)):
            return
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            if line.startswith(token.encode()):
                yield int(line.split()[1])


def _kill(group: int) -> None:
    """End the processes of a group, whoever is left in it."""
    if hasattr(os, "killpg"):
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)


def _unreadable(file: Path) -> Problem | None:
    """What is wrong with a file that is no Python."""
    data = file.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        data.decode(encoding)  # ast.parse would not mind it in a comment, where Python does
    except (SyntaxError, UnicodeError):
        return _not_utf8(file, data)
    try:
        ast.parse(data, str(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hints = ("Is it a text file, saved as UTF-8?", "Copy the stub's text into a new file.")
        return explain(error, file) or Problem(f"Python cannot read the file: {error}", file.name, STEP, hints)
    return None


def _not_utf8(file: Path, data: bytes) -> Problem:
    where = file.name
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            where = f"{Line(file, number)}: byte {line[error.start]:#x} is none of UTF-8"
            break
    kind = " (it looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
    hints = (
        "In which encoding does your editor save? Python expects UTF-8.",
        'Look in the editor for "Save with encoding", choose UTF-8 (without BOM), and save again.',
    )
    return Problem(f"Python cannot read the file: it is not saved as UTF-8{kind}", where, STEP, hints)
