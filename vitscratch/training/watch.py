"""Stop at the step whose loss or gradient is not finite, without making a GPU wait for the answer."""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor


class NonFiniteLoss(FloatingPointError):
    """The loss of a step, or its gradient, is nan or infinite. `images` and `labels` are what went into the step;
    `steps_ago` is how many steps have been taken, and were void, from that one on."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        steps_ago: int = 0,
        message: str = "the loss or its gradient is nan or infinite",
    ) -> None:
        super().__init__(message)
        self.images, self.labels, self.steps_ago = images, labels, steps_ago


class Watch:
    """Called before each step with a number that is finite if all is well; raises before the weights are touched.

    On a CPU the number is simply read. Reading it on a GPU would make the program wait for all work queued there. So
    the verdict is copied in the background and looked at when it has arrived, some steps later; until then the
    optimizer leaves the weights alone, for `found_inf` is how torch's GradScaler tells fused optimizers that a step is
    void. With an optimizer that is not fused, or on another device, the number is read, and the device waits.

    Args:
        optimizer: whose steps are watched.
        background: None for what is said above; True and False force the one or the other way.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, background: bool | None = None) -> None:
        self.optimizer, self.background = optimizer, background
        self.can_void = getattr(optimizer, "_step_supports_amp_scaling", False)  # set by torch for fused ones
        self.bad: Tensor | None = None  # in the background way: 1 from the first bad step on
        self.on_the_way: deque[tuple[_Verdict, Sequence[Sequence[Tensor]]]] = deque()

    def __call__(self, number: Tensor, batches: Sequence[Sequence[Tensor]]) -> None:
        """Look at the number, a scalar, of a step made of these batches.

        Raises:
            NonFiniteLoss: it is not finite, or in the background way one of the last few was not.
        """
        number = number.detach()
        if number.is_meta:
            return
        in_background = number.is_cuda and self.can_void if self.background is None else self.background
        if not in_background:
            if not bool(number.isfinite()):
                raise _failure(batches, 0)
            return
        bad = 1 - number.isfinite().float()
        self.bad = bad if self.bad is None else torch.maximum(self.bad, bad)
        self.optimizer.found_inf = self.bad  # type: ignore[attr-defined]
        self.on_the_way.append((_Verdict(self.bad), batches))
        while self.on_the_way and self.on_the_way[0][0].has_arrived():
            self._look_at_the_first(over=0)

    def finish(self) -> None:
        """Wait for the verdicts that are still on the way: before a run is saved or validated."""
        while self.on_the_way:
            self._look_at_the_first(over=1)
        vars(self.optimizer).pop("found_inf", None)

    def _look_at_the_first(self, over: int) -> None:
        """Read a verdict; `over`: 1 if the newest step is over, 0 if it is the one that is about to be taken."""
        verdict, batches = self.on_the_way.popleft()
        if verdict.is_bad():
            steps_ago = len(self.on_the_way) + over
            self.on_the_way.clear()
            raise _failure(batches, steps_ago)


class _Verdict:
    """A flag on its way from a GPU."""

    def __init__(self, flag: Tensor) -> None:
        self.copy = torch.empty((), pin_memory=True).copy_(flag, non_blocking=True)
        self.event = torch.cuda.Event()
        self.event.record()

    def has_arrived(self) -> bool:
        """Whether it can be read without waiting."""
        return self.event.query()

    def is_bad(self) -> bool:
        """Read it; wait for it if need be."""
        self.event.synchronize()
        return bool(self.copy)


def _failure(batches: Sequence[Sequence[Tensor]], steps_ago: int) -> NonFiniteLoss:
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return NonFiniteLoss(images, labels, steps_ago)
