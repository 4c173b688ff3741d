"""`vitscratch exercises`: files for students to fill in."""

import shlex
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
        Annotated[New, tyro.conf.subcommand("new")] | Annotated[List, tyro.conf.subcommand("list")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        return self.what.run()
