"""Every figure, one function each. A function draws what it is given and returns a matplotlib Figure."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from textwrap import fill
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import Tensor

from vitscratch.training import Calibration, EpochRecord, LRRange, warmup_cosine, wilson_interval

TRAIN, VALIDATION, TEST, MISTAKE = "#1f6f8b", "#d1603d", "#5b2a86", "#c1121f"
# Okabe and Ito's colours but yellow, too light for a line. The shapes tell models apart where colours do not.
MODELS = tuple(
    zip(("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"), "osD^vPX", strict=True)
)


def curves(history: Sequence[EpochRecord], test_accuracy: float | None = None) -> Figure:
    """Loss, accuracy and learning rate over the epochs; test_accuracy, measured once at the end, as a dot.

    Args:
        history: at least one record; validation is drawn where it was measured. A thin line stands between two parts.
        test_accuracy: in [0, 1].
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    epochs = [record.epoch for record in history]
    train = {"color": TRAIN, "label": "training (augmented)", **_marked(epochs)}
    loss.plot(epochs, [record.train_loss for record in history], **train)
    accuracy.plot(epochs, [100 * record.train_accuracy for record in history], **train)
    if any(record.validation_loss == record.validation_loss for record in history):  # nan where there is none
        validation = {"color": VALIDATION, "label": "validation", **_marked(epochs)}
        loss.plot(epochs, [record.validation_loss for record in history], **validation)
        accuracy.plot(epochs, [100 * record.validation_accuracy for record in history], **validation)
    if test_accuracy is not None:
        label = f"test, measured once: {test_accuracy:.2%}"
        accuracy.plot(
            epochs[-1:], [100 * test_accuracy], "D", color=TEST, markersize=7, clip_on=False, zorder=3, label=label
        )
    rate.plot(epochs, [record.learning_rate for record in history], color="#555555", **_marked(epochs))
    loss.set(title="Loss (cross-entropy, nats)", ylim=(0, 1.05 * loss.dataLim.y1 or None))
    accuracy.set(title="Accuracy (%)", ylim=_accuracy_limits(accuracy))
    rate.set(title="Learning rate at the end of the epoch", ylim=(0, 1.05 * rate.dataLim.y1 or None))
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # no factor above the axis, in the title's place
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        _count_epochs(axes, epochs)
    handles = list(accuracy.lines)
    for before, after in pairwise(history):
        if before.part != after.part:
            for axes in (loss, accuracy, rate):
                _border(axes, before.epoch + 0.5, before.part, after.part)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)  # where no line can lie
    return figure


def _accuracy_limits(axes: Axes) -> tuple[float, float]:
    """Of the vertical axis, in percent: up to 100, down to what is drawn, with room for the lines at both ends."""
    lowest = min(axes.dataLim.y0, 90)
    room = 0.05 * (100 - lowest)
    return lowest - room, 100 + room


