"""The process that a student's file runs in: limits, the check, and what it found, written down line by line.

Run as a program, `python -m vitscratch.exercises.child`, it imports torch once and then forks for every file that it
is asked for, so that each has a process of its own (`runner.py` is the other end). Where forking is not safe, it
checks one file itself and ends.
"""

import builtins
import faulthandler
import json
import os
import pdb
import random
import signal
import sys
import time
import traceback
import warnings
from bdb import BdbQuit
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from vitscratch.exercises.catalog import EXERCISES
from vitscratch.exercises.errors import explain, explain_broken, explain_missing, explain_unwritten
from vitscratch.exercises.exercise import Exercise, Mistake, Passed, Problem
from vitscratch.exercises.files import exercise_of_name
from vitscratch.exercises.importing import load

PRINTS = 16 * 2**20  # bytes that a student's code may print, or write to any one file
FORKS = sys.platform.startswith("linux")  # macOS has fork, but its libraries do not survive it

OUTCOMES, PRINTED, TRACE = "outcomes", "printed", "trace"  # files in the folder of a request
EXITED, WAITED = "os._exit was called", "only waits"
PAUSE = 0.02  # seconds between two looks at the process
IDLE = 0.01  # of the time on the clock: who computes less waits; one among many programs that compute gets more


@dataclass(frozen=True)
class Request:
    """A file to check."""

    file: str
    """Resolved."""

    name: str
    """Of the exercise, and of the module that the file becomes."""

    defines: tuple[str, ...]
    checker: str
    """Dotted name of the module that checks it."""

    others: dict[str, str]
    """Files of the exercises that the file may import, by plain name: "mlp" stands for 06_mlp.py."""

    folder: str
    """Where the three files above are written."""

    token: str
    """Begins every line of ours, so that nothing that a student writes is mistaken for one."""

    seconds: float
    """Of computing."""

    waiting: float
    """Seconds on the clock in which it computes nothing: where processes are forked."""

    clock: float
    """Seconds on the clock in all."""

    memory: int
    """Bytes, in addition to what torch takes."""

    fork: bool
    """Whether in a new process, or in the one that is asked, which then ends."""


class Outcomes:
    """Writes what was found to a file that is opened for each line: a student's code may close every descriptor."""

    def __init__(self, request: Request) -> None:
        self._path, self._token = os.path.join(request.folder, OUTCOMES), request.token
        self._pid, self._exit, self.count = os.getpid(), os._exit, 0
        self._open, self._write, self._close = os.open, os.write, os.close

    def say(self, kind: str, **content: Any) -> None:
        """Write one line. A process that the student's code forked has nothing to say: it ends here."""
        if os.getpid() != self._pid:
            self._exit(0)
        line = f"\n{self._token} {json.dumps({'kind': kind, **content})}\n"
        file = self._open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._write(file, line.encode())
        self._close(file)
        self.count += 1


def check(request: Request) -> NoReturn:
    """Check a file in this process, and end the process."""
    leave, outcomes, restore = os._exit, Outcomes(request), _remember()
    try:
        _shut_off(request)
        warnings.filterwarnings("ignore", module=r"vitscratch\.exercises\.")  # of the checker's own lines
        checker = import_module(request.checker)
        _limit(request)
        student = load(Path(request.file), request.name, request.others)
        restore()
        _examine(student, checker, request, outcomes)
    except BaseException as error:
        broken = restore()
        with suppress(BaseException):
            _lift_memory_limit()
            _tell(error, broken, request, outcomes)
    with suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    leave(0)


def _examine(student: ModuleType, checker: ModuleType, request: Request, outcomes: Outcomes) -> None:
    problem = explain_missing(student, Path(request.file), request.defines)
    if problem is not None:
        outcomes.say("problem", problem=asdict(problem), mistakes=[], section="")
    else:
        for outcome in checker.check(student):
            if isinstance(outcome, Problem):
                _say_problem(outcome, getattr(checker, "MISTAKES", {}), outcomes)
                _say_origin(request, outcomes)
                break
            assert isinstance(outcome, Passed), f"a check yielded {outcome!r}"
            outcomes.say("passed", **asdict(outcome))
        assert outcomes.count, "a check yielded nothing"
    outcomes.say("done", count=outcomes.count)


