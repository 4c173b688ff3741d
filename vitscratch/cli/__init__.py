"""The command line: `vitscratch COMMAND`. One file per command; torch is imported only inside a command."""

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, suppress
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import tyro

from vitscratch import __version__
from vitscratch.cli.bench import Bench
from vitscratch.cli.check import Check
from vitscratch.cli.compare import CompareCommand
from vitscratch.cli.convert import Convert
from vitscratch.cli.data import Data
from vitscratch.cli.demo import Demo
from vitscratch.cli.doctor import Doctor
from vitscratch.cli.evaluate import Evaluate
from vitscratch.cli.exercises import Exercises
from vitscratch.cli.explain import Explain
from vitscratch.cli.finetune import Finetune
from vitscratch.cli.lr_find import LrFind
from vitscratch.cli.parity import Parity
from vitscratch.cli.predict import Predict
from vitscratch.cli.quickstart import Quickstart
from vitscratch.cli.run_folder import is_first_process
from vitscratch.cli.summary import Summary
from vitscratch.cli.train import Train
from vitscratch.recipes import COMPARISONS, RECIPES

RECIPE = "Then its name, and as options every field of it: `vitscratch {} digits --help` lists them."
Command = (
    Annotated[
        Train,
        tyro.conf.subcommand(
            "train",
            description=f"Train a model by a recipe, or go on with an interrupted run (--resume RUN). "
            f"{RECIPE.format('train')}",
        ),
    ]
    | Annotated[Finetune, tyro.conf.subcommand("finetune"), tyro.conf.OmitArgPrefixes]
    | Annotated[
        CompareCommand,
        tyro.conf.subcommand(
            "compare",
            description="Train several models on the same pictures, one after another, and compare them in one table. "
            f"{RECIPE.format('compare').replace('digits', 'fake-digits')}",
        ),
    ]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Explain, tyro.conf.subcommand("explain")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[
        Doctor,
        tyro.conf.subcommand(
            "doctor", description=f"Examine the model and the data of a recipe. {RECIPE.format('doctor')}"
        ),
    ]
    | Annotated[
        LrFind,
        tyro.conf.subcommand(
            "lr-find",
            description=f"Find a learning rate to begin with. {RECIPE.format('lr-find')} The test takes plain steps: "
            "mixup, cutmix, label smoothing, class weights, accumulation, EMA, warm-up, compile and activation "
            "checkpointing of the recipe have no effect in it.",
        ),
    ]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
    | Annotated[Parity, tyro.conf.subcommand("parity")]
    | Annotated[Summary, tyro.conf.subcommand("summary")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Exercises, tyro.conf.subcommand("exercises")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Bench, tyro.conf.subcommand("bench"), tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes]
)


_RESUME = "--resume"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; exit codes: 0 done, 1 the check or run failed, 2 wrong usage or bad input, 130 Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["train"]:
        arguments = ["train", *_resume(arguments[1:])]
    if arguments == ["--version"]:
        print(f"vitscratch {__version__}")
        return 0
    try:
        return _parse(arguments or ["--help"]).run()
    except KeyboardInterrupt:
        print("\nvitscratch: stopped by Ctrl-C; run the same command to start again", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, went away, so no verdict was read: not a success
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again when it exits
        return 1
    except (ValueError, ImportError) as error:
        _report(f"vitscratch: {error}", is_first_process(), "--debug" in arguments)
        return 2
    except (RuntimeError, OSError, FloatingPointError, MemoryError) as error:  # a full disk is an OSError
        _report(f"vitscratch: failed: {error}", True, "--debug" in arguments)
        return 1


def _report(line: str, here: bool, debug: bool) -> None:
    """Print what is wrong, if `here`; and leave it where torchrun looks, which ends what it prints with that.

    What is refused, every process refuses, so the first one says it. A failure may be one process's own.
    """
    if here:
        if debug:
            traceback.print_exc()
        print(line, file=sys.stderr)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        found = {"message": {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}}
        with suppress(OSError):  # a full disk, which may be what is wrong
            Path(path).write_text(json.dumps(found))


def _parse(arguments: list[str]) -> Any:
    """The command.

    Raises:
        ValueError: a word that is no option: in one line, where tyro prints a page of all that are like it.
        SystemExit: everything else that is wrong, of which tyro has told.
    """
    about = "The Vision Transformer from its parts: prove it, train it, look inside."
    parse = partial(tyro.cli, Command, args=arguments, prog="vitscratch", description=about)
    try:
        with redirect_stderr(StringIO()):
            command, unknown = parse(return_unknown_args=True)
    except SystemExit as end:
        if not end.code or not is_first_process():  # --help, or another process tells
            raise
        _refuse_unknown_recipe(arguments)
        for i in (1, 2):  # 2: of a subcommand; tyro takes the word after an unknown option for its value: give it one
            with suppress(SystemExit), redirect_stderr(StringIO()):
                _refuse_unknown_option(*parse(args=[*arguments[:i], "x", *arguments[i:]], return_unknown_args=True))
        return parse()
    _refuse_unknown_option(command, unknown)
    return command


def _refuse_unknown_option(command: Any, unknown: list[str]) -> None:
    """In one line, with the nearest.

    Raises:
        ValueError: there is a word that the command does not know.
    """
    if not unknown:
        return
    word = unknown[0].partition("=")[0]
    if not word.startswith("-"):
        raise ValueError(f"{word} is one word too many; --help in its place says what there may be")
    near = get_close_matches(word.replace("_", "-"), list(_options(command)))
    nearest = f"; nearest: {', '.join(near)}" if near else ""
    raise ValueError(f"{word} is no option here{nearest}; --help in its place lists all")


def _refuse_unknown_recipe(arguments: list[str]) -> None:
    """In one line, with the nearest.

    Raises:
        ValueError: the word after a command that works on a recipe is none.
    """
    kinds: dict[str, Any] = {"compare": COMPARISONS, "train": RECIPES, "doctor": RECIPES, "lr-find": RECIPES}
    command, word = (*arguments, "", "")[:2]
    if not (known := kinds.get(command)) or not word or word.startswith("-") or word in (*known, "resume"):
        return
    near = get_close_matches(word.replace("_", "-"), known)
    nearest = f"; nearest: {', '.join(near)}" if near else ""
    raise ValueError(f"{command} {word}: there is {', '.join(known)}{nearest}")


def _options(command: Any) -> Iterator[str]:
    """Options of a command and of the recipe in it; without those that have to be given, for they were."""
    for field in fields(command):
        if is_dataclass(value := getattr(command, field.name)):
            yield from _options(value)
        elif field.default is not MISSING:
            name = field.name.replace("_", "-")
            yield from (f"--{name}", f"--no-{name}") if isinstance(value, bool) else (f"--{name}",)


def _resume(arguments: list[str]) -> list[str]:
    """`--resume RUN`, which needs no recipe because the run's folder knows it, as the subcommand `resume RUN`."""
    words = (
        [word for argument in arguments for word in argument.split("=", 1)] if _RESUME in " ".join(arguments) else []
    )
    if _RESUME not in words:
        return arguments
    at = words.index(_RESUME)
    return ["resume", *words[at + 1 :], *(word for word in words[:at] if word not in RECIPES)]
