"""`vitscratch predict`: what a trained model says of pictures."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vitscratch.cli.common import Common, Device, check_png, check_writable, pick_device, save_figure, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from vitscratch.data import Preprocessing

NAMED = 20  # classes of a model that are listed
AT_ONCE = 64  # pictures in memory and in a batch
DRAWN = 200  # pictures on a sheet; laying out more takes minutes


@dataclass(kw_only=True)
class Predict(Common):
    """Say what is on pictures, with a trained model: the folder of a run needs nothing else, and pretrained weights
    bring their preprocessing and, where known, the names of their classes."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Folder of a run; a file (or Hugging Face folder) of weights; "timm:NAME", "hf:ORG/NAME"; or the name of weights
    that come with the package."""

    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]
    """Picture files, or folders of them (without the folders within)."""

    top: int = 3
    """Classes to name for each picture, the likeliest first."""

    num_heads: int | None = None
    """How many attention heads the model was trained with: needed only where neither the weights nor a config.json
    beside them say so, and the width is none of our presets'."""

    pool: Literal["cls", "mean"] | None = None
    """What the head reads, if the weights do not say so: the class token, or the mean of the patches after the last
    norm."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None
    """Also draw the pictures (the first 200), as the model sees them, with what it says."""

    device: Device = "auto"
    """Where to compute."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the probabilities of all classes as JSON."""

    def run(self) -> int:
        check_writable(self.json)
        check_png(self.out)
        if self.top < 1:
            raise ValueError(f"--top {self.top}: expected at least 1")
        paths = picture_files(self.images)
        device = pick_device(self.device)

        import torch

        from vitscratch.data import Preprocessing
        from vitscratch.weights import build_from
        from vitscratch.weights.loading import surprises

        saved = build_from(self.model, num_heads=self.num_heads, pool=self.pool)
        for note in surprises(saved.provenance["notes"]):
            print(f"vitscratch: {self.model}: {note}", file=sys.stderr)
        if not saved.preprocessing:
            raise ValueError(
                f"{self.model} does not say how its pictures were prepared; in Python, build_from leaves that to you"
            )
        preprocessing = Preprocessing.from_dict(saved.preprocessing)
        class_names = unique(saved.class_names)
        model = saved.model.to(device)
        said: dict[Path, Tensor] = {}  # the probabilities
        shown: list[Tensor] = []
        width = max(len(str(path)) for path in paths)
        for i in range(0, len(paths), AT_ONCE):
            seen = opened(paths[i : i + AT_ONCE], preprocessing)
            if not seen:
                continue
            with torch.inference_mode():
                probabilities = model(torch.stack(list(seen.values())).to(device)).float().softmax(dim=1).cpu()
            for path, row in zip(seen, probabilities, strict=True):
                values, numbers = row.topk(min(self.top, len(row)))
                likeliest = zip(values.tolist(), numbers.tolist(), strict=True)
                named = "  ".join(f"{class_names[number]} {value:.1%}" for value, number in likeliest)
                print(f"{path!s:<{width}}  {named}")
            said.update(zip(seen, probabilities, strict=True))
            shown += list(seen.values())[: DRAWN - len(shown)]
        if said and self.top < len(class_names) <= NAMED:  # pictures of anything else get one of these names, too
            print(f"It knows {len(class_names)} classes: {', '.join(class_names)}", file=sys.stderr)
        if self.json is not None and said:
            rows = {str(path): row.tolist() for path, row in said.items()}
            write_json({path: dict(zip(class_names, row, strict=True)) for path, row in rows.items()}, self.json)
        if self.out is not None and said:
            self._draw(self.out, preprocessing.denormalise(torch.stack(shown)), said, class_names)
        return 0 if len(said) == len(paths) else 1

    def _draw(self, out: Path, shown: "Tensor", said: "dict[Path, Tensor]", class_names: Sequence[str]) -> None:
        import torch

        from vitscratch import plots

        count = len(shown)
        probabilities = torch.stack(list(said.values())[:count])
        titles = [path.name for path in said][:count]
        figure = plots.predictions(shown, None, probabilities, class_names, columns=min(10, count), titles=titles)
        save_figure(figure, out)
        which = "the pictures" if count == len(said) else f"the first {count} of {len(said):,} pictures"
        print(f"{out}: {which} as the model sees them")


def unique(class_names: Sequence[str]) -> list[str]:
    """Class names, those that occur twice with their number: ImageNet has two kinds of crane."""
    return [f"{name} ({i})" if class_names.count(name) > 1 else name for i, name in enumerate(class_names)]


def picture_files(images: Sequence[Path]) -> list[Path]:
    """The files that are named, and the picture files, in order, of the folders that are; each once.

    Raises:
        ValueError: none are named, or a folder has none.
    """
    from vitscratch.data.pictures import EXTENSIONS

    if not images:
        raise ValueError("name at least one picture, or a folder of pictures, after the run")
    paths: list[Path] = []
    for image in images:
        if image.is_dir():
            inside = (path for path in sorted(image.iterdir()) if path.is_file() and not path.name.startswith("."))
            if not (found := [path for path in inside if path.suffix.lower() in EXTENSIONS]):
                raise ValueError(f"{image} has no picture files in it ({', '.join(EXTENSIONS)}); name another folder")
            paths += found
        else:
            paths.append(image)
    return list(dict.fromkeys(paths))


def opened(paths: Sequence[Path], preprocessing: "Preprocessing") -> "dict[Path, Tensor]":
    """The pictures as the model takes them, without those that cannot be read, of which it says so."""
    from vitscratch.data import PictureError, open_picture

    seen = {}
    for path in paths:
        try:
            seen[path] = preprocessing.to_tensor(open_picture(path, channels=preprocessing.channels))
        except PictureError as error:
            print(f"vitscratch: {path}: {error}", file=sys.stderr)
    return seen
