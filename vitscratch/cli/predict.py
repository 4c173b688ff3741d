"""`vitscratch predict`: what a trained model says of pictures."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vitscratch.cli.common import Common, Device, check_writable, pick_device, write_json
from vitscratch.cli.run_folder import MODEL


@dataclass(kw_only=True)
class Predict(Common):
    """Say what is on pictures, with a trained model. Needs nothing but the folder of its run (or its
    model.safetensors): classes and preprocessing are in there."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or a model.safetensors."""

    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]
    """Picture files."""

    top: int = 3
    """Classes to name for each picture, the likeliest first."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None
    """Also draw the pictures, as the model sees them, with what it says."""

    device: Device = "auto"
    """Where to compute."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the probabilities of all classes as JSON."""

    def run(self) -> int:
        check_writable(self.json)
        check_writable(self.out, "--out")
        if not self.images or self.top < 1:
            raise ValueError(f"{len(self.images)} images, --top {self.top}: expected at least one of each")
        device = pick_device(self.device)

        import torch

        from vitscratch.data import PictureError, Preprocessing, open_picture
        from vitscratch.weights import load_model

        saved = load_model(self.path if self.path.is_file() else self.path / MODEL)
        preprocessing = Preprocessing.from_dict(saved.preprocessing)
        seen, failed = {}, 0
        for path in self.images:
            try:
                seen[path] = preprocessing.to_tensor(open_picture(path, channels=preprocessing.channels))
            except PictureError as error:
                print(f"vitscratch: {path}: {error}", file=sys.stderr)
                failed += 1
        if not seen:
            return 1
        images = torch.stack(list(seen.values()))
        model = saved.model.to(device)
        with torch.inference_mode():
            parts = [model(part.to(device)).float().softmax(dim=1).cpu() for part in images.split(64)]
        probabilities = torch.cat(parts)
        width = max(len(str(path)) for path in seen)
        for path, row in zip(seen, probabilities, strict=True):
            values, numbers = row.topk(min(self.top, len(row)))
            likeliest = zip(values.tolist(), numbers.tolist(), strict=True)
            print(f"{path!s:<{width}}  " + "  ".join(f"{saved.class_names[i]} {value:.1%}" for value, i in likeliest))
        if self.json is not None:
            named = [dict(zip(saved.class_names, row.tolist(), strict=True)) for row in probabilities]
            write_json({str(path): row for path, row in zip(seen, named, strict=True)}, self.json)
        if self.out is not None:
            from vitscratch import plots

            shown = preprocessing.denormalise(images)
            plots.predictions(shown, None, probabilities, saved.class_names, columns=min(10, len(shown))).savefig(
                self.out, dpi=110
            )
            print(f"{self.out}: the pictures as the model sees them")
        return 1 if failed else 0
