"""`vitscratch bench`: the figures that README and docs state, measured again here."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vitscratch.cli.bench_transfer import Transfer, TransferDigits
from vitscratch.cli.common import Common, Device, check_writable, environment, pick_device, save_figure, write_json
from vitscratch.recipes.base import untouched

if TYPE_CHECKING:
    from vitscratch.bench import Bench as Result

Peer = Literal["torchvision", "timm", "transformers", "vit-pytorch"]
Json = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]

# Environment variables that change what is measured, for all models alike: they belong to the result (docs/speed.md).
SETTINGS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "THP_MEM_ALLOC", "TORCHINDUCTOR_FREEZING", "OMP_", "MKL_")

# Dense bf16 FLOP/s that the makers state, by the name that torch tells.
STATED = {"H100 80GB HBM3": 989e12, "H200": 989e12, "A100": 312e12}


@dataclass(kw_only=True)
class _Compare(Common):
    """Options of train and infer."""

    model: str = "vit_b_16"
    """A preset, in the shape of which all implementations are built."""

    batch_size: int = 8
    """Pictures (of noise) in a step."""

    device: Device = "auto"
    """Where to measure."""

    dtype: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast over float32 weights, the same for all."""

    mode: Literal["both", "eager", "compiled"] = "both"
    """Rows with and without torch.compile (its default settings)."""

    peers: tuple[Peer, ...] = ("torchvision", "timm", "transformers", "vit-pytorch")
    """Whom to measure beside ours; those that are not installed are named."""

    rounds: int = 15
    """Interleaved rounds; the median of their ratios counts."""

    memory: bool = True
    """Also measure the peak memory of each model, in a process of its own."""

    peak_tflops: Annotated[float | None, tyro.conf.arg(metavar="TFLOPS")] = None
    """Peak TFLOP/s that the device's maker states, for one more MFU; known for a few GPUs in bf16."""

    quick: bool = False
    """Two blocks: shows that it runs. It also sets two pictures, three rounds and eager mode, unless you do."""

    json: Json = None
    """Also write the figures as JSON."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None
    """Also draw the ratios as bars."""

    def run(self) -> int:
        from vitscratch.config import PRESETS

        check_writable(self.json)
        check_writable(self.out, "--out")
        if self.model not in PRESETS:
            raise ValueError(f"preset {self.model!r} is unknown; there are {', '.join(PRESETS)}")
        if self.batch_size < 1:
            raise ValueError(f"batch size {self.batch_size}: expected at least 1")
        quick = untouched(self, batch_size=2, rounds=3, mode="eager") if self.quick else {}
        return replace(self, **quick)._carry_out(pick_device(self.device))

    def _carry_out(self, device: str) -> int:
        from tqdm import tqdm

        from vitscratch.bench import installed, measure
        from vitscratch.bench.steps import Work
        from vitscratch.config import PRESETS

        work = Work(PRESETS[self.model], isinstance(self, Train), self.batch_size, device, self.dtype)
        work = work.of_two_blocks() if self.quick else work
        modes: tuple[str, ...] = ("eager", "compiled") if self.mode == "both" else (self.mode,)
        peers = [peer for peer in self.peers if installed(peer)]
        for peer in [peer for peer in self.peers if peer not in peers]:
            print(f"{peer} is not installed, so it is not measured (pip install 'vitscratch[bench]')")
        with tqdm(total=self.rounds * len(modes), unit="round", disable=not sys.stderr.isatty()) as bar:
            result = measure(
                work,
                peers,
                modes=modes,
                rounds=self.rounds,
                memory=self.memory,
                checkpointing=isinstance(self, Train) and self.activation_checkpointing,
                stated_flops=self._stated_flops(device),
                on_progress=lambda line: tqdm.write(f"  {line} ..."),
                on_round=bar.update,
            )
        about = self._about(device, work.config.depth)
        _print(result, about)
        if self.out is not None:
            _draw(result, about, self.out)
        if self.json is not None:
            write_json({**about, "quick": self.quick, **environment(), **result.to_json()}, self.json)
        return 0

    def _stated_flops(self, device: str) -> float | None:
        import torch

        if self.peak_tflops is not None:
            return self.peak_tflops * 1e12
        name = torch.cuda.get_device_name() if device == "cuda" and self.dtype == "bf16" else ""
        return next((flops for known, flops in STATED.items() if known in name), None)

    def _about(self, device: str, depth: int) -> dict[str, Any]:
        import torch

        settings = {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}
        return {
            "what": type(self).__name__.lower(),
            "model": self.model,
            "depth": depth,
            "device": device,
            "device_name": torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads",
            "settings": settings,
        }


@dataclass(kw_only=True)
class Infer(_Compare):
    """Forward passes of our model beside the other implementations: time, memory, share of the device's peak."""