def _count_epochs(axes: Axes, epochs: Sequence[int]) -> None:
    """Whole epochs below, with room beside a single one."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(set(epochs)) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    axes.grid(alpha=0.25)


def _border(axes: Axes, x: float, before: str, after: str) -> None:
    """A thin line between two parts of a run, their names on its sides."""
    axes.axvline(x, color="#888888", linewidth=0.8, linestyle=":")
    for name, side, shift in ((before, "right", -3), (after, "left", 3)):
        axes.annotate(
            name,
            (x, 0.5),
            (shift, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha=side,
            va="center",
            rotation=90,
            fontsize=8,
            color="#666666",
        )


def _marked(epochs: Sequence[int]) -> dict[str, Any]:
    """Dots on a line of a few points: with a single one there is no line to see."""
    return {"marker": "o", "markersize": 4} if len(epochs) <= 20 else {}


def predictions(
    images: Float[Tensor, "b c H W"],
    labels: Int[Tensor, " b"] | None,
    probabilities: Float[Tensor, "b classes"],
    class_names: Sequence[str],
    columns: int = 10,
    titles: Sequence[str] | None = None,
) -> Figure:
    """A grid of pictures with the predicted class and its probability; mistakes are framed red and say the truth.

    Args:
        images: in [0, 1], one channel or three; 0 is black, so give 1 - images of scans that count ink.
        labels: what each picture is; None if nobody knows.
        probabilities, class_names: what the model says, and the classes' names.
        columns: pictures in a row.
        titles: what to write below each picture, the name of its file say; None for nothing.
    """
    confidence, predicted = probabilities.max(dim=1)
    wrong = torch.zeros_like(predicted, dtype=torch.bool) if labels is None else predicted != labels
    truths = [None] * len(images) if labels is None else [class_names[int(label)] for label in labels]
    said = [
        _verdict(class_names[int(number)], float(share), truth if mistaken else None)
        for number, share, truth, mistaken in zip(predicted, confidence, truths, wrong, strict=True)
    ]
    heading = "Predicted class and its probability"
    if labels is not None:
        mistakes = int(wrong.sum())
        verdict = f"{mistakes} mistake{'s' * (mistakes > 1)}, framed red" if mistakes else "no mistakes among them"
        heading = f"Prediction and confidence for {len(images)} held-out pictures: {verdict}"
    breaks = [max(text.count("\n") for text in said[i : i + columns]) for i in range(0, len(said), columns)]
    rows = [0.3 + 0.15 * (number + (titles is not None)) for number in breaks]
    figure = _sheet(heading, rows, columns, images.shape[2] / images.shape[3])
    for i, axes in enumerate(figure.subplots(len(rows), columns, squeeze=False).flat):
        axes.set(xticks=[], yticks=[])
        if i >= len(images):
            axes.axis("off")
            continue
        _picture(axes, images[i])
        # Names of classes and files may have a $ in them.
        axes.set_title(said[i], fontsize=9, color=MISTAKE if wrong[i] else "black", parse_math=False)
        if titles is not None:
            axes.set_xlabel(_short(titles[i], 16), fontsize=7, color="#555555", parse_math=False)
        for spine in axes.spines.values():
            spine.set(color=MISTAKE if wrong[i] else "#bbbbbb", linewidth=3 if wrong[i] else 0.5)
    return figure


def _sheet(heading: str, rows: Sequence[float], columns: int, shape: float, beside: float = 0.0) -> Figure:
    """An empty figure for a grid of pictures, as high as they need.

    Args:
        heading: broken where the figure ends.
        rows: room for text in each row, in inches.
        shape: height of a picture / its width.
        beside: room for text on the left, in inches.
    """
    width = max(1.15 * columns + beside, 3.0)  # wide enough for the heading, even of one picture
    heading = fill(heading, int(10 * width))
    below = sum(rows) + len(rows) * (width - beside) / columns * shape
    height = below + 0.1 + 0.2 * len(heading.splitlines())
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, below / height), compress=True)
    figure = Figure(figsize=(width, height), layout=layout)
    figure.suptitle(heading, y=1 - 0.06 / height, va="top")  # placed by hand: the engine lets long ones overlap
    return figure


def _verdict(predicted: str, share: float, truth: str | None) -> str:
    """What stands above a picture: the predicted class, its probability, and the truth where it is to be said."""
    said = _lines(f"{_short(predicted)}  {share:.0%}")
    return said if truth is None else f"{said}\n{_lines(f'is {_short(truth)}')}"


def _lines(name: str) -> str:
    """Broken so that it fits above or beside a small picture."""
    return fill(name, 14)


def _short(name: str, length: int = 25) -> str:
    """Cut to so many characters."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def augmented(
    originals: Sequence[Tensor],
    seen: Float[Tensor, "n views c H W"],
    labels: Int[Tensor, " n"],
    class_names: Sequence[str],
) -> Figure:
    """Pictures beside what a model sees of them: transformed and augmented, in several epochs.

    Args:
        originals: (c, h, w) each, in [0, 1], of any size.
        seen: in [0, 1]: not normalised, or no longer. labels, class_names: what each picture is.
    """
    count, views = seen.shape[:2]
    blocks = 1 if count == 1 else 2  # examples side by side
    rows, width = -(-count // blocks), 1 + views
    figure = Figure(figsize=(1.25 * (blocks * width + 0.6), 1.2 * rows + 0.7), layout="constrained")
    ratios = [1.0, 0.12, *[1.0] * views, 0.35] * blocks  # gaps after an original and between examples
    grid = figure.add_gridspec(rows, len(ratios) - 1, width_ratios=ratios[:-1], wspace=0.03, hspace=0.03)
    for i in range(count):
        row, first = divmod(i, blocks)
        for j, image in enumerate([originals[i], *seen[i]]):
            axes = figure.add_subplot(grid[row, first * (width + 2) + j + (j > 0)])
            axes.set(xticks=[], yticks=[])
            _picture(axes, image)
            for spine in axes.spines.values():
                spine.set(color="black" if j == 0 else "#bbbbbb", linewidth=1.0 if j == 0 else 0.5)
            if j == 0:
                name = _lines(_short(class_names[int(labels[i])]))
                axes.set_ylabel(name, fontsize=9, parse_math=False)  # a name may have a $ in it
            if row == 0 and j < 2:
                axes.set_title("original" if j == 0 else "seen by the model", fontsize=9, loc="left")
    height, wide = seen.shape[3:]
    figure.suptitle(f"Pictures, and what the model sees of them in {views} epochs ({height} x {wide} pixels)")
    return figure


def class_token_attention(
    images: Float[Tensor, "b c H W"],
    maps: Float[Tensor, "depth b h n n"],
    grid_size: tuple[int, int],
    titles: Sequence[str],
) -> Figure:
    """Where the class token looks in each block: a row for each picture, a column for each block.

    Args:
        images: in [0, 1].
        maps: attention weights as from `vitscratch.explain.attention_maps`; token 0 is the class token.
            Drawn: the mean over heads of its row, without its weight on itself, scaled so that 1 is an even gaze.
        grid_size: rows and columns of patches.
        titles: one for each picture.
    """
    seen = maps[:, :, :, 0, 1:].mean(dim=2)
    seen = seen / seen.mean(dim=-1, keepdim=True)
    heading = "Attention of the class token, mean over heads, laid over the picture"
    blocks = [f"block {block + 1}" for block in range(maps.shape[0])]
    return gaze(images, seen.transpose(0, 1), grid_size, titles, blocks, heading)


def gaze(
    images: Float[Tensor, "b c H W"],
    seen: Float[Tensor, "b maps patches"],
    grid_size: tuple[int, int],
    titles: Sequence[str],
    columns: Sequence[str],
    heading: str,
) -> Figure:
    """What a token takes from each patch, laid over the picture: a row for each picture, a column for each map.

    Args:
        images: in [0, 1].
        seen: as from `vitscratch.explain.gaze`: 1 everywhere is an even gaze. All maps share one scale of colours.
        grid_size: rows and columns of patches.
        titles: one for each picture. columns: one for each map: a block, a head, "rollout".
        heading: broken where the figure ends.
    """
    count, maps = seen.shape[:2]
    width = max(1.5 * (maps + 1) + 1.2, 4.6)
    heading = fill(heading, int(9 * width))
    figure = Figure(figsize=(width, 1.5 * count + 0.7 + 0.2 * len(heading.splitlines())), layout="constrained")
    panels = figure.subplots(count, maps + 1, squeeze=False)
    most = max(float(seen.max()), 1.0)
    # By the square root beside a patch with thirty times an even gaze, or the others would all be black.
    scale = ScalarMappable(PowerNorm(0.5 if most > 8 else 1.0, 0, most), cmap="magma")
    for i in range(count):
        _picture(panels[i, 0], images[i])
        panels[i, 0].set_ylabel(_lines(_short(titles[i])), rotation=0, ha="right", va="center", parse_math=False)
        for j in range(maps):
            heat = F.interpolate(seen[i, j].reshape(1, 1, *grid_size), images.shape[2:], mode="nearest")[0, 0]
            panels[i, j + 1].imshow(images[i].mean(dim=0).numpy(), cmap="gray", vmin=0, vmax=1)
            panels[i, j + 1].imshow(heat.numpy(), cmap=scale.cmap, norm=scale.norm, alpha=0.65)
            if i == 0:
                panels[i, j + 1].set_title(columns[j], fontsize=10)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    panels[0, 0].set_title("picture", fontsize=10)
    figure.colorbar(scale, ax=panels, label=fill("on a patch / even on all patches", 20 * count), shrink=0.8)
    figure.suptitle(heading)
    return figure


def patch_filters(components: Float[Tensor, "m c p q"], shares: Float[Tensor, " m"]) -> Figure:
    """Principal components of the patch embedding's filters (Figure 7, left), each with its share of the variance.

    Args:
        components, shares: as from `vitscratch.explain.patch_filters`. Grey is 0; each is scaled by its largest number.
            Three channels are drawn in colour, any other number as their mean.
    """
    count, columns = len(components), min(7, len(components))
    rows = -(-count // columns)
    drawn = 0.5 + 0.5 * components / components.abs().amax(dim=(1, 2, 3), keepdim=True)
    figure = Figure(figsize=(max(0.95 * columns, 4.6), 1.1 * rows + 0.6), layout="constrained")
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if i < count:
            _picture(axes, drawn[i] if drawn.shape[1] == 3 else drawn[i].mean(dim=0, keepdim=True))
            axes.set_title(f"{float(shares[i]):.1%}", fontsize=8)
    figure.suptitle("Patch embedding: components of its filters", fontsize=11)
    return figure


def token_trajectories(
    norms: Float[Tensor, "stages n"],
    kept: Float[Tensor, "stages n"],
    to_answer: Float[Tensor, "stages n"],
    title: str,
) -> Figure:
    """The way of one picture's tokens through the blocks: length, likeness to their start, likeness to the answer.

    Args:
        norms, kept, to_answer: of one picture, as from `vitscratch.explain.token_trajectories`; token 0 is the class
            token. title: what the picture is.
    """
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    measured = {
        "length": norms,
        "cosine with itself before block 1": kept,
        "cosine with what the head reads": to_answer,
    }
    stages = range(len(norms))
    for axes, (name, values) in zip(panels, measured.items(), strict=True):
        axes.plot(stages, values[:, 1:].numpy(), color=TRAIN, linewidth=0.6, alpha=0.35)
        axes.plot(stages, values[:, 1:].mean(dim=1).numpy(), color=TRAIN, linewidth=2.2, label="mean of the patches")
        axes.plot(stages, values[:, 0].numpy(), color=VALIDATION, linewidth=2.2, label="class token")
        axes.set(title=name, xlabel="blocks passed")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    panels[0].set_ylim(bottom=0)
    figure.legend(handles=panels[0].lines[-2:], loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"Tokens of {_short(title, 60)}, block by block (each thin line is a patch)", parse_math=False)
    return figure


def position_similarity(similarity: Float[Tensor, "rows columns rows columns"]) -> Figure:
    """One small map for each patch: cosine similarity of its position embedding with all others (Figure 7, centre).

    Args:
        similarity: as from `vitscratch.explain.position_similarity`, in [-1, 1]; the colours span what occurs.
    """
    rows, columns = similarity.shape[:2]
    figure = Figure(figsize=(max(1.1 * columns + 1.6, 5.2), max(1.1 * rows + 1.0, 4.0)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    scale = ScalarMappable(Normalize(float(similarity.min()), 1), cmap="viridis")
    for i in range(rows):
        for j in range(columns):
            panels[i, j].imshow(similarity[i, j].numpy(), cmap=scale.cmap, norm=scale.norm)
            panels[i, j].plot(j, i, "o", color="white", markersize=4, markeredgecolor="black")
            panels[i, j].set(xticks=[], yticks=[])
    figure.colorbar(scale, ax=panels, label="cosine similarity", shrink=0.8)
    figure.supxlabel("column of the patch (the dot)")
    figure.supylabel("row of the patch")
    figure.suptitle("Position embeddings: similarity with each other")
    return figure


def learning_rate_range(result: LRRange) -> Figure:
    """The loss over the learning rate of a range test, with the rate that is suggested.

    Args:
        result: as from `vitscratch.training.lr_find`. Losses above one and a half times the first are cut off.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(result.rates, result.losses, color=TRAIN, alpha=0.35, linewidth=1, label="loss of a batch")
    axes.plot(result.rates, result.smoothed, color=TRAIN, linewidth=2.2, label="running mean")
    finite = [loss for loss in (*result.smoothed, result.losses[0]) if math.isfinite(loss)]
    if result.suggestion is not None:
        lowest = result.smoothed.index(min(finite))
        axes.plot(result.rates[lowest], result.smoothed[lowest], "o", color=VALIDATION, label="lowest")
        label = f"suggested: {result.suggestion:.1e}, a tenth of it"
        axes.axvline(result.suggestion, color=VALIDATION, linestyle="--", label=label)
    top = max(1.5 * result.losses[0], 1.05 * min(finite)) if finite and math.isfinite(result.losses[0]) else None
    axes.set(xscale="log", xlabel="learning rate, raised at every step", ylabel="loss (cross-entropy, nats)")
    axes.set_ylim(0, top)
    end = "stopped where it diverged" if result.diverged else "run to the end"
    axes.set_title(f"Learning-rate range test: {len(result.rates)} steps, {end}")
    if result.suggestion is None:
        why = f"no suggestion: {result.reason.partition(':')[0]}"
        axes.text(0.5, 0.08, why, ha="center", transform=axes.transAxes, color=MISTAKE)
    axes.legend(frameon=False, loc="lower left" if result.suggestion is not None else "upper left")
    axes.grid(alpha=0.25)
    return figure


def regularisation(tried: Sequence[tuple[float, float]], chosen: float, test_accuracy: float | None = None) -> Figure:
    """What a linear probe tried: validation accuracy over the strength of the regularisation.

    Args:
        tried: (c, validation accuracy in [0, 1]), from the smallest c on; a small one means strong regularisation.
        chosen: the c that was kept. test_accuracy: in [0, 1], of the head that was fitted with it.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    strengths, accuracies = zip(*tried, strict=True)
    percent = [100 * accuracy for accuracy in accuracies]
    axes.plot(strengths, percent, color=VALIDATION, marker="o", markersize=4, label="validation")
    axes.axvline(chosen, color=VALIDATION, linestyle="--", linewidth=1, label=f"chosen: c = {chosen:g}")
    if test_accuracy is not None:
        label = f"test, measured once: {test_accuracy:.2%}"
        axes.plot(chosen, 100 * test_accuracy, "D", color=TEST, markersize=7, zorder=3, label=label)
    axes.set(xscale="log", xlabel="c: regularisation is strong on the left, weak on the right", ylabel="accuracy (%)")
    axes.set_title(f"Linear probe: {len(tried)} logistic regressions on the same features")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def schedule(warmup_steps: int, total_steps: int, learning_rate: float) -> Figure:
    """The learning rate of every step of a run: `warmup_cosine` times its peak.

    Args:
        warmup_steps, total_steps: as for `vitscratch.training.warmup_cosine`.
        learning_rate: the peak.
    """
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.subplots()
    rates = [learning_rate * warmup_cosine(step, warmup_steps, total_steps) for step in range(total_steps)]
    axes.plot(range(total_steps), rates, color=TRAIN, linewidth=2.2)
    if warmup_steps:
        axes.axvspan(
            0, warmup_steps, color=VALIDATION, alpha=0.12, linewidth=0, label=f"warm-up, {warmup_steps:,} steps"
        )
        axes.legend(frameon=False, loc="upper right")
    axes.set(xlabel="step", ylabel="learning rate", xlim=(0, total_steps), ylim=(0, 1.08 * learning_rate))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_title(f"Warm-up to {learning_rate:.1e}, then half a cosine to 0: {total_steps:,} steps")
    axes.grid(alpha=0.25)
    return figure


def speed_ratios(labels: Sequence[str], ratios: Sequence[tuple[float, float, float]], title: str) -> Figure:
    """A bar for each implementation: how many times as long as ours it takes; whiskers are quartiles.

    Args:
        labels: one for each bar, from the top.
        ratios: (lower quartile, median, upper quartile) of time / our time; above 1 ours is faster.
        title: what was measured.
    """
    figure = Figure(figsize=(8, 0.45 * len(labels) + 1.6), layout="constrained")
    axes = figure.subplots()
    medians = [median for _, median, _ in ratios]
    whiskers = [[median - low for low, median, _ in ratios], [high - median for _, median, high in ratios]]
    colors = [TRAIN if median >= 1 else MISTAKE for median in medians]
    bars = axes.barh(range(len(labels)), medians, xerr=whiskers, color=colors, ecolor="#555555", capsize=3)
    axes.bar_label(bars, labels=[f"{median:.2f}" for median in medians], label_type="center", color="white")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set(title=title, xlabel="time / time of vitscratch (right of the line: vitscratch is faster)", xlim=(0, None))
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    return figure


def few_labels(
    accuracies: Mapping[str, Sequence[tuple[float, float, float]]], per_class: Sequence[int], title: str
) -> Figure:
    """Accuracy over the number of labelled pictures of each class, one curve for each way to train.

    Args:
        accuracies: for each way, (lowest, mean, highest) in [0, 1] for each number. per_class: those numbers.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (way, cells), marker in zip(accuracies.items(), "osd^v<>ph*", strict=False):
        low, mean, high = (torch.tensor(values) * 100 for values in zip(*cells, strict=True))
        axes.errorbar(per_class, mean, torch.stack([mean - low, high - mean]), marker=marker, capsize=3, label=way)
    axes.set_xscale("log")
    axes.set_xticks(per_class, [str(number) for number in per_class])
    axes.minorticks_off()
    axes.set_xlabel("labelled pictures of each class")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def validation_curves(histories: Mapping[str, Sequence[EpochRecord]], kept: Mapping[str, int]) -> Figure:
    """Validation loss and accuracy of several models over the epochs, on shared axes; a ring is the epoch kept.

    Args:
        histories: of each model; one without a validated epoch gets no line.
        kept: the epoch (1, 2, ...) whose weights each model ended with; a model that is not in it gets no ring.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    epochs: list[int] = []
    for (name, history), (color, marker) in zip(histories.items(), cycle(MODELS), strict=False):
        measured = [record for record in history if record.validation_loss == record.validation_loss]  # not nan
        if not measured:
            continue
        epochs += [record.epoch for record in measured]
        for axes, percent, what in ((loss, 1, "validation_loss"), (accuracy, 100, "validation_accuracy")):
            values = {record.epoch: percent * getattr(record, what) for record in measured}
            every = max(1, len(values) // 15)
            axes.plot([*values], [*values.values()], marker, ls="-", color=color, ms=4.5, markevery=every, label=name)
            if kept.get(name) in values:
                ring = {"markersize": 12, "markeredgecolor": color, "markerfacecolor": "none", "markeredgewidth": 1.6}
                axes.plot(kept[name], values[kept[name]], "o", zorder=3, label="_ring", **ring)
    highest = loss.dataLim.y1 if epochs else 0  # minus infinity where nothing is drawn
    loss.set(title="Validation loss (cross-entropy, nats)", ylim=(0, 1.05 * highest or None))
    accuracy.set(title="Validation accuracy (%)", ylim=_accuracy_limits(accuracy))
    for axes in (loss, accuracy):
        _count_epochs(axes, epochs)
        axes.set_xlabel("epoch (ring: the one kept)" if kept else "epoch")
    _legend(figure, [line for line in loss.lines if line.get_label() != "_ring"])
    return figure


def confusion_matrices(matrices: Mapping[str, Int[Tensor, "classes classes"]], class_names: Sequence[str]) -> Figure:
    """The confusion matrices of several models side by side; colours are shares of the true class.

    Args:
        matrices: of each model, with true classes as rows: see `vitscratch.training.confusion_matrix`.
    """
    classes, names = len(class_names), [_short(name, 14) for name in class_names]
    rows, columns = _rows_and_columns(len(matrices))
    longest, side = max(map(len, names)), min(max(2.1, 0.42 * classes), 5.0)
    room = 0.085 * longest + 0.4
    size = (columns * (side + 0.2) + room + 0.8, rows * (side + 0.6) + room + 0.2)
    figure = Figure(figsize=size, layout="compressed")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    upright = 90 if longest * classes > 7 * side else 0  # names side by side would touch
    for axes, (name, matrix) in zip(panels.flat, matrices.items(), strict=False):
        shares = matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)
        drawn = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        right = float(matrix.trace() / matrix.sum().clamp(min=1))
        axes.set_title(f"{_short(name)}\n{right:.2%} correct", fontsize=10, parse_math=False)
        axes.tick_params(length=0)
        if classes <= 30:  # of more, the names would lie on each other: numbers then, as few as fit
            axes.set_xticks(range(classes), names, rotation=upright, parse_math=False)
            axes.set_yticks(range(classes), names, parse_math=False)
        for i, j in ((i, j) for i in range(classes) for j in range(classes) if classes <= 12):
            text, color = f"{int(matrix[i, j]):,}", "white" if shares[i, j] > 0.55 else "black"
            text += f"\n{float(shares[i, j]):.1%}" if classes <= 3 else ""
            axes.text(j, i, text, ha="center", va="center", color=color, fontsize=9 if classes <= 5 else 7)
    _label_edges(panels, len(matrices), "predicted class", "true class")
    figure.colorbar(drawn, ax=panels, label="share of the true class", aspect=12 * rows)
    return figure


def reliability(results: Mapping[str, Calibration]) -> Figure:
    """Reliability diagrams of several models side by side: is a model right as often as it says?

    A point is a bin of `vitscratch.training.calibration`, large where there are many pictures, with the 95 % interval
    of its accuracy. Below the diagonal a model is too sure of itself.
    """
    rows, columns = _rows_and_columns(len(results))
    figure = Figure(figsize=(max(2.7 * columns + 0.4, 3.4), 3.1 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    lowest = min(part.low for result in results.values() for part in result.bins)
    for axes, (name, result), (color, _) in zip(panels.flat, results.items(), cycle(MODELS), strict=False):
        axes.plot([0, 100], [0, 100], "--", color="#555555", linewidth=1)
        most = max(part.total for part in result.bins)
        for part in result.bins:
            said = 100 * part.confidence
            low, high = wilson_interval(part.correct, part.total)
            axes.plot([said, said], [100 * low, 100 * high], color=color, alpha=0.5, linewidth=1.5)
            axes.scatter(said, 100 * part.accuracy, 15 + 110 * part.total / most, color=color, clip_on=False, zorder=3)
        axes.set_title(f"{_short(name)}\ncalibration error {result.error:.1%}", fontsize=10, parse_math=False)
        axes.grid(alpha=0.25)
    panels[0, 0].set(xlim=(100 * lowest - 2, 102), ylim=(-2, 102))
    _label_edges(panels, len(results), "confidence (%)", "of these, correct (%)")
    return figure


def surest_mistakes(
    mistakes: Mapping[str, tuple[Float[Tensor, "_ c H W"], Int[Tensor, " _"], Float[Tensor, "_ classes"]]],
    class_names: Sequence[str],
) -> Figure:
    """The mistakes that each model was surest of, a row for each: predicted class, its probability, and the truth.

    Args:
        mistakes: for each model, pictures in [0, 1], labels and probabilities of its mistakes, the surest first (see
            `vitscratch.training.surest_mistakes`); a row may be shorter than another, or empty.
    """
    columns = max(3, *(len(labels) for _, labels, _ in mistakes.values()))
    shape = max((images.shape[2] / images.shape[3] for images, _, _ in mistakes.values()), default=1.0)
    said = {
        name: [
            _verdict(class_names[int(row.argmax())], float(row.max()), class_names[int(label)])
            for row, label in zip(probabilities, labels, strict=True)
        ]
        for name, (_, labels, probabilities) in mistakes.items()
    }
    room = [0.3 + 0.15 * max((text.count("\n") for text in texts), default=0) for texts in said.values()]
    figure = _sheet("The surest mistakes of each model, and what they are", room, columns, shape, beside=0.45)
    for line, (name, (images, _, _)) in zip(
        figure.subplots(len(mistakes), columns, squeeze=False), mistakes.items(), strict=True
    ):
        for axes, image, text in zip(line, images, said[name], strict=False):
            _picture(axes, image)
            axes.set_title(text, fontsize=8, parse_math=False)
        for axes in line[len(images) :]:
            axes.spines[:].set_visible(False)
        for axes in line:
            axes.set(xticks=[], yticks=[], box_aspect=shape)
        line[0].set_ylabel(_lines(_short(name)), fontsize=9, parse_math=False)
        if not len(images):
            line[0].text(0.5, 0.5, "no mistakes", ha="center", va="center", fontsize=9, transform=line[0].transAxes)
    return figure


def accuracy_per_minute(
    minutes: Mapping[str, float], accuracies: Mapping[str, tuple[float, float, float]], title: str
) -> Figure:
    """What accuracy costs: a point for each model, with the interval of its accuracy, over its minutes of training.

    Args:
        minutes: of each model, above 0. accuracies: of each model (lowest, measured, highest), in [0, 1].
        title: what was measured, and on which machine.
    """
    figure = Figure(figsize=(8.4, max(4.2, 0.3 * len(minutes) + 1.2)), layout="constrained")
    axes = figure.subplots()
    for (name, cell), (color, marker) in zip(accuracies.items(), cycle(MODELS), strict=False):
        _interval(axes, minutes[name], cell, color=color, marker=marker, markersize=7)
    axes.set(xscale="log", xlim=(min(minutes.values()) / 1.6, max(minutes.values()) * 1.6))
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if max(minutes.values()) < 200 * min(minutes.values()) else (1,))
    )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.margins(y=0.12)
    figure.suptitle(fill(title, 80), parse_math=False)
    axes.set(xlabel="minutes of training (logarithmic)", ylabel="test accuracy (%), with its 95 % interval")
    axes.grid(alpha=0.25)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    # Names stand in the margin, in the order of accuracy, so that they cannot lie on points or on each other.
    order = sorted(accuracies, key=lambda name: accuracies[name][1])
    heights = _spread(
        [(100 * accuracies[name][1] - low) / (high - low) for name in order], 0.2 / (figure.get_figheight() - 0.9)
    )
    for name, height in zip(order, heights, strict=True):
        color = MODELS[list(accuracies).index(name) % len(MODELS)][0]
        axes.annotate(
            f"{_short(name)}  {accuracies[name][1]:.2%}",
            (minutes[name], 100 * accuracies[name][1]),
            (1.04, height),
            textcoords="axes fraction",
            va="center",
            color=color,
            arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.5, "linewidth": 0.8, "relpos": (0, 0.5)},
            parse_math=False,
        )
    return figure


def robustness(accuracies: Mapping[str, Mapping[str, tuple[float, float, float]]], chance: float) -> Figure:
    """Accuracy of several models on pictures as they are and damaged, with intervals; the dashed line is chance.

    Args:
        accuracies: for each model and each kind of pictures, the same kinds for all: (lowest, measured, highest).
        chance: accuracy of always naming the most frequent class. All in [0, 1].
    """
    kinds = list(next(iter(accuracies.values())))
    figure = Figure(figsize=(max(6.5, 1.25 * len(kinds) + 1), 4.4), layout="constrained")
    axes = figure.subplots()
    step = 0.7 / len(accuracies)
    handles = []
    for i, ((name, cells), (color, marker)) in enumerate(zip(accuracies.items(), cycle(MODELS), strict=False)):
        for j, kind in enumerate(kinds):
            drawn = _interval(axes, j + (i - (len(accuracies) - 1) / 2) * step, cells[kind], color=color, marker=marker)
        drawn.set_label(name)
        handles.append(drawn)
    handles.append(
        axes.axhline(100 * chance, color="#555555", linestyle="--", linewidth=1, label=f"chance: {chance:.1%}")
    )
    for j in range(1, len(kinds)):
        axes.axvline(j - 0.5, color="#dddddd", linewidth=0.8)
    axes.set_xticks(range(len(kinds)), [fill(kind, 12) for kind in kinds], parse_math=False)
    axes.set(xlim=(-0.5, len(kinds) - 0.5), ylabel="accuracy (%), with its 95 % interval")
    axes.set_title("What is left of the accuracy on damaged pictures")
    axes.grid(axis="y", alpha=0.25)
    _legend(figure, handles)
    return figure


def _interval(axes: Axes, x: float, cell: tuple[float, float, float], **look: Any) -> Line2D:
    """A point with a whisker, in percent, from (lowest, measured, highest) in [0, 1]; returns the point."""
    low, middle, high = (100 * value for value in cell)
    drawn = axes.errorbar(x, middle, [[middle - low], [high - middle]], capsize=3, **look)
    point: Line2D = drawn[0]
    return point


def _rows_and_columns(count: int) -> tuple[int, int]:
    """For panels: at most four in a row, and rows as full as they can be."""
    rows = -(-count // 4)
    return rows, -(-count // rows)


def _label_edges(panels: Any, count: int, below: str, left: str) -> None:
    """Labels of the axes that the first `count` panels share: below those with none below them, and on the left."""
    columns = panels.shape[1]
    for i, axes in enumerate(panels.flat):
        if i >= count:
            axes.axis("off")
            continue
        if i + columns >= count:
            axes.set_xlabel(below)
            axes.tick_params(labelbottom=True)
        if i % columns == 0:
            axes.set_ylabel(left)


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights in [0, 1], in rising order, moved as little as needed to lie `gap` apart."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    top = 1.0
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], top)
        top = placed[i] - gap
    return placed


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Below the axes, where no line can lie, in columns that fit."""
    widest = max((len(str(handle.get_label())) for handle in handles), default=1)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.085 * widest + 0.6))))
    legend = figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _picture(axes: Axes, image: Float[Tensor, "c H W"]) -> None:
    if len(image) == 1:
        axes.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
