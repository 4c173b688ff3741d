"""Figures are looked at by people; here: that they hold what they were given, and can be saved."""

import io

import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from vitscratch import plots
from vitscratch.training import EpochRecord


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def history(validation: float) -> list[EpochRecord]:
    return [EpochRecord(i, 1e-3 / i, 1 / i, 1 - 0.5 / i, validation / i, validation, 0.1, 99.0, 0.0) for i in (1, 2, 3)]


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


@pytest.mark.parametrize("channels", [1, 3])
def test_predictions_mark_the_mistakes(channels: int) -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    figure = plots.predictions(
        torch.rand(3, channels, 4, 4), torch.tensor([0, 0, 0]), probabilities, ("cat", "dog"), columns=2
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["cat  90%", "dog  80%\nis cat", "cat  70%", ""]
    assert [axes.title.get_color() for axes in figure.axes][1] == plots.MISTAKE
    assert figure.get_suptitle() == "Prediction and confidence for 3 held-out pictures: 1 mistakes, framed red"
    assert png(figure).startswith(b"\x89PNG")


def test_class_token_attention_has_a_row_for_each_picture_and_a_column_for_each_block() -> None:
    maps = torch.rand(3, 2, 4, 7, 7).softmax(dim=-1)
    figure = plots.class_token_attention(torch.rand(2, 1, 4, 6), maps, (2, 3), ("a", "b"))
    assert len(figure.axes) == 2 * (1 + 3) + 1  # and the colour bar
    gaze = maps[1, 0, :, 0, 1:].mean(dim=0)
    shown = torch.as_tensor(figure.axes[2].images[1].get_array())[::2, ::2]
    torch.testing.assert_close(shown.flatten(), gaze / gaze.mean())
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