@dataclass(kw_only=True)
class Train(_Compare):
    """Training steps (forward, backward, fused AdamW) of our model beside the other implementations: time, memory,
    share of the device's peak."""

    activation_checkpointing: bool = False
    """Also a row for ours with activation checkpointing: less memory, more time."""


@dataclass(kw_only=True)
class _Rounds(Common):
    """Options of a comparison of two forms of ours."""

    rounds: int = 15
    """Interleaved rounds; the median of their ratios counts."""

    device: Device = "auto"
    """Where to measure."""

    quick: bool = False
    """Shows that it runs: three rounds, unless you say how many."""

    json: Json = None
    """Also write the figures as JSON."""

    def checked_rounds(self) -> int:
        """How many rounds to measure.

        Raises:
            ValueError: fewer than two, or a `--json` path that cannot be written.
        """
        check_writable(self.json)
        if self.rounds < 2:
            raise ValueError(f"rounds {self.rounds}: expected at least 2, of which quartiles can be told")
        return 3 if self.quick and untouched(self, rounds=3) else self.rounds


@dataclass(kw_only=True)
class PatchEmbedding(_Rounds):
    """Time the two forms of the patch embedding against each other."""

    def run(self) -> int:
        from vitscratch.recipes.patch_embedding import measure

        rounds, device = self.checked_rounds(), pick_device(self.device)
        rows = measure(device, rounds=rounds)
        print("Ratio: time of the linear map / time of the strided convolution, median (and quartiles) of rounds.")
        print(f"\n{'shape':<34}{'mode':<20}{'linear ms':>11}{'conv ms':>11}{'ratio':>8}  quartiles\n{'-' * 97}")
        for row in rows:
            print(
                f"{row['shape']:<34}{row['mode']:<20}{row['linear_ms']:>11.3f}{row['convolution_ms']:>11.3f}"
                f"{row['ratio']:>8.2f}  {row['ratio_quartiles'][0]:.2f} to {row['ratio_quartiles'][1]:.2f}"
            )
        if self.json is not None:
            about = {"what": "patch-embedding", "quick": self.quick, "device": device}
            write_json({**about, **environment(), "rows": rows}, self.json)
        return 0


@dataclass(kw_only=True)
class Loop(_Rounds):
    """Time an epoch of `fit` against the same steps written out by hand: what the loop's comforts cost."""

    def run(self) -> int:
        rounds, device = self.checked_rounds(), pick_device(self.device)

        from vitscratch.recipes.loop_overhead import measure

        found = measure(device, rounds=rounds)
        low, high = found["ratio_quartiles"]
        print(
            f"digits, 23 steps: by hand {found['by_hand_s']:.3f} s, fit {found['fit_s']:.3f} s "
            f"({found['images_per_second']:,.0f} images/s)\n"
            f"fit reaches {found['ratio']:.1%} of the speed by hand (quartiles {low:.1%} to {high:.1%})"
        )
        if self.json is not None:
            write_json({"what": "loop", "quick": self.quick, "device": device, **environment(), **found}, self.json)
        return 0


