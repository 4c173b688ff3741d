"""Figures are looked at by people; here: that they hold what they were given, and can be saved."""

import io
from dataclasses import replace

import pytest
import torch
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from vitscratch import plots
from vitscratch.training import EpochRecord, calibration, wilson_interval


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def history(validation: float, epochs: int = 3) -> list[EpochRecord]:
    return [
        EpochRecord(i, 1e-3 / i, 1 / i, 1 - 0.5 / i, validation / i, validation, 0.1, 99.0, 0.0)
        for i in range(1, epochs + 1)
    ]


def drawn(figure: Figure) -> RendererBase:
    """The figure laid out, and what can measure texts in it."""
    figure.draw_without_rendering()
    return figure._get_renderer()


@pytest.mark.parametrize(("validation", "lines"), [(float("nan"), 1), (0.8, 2)])
def test_curves_draw_validation_where_it_was_measured(validation: float, lines: int) -> None:
    figure = plots.curves(history(validation))
    loss, accuracy, rate = figure.axes
    assert [len(axes.lines) for axes in (loss, accuracy, rate)] == [lines, lines, 1]
    assert list(loss.lines[0].get_ydata()) == [1, 1 / 2, 1 / 3]
    assert list(accuracy.lines[0].get_ydata()) == [50, 75, pytest.approx(100 * (1 - 0.5 / 3))]
    assert png(figure).startswith(b"\x89PNG")


def test_curves_show_the_test_accuracy_once() -> None:
    accuracy = plots.curves(history(float("nan")), test_accuracy=0.9917).axes[1]
    assert list(accuracy.lines[-1].get_ydata()) == [pytest.approx(99.17)] and len(accuracy.lines[-1].get_xdata()) == 1
    assert "99.17%" in accuracy.lines[-1].get_label()


@pytest.mark.parametrize("epochs", [1, 2, 7, 20, 60])
def test_curves_of_a_few_epochs_have_dots_and_whole_epochs_below(epochs: int) -> None:
    figure = plots.curves(history(0.8, epochs))
    drawn(figure)
    for axes in figure.axes:
        assert all((line.get_marker() == "o") == (epochs <= 20) for line in axes.lines)
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == round(tick) for tick in ticks)
        shown = [label.get_text() for label in axes.get_xticklabels()]
        assert not any("." in text for text in shown)


def test_curves_show_where_another_part_begins() -> None:
    parts = [replace(one, part="head" if one.epoch <= 2 else "all") for one in history(0.8, 5)]
    figure = plots.curves(parts, test_accuracy=0.9)
    plain = plots.curves(history(0.8, 5), test_accuracy=0.9)
    for axes, without in zip(figure.axes, plain.axes, strict=True):
        assert [list(line.get_xdata()) for line in axes.lines[len(without.lines) :]] == [[2.5, 2.5]]
        assert [text.get_text() for text in axes.texts] == ["head", "all"] and not without.texts
        assert axes.get_xlim() == without.get_xlim() and axes.get_ylim() == without.get_ylim()
    assert len(figure.legends[0].get_texts()) == 3


def test_regularisation_draws_what_was_tried_and_what_was_chosen() -> None:
    (axes,) = plots.regularisation([(1e-3, 0.5), (1.0, 0.75), (10.0, 0.625)], 1.0, test_accuracy=0.7).axes
    tried, chosen, test = axes.lines
    assert list(tried.get_xdata()) == [1e-3, 1, 10] and list(tried.get_ydata()) == [50, 75, 62.5]
    assert list(chosen.get_xdata()) == [1, 1] and axes.get_xscale() == "log"
    assert (list(test.get_xdata()), list(test.get_ydata())) == ([1], [pytest.approx(70)])
    assert png(plots.regularisation([(1.0, 0.5)], 1.0)).startswith(b"\x89PNG")


