"""The command line: `vitscratch COMMAND`. One file per command; torch is imported only inside a command."""

import os
import sys
import traceback
from typing import Annotated

import tyro

from vitscratch import __version__
from vitscratch.cli.bench import Bench
from vitscratch.cli.parity import Parity
from vitscratch.cli.quickstart import Quickstart
from vitscratch.cli.summary import Summary

Command = (
    Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
    | Annotated[Parity, tyro.conf.subcommand("parity")]
    | Annotated[Summary, tyro.conf.subcommand("summary")]
    | Annotated[Bench, tyro.conf.subcommand("bench"), tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes]
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; exit codes: 0 done, 1 the check or run failed, 2 wrong usage or bad input, 130 Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
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