@dataclass(kw_only=True)
class Load(_Rounds):
    """Load a file of torchvision's weights into our model, beside torchvision's builder and `load_state_dict`: time,
    and peak memory in a process of its own."""

    model: str = "vit_b_16"
    """A preset with square pictures and patches."""

    device: tyro.conf.Suppress[Device] = "cpu"

    def run(self) -> int:
        from tqdm import tqdm

        from vitscratch.bench.loading import measure
        from vitscratch.config import PRESETS

        rounds = self.checked_rounds()
        if self.model not in PRESETS:
            raise ValueError(f"preset {self.model!r} is unknown; there are {', '.join(PRESETS)}")
        with tqdm(total=2 * rounds, unit="round", disable=not sys.stderr.isatty()) as bar:
            rows = measure(PRESETS[self.model], rounds, on_round=bar.update)
        print(f"{self.model}; ratio: torchvision's time / ours, median (quartiles) of rounds; memory: peak, MiB")
        columns = f"{'':<22}{'our ms':>8}{'their ms':>10}{'ratio':>8}  {'quartiles':<16}{'ours':>8}{'theirs':>8}"
        print(f"\n{columns}\n{'-' * len(columns)}")
        for row in rows:
            (ours, theirs), memory = row["seconds"].values(), row["peak_bytes"].values()
            low, high = row["ratio_quartiles"]
            print(
                f"{row['what']:<22}{1e3 * ours:>8.0f}{1e3 * theirs:>10.0f}{row['ratio']:>8.2f}  "
                f"{f'{low:.2f} to {high:.2f}':<16}" + "".join(f"{size / 2**20:>8.0f}" for size in memory)
            )
        if self.json is not None:
            about = {"what": "load", "quick": self.quick, "model": self.model}
            write_json({**about, **environment(), "rows": rows}, self.json)
        return 0


@dataclass(kw_only=True)
class Probe(_Rounds):
    """Time ten epochs of a head on a frozen body: the plain loop over pictures, features computed once, and features
    found on disk."""

    rounds: int = 5
    """Interleaved rounds; the median of their ratios counts."""

    model: Literal["vit_nano_32", "vit_nano_8"] = "vit_nano_32"
    """The frozen body, of random weights. The pictures are scikit-learn's digits, enlarged to its size."""

    epochs: int = 10
    """Of the head's training."""

    max_pictures: int = 500
    """Train on at most so many digits, of 1,437; with --quick on at most 200."""

    def run(self) -> int:
        rounds, device = self.checked_rounds(), pick_device(self.device)
        for name, number in (("epochs", self.epochs), ("max-pictures", self.max_pictures)):
            if number < 1:
                raise ValueError(f"--{name} {number}: expected at least 1")

        from vitscratch.recipes.probe import measure

        pictures = min(200, self.max_pictures) if self.quick else self.max_pictures
        found = measure(device, rounds, self.model, self.epochs, pictures)
        print(
            f"{self.model}, frozen, {found['pictures']:,} digits, {self.epochs} epochs of its head, {device}\n"
            "ratio: time of the plain loop / time in the same round, median (quartiles)\n\n"
            f"{'way':<14}{'seconds':>9}{'ratio':>8}{'quartiles':>16}{'accuracy':>10}\n{'-' * 57}"
        )
        for row in found["rows"]:
            quartiles = f"{row['ratio_quartiles'][0]:.1f} to {row['ratio_quartiles'][1]:.1f}"
            print(f"{row['way']:<14}{row['seconds']:>9.3f}{row['ratio']:>8.1f}{quartiles:>16}{row['accuracy']:>10.2%}")
        print(f"largest difference of a weight of the head: {found['difference']:.1e}")
        if self.json is not None:
            write_json({"what": "probe", "quick": self.quick, "device": device, **environment(), **found}, self.json)
        return 0


@dataclass(kw_only=True)
class Digits(Common):
    """Train the quickstart's ViT on several splits and seeds, also with positions that start at N(0, 0.02) instead
    of sines and cosines, beside logistic regression, k nearest neighbours and an RBF-SVM."""

    splits: int = 4
    """Number of held-out fifths (split seeds 0, 1, ...)."""

    seeds: int = 3
    """Training runs on each split."""

    device: Device = "auto"
    """Where to measure."""

    quick: bool = False
    """A tenth of the epochs: shows that it runs. It also sets one split and one seed, unless you do."""

    json: Json = None
    """Also write the figures as JSON."""

    def run(self) -> int:
        check_writable(self.json)
        if min(self.splits, self.seeds) < 1:
            raise ValueError(f"splits {self.splits}, seeds {self.seeds}: expected at least 1")
        device = pick_device(self.device)
        quick = untouched(self, splits=1, seeds=1) if self.quick else {}
        rows = replace(self, **quick)._rows(device)
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
        if self.json is not None:
            about = {"what": "digits", "quick": self.quick, "device": device}
            write_json({**about, **environment(), "rows": rows, "summary": summary}, self.json)
        return 0

    def _rows(self, device: str) -> list[dict[str, Any]]:
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

        for split_seed in range(self.splits):
            for name, result in baselines(prepare(replace(recipe, split_seed=split_seed))).items():
                note(split_seed, name, 0, result)
            for name, settings in (("ViT", recipe), ("ViT, normal positions", normal)):
                for seed in range(self.seeds):
                    vit = replace(settings, split_seed=split_seed, seed=seed)
                    note(split_seed, name, seed, measure_vit(vit, device))
        return rows