def test_curves_leave_room_for_every_line_and_keep_the_legend_off_them() -> None:
    figure = plots.curves(history(0.99, 5), test_accuracy=1.0)
    renderer = drawn(figure)
    loss, accuracy, rate = figure.axes
    assert loss.get_ylim() == (0, pytest.approx(1.05)) and rate.get_ylim() == (0, pytest.approx(1.05e-3))
    assert accuracy.get_ylim() == (pytest.approx(50 - 2.5), pytest.approx(100 + 2.5))
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3 and all(axes.get_legend() is None for axes in figure.axes)
    assert not any(legend.get_window_extent(renderer).overlaps(axes.get_window_extent()) for axes in figure.axes)
    heights = {round(axes.title.get_window_extent(renderer).y0) for axes in figure.axes}
    assert len(heights) == 1 and rate.yaxis.get_offset_text().get_text() == ""


@pytest.mark.parametrize("channels", [1, 3])
def test_predictions_mark_the_mistakes(channels: int) -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    figure = plots.predictions(
        torch.rand(3, channels, 4, 4), torch.tensor([0, 0, 0]), probabilities, ("cat", "dog"), columns=2
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["cat  90%", "dog  80%\nis cat", "cat  70%", ""]
    assert [axes.title.get_color() for axes in figure.axes][1] == plots.MISTAKE
    title = " ".join(figure.get_suptitle().split())
    assert title == "Prediction and confidence for 3 held-out pictures: 1 mistake, framed red"
    assert png(figure).startswith(b"\x89PNG")


NAMES = ("cat", "a $ golden_retriever of $ a very long name", "n02123045_tabby_tiger_cat_of_a_longer_name")


@pytest.mark.parametrize(("count", "labelled"), [(1, False), (1, True), (2, True), (11, False), (11, True)])
def test_predictions_of_any_number_and_with_long_names_show_every_text_whole_and_apart(
    count: int, labelled: bool
) -> None:
    probabilities = torch.eye(3)[torch.arange(count) % 2 + 1]
    labels = torch.arange(count) % 3 if labelled else None
    files = [f"IMG_202401{i:02}_of_a_walk.jpg" for i in range(count)]
    figure = plots.predictions(
        torch.rand(count, 3, 5, 7), labels, probabilities, NAMES, columns=min(7, count), titles=files
    )
    renderer = drawn(figure)
    texts = [figure._suptitle, *(axes.title for axes in figure.axes), *(axes.xaxis.label for axes in figure.axes)]
    boxes = [text.get_window_extent(renderer) for text in texts if text is not None and text.get_text()]
    assert len(boxes) == 1 + 2 * count
    whole = figure.bbox
    slack = 3  # pixels, of 115 for a picture
    for i, box in enumerate(boxes):
        assert whole.x0 - slack <= box.x0 and box.x1 <= whole.x1 + slack, texts[i]
        assert whole.y0 <= box.y0 and box.y1 <= whole.y1, texts[i]
        for other in boxes[i + 1 :]:
            apart = box.x1 <= other.x0 + slack or other.x1 <= box.x0 + slack or box.y1 <= other.y0 or other.y1 <= box.y0
            assert apart, (box, other)
    assert figure.axes[0].get_xlabel() == "IMG_20240100_of…"


def test_class_token_attention_has_a_row_for_each_picture_and_a_column_for_each_block() -> None:
    maps = torch.rand(3, 2, 4, 7, 7).softmax(dim=-1)
    figure = plots.class_token_attention(torch.rand(2, 1, 4, 6), maps, (2, 3), ("a", "b"))
    assert len(figure.axes) == 2 * (1 + 3) + 1  # and the colour bar
    gaze = maps[1, 0, :, 0, 1:].mean(dim=0)
    shown = torch.as_tensor(figure.axes[2].images[1].get_array())[::2, ::2]
    torch.testing.assert_close(shown.flatten(), gaze / gaze.mean())
    assert [axes.get_title() for axes in figure.axes[:4]] == ["picture", "block 1", "block 2", "block 3"]
    assert figure.get_suptitle().startswith("Attention of the class token")
    assert png(figure).startswith(b"\x89PNG")


def test_gaze_lays_each_map_over_its_own_picture() -> None:
    seen = torch.rand(2, 3, 6)
    titles = (r"a $\no$ b", "c")  # no formula
    figure = plots.gaze(torch.rand(2, 3, 4, 9), seen, (2, 3), titles, ("x", "y", "z"), "A heading " * 9)
    panels = figure.axes[:-1]
    assert [axes.get_title() for axes in panels[:4]] == ["picture", "x", "y", "z"]
    assert [panels[i].get_ylabel() for i in (0, 4)] == list(titles)
    assert figure.get_suptitle().split() == 9 * ["A", "heading"]
    assert "on a patch / even on all patches" in " ".join(figure.axes[-1].get_ylabel().split())
    for i in range(2):
        for j in range(3):
            shown = torch.as_tensor(panels[4 * i + j + 1].images[1].get_array())
            torch.testing.assert_close(shown[::2, ::3].flatten(), seen[i, j])
    assert {axes.images[1].norm.vmax for axes in (panels[1], panels[7])} == {1.0}  # an even gaze is never the brightest
    assert png(figure).startswith(b"\x89PNG")


def test_gaze_beside_a_very_bright_patch_shows_the_others() -> None:
    for most, shade in ((7.9, 1 / 7.9), (32.0, (1 / 32) ** 0.5)):
        seen = torch.tensor([[[1.0, most, 0.0]]])
        figure = plots.gaze(torch.rand(1, 1, 2, 6), seen, (1, 3), ("a",), ("x",), "A heading")
        assert float(figure.axes[1].images[1].norm(1.0)) == pytest.approx(shade)


@pytest.mark.parametrize(("channels", "colours"), [(1, 1), (3, 3), (5, 1)])
def test_patch_filters_has_a_picture_for_each_component(channels: int, colours: int) -> None:
    components = torch.randn(9, channels, 2, 3)
    figure = plots.patch_filters(components, torch.linspace(0.3, 0.01, 9))
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 9 and shown[0].get_title() == "30.0%"
    expected = 0.5 + 0.5 * components[8] / components[8].abs().max()
    drawn = torch.as_tensor(shown[8].images[0].get_array())
    torch.testing.assert_close(drawn, expected.permute(1, 2, 0) if colours == 3 else expected.mean(dim=0))
    assert png(figure).startswith(b"\x89PNG")


def test_token_trajectories_has_a_line_for_each_token() -> None:
    norms, kept, to_answer = torch.rand(3, 4, 7)
    figure = plots.token_trajectories(norms, kept, to_answer, r"a $\no$ b")
    for axes, values in zip(figure.axes, (norms, kept, to_answer), strict=True):
        drawn = [torch.as_tensor(line.get_ydata()) for line in axes.lines]
        assert len(drawn) == 6 + 2
        torch.testing.assert_close(torch.stack(drawn[:6]), values[:, 1:].T)
        torch.testing.assert_close(drawn[6], values[:, 1:].mean(dim=1))
        torch.testing.assert_close(drawn[7], values[:, 0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mean of the patches", "class token"]
    assert figure.axes[0].get_ylim()[0] == 0  # lengths can be compared by eye
    assert png(figure).startswith(b"\x89PNG")


def test_position_similarity_has_a_map_for_each_position() -> None:
    similarity = torch.rand(2, 3, 2, 3)
    figure = plots.position_similarity(similarity)
    assert len(figure.axes) == 2 * 3 + 1
    torch.testing.assert_close(torch.as_tensor(figure.axes[4].images[0].get_array()), similarity[1, 1])
    assert png(figure).startswith(b"\x89PNG")


def test_augmented_has_an_original_and_views_for_each_picture() -> None:
    originals = [torch.rand(3, 5 + i, 7) for i in range(3)]
    seen = torch.rand(3, 2, 3, 4, 6)
    figure = plots.augmented(originals, seen, torch.tensor([1, 0, 1]), ("cat", "a $ dog"))
    assert len(figure.axes) == 3 * (1 + 2)
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["a $ dog", "cat", "a $ dog"]
    for i, axes in enumerate(figure.axes):
        expected = originals[i // 3] if i % 3 == 0 else seen[i // 3, i % 3 - 1]
        torch.testing.assert_close(torch.as_tensor(axes.images[0].get_array()), expected.permute(1, 2, 0))
    assert png(figure).startswith(b"\x89PNG")


def test_grey_pictures_are_drawn_as_they_are() -> None:
    figure = plots.augmented([torch.zeros(1, 2, 3)], torch.ones(1, 1, 1, 2, 3), torch.tensor([0]), ("cat",))
    colours = [axes.images[0].to_rgba(axes.images[0].get_array())[0, 0] for axes in figure.axes]
    assert [to_hex(colour) for colour in colours] == ["#000000", "#ffffff"]


def test_speed_ratios_has_a_bar_for_each_and_marks_who_is_faster_than_ours() -> None:
    figure = plots.speed_ratios(["a, eager", "b, eager"], [(1.1, 1.2, 1.5), (0.7, 0.9, 0.95)], "made up")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [1.2, 0.9]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a, eager", "b, eager"]
    first, second = (bar.get_facecolor() for bar in axes.patches)
    assert to_hex(first) == plots.TRAIN and to_hex(second) == plots.MISTAKE
    (whiskers,) = axes.collections
    ends = [segment[:, 0].tolist() for segment in whiskers.get_segments()]
    assert ends == [pytest.approx([1.1, 1.5]), pytest.approx([0.7, 0.95])]
    assert png(figure).startswith(b"\x89PNG")


MODELS = {
    "PCA + logistic regression": 0.66,
    "a $ ResNet-18, $": 0.979,
    "ResNet-34": 0.982,
    "ViT-B/16": 0.99,
    "e": 0.985,
}


def whole_and_apart(figure: Figure) -> dict[str, Bbox]:
    """Every text that is shown lies inside the figure, and on no other; returns where."""
    renderer = drawn(figure)
    outside = set()  # labels of ticks beyond the ends of an axis exist but are not drawn
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = axis.get_major_ticks() + axis.get_minor_ticks()
        outside |= {tick.label1 for tick in ticks if not axis.axes.axison or not low <= tick.get_loc() <= high}
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    shown = [text for text in shown if text not in outside]
    boxes = {}
    for text in shown:
        box = Text.get_window_extent(text, renderer)  # of an annotation without its line
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, text
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, text
        for other, there in boxes.items():
            apart = box.x1 <= there.x0 + 1 or there.x1 <= box.x0 + 1 or box.y1 <= there.y0 + 1 or there.y1 <= box.y0 + 1
            assert apart, (text, other)
        boxes[text] = box
    return {text.get_text(): box for text, box in boxes.items()}


def interval(accuracy: float) -> tuple[float, float, float]:
    low, high = wilson_interval(round(accuracy * 1000), 1000)
    return low, accuracy, high


def test_two_texts_on_one_place_are_noticed() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.5, "other")
    with pytest.raises(AssertionError, match="other"):
        whole_and_apart(figure)
    figure = Figure()
    figure.text(0.99, 0.5, "cut off")
    with pytest.raises(AssertionError, match="cut off"):
        whole_and_apart(figure)


def test_validation_curves_share_axes_and_ring_the_epoch_kept() -> None:
    histories = {"a $ b $": history(0.9, 3), "c": history(0.7, 7), "unvalidated": history(float("nan"), 2)}
    figure = plots.validation_curves(histories, {"a $ b $": 2, "c": 7, "unvalidated": 1})
    loss, accuracy = figure.axes
    assert [list(line.get_ydata()) for line in loss.lines] == [
        [0.9, 0.9 / 2, 0.9 / 3], [0.9 / 2], [pytest.approx(0.7 / i) for i in range(1, 8)], [pytest.approx(0.1)]
    ]  # fmt: skip
    assert [list(line.get_xdata()) for line in accuracy.lines] == [[1, 2, 3], [2], [1, 2, 3, 4, 5, 6, 7], [7]]
    assert list(accuracy.lines[2].get_ydata()) == [pytest.approx(70)] * 7
    colours = [line.get_color() for line in accuracy.lines[::2]]
    assert len(set(colours)) == 2
    assert [line.get_markeredgecolor() for line in accuracy.lines[1::2]] == colours
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a $ b $", "c"]
    whole_and_apart(figure)


@pytest.mark.parametrize("epochs", [1, 60])
def test_validation_curves_of_one_epoch_and_of_many(epochs: int) -> None:
    figure = plots.validation_curves(dict.fromkeys(MODELS, history(0.8, epochs)), {})
    whole_and_apart(figure)
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())
    assert figure.axes[0].get_xlabel() == "epoch"


@pytest.mark.parametrize("histories", [{}, {"unvalidated": history(float("nan"), 2)}, {"not begun": []}])
def test_validation_curves_of_nothing_are_empty_axes(histories: dict[str, list[EpochRecord]]) -> None:
    figure = plots.validation_curves(histories, dict.fromkeys(histories, 1))
    assert [len(axes.lines) for axes in figure.axes] == [0, 0]
    whole_and_apart(figure)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    "names", [("REAL", "FAKE"), ("a $ fake_images $ of things", "real_images"), tuple(f"class {i}" for i in range(11))]
)
def test_confusion_matrices_stand_side_by_side_with_every_text_whole(count: int, names: tuple[str, ...]) -> None:
    classes = len(names)
    matrices = {name: torch.randint(1_000, (classes, classes)) for name in list(MODELS)[:count]}
    figure = plots.confusion_matrices(matrices, names)
    boxes = whole_and_apart(figure)
    for axes, matrix in zip(figure.axes, matrices.values(), strict=False):
        shares = torch.as_tensor(axes.images[0].get_array())
        torch.testing.assert_close(shares, matrix / matrix.sum(dim=1, keepdim=True))
        written = [int(text.get_text().split("\n")[0].replace(",", "")) for text in axes.texts]
        assert written == matrix.flatten().tolist()  # rows downwards: true classes
        assert [text.get_position() for text in axes.texts] == [(j, i) for i in range(classes) for j in range(classes)]
    assert {"true class", "predicted class"} <= set(boxes)


def test_confusion_matrices_count_what_is_right_and_bear_a_class_without_pictures() -> None:
    figure = plots.confusion_matrices({"ViT": torch.tensor([[3, 1], [0, 0]])}, ("REAL", "FAKE"))
    axes = figure.axes[0]
    assert axes.get_title() == "ViT\n75.00% correct"
    assert [text.get_text() for text in axes.texts] == ["3\n75.0%", "1\n25.0%", "0\n0.0%", "0\n0.0%"]


def test_confusion_matrices_of_many_classes_have_no_texts_that_nobody_could_read() -> None:
    figure = plots.confusion_matrices({"ViT": torch.eye(37, dtype=torch.long)}, [f"class {i}" for i in range(37)])
    assert not figure.axes[0].texts
    whole_and_apart(figure)


@pytest.mark.parametrize("count", [1, 5])
def test_reliability_has_a_point_and_an_interval_for_each_bin(count: int) -> None:
    results = {}
    for name in list(MODELS)[:count]:
        probabilities = torch.randn(211, 3).mul(2).softmax(dim=1)
        results[name] = calibration(probabilities, torch.randint(3, (211,)))
    figure = plots.reliability(results)
    for axes, result in zip(figure.axes, results.values(), strict=False):
        points = [[round(value, 6) for value in points.get_offsets()[0].tolist()] for points in axes.collections]
        assert points == [[round(100 * p.confidence, 6), round(100 * p.accuracy, 6)] for p in result.bins]
        whiskers = [[value / 100 for value in line.get_ydata()] for line in axes.lines[1:]]
        expected = [[*wilson_interval(part.correct, part.total)] for part in result.bins]
        torch.testing.assert_close(torch.tensor(whiskers).float(), torch.tensor(expected))
    whole_and_apart(figure)


@pytest.mark.parametrize("names", [("REAL", "FAKE"), ("a $ fake_images $ of things", "real_images")])
@pytest.mark.parametrize("channels", [1, 3])
def test_surest_mistakes_have_a_row_for_each_model_and_say_what_they_are(names: tuple[str, ...], channels: int) -> None:
    images = torch.rand(5, channels, 6, 10)
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6], [0.4, 0.6]])
    labels = 1 - probabilities.argmax(dim=1)
    mistakes = {
        "a $ ResNet-18, pretrained $": (images, labels, probabilities),
        "ViT": (images[:2], labels[:2], probabilities[:2]),
        "knows all": (images[:0], labels[:0], probabilities[:0]),
    }
    figure = plots.surest_mistakes(mistakes, names)
    rows = [figure.axes[:5], figure.axes[5:10], figure.axes[10:]]
    assert [sum(len(axes.images) for axes in row) for row in rows] == [5, 2, 0]
    if names[0] == "REAL":
        assert [axes.get_title() for axes in rows[0][:2]] == ["REAL  90%\nis FAKE", "FAKE  80%\nis REAL"]
    assert [text.get_text() for text in rows[2][0].texts] == ["no mistakes"]
    assert rows[1][0].get_ylabel() == "ViT"
    shown = torch.as_tensor(rows[1][1].images[0].get_array())
    torch.testing.assert_close(shown, images[1, 0] if channels == 1 else images[1].permute(1, 2, 0))
    whole_and_apart(figure)