def _say_origin(request: Request, outcomes: Outcomes) -> None:
    """The first of the student's other exercises that this file imports and that is wrong by itself, if there is one.

    It comes after the problem, which is known then, however this ends.
    """
    folder = Path(request.file).parent
    for exercise in EXERCISES:
        module = sys.modules.get(exercise.name)
        file = Path(getattr(module, "__file__", None) or "").resolve()
        imported = file.parent == folder and exercise_of_name(file) == exercise and exercise.name != request.name
        hurried = time.process_time() > request.seconds / 2
        if module is not None and imported and not hurried and _is_wrong(module, exercise, file):
            told = f"{exercise.name}, imported from {file.name}, is wrong by itself: check that first"
            outcomes.say("origin", what=told)
            return


def _is_wrong(module: ModuleType, exercise: Exercise, file: Path) -> bool:
    """Whether the check of a student's file that another one imports finds a problem."""
    if explain_missing(module, file, exercise.defines) is not None:
        return False
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # what it prints was not asked for
            return any(isinstance(outcome, Problem) for outcome in exercise.check(module))
    except BaseException as error:
        return not isinstance(error, NotImplementedError) and explain(error, file) is not None


def _say_problem(problem: Problem, bank: dict[str, Mistake], outcomes: Outcomes) -> None:
    known = [bank[name] for name in (problem.mistake or "").split(" + ") if name in bank]
    section = problem.section or (known[0].section if known else "")
    outcomes.say("problem", problem=asdict(problem), mistakes=[one.what for one in known], section=section)


def _tell(error: BaseException, broken: list[str], request: Request, outcomes: Outcomes) -> None:
    """Write down an exception: the student's, an instruction of the stub, or a failure of ours.

    Args:
        error: as it was caught.
        broken: built-in functions that the student's code replaced.
    """
    problem = explain(error, Path(request.file)) or explain_broken(broken, Path(request.file))
    if problem is None:
        text = "".join(traceback.format_exception(error))
        outcomes.say("failed", what=text)
    elif isinstance(error, NotImplementedError) and str(error) and "raise NotImplementedError" in problem.evidence:
        if (unwritten := explain_unwritten(error, Path(request.file))) is not None:
            outcomes.say("problem", problem=asdict(unwritten), mistakes=[], section="")
        else:
            outcomes.say("not begun", what=str(error), where=problem.evidence)
    else:
        outcomes.say("problem", problem=asdict(problem), mistakes=[], section="")
        if isinstance(error, Exception) and not isinstance(error, MemoryError):
            _limit_memory(request)
            _say_origin(request, outcomes)
    outcomes.say("done", count=outcomes.count)


def _shut_off(request: Request) -> None:
    """Nothing to read, prints into a file, a traceback whenever the process is stopped or crashes."""
    printed = os.open(os.path.join(request.folder, PRINTED), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (printed, 1), (printed, 2)):
        os.dup2(source, target)
    os.close(printed)
    os.close(nothing)
    sys.stdin = os.fdopen(0, closefd=False, errors="replace")  # one that has not been at its end yet
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    trace = open(os.path.join(request.folder, TRACE), "a")  # noqa: SIM115  # open until the process ends
    faulthandler.enable(trace)
    if hasattr(signal, "SIGXCPU"):
        faulthandler.register(signal.SIGXCPU, trace, chain=True)  # and then it ends, as it would without
    faulthandler.dump_traceback_later(request.clock, exit=True, file=trace)
    _record_exit(trace.name)
    sys.breakpointhook = pdb.set_trace = pdb.Pdb.set_trace = _no_debugger  # type: ignore[method-assign]
    _limit_forks()


def _no_debugger(*_: Any, **__: Any) -> NoReturn:
    """There is no keyboard: as input() ends at once, so does the debugger, and it traces nothing that comes after."""
    raise BdbQuit