@dataclass(kw_only=True)
class Bench:
    """Measure: train and infer our model beside the other implementations, and the experiments of the docs."""

    what: (
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Infer, tyro.conf.subcommand("infer")]
        | Annotated[Loop, tyro.conf.subcommand("loop")]
        | Annotated[Load, tyro.conf.subcommand("load")]
        | Annotated[PatchEmbedding, tyro.conf.subcommand("patch-embedding")]
        | Annotated[Probe, tyro.conf.subcommand("probe")]
        | Annotated[Digits, tyro.conf.subcommand("digits")]
        | Annotated[Transfer, tyro.conf.subcommand("transfer")]
        | Annotated[TransferDigits, tyro.conf.subcommand("transfer-digits")]
    )

    def run(self) -> int:
        return self.what.run()


def _print(result: "Result", about: dict[str, Any]) -> None:
    work, stated = result.work, result.stated_flops
    setting = "".join(f", {name}={value}" for name, value in about["settings"].items())
    print(
        f"\n{_title(result, about)}, {about['device_name']}{setting}\n"
        "ratio: time / our time in the same round, median (quartiles); above 1 ours is faster, within 4 % is a tie\n"
        f"MFU: share of the {result.peak_flops / 1e12:.2f} TFLOP/s that large matrix products reach here, at the "
        f"model's\n{work.flops / 1e9:,.1f} GFLOPs a step; executed: at the FLOPs that were done; memory: peak, MiB"
        + (f"\nstated: MFU of the {stated / 1e12:.0f} TFLOP/s that the maker states" if stated else "")
    )
    print(
        f"\n{'mode':<9} {'model':<24} {'ms':>9} {'images/s':>9} {'ratio':>6} {'quartiles':>13} "
        f"{'memory':>7} {'MFU':>6} {'executed':>8}{' stated' if stated else ''}\n{'-' * 99}"
    )
    for row in result.rows:
        quartiles = f"{row.ratio.low:.3f}-{row.ratio.high:.3f}"
        memory = "-" if row.memory_bytes is None else f"{row.memory_bytes / 2**20:,.0f}"
        last = "" if row.stated_mfu is None else f" {row.stated_mfu:>6.1%}"
        print(
            f"{row.mode:<9} {row.model:<24} {1e3 * row.seconds:>9.2f} {row.images_per_second:>9.1f} "
            f"{row.ratio.median:>6.3f} {quartiles:>13} {memory:>7} {row.mfu:>6.1%} {row.executed_mfu:>8.1%}{last}"
        )
    for name, reason in result.failures.items():
        print(f"{name}: no row: {reason}")
    counts = {row.model: row.parameters for row in result.rows}
    ours = counts["vitscratch"]
    for name, count in counts.items():
        if count != ours:
            print(f"{name} has {count:,} parameters, ours {ours:,}: not quite the same architecture")


def _title(result: "Result", about: dict[str, Any]) -> str:
    work = result.work
    verb = "training" if work.training else "inference"
    return (
        f"{about['model']}, {about['depth']} blocks, {verb}, batch {work.batch_size}, {work.dtype}, {about['device']}"
    )


def _draw(result: "Result", about: dict[str, Any], path: Path) -> None:
    from vitscratch import plots

    rows = [row for row in result.rows if row.model != "vitscratch"]
    figure = plots.speed_ratios(
        [f"{row.model}, {row.mode}" for row in rows],
        [(row.ratio.low, row.ratio.median, row.ratio.high) for row in rows],
        _title(result, about),
    )
    save_figure(figure, path)
    print(f"\n{path}: the ratios as bars")
