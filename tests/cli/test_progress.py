"""What a run prints of its epochs."""

from types import SimpleNamespace
from typing import Any

import pytest

from vitscratch.cli.progress import Progress
from vitscratch.training import EpochRecord


@pytest.mark.parametrize(("every", "told"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7])])
def test_a_line_for_every_so_many_epochs_and_for_the_last(
    every: int, told: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(epochs=7, batches=2, every=every)
    for epoch in range(1, 8):
        record = EpochRecord(epoch, 1e-3, 0.5, 0.25, float("nan"), float("nan"), 2.0, 300.0, 0.0)
        run: Any = SimpleNamespace(epoch=epoch, history=[record])
        progress.after_step(run)  # no terminal: nothing
        progress.after_epoch(run)
    printed = capsys.readouterr()
    assert printed.err == ""
    line = "epoch {}/7: training loss 0.500, accuracy 25.0% | 2.0 s, 300 images/s"
    assert printed.out.splitlines() == [line.format(epoch) for epoch in told]
