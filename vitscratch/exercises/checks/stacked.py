"""Blocks whose parameters a student keeps together: stacked along a first axis, or in an nn.ParameterList."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from torch import Tensor, nn

from vitscratch.exercises.checks.roles.registered import is_norm

# The name of a student's parameter, and the place in it.
Row = tuple[str, tuple[int, ...]]


class Slice(nn.Module):
    """The parameters of one block, as views of the student's: what is read and written here is theirs."""

    def __init__(self, model: nn.Module, places: Mapping[str, Row]) -> None:
        """Take what lies at these places, under these names."""
        super().__init__()
        self.places = dict(places)
        self._model = (model,)  # in a tuple, so that it is no part of this module

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """As any module's."""
        for path, (name, place) in self.places.items():
            yield prefix + path, nn.Parameter(self._model[0].get_parameter(name).detach()[place], requires_grad=False)

    def whole(self) -> set[str]:
        """The names of the student's parameters."""
        return {name for name, _ in self.places.values()}


def slices(model: nn.Module, depth: int) -> list[Slice]:
    """One for each block, of all parameters that are stacked or listed depth times; [] if there are none."""
    places: list[dict[str, Row]] = [{} for _ in range(depth)]
    for name, tensor in model.named_parameters():
        path, _, last = name.rpartition(".")
        owner = model.get_submodule(path)
        if isinstance(owner, nn.ParameterList):
            alike = (
                len({each.shape for each in owner.parameters()}) == 1
            )  # else a list of other things, by chance as long
            if last.isdigit() and alike and len(owner) == depth:
                own = "_".join(reversed(path.split(".")))  # its own name first, which says whether it is a norm's
                for more in _rows(tensor, own, tensor.shape):
                    places[int(last)][_key(own, more)] = name, more
        elif tensor.ndim > 1 and len(tensor) == depth:
            own = "_".join(reversed(name.split(".")))
            for (number, block), more in product(enumerate(places), _rows(tensor, own, tensor.shape[1:])):
                block[_key(own, more)] = name, (number, *more)
    return [Slice(model, block) for block in places] if all(places) else []


def _key(own: str, more: tuple[int, ...]) -> str:
    return own + "".join(map(str, more))


def _rows(tensor: Tensor, own: str, shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The two rows of what both norms of a block have in one tensor, else all of it."""
    both = len(shape) == 2 and shape[0] == 2 and (is_norm(own) or bool((tensor == 1).all()))
    return [(0,), (1,)] if both else [()]
