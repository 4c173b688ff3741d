"""Ctrl-C and SIGTERM as a wish that a run fulfils between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """A signal ended the run after a step, and the run was saved. `signal_number` says which."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


class StopRequest:
    """What has been asked for so far: `signal_number`, or None."""

    signal_number: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note the first SIGINT or SIGTERM instead of stopping at once; the second one acts as it always does."""
    request = StopRequest()
    before: dict[int, object] = {}

    def note(signal_number: int, frame: FrameType | None) -> None:
        request.signal_number = signal_number
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
