"""What the patch embedding compares a patch with."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, finfo, linalg

from vitscratch.vit import VisionTransformer


class PatchFilters(NamedTuple):
    """What `patch_filters` gives.

    Args:
        components: patterns of the size of a patch, of length 1, each at a right angle to the others; the most
            important first.
        shares: how much of the filters' variance lies along each, in [0, 1]; together 1 if all components are there.
    """

    components: Float[Tensor, "m c p q"]
    shares: Float[Tensor, " m"]


def patch_filters(model: VisionTransformer, count: int = 28) -> PatchFilters:
    """The principal components of the patch embedding's filters (the paper's Figure 7, left).

    Each of the D numbers of a token is the product of the patch with one filter. D filters are many; their components
    show which patterns they are mixed from. A pattern and its negative are the same component: its largest pixel is
    made positive.

    Args:
        model: its weights alone count; no picture is needed.
        count: how many, at most, from 1 on; there are no more than filters, or pixels times channels in a patch.

    Raises:
        ValueError: count is below 1.
    """
    if count < 1:
        raise ValueError(f"count {count}: expected at least 1 component")
    weight = model.patch_embed.proj.weight.detach().float()
    filters = weight.flatten(1)  # (d, c p q)
    _, lengths, components = linalg.svd(filters - filters.mean(dim=0), full_matrices=False)
    components = components[:count]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    shares = lengths.square() / lengths.square().sum().clamp_min(finfo(lengths.dtype).tiny)
    return PatchFilters((components * largest.sign()).unflatten(1, weight.shape[1:]), shares[:count])