def test_accuracy_per_minute_has_points_with_intervals_and_names_that_lie_apart() -> None:
    minutes = dict(zip(MODELS, (0.05, 4.0, 4.1, 61.0, 3.9), strict=True))
    accuracies = {name: interval(accuracy) for name, accuracy in MODELS.items()}
    figure = plots.accuracy_per_minute(minutes, accuracies, "A $ title that is so long that it needs two lines " * 2)
    (axes,) = figure.axes
    points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() in "osD^vPX"}
    assert points == {(minutes[name], 100 * accuracy) for name, accuracy in MODELS.items()}
    low, _, high = accuracies["ViT-B/16"]
    ends = [segment[:, 1].tolist() for whisker in axes.collections for segment in whisker.get_segments()]
    assert [pytest.approx(100 * low), pytest.approx(100 * high)] in ends
    boxes = whole_and_apart(figure)
    names = [text for text in boxes if text.endswith("%")]
    assert sorted(names, key=lambda text: boxes[text].y0) == sorted(names, key=lambda text: float(text[-6:-1]))
    assert len(names) == 5 and axes.get_xscale() == "log"


@pytest.mark.parametrize("accuracies", [[0.5], [0.5] * 9, [1.0] * 9, [0.0, 1.0], [0.9, 0.9001]])
def test_accuracy_per_minute_of_one_and_of_equal_models(accuracies: list[float]) -> None:
    cells = {f"model {i}": interval(accuracy) for i, accuracy in enumerate(accuracies)}
    figure = plots.accuracy_per_minute(dict.fromkeys(cells, 3.0), cells, "made up")
    whole_and_apart(figure)