def _limit_forks() -> None:
    """A process that the student's code forks ends where it would fork again.

    A function that forks is called many times, and each call would double the number of processes.
    """
    if hasattr(os, "register_at_fork"):
        leave = os._exit
        os.register_at_fork(after_in_child=lambda: setattr(os, "fork", lambda: leave(0)))


def _record_exit(path: str) -> None:
    """Make os._exit leave a traceback."""
    leave, own = os._exit, os.getpid()

    def recorded(status: int) -> NoReturn:
        if os.getpid() == own:
            with open(path, "w") as trace:
                trace.write(f"{EXITED}\n")
                trace.flush()
                faulthandler.dump_traceback(trace)
        leave(status)

    os._exit = recorded


def _limit(request: Request) -> None:
    """Limit computing time, memory and the size of files, where the system can."""
    try:
        import resource
    except ImportError:  # Windows: there is the clock, and no more
        return
    seconds = max(1, round(time.process_time() + request.seconds))  # whole seconds is what it knows
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (PRINTS, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory(request)


def _limit_memory(request: Request) -> None:
    """Limit the memory that is taken from here on, where the system can."""
    with suppress(ImportError, OSError):  # Windows has no limits; only Linux tells how much is taken
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + request.memory, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _lift_memory_limit() -> None:
    with suppress(ImportError, OSError, ValueError):  # not everywhere can it be set
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _remember() -> Callable[[], list[str]]:
    """What a student's file may change and the check relies on.

    Returns:
        A function that puts it back, and returns the names of built-in functions that were changed.
    """
    import torch

    own = dict(vars(builtins))
    public = [
        (module, {name: thing for name, thing in vars(module).items() if callable(thing) and name[0] != "_"})
        for module in (torch, torch.nn, torch.nn.functional)
    ]

    def restore() -> list[str]:
        now = dict(vars(builtins))
        vars(builtins).update(own)  # first: without them nothing works
        broken = [name for name in own if name[0] != "_" and now.get(name, own) is not own[name]]
        for module, things in public:
            vars(module).update(things)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        torch.manual_seed(0)
        random.seed(0)
        return broken

    return restore


def _wait(process: int, request: Request) -> int:
    """Wait for a process to end; one that computes nothing for too long is ended, with a traceback.

    The clock alone would not do: where many programs share a core, one that computes all the time takes long, too.
    """
    ask, since, computed = signal.SIGXCPU, time.monotonic(), 0.0
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        time.sleep(PAUSE)
        now = time.monotonic()
        if now - since < request.waiting:
            continue
        before, (computed, ready) = computed, _computed(process)
        if computed - before < IDLE * (now - since) and not ready:
            with open(os.path.join(request.folder, TRACE), "a") as trace:
                trace.write(f"{WAITED}\n")
            os.kill(process, ask)
            ask = signal.SIGKILL
        since = now


def _computed(process: int) -> tuple[float, bool]:
    """Seconds that a process has computed, and whether it would compute now if there were a core for it."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system, in ticks
    return seconds, fields[0] == "R"


def main() -> None:
    """Answer requests, one JSON line each on stdin, until it ends."""
    replies = os.dup(1)
    import torch  # noqa: F401  # now, once, for all processes that are forked

    while line := sys.stdin.readline():
        fields = json.loads(line)
        request = Request(**{**fields, "defines": tuple(fields["defines"])})
        with suppress(Exception):  # the process that checks will tell
            import_module(request.checker)
        process = os.fork() if request.fork else 0
        if not process:
            if request.fork:
                os.setpgid(0, 0)
            os.close(replies)
            check(request)
        with suppress(OSError):  # it may have done so itself
            os.setpgid(process, process)
        os.write(replies, f"{request.token} {process}\n".encode())
        status = _wait(process, request)
        with suppress(OSError):  # nobody may be left
            os.killpg(process, signal.SIGKILL)
        os.write(replies, f"{request.token} {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
