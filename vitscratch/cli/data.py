"""`vitscratch data`: look at a set of pictures before training on it."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vitscratch.cli.common import Common, check_png, check_writable, save_figure, write_json
from vitscratch.recipes import RECIPES

if TYPE_CHECKING:
    from vitscratch.data import Finding, Report

EXAMPLES = 5


@dataclass(kw_only=True)
class Check(Common):
    """Decode every picture of a set and list what is odd: broken files, odd pixels, duplicates, missing classes.
    Exit code 0 if training would take the set as it is, 1 if not."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PATH")]
    """An image folder (PATH/CLASS/*.jpg, or PATH/{train,val,test}/CLASS/*.jpg), or an .npz file of JPEGs."""

    max_pixels: int = 89_478_485
    """Larger pictures are bad: they are not decoded. 0 for no limit."""

    all: bool = False
    """List every finding, not only the first few of a kind."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the whole report as JSON."""

    def run(self) -> int:
        check_writable(self.json)
        if self.max_pixels < 0:
            raise ValueError(f"--max-pixels {self.max_pixels}: expected a number of pixels, or 0 for no limit")

        from vitscratch.data import BUILT_IN, check_set

        if str(self.path) in BUILT_IN and not self.path.exists():
            raise ValueError(
                f"{self.path} is a built-in set, which needs no check; `vitscratch data show {self.path} --out PNG` "
                "draws it"
            )
        with file_progress("pictures") as progress:
            report = check_set(self.path, max_pixels=self.max_pixels or None, progress=progress)
        print_report(report, EXAMPLES if not self.all else sys.maxsize)
        if self.json is not None:
            write_json(report.to_json(), self.json)
        return 0 if report.passed else 1


@dataclass(kw_only=True)
class Show(Common):
    """Draw pictures of a set beside what a model would see of them, resized, cut and augmented as a recipe says."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATH|RECIPE")]
    """A recipe, whose pictures are then drawn; or an image folder, an .npz file or a built-in set (digits,
    fake-digits, cifar10, cifar100, fashion-mnist) for the recipe `pictures`."""

    out: Annotated[Path, tyro.conf.arg(metavar="PNG")]
    """The picture to write."""

    seed: int = 0
    """Of the choice of pictures and of the augmentation."""

    count: int = 12
    """Pictures to draw, as many of each class as possible."""

    views: int = 3
    """Epochs to draw of each."""

    recipe: str | None = None
    """Draw what this recipe would make of the pictures."""

    image_size: int | None = None
    """Side in pixels of what the model sees, if not the recipe's."""

    data_dir: Path | None = None
    """Where the files of built-in sets are."""

    def run(self) -> int:
        if min(self.count, self.views) < 1 or (self.image_size is not None and self.image_size < 1):
            raise ValueError("--count, --views and --image-size: expected at least 1")
        check_png(self.out)

        from vitscratch import plots
        from vitscratch.data import Preprocessing, augmented_views, choose_examples
        from vitscratch.data.preprocessing import to_bytes, to_float

        name = self.recipe or (self.data if self.data in RECIPES else "pictures")
        if name not in RECIPES:
            raise ValueError(f"--recipe {name!r} is unknown; there are {', '.join(RECIPES)}")
        recipe = replace(RECIPES[name](), image_size=self.image_size)  # type: ignore[call-arg]  # all have defaults
        data = recipe.data if self.data in RECIPES else self.data
        if not data:
            raise ValueError(f"recipe {name} needs pictures of yours: name their folder in place of the recipe")
        size, channels = recipe.picture_shape()
        examples = choose_examples(data, self.count, self.seed, channels=channels, data_dir=self.data_dir)
        for reason in examples.passed_over:
            print(f"passed over {reason}")
        preprocessing = Preprocessing(size, channels)
        seen = augmented_views(examples.pictures, preprocessing, recipe.augmentation(), self.views, self.seed)
        originals = [to_float(to_bytes(picture, preprocessing.channels)) for picture in examples.pictures]
        if data in ("digits", "fake-digits"):  # whose numbers are ink on paper
            originals, seen = [1 - picture for picture in originals], 1 - seen
        figure = plots.augmented(originals, seen, examples.labels, examples.class_names)
        save_figure(figure, self.out)
        print(f"{self.out}: {len(originals)} pictures, and what a model sees of them in {self.views} epochs")
        return 0


@dataclass(kw_only=True)
class Data:
    """Look at a set of pictures before training on it."""

    what: Annotated[
        Annotated[Check, tyro.conf.subcommand("check")] | Annotated[Show, tyro.conf.subcommand("show")],
        tyro.conf.arg(name=""),  # so that it is "data check --json", not "data what:check --what.json"
    ]

    def run(self) -> int:
        return self.what.run()


@contextmanager
def file_progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over files on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(unit=unit, unit_scale=True, disable=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def print_report(report: "Report", examples: int) -> None:
    """Counts, sizes, pixels, then findings by kind, then the verdict."""
    splits = list(report.counts)
    width = max(len("class"), *(len(name) for name in report.class_names), 5)
    print(f"{'class':<{width}}" + "".join(f"{split:>12}" for split in splits))
    for name in report.class_names:
        print(f"{name:<{width}}" + "".join(f"{report.counts[split][name]:>12,}" for split in splits))
    print(f"{'total':<{width}}" + "".join(f"{sum(report.counts[split].values()):>12,}" for split in splits))
    sizes = [f"{size[0]} x {size[1]}: {number:,}" for size, number in report.sizes.items()]
    print(f"\nsizes    {_listed(sizes)}")
    print(f"pixels   {_listed([f'{mode}: {number:,}' for mode, number in report.modes.items()])}")
    print(f"formats  {_listed([f'{name}: {number:,}' for name, number in report.formats.items()])}")
    if report.shortcuts:
        told = [f"{one.feature} {one.accuracy:.0%}{'!' * (one.severity == 'warning')}" for one in report.shortcuts]
        print(f"told by  {', '.join(told)} (chance {report.shortcuts[-1].chance:.0%})")
    for severity, title in (
        ("bad", "Bad: refused"),
        ("warning", "Warnings: works, but what comes of it may be worthless"),
        ("note", "Notes: works, but you should know"),
    ):
        found = [finding for finding in report.findings if finding.severity == severity]
        if found:
            print(f"\n{title}")
            _print_kinds(found, examples)
    print(f"\n{report.verdict()}")


def _print_kinds(findings: "Sequence[Finding]", examples: int) -> None:
    for kind, number in Counter(finding.kind for finding in findings).most_common():
        print(f"  {kind}: {number:,}")
        shown = [finding for finding in findings if finding.kind == kind]
        for finding in shown[:examples]:
            print(f"    {finding.where}: {finding.message.removeprefix(f'{kind}: ')}")
        if number > examples:
            print(f"    ... and {number - examples:,} more (--all lists them)")


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts[:EXAMPLES]) + (f", ... ({len(texts):,} kinds)" if len(texts) > EXAMPLES else "")
