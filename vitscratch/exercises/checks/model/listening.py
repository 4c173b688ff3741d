"""What goes into every block and what comes out, while the model runs."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vitscratch.exercises.checks.model.running import call
from vitscratch.exercises.checks.model.trial import Trial


@dataclass
class Heard:
    """One call of a block: its number, what went in, and what came out."""

    number: int
    x: Tensor
    out: Tensor
    alone: bool
    """Whether it is called as exercise 7 calls one: with the tokens of a batch, (b, n, d), and nothing else."""


def trace(trial: Trial, number: int) -> list[Heard]:
    """Listen to the blocks while the model sees pictures `number`; empty if they are not called as modules."""
    heard: list[Heard] = []
    batch = len(trial.images[number])

    def listen(place: int) -> Any:
        def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            x = next(thing for thing in (*args, *kwargs.values()) if isinstance(thing, Tensor))
            out = out[0] if isinstance(out, tuple) else out
            of_torch = isinstance(block, nn.TransformerEncoderLayer)  # is told, each time, that nothing is masked
            arguments = [
                thing for thing in (*args, *kwargs.values()) if not (thing is None or (of_torch and thing is False))
            ]
            alone = len(x) == batch and len(arguments) == 1
            came, left = (_batch_first(one, batch) for one in (given.pop(), out.detach().clone()))
            heard.append(Heard(place, came, left, alone))

        return hook

    def before(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.append(next(thing for thing in (*args, *kwargs.values()) if isinstance(thing, Tensor)).detach().clone())

    given: list[Tensor] = []  # as it was: a block may write into it
    hooks = [
        hook
        for place, block in enumerate(trial.anatomy.blocks)
        for hook in (
            block.register_forward_pre_hook(before, with_kwargs=True),
            block.register_forward_hook(listen(place), with_kwargs=True),
        )
    ]
    try:
        call(trial.model, trial.images[number], trial.sizes)
    finally:
        for hook in hooks:
            hook.remove()
    return heard


def _batch_first(x: Tensor, batch: int) -> Tensor:
    return x.transpose(0, 1) if x.ndim == 3 and x.shape[0] != batch and x.shape[1] == batch else x
