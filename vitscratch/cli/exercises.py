"""`vitscratch exercises`: files for students to fill in."""

import code
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vitscratch.cli.common import Common, make_folder


@dataclass(kw_only=True)
class New(Common):
    """Write a stub for every exercise, and a README.md that says how to go on. Files that are there are kept."""

    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]
    """Where to; made if it does not exist."""

    def run(self) -> int:
        from vitscratch.exercises.files import write_stubs

        if not self.folder:
            raise ValueError("DIR is empty; expected the name of a folder, or . for this one")
        written, kept = write_stubs(make_folder(Path(self.folder), "DIR"))
        if kept:
            print(f"kept as they are: {', '.join(kept)}")
        then = f"begin with README.md, then `vitscratch check {shlex.quote(self.folder)}`"
        print(f"{self.folder}: {len(written)} files written; {then}")
        return 0


@dataclass(kw_only=True)
class Try(Common):
    """Open a Python prompt with all that a file defines, `awaken`, `draw` and `pixels`: paste there what a check shows.

    The file runs in this process, with no limits.
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """Of an exercise; it may import the others of its folder."""

    def run(self) -> int:
        import torch

        from vitscratch.exercises import EXERCISES, awaken, draw, pixels
        from vitscratch.exercises.files import exercise_of, nearby
        from vitscratch.exercises.importing import load

        if not self.file.exists() and (near := nearby(self.file)) is not None:
            raise ValueError(f"{self.file}: no such file; did you mean {near}?")
        exercise = exercise_of(self.file)
        try:
            module = load(self.file.resolve(), exercise.name, {one.name: one.file_name for one in EXERCISES})
        except (Exception, SystemExit) as error:
            says = f"{self.file} cannot be imported: {type(error).__name__}: {error}"
            raise ValueError(f"{says}; `vitscratch check {shlex.quote(str(self.file))}` says where") from error
        torch.set_printoptions(precision=7)  # evidence has as many digits
        names = {"torch": torch, "nn": torch.nn, **vars(module), "awaken": awaken, "draw": draw, "pixels": pixels}
        with suppress(SystemExit):  # exit() ends the prompt
            defined = ", ".join(exercise.defines)
            code.interact(
                f"{defined}, awaken, draw, pixels, torch. Ctrl-D ends it; open it again after a change of the file.",
                None,
                names,
                "",
            )
        return 0


@dataclass(kw_only=True)
class List(Common):
    """List the exercises, in the order of building."""

    def run(self) -> int:
        from vitscratch.exercises import EXERCISES

        print(f"{'':2} {'exercise':<26} {'defines':<28} {'minutes':>7} {'difficulty':>10}  tutorial")
        for one in EXERCISES:
            stars = "*" * one.difficulty
            defines = ", ".join(one.defines)
            print(f"{one.number:02} {one.name:<26} {defines:<28} {one.minutes:>7} {stars:>10}  {one.tutorial}")
        return 0


@dataclass(kw_only=True)
class Exercises:
    """Build every part of a Vision Transformer with your own hands; `vitscratch check` says what is wrong with it."""

    what: Annotated[
        Annotated[New, tyro.conf.subcommand("new")]
        | Annotated[Try, tyro.conf.subcommand("try")]
        | Annotated[List, tyro.conf.subcommand("list")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        return self.what.run()
