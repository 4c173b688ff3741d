"""Every figure, one function each. A function draws what it is given and returns a matplotlib Figure."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import fill
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vitscratch.training import EpochRecord, LRRange, warmup_cosine

TRAIN, VALIDATION, TEST, MISTAKE = "#1f6f8b", "#d1603d", "#5b2a86", "#c1121f"


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
    lowest = min(accuracy.dataLim.y0, 90)
    room = 0.05 * (100 - lowest)
    accuracy.set(title="Accuracy (%)", ylim=(lowest - room, 100 + room))
    rate.set(title="Learning rate at the end of the epoch", ylim=(0, 1.05 * rate.dataLim.y1 or None))
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # no factor above the axis, in the title's place
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(epochs) == 1:
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
        axes.grid(alpha=0.25)
    handles = list(accuracy.lines)
    for before, after in pairwise(history):
        if before.part != after.part:
            for axes in (loss, accuracy, rate):
                _border(axes, before.epoch + 0.5, before.part, after.part)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)  # where no line can lie
    return figure


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
    said = [
        _lines(f"{_short(class_names[int(number)])}  {float(share):.0%}")
        for number, share in zip(predicted, confidence, strict=True)
    ]
    if labels is not None:
        said = [
            f"{text}\n{_lines(f'is {_short(class_names[int(label)])}')}" if mistaken else text
            for text, label, mistaken in zip(said, labels, wrong, strict=True)
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


def _sheet(heading: str, rows: Sequence[float], columns: int, shape: float) -> Figure:
    """An empty figure for a grid of pictures, as high as they need.

    Args:
        heading: broken where the figure ends.
        rows: room for text in each row, in inches.
        shape: height of a picture / its width.
    """
    width = max(1.15 * columns, 3.0)  # wide enough for the heading, even of one picture
    heading = fill(heading, int(10 * width))
    below = sum(rows) + len(rows) * width / columns * shape
    height = below + 0.1 + 0.2 * len(heading.splitlines())
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, below / height), compress=True)
    figure = Figure(figsize=(width, height), layout=layout)
    figure.suptitle(heading, y=1 - 0.06 / height, va="top")  # placed by hand: the engine lets long ones overlap
    return figure


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
    depth, count = maps.shape[0], len(images)
    gaze = maps[:, :, :, 0, 1:].mean(dim=2)
    gaze = gaze / gaze.mean(dim=-1, keepdim=True)
    figure = Figure(figsize=(1.5 * (depth + 1) + 1, 1.5 * count + 0.8), layout="constrained")
    panels = figure.subplots(count, depth + 1, squeeze=False)
    scale = ScalarMappable(Normalize(0, float(gaze.max())), cmap="magma")
    for i in range(count):
        _picture(panels[i, 0], images[i])
        panels[i, 0].set_ylabel(titles[i], rotation=0, ha="right", va="center")
        for block in range(depth):
            heat = F.interpolate(gaze[block, i].reshape(1, 1, *grid_size), images.shape[2:], mode="nearest")[0, 0]
            panels[i, block + 1].imshow(images[i].mean(dim=0).numpy(), cmap="gray", vmin=0, vmax=1)
            panels[i, block + 1].imshow(heat.numpy(), cmap=scale.cmap, norm=scale.norm, alpha=0.65)
            if i == 0:
                panels[i, block + 1].set_title(f"block {block + 1}", fontsize=10)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    panels[0, 0].set_title("picture", fontsize=10)
    figure.colorbar(scale, ax=panels, label="attention on a patch / even attention on all patches", shrink=0.8)
    figure.suptitle("Attention of the class token, mean over heads, laid over the picture")
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


def _picture(axes: Axes, image: Float[Tensor, "c H W"]) -> None:
    if len(image) == 1:
        axes.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
