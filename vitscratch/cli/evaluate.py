"""`vitscratch evaluate`: measure a finished run again, or on other pictures."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vitscratch.cli.common import Common, Device, check_writable, pick_device, write_json
from vitscratch.cli.run_folder import MODEL, read_run

if TYPE_CHECKING:
    from vitscratch.data import Preprocessing
    from vitscratch.weights import SavedModel


@dataclass(kw_only=True)
class Evaluate(Common):
    """Measure the model of a finished run: on a part of the pictures that it was made from, divided as they were for
    the training, or with --data on another folder of pictures."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""

    split: Literal["test", "validation", "train"] = "test"
    """Which part."""

    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Other pictures, FOLDER/class/*.jpg with the classes of the model, of which all count; or with folders train,
    val and test, of which `--split` counts."""

    skip_bad: bool = False
    """With --data: leave out files that cannot be decoded, instead of refusing the folder."""

    batch_size: int = 128
    """Pictures at a time; changes nothing but memory and time."""

    device: Device = "auto"
    """Where to compute."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the numbers as JSON."""

    def run(self) -> int:
        check_writable(self.json)
        run = read_run(self.path)
        device = pick_device(self.device)

        import torch

        from vitscratch.data import Preprocessing
        from vitscratch.training import choose_precision, evaluate
        from vitscratch.weights import load_model

        saved = load_model(self.path / MODEL)
        preprocessing = Preprocessing.from_dict(saved.preprocessing)
        what, batches = self._batches(run.recipe, saved, preprocessing, device)
        precision = choose_precision(run.recipe.precision, torch.device(device))
        metrics = evaluate(saved.model.to(device), batches, precision)
        width = max(len(name) for name in saved.class_names)
        per_class = list(zip(saved.class_names, metrics.per_class, strict=True))
        for name, (correct, total) in per_class:
            print(f"{name:<{width}}  {correct:>6,} of {total:>6,}" + (f"  {correct / total:7.2%}" if total else ""))
        print(
            f"{what}: accuracy {metrics.accuracy:.2%} ({metrics.correct:,} of {metrics.total:,}), "
            f"loss {metrics.loss:.4f}"
        )
        if self.json is not None:
            classes = {name: {"correct": correct, "total": total} for name, (correct, total) in per_class}
            numbers = {"accuracy": metrics.accuracy, "correct": metrics.correct, "total": metrics.total}
            write_json({"what": what, **numbers, "loss": metrics.loss, "per_class": classes}, self.json)
        return 0

    def _batches(
        self, recipe: Any, saved: "SavedModel", preprocessing: "Preprocessing", device: str
    ) -> tuple[str, Any]:
        from vitscratch.data import make_batches
        from vitscratch.recipes.experiment import load

        if self.data is None:
            splits, part, what = load(recipe), self.split, f"{self.split} part of {recipe.data}"
        else:
            recipe = replace(recipe, data=str(self.data), skip_bad=self.skip_bad)
            has_parts = (self.data / "train").is_dir()
            if not has_parts:
                recipe = replace(recipe, validation_fraction=0.0, test_fraction=0.0)
            splits = load(recipe)
            part = self.split if has_parts else "train"
            what = f"{self.split} part of {self.data}" if has_parts else str(self.data)
        if splits.class_names != saved.class_names:
            raise ValueError(
                f"{what} has the classes {', '.join(splits.class_names)}; "
                f"the model knows {', '.join(saved.class_names)}"
            )
        pictures = getattr(splits, part)
        if pictures is None:
            raise ValueError(f"{recipe.data} has no {part} part; name another --split")
        return what, make_batches(pictures, preprocessing, self.batch_size, device=device, workers=recipe.workers)
