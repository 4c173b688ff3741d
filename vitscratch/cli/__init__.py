"""The command line: `vitscratch COMMAND`. One file per command; torch is imported only inside a command."""

import os
import sys
import traceback
from typing import Annotated

import tyro

from vitscratch import __version__
from vitscratch.cli.bench import Bench
from vitscratch.cli.convert import Convert
from vitscratch.cli.data import Data
from vitscratch.cli.doctor import Doctor
from vitscratch.cli.evaluate import Evaluate
from vitscratch.cli.lr_find import LrFind
from vitscratch.cli.parity import Parity
from vitscratch.cli.predict import Predict
from vitscratch.cli.quickstart import Quickstart
from vitscratch.cli.summary import Summary
from vitscratch.cli.train import Train
from vitscratch.recipes import RECIPES

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
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
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
        command = tyro.cli(
            Command,
            args=arguments or ["--help"],
            prog="vitscratch",
            description="The Vision Transformer from its parts: prove it, train it, look inside.",
        )
        return command.run()
    except KeyboardInterrupt:
        print("\nvitscratch: stopped by Ctrl-C; run the same command to start again", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, went away, so no verdict was read: not a success
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again when it exits
        return 1
    except (ValueError, ImportError) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        print(f"vitscratch: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError, FloatingPointError, MemoryError) as error:  # a full disk is an OSError
        if "--debug" in arguments:
            traceback.print_exc()
        print(f"vitscratch: failed: {error}", file=sys.stderr)
        return 1


def _resume(arguments: list[str]) -> list[str]:
    """`--resume RUN`, which needs no recipe because the run's folder knows it, as the subcommand `resume RUN`."""
    words = (
        [word for argument in arguments for word in argument.split("=", 1)] if _RESUME in " ".join(arguments) else []
    )
    if _RESUME not in words:
        return arguments
    at = words.index(_RESUME)
    return ["resume", *words[at + 1 :], *(word for word in words[:at] if word not in RECIPES)]
