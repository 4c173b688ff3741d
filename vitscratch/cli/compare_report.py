"""What a comparison says at its end: a table, McNemar's test, notes and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitscratch.cli.common import environment, save_figure
from vitscratch.cli.progress import say
from vitscratch.cli.recipe import recipe_name, recipe_to_json
from vitscratch.cli.train import warnings
from vitscratch.files import write_atomically
from vitscratch.recipes import Comparison

if TYPE_CHECKING:
    import torch

    from vitscratch.data import PictureFiles, Pictures, Splits
    from vitscratch.recipes.judge import Finished, Judged

Results = Mapping[str, "tuple[Finished, Judged]"]
TABLE = "comparison.md"
INK = ("digits", "fake-digits")  # whose numbers are ink on paper
AGAIN = (
    "It had been read before, for an earlier table of this comparison. The networks are the same; models of pixels, "
    "which no file keeps, were fitted again, to the same pictures with the same seed."
)
MISTAKES = 8  # to show of each model
HEADER = (
    "name",
    "model",
    "parameters",
    "epochs",
    "kept",
    "s/epoch",
    "validation loss",
    "validation accuracy",
    "test accuracy (95 % interval)",
    "images/s",
    "seconds",
    "points per minute",
)


def report(
    out: Path,
    comparison: Comparison,
    results: Results,
    part: "Pictures | PictureFiles",
    splits: "Splits",
    left_out: Mapping[str, str],
    device: str,
    *,
    quick: bool = False,
    again: bool = False,
) -> dict[str, Any]:
    """Write the table and the figures into the folder, print the table, and return all numbers for JSON.

    Args:
        quick: whether the numbers say nothing. again: whether there was such a report before this one.
    """
    order = sorted(results, key=lambda name: (-results[name][0].validation_accuracy, results[name][0].validation_loss))
    results = {name: results[name] for name in order}
    counts = part.labels.bincount(minlength=len(splits.class_names))
    chance = int(counts.max()) / len(part)
    rows = {name: _row(name, *result, chance) for name, result in results.items()}
    pair = _mcnemar(results)
    lines = [_markdown(HEADER, [_cells(row) for row in rows.values()])]
    if pair is not None:
        lines.append(pair["sentence"])
    robust_total = next(iter(results.values()))[1].robust_total
    if robust_total:
        lines.append(_robust_table(rows, robust_total, comparison.split_seed))
    notes = _notes(comparison, results, splits, left_out, device, chance, len(part))
    if again:
        notes.insert(2, AGAIN)
    if quick:
        notes.insert(0, "--quick: this shows that everything runs. The numbers say nothing of the models.")
    lines.append("\n".join(f"- {note}" for note in notes))
    figures = _draw(out, comparison, results, rows, part, splits.class_names, chance, device)
    text = f"# {recipe_name(comparison)}\n\n" + "\n\n".join(lines) + "\n"
    write_atomically(out / TABLE, lambda file: file.write(text), "w")
    say("\n" + "\n\n".join(lines) + f"\n\n{out}: {TABLE}, comparison.json, {', '.join(figures)}")
    return {
        "comparison": recipe_name(comparison),
        "settings": recipe_to_json(comparison),
        "class_names": list(splits.class_names),
        "test_total": len(part),
        "chance": chance,
        "device": device,
        "rows": list(rows.values()),
        "mcnemar": pair,
        "left_out": dict(left_out),
        "notes": notes,
        "robust_total": robust_total,
        **environment(),
    }


def _row(name: str, model: "Finished", verdict: "Judged", chance: float) -> dict[str, Any]:
    from vitscratch.training import calibration, confusion_matrix, wilson_interval

    predicted, classes = verdict.probabilities.argmax(dim=1), verdict.probabilities.shape[1]
    correct, total = int(verdict.correct.sum()), len(verdict.labels)
    accuracy, minutes, damaged = correct / total, model.seconds / 60, verdict.robust_total
    return {
        "name": name,
        "model": model.title,
        "parameters": model.parameters,
        "epochs": model.epochs,
        "kept": model.kept,
        "seconds_per_epoch": model.seconds / model.epochs if model.epochs else None,
        "validation_loss": model.validation_loss,
        "validation_accuracy": model.validation_accuracy,
        "test_correct": correct,
        "test_total": total,
        "test_accuracy": accuracy,
        "test_interval": list(wilson_interval(correct, total)),
        "calibration_error": calibration(verdict.probabilities, verdict.labels).error,
        "images_per_second": verdict.images_per_second,
        "confusion": confusion_matrix(predicted, verdict.labels, classes).tolist(),
        "precision": model.precision or None,
        "minutes": minutes,
        "points_above_chance_per_minute": 100 * (accuracy - chance) / max(minutes, 1e-9) if model.epochs else None,
        "robust": {
            kind: {"correct": right, "accuracy": right / damaged, "interval": list(wilson_interval(right, damaged))}
            for kind, right in verdict.robust.items()
        },
    }


def _cells(row: dict[str, Any]) -> list[str]:
    (low, high), points = row["test_interval"], row["points_above_chance_per_minute"]
    seconds = 60 * row["minutes"]
    return [
        row["name"],
        row["model"],
        f"{row['parameters']:,}",
        f"{row['epochs']}" if row["epochs"] else "-",
        row["kept"],
        f"{row['seconds_per_epoch']:.1f}" if row["epochs"] else "-",
        f"{row['validation_loss']:.4f}",
        f"{row['validation_accuracy']:.2%}",
        f"{row['test_accuracy']:.2%} ({low:.2%} to {high:.2%})",
        f"{row['images_per_second']:,.0f}",
        f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2g}",
        "-" if points is None else f"{points:,.0f}" if abs(points) >= 100 else f"{points:.1f}",
    ]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns also stand below each other on a terminal; all but the first two to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [(str.ljust if i < 2 else str.rjust)(cell, widths[i]) for i, cell in enumerate(cells)]
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (width + 1) + ("-" if i < 2 else ":") for i, width in enumerate(widths))
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)])


def _mcnemar(results: Results) -> dict[str, Any] | None:
    """Between the first two of the table, which validation has put there."""
    from vitscratch.training import mcnemar

    if len(results) < 2:
        return None
    (first, one), (second, two) = list(results.values())[:2]
    found = mcnemar(one.correct, two.correct)
    verdict = (
        "they differ by more than chance would bring about in one of twenty such tests"
        if found.p_value < 0.05
        else "so this test part does not tell which is better"
    )
    sentence = (
        f"McNemar's test between the best two by validation, on the {len(one.labels):,} test pictures: {first.title} "
        f"alone is right on {found.only_first:,}, {second.title} alone on {found.only_second:,} (both on "
        f"{found.both:,}, neither on {found.neither:,}); p = {found.p_value:.2g}: {verdict}."
    )
    return {
        "first": first.title,
        "second": second.title,
        "both": found.both,
        "only_first": found.only_first,
        "only_second": found.only_second,
        "neither": found.neither,
        "p_value": found.p_value,
        "sentence": sentence,
    }


def _robust_table(rows: Mapping[str, dict[str, Any]], total: int, seed: int) -> str:
    kinds = list(next(iter(rows.values()))["robust"])
    cells = [
        [row["name"], row["model"], *(f"{row['robust'][kind]['accuracy']:.1%}" for kind in kinds)]
        for row in rows.values()
    ]
    every = next(iter(rows.values()))["test_total"]
    which = f"{total:,} each" if total == every else f"{total:,} of the {every:,} each, drawn with --split-seed {seed}"
    return f"Test accuracy on damaged pictures, {which}:\n\n" + _markdown(["name", "model", *kinds], cells)


def _notes(
    comparison: Comparison,
    results: Results,
    splits: "Splits",
    left_out: Mapping[str, str],
    device: str,
    chance: float,
    total: int,
) -> list[str]:
    """What has to be said, a sentence each."""
    assert splits.validation is not None
    notes = [
        f"{len(splits.train):,} pictures to learn from, {len(splits.validation):,} to choose by, {total:,} to test: "
        f"{splits.summary['how']}. Always saying the most frequent class is right in {chance:.2%}.",
        "The rows are in the order of validation accuracy. What is kept of each model has the lowest validation loss; "
        "the test part was read when every model was done, and nothing was chosen by it.",
        f"One run of each, with seed {comparison.seed}: another seed gives other numbers. Networks on {device}, "
        "models of pixels on the CPU. images/s: median over batches, from normalised pictures to probabilities. "
        "Seconds: of training in all. Points per minute, of networks: percent of test accuracy above chance, for each "
        "minute of it.",
        *_precisions([model for model, _ in results.values()]),
    ]
    notes += [f"{model.title}: {note}" for model, _ in results.values() for note in model.notes]
    notes += [f"Left out: {name}: {reason}" for name, reason in left_out.items()]
    for model, verdict in results.values():
        said = verdict.probabilities.argmax(dim=1).unique()
        if len(said) == 1 and total > 1:
            notes.append(f"{model.title} takes every test picture for {splits.class_names[int(said[0])]}.")
    return notes + [f"Warning: {warning}" for warning in warnings(splits)]


def _precisions(models: "Sequence[Finished]") -> list[str]:
    """A note, if the networks differ in their arithmetic."""
    titles: dict[str, list[str]] = {}
    for model in models:
        if model.precision:
            titles.setdefault(model.precision, []).append(model.title)
    if len(titles) < 2:
        return []
    used = "; ".join(f"{precision}: {', '.join(which)}" for precision, which in titles.items())
    return [
        f"Precision differs between the networks, and with it their speed: {used}. A ResNet on pictures of 16 px or "
        "less computes in float32, as its gradients in bfloat16 may be wrong there on a CPU."
    ]


def _draw(
    out: Path,
    comparison: Comparison,
    results: Results,
    rows: Mapping[str, dict[str, Any]],
    part: "Pictures | PictureFiles",
    class_names: Sequence[str],
    chance: float,
    device: str,
) -> list[str]:
    """The figures, as PNG; returns their names."""
    import torch

    from vitscratch import plots
    from vitscratch.training import calibration

    titled = {model.title: (model, verdict, rows[name]) for name, (model, verdict) in results.items()}
    cells = {title: _cell(row["test_accuracy"], row["test_interval"]) for title, (_, _, row) in titled.items()}
    histories = {title: model.history for title, (model, _, _) in titled.items()}  # all: colours go by the order
    kept = {title: model.kept.removeprefix("epoch ") for title, (model, _, _) in titled.items() if model.history}
    figures: dict[str, Any] = {
        "confusion.png": plots.confusion_matrices(
            {title: torch.tensor(row["confusion"]) for title, (_, _, row) in titled.items()}, class_names
        ),
        "mistakes.png": plots.surest_mistakes(
            {
                title: _mistakes(model, verdict, part, comparison.data in INK)
                for title, (model, verdict, _) in titled.items()
            },
            class_names,
        ),
        "calibration.png": plots.reliability(
            {title: calibration(verdict.probabilities, verdict.labels) for title, (_, verdict, _) in titled.items()}
        ),
        "accuracy_per_minute.png": plots.accuracy_per_minute(
            {title: row["minutes"] for title, (_, _, row) in titled.items()},
            cells,
            f"{recipe_name(comparison)}: test accuracy over the time of training ({device})",
        ),
    }
    if kept:
        figures["curves.png"] = plots.validation_curves(histories, {title: int(kept[title]) for title in kept})
    if any(row["robust"] for row in rows.values()):
        figures["robust.png"] = plots.robustness(
            {
                title: {kind: _cell(found["accuracy"], found["interval"]) for kind, found in row["robust"].items()}
                for title, (_, _, row) in titled.items()
            },
            chance,
        )
    for name, figure in figures.items():
        save_figure(figure, out / name)
    return list(figures)


def _cell(accuracy: float, interval: Sequence[float]) -> tuple[float, float, float]:
    return interval[0], accuracy, interval[1]


def _mistakes(
    model: "Finished", verdict: "Judged", part: "Pictures | PictureFiles", ink: bool
) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Pictures in [0, 1], labels and probabilities of the mistakes that a model is surest of."""
    import torch

    from vitscratch.data import Pictures, open_picture
    from vitscratch.data.preprocessing import to_float
    from vitscratch.training import surest_mistakes

    found = surest_mistakes(verdict.probabilities, verdict.labels, MISTAKES)
    if isinstance(part, Pictures):
        images = to_float(part.images[found])
    else:
        prepare = model.preprocessing
        images = torch.zeros(len(found), prepare.channels, *prepare.image_size)
        for i, number in enumerate(found.tolist()):
            images[i] = to_float(prepare.pixels(open_picture(part.paths[number], channels=prepare.channels)))
    return 1 - images if ink else images, verdict.labels[found], verdict.probabilities[found]