@pytest.mark.parametrize(
    ("heights", "gap", "expected"),
    [
        ([0.1, 0.5, 0.9], 0.2, [0.1, 0.5, 0.9]),
        ([0.1, 0.15, 0.9], 0.2, [0.1, 0.3, 0.9]),
        ([0.9, 0.95, 1.0], 0.2, [0.6, 0.8, 1.0]),
        ([], 0.2, []),
    ],
)
def test_spread(heights: list[float], gap: float, expected: list[float]) -> None:
    assert plots._spread(heights, gap) == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 5])
def test_robustness_has_a_point_for_each_model_and_kind_of_picture(count: int) -> None:
    kinds = ("as they are", "JPEG 95", "a $ long name of a damage $")
    accuracies = {
        name: {kind: interval(round(MODELS[name] - 0.1 * i, 3)) for i, kind in enumerate(kinds)}
        for name in list(MODELS)[:count]
    }
    figure = plots.robustness(accuracies, 0.5)
    (axes,) = figure.axes
    points = [line for line in axes.lines if line.get_marker() in tuple("osD^vPX")]
    assert [line.get_ydata()[0] for line in points] == [
        100 * c[1] for cells in accuracies.values() for c in cells.values()
    ]
    assert [round(line.get_xdata()[0]) for line in points] == [0, 1, 2] * count
    assert len({line.get_xdata()[0] for line in points}) == 3 * count  # none hides another
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [*accuracies, "chance: 50.0%"]
    whole_and_apart(figure)
