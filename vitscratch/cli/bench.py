"""`vitscratch bench`: the figures that README and docs state, measured again here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vitscratch.cli.common import Common, Device, check_writable, environment, pick_device, write_json


@dataclass(kw_only=True)
class Bench(Common):
    """Measure: patch-embedding times its two forms against each other; digits trains the quickstart's ViT on
    several splits and seeds, also with positions that start at N(0, 0.02) instead of sines and cosines, beside
    logistic regression, k nearest neighbours and an RBF-SVM."""

    what: tyro.conf.Positional[Literal["patch-embedding", "digits"]]
    """What to measure."""

    splits: int = 4
    """digits: number of held-out fifths (split seeds 0, 1, ...)."""

    seeds: int = 3
    """digits: training runs on each split."""

    rounds: int = 15
    """patch-embedding: interleaved repetitions, of which the median counts."""

    device: Device = "auto"
    """Where to measure."""

    quick: bool = False
    """One split, one seed, a tenth of the epochs, three rounds: shows that it runs."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the figures as JSON."""

    def run(self) -> int:
        check_writable(self.json)
        if min(self.splits, self.seeds, self.rounds) < 1:
            raise ValueError(f"splits {self.splits}, seeds {self.seeds}, rounds {self.rounds}: expected at least 1")
        device = pick_device(self.device)
        results = self._digits(device) if self.what == "digits" else self._patch_embedding(device)
        if self.json is not None:
            write_json(
                {"what": self.what, "quick": self.quick, "device": device, **environment(), **results}, self.json
            )
        return 0

    def _digits(self, device: str) -> dict[str, Any]:
        from dataclasses import replace

        from vitscratch.recipes.digits import Digits, baselines
        from vitscratch.recipes.digits import measure as measure_vit
        from vitscratch.recipes.experiment import prepare

        recipe = Digits(validation_fraction=0.0)
        if self.quick:
            recipe = replace(recipe, epochs=recipe.epochs // 10)
        normal = replace(recipe, position="normal")
        rows: list[dict[str, Any]] = []

        def note(split_seed: int, model: str, seed: int, result: tuple[float, float]) -> None:
            accuracy, seconds = result
            row = {"split": split_seed, "model": model, "seed": seed, "accuracy": accuracy, "seconds": seconds}
            rows.append(row)
            print(f"split {split_seed}  {model:<23} seed {seed}  {accuracy:.2%}  {seconds:6.1f} s", flush=True)

        for split_seed in range(1 if self.quick else self.splits):
            for name, result in baselines(prepare(replace(recipe, split_seed=split_seed))).items():
                note(split_seed, name, 0, result)
            for name, settings in (("ViT", recipe), ("ViT, normal positions", normal)):
                for seed in range(1 if self.quick else self.seeds):
                    note(
                        split_seed, name, seed, measure_vit(replace(settings, split_seed=split_seed, seed=seed), device)
                    )
        print(f"\n{'model':<23}{'mean':>9}{'lowest':>9}{'highest':>9}{'seconds':>9}{'runs':>6}\n{'-' * 65}")
        summary = {}
        for name in dict.fromkeys(row["model"] for row in rows):
            accuracies = [row["accuracy"] for row in rows if row["model"] == name]
            seconds = sorted(row["seconds"] for row in rows if row["model"] == name)[len(accuracies) // 2]
            mean = sum(accuracies) / len(accuracies)
            summary[name] = {"mean_accuracy": mean, "median_seconds": seconds, "runs": len(accuracies)}
            print(
                f"{name:<23}{mean:>9.2%}{min(accuracies):>9.2%}{max(accuracies):>9.2%}{seconds:>9.1f}{len(accuracies):>6}"
            )
        return {"rows": rows, "summary": summary}

    def _patch_embedding(self, device: str) -> dict[str, Any]:
        from vitscratch.recipes.patch_embedding import measure

        rows = measure(device, rounds=3 if self.quick else self.rounds)
        print("Ratio: time of the linear map / time of the strided convolution, median (and quartiles) of rounds.")
        print(f"\n{'shape':<34}{'mode':<20}{'linear ms':>11}{'conv ms':>11}{'ratio':>8}  quartiles\n{'-' * 97}")
        for row in rows:
            print(
                f"{row['shape']:<34}{row['mode']:<20}{row['linear_ms']:>11.3f}{row['convolution_ms']:>11.3f}"
                f"{row['ratio']:>8.2f}  {row['ratio_quartiles'][0]:.2f} to {row['ratio_quartiles'][1]:.2f}"
            )
        return {"rows": rows}
