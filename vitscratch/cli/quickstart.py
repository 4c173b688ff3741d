"""`vitscratch quickstart`: prove the model, train it on real digits, look inside, in a minute or two."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vitscratch.cli.common import (
    Common,
    Device,
    check_writable,
    environment,
    make_folder,
    pick_device,
    save_figure,
    write_json,
)
from vitscratch.cli.progress import Progress
from vitscratch.cli.recipe import recipe_to_json
from vitscratch.recipes import Digits

if TYPE_CHECKING:
    from vitscratch.recipes.experiment import Experiment
    from vitscratch.training import EpochRecord


@dataclass(kw_only=True)
class Quickstart(Common):
    """Prove our ViT-B/16 equal to torchvision's, then train a small ViT to read handwritten digits, and draw
    what it learned. Needs no network and no GPU."""

    out: Annotated[Path, tyro.conf.arg(metavar="RUN")] = Path("runs/quickstart")
    """Folder for pictures and numbers; those of an earlier quickstart there are replaced."""

    seed: int = 0
    """Of the initial weights, the order of the pictures and their augmentation (not of the split)."""

    device: Device = "auto"
    """Where to train. The proof runs on the CPU, in float64."""

    quick: bool = False
    """Two blocks and six epochs only: shows that everything runs; the accuracy will be lower."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write metrics.json there."""

    def run(self) -> int:
        check_writable(self.json)
        folder = make_folder(self.out)
        started = time.perf_counter()
        print("Loading torch ...", flush=True)

        from vitscratch.recipes.experiment import prepare
        from vitscratch.training import save_history

        device = pick_device(self.device)
        parity, passed = self._prove()

        recipe = Digits(validation_fraction=0.0, seed=self.seed)
        recipe = replace(recipe, epochs=6) if self.quick else recipe
        experiment = prepare(recipe, device)
        self._introduce(experiment)
        training_started = time.perf_counter()
        progress = Progress(recipe.epochs, len(experiment.batches("train")), every=max(1, recipe.epochs // 10))
        try:
            history = experiment.fit(on_step=progress.after_step, on_epoch=progress.after_epoch)
        finally:
            progress.close()
        seconds = time.perf_counter() - training_started
        test = experiment.measure("test")
        accuracy, total = test.accuracy, test.total
        print(f"Reads {accuracy:.2%} of the held-out digits ({test.correct} of {total}); learned in {seconds:.0f} s.\n")

        print("3/3  Pictures", flush=True)
        save_history(history, folder / "history.csv")
        figures = draw(experiment, history, accuracy)
        for name, (figure, caption) in figures.items():
            save_figure(figure, folder / name)
            print(f"  {folder / name}: {caption}")
        metrics: dict[str, Any] = {
            "test_accuracy": accuracy,
            "test_total": total,
            "seconds": round(seconds, 2),
            "total_seconds": round(time.perf_counter() - started, 2),
            "parity_max_value_diff": parity["max_value_diff"],
            "parity_max_gradient_diff": parity["max_gradient_diff"],
            "parity_passed": passed,
            "parameters": experiment.parameters,
            "quick": self.quick,
        }
        config = {"command": "quickstart", "recipe_name": "digits", "recipe": recipe_to_json(recipe)}
        write_json({**config, "device": device, **environment()}, folder / "config.json")
        write_json(metrics, folder / "metrics.json")
        if self.json is not None:
            write_json(metrics, self.json)
        print(f"  {folder / 'metrics.json'}, history.csv, config.json: the numbers\n")
        print(
            "What to read next: vitscratch/vit.py, then encoder.py, attention.py, mlp.py and patches.py;\n"
            "docs/parity.md says what was proved and how. Try: vitscratch parity vit_b_32,\n"
            "vitscratch summary vit_b_16 (after `source .venv/bin/activate` if make installed it)."
        )
        return 0 if passed else 1

    def _prove(self) -> tuple[dict[str, Any], bool]:
        from vitscratch.parity.presets import check_preset

        print(
            "1/3  Is our ViT-B/16 the same function as torchvision's? Same random weights, float64\n"
            "     (half a minute or so):\n",
            flush=True,
        )
        parity = check_preset("vit_b_16", depth=2 if self.quick else 12, batch_size=2)
        print(parity.report.folded().table())
        print(f"\n{parity.report.verdict()}")
        print(f"({parity.describe_mapping()};\n layer by layer: vitscratch parity vit_b_16)\n")
        return parity.to_json(), parity.passed

    def _introduce(self, experiment: "Experiment") -> None:
        from vitscratch.data import class_counts

        splits = experiment.splits
        assert splits.test is not None
        print(
            f"2/3  A ViT of {experiment.parameters:,} parameters learns to read digits on "
            f"{experiment.device}: {len(splits.train):,} scans to learn from,\n"
            f"     {len(splits.test)} held out and used for nothing until the end. Scans of each digit:"
        )
        for name, part in (("learn from", splits.train), ("held out", splits.test)):
            counts = class_counts(part.labels, splits.class_names)
            print(f"     {name:<11}" + "  ".join(f"{name}: {count:>3}" for name, count in counts.items()))
        print(flush=True)


def draw(experiment: "Experiment", history: "list[EpochRecord]", accuracy: float) -> dict[str, tuple[Any, str]]:
    """The four figures of a digits run: file name -> (figure, caption)."""
    import torch

    from vitscratch import plots
    from vitscratch.data import Pictures
    from vitscratch.explain import attention_maps, position_similarity
    from vitscratch.vit import VisionTransformer

    model, test = experiment.model.cpu().eval(), experiment.splits.test
    assert isinstance(test, Pictures)
    assert isinstance(model, VisionTransformer)
    images, labels, names = experiment.preprocessing.normalise(test.images), test.labels, test.class_names
    with torch.no_grad():
        probabilities = model(images).softmax(dim=1)
    right = probabilities.gather(1, labels[:, None])[:, 0]
    wrong = probabilities.argmax(dim=1) != labels
    shown = torch.argsort(right - wrong.float())[:40]  # mistakes first, then the least sure
    looked_at = [int((labels == digit).nonzero()[0]) for digit in (0, 2, 4, 7, 8)]
    titles = [f"a {names[int(labels[i])]}" for i in looked_at]
    return {
        "curves.png": (plots.curves(history, accuracy), "loss, accuracy and learning rate, epoch by epoch"),
        "predictions.png": (
            plots.predictions(1 - test.images[shown], labels[shown], probabilities[shown], names),
            "held-out digits and what the model reads: mistakes first, framed red, then the least sure",
        ),
        "attention.png": (
            plots.class_token_attention(
                test.images[looked_at], attention_maps(model, images[looked_at]), model.patch_embed.grid_size, titles
            ),
            "which patches the class token looks at, block by block",
        ),
        "positions.png": (
            plots.position_similarity(position_similarity(model)),
            "how alike the learned position embeddings of the patches are (they began as sines and cosines)",
        ),
    }
