"""The same random numbers in every parameter of two models."""

import torch
from torch import nn

from vitscratch.parity.names import NameMapping, named_parameters, pair_parameters


@torch.no_grad()
def awaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter at random, biases and norms too, so that no mistake can hide behind a zero.

    At the usual initial values the head is 0 and every logit with it, norms do nothing, and "equal outputs"
    prove nothing. Here matrices and convolutions get N(0, 1 / fan_in), which keeps activations near 1;
    the weight of a norm U(0.5, 1.5); other vectors N(0, 0.3^2); tokens and positions N(0, 1).

    Args:
        model: changed in place; any `nn.Module`. Parameters are drawn in the order of `named_parameters`.
        seed: of a generator of its own; the global random state is not touched.

    Returns:
        The model.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.dim() <= 1 and name.endswith("weight"):  # a norm's: every other weight is a matrix
            draw = 0.5 + torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
        elif parameter.dim() <= 1:
            draw *= 0.3
        elif not (parameter.dim() == 3 and len(parameter) == 1):  # class token and positions are (1, n, d)
            draw *= parameter[0].numel() ** -0.5
        parameter.copy_(draw)
    return model


@torch.no_grad()
def copy_parameters(ours: nn.Module, theirs: nn.Module, mapping: NameMapping) -> None:
    """Write every parameter of ours into its counterpart in theirs.

    Raises:
        ValueError: a pair whose shapes differ, or that needs a conversion (a `Reference` with `to_ours`
            knows only the way from theirs to ours).
    """
    our_parameters, their_parameters = named_parameters(ours), named_parameters(theirs)
    for pair in pair_parameters(ours, theirs, mapping):
        source, target = our_parameters[pair.ours], their_parameters[pair.theirs[0]]
        if pair.converted or source.shape != target.shape:
            raise ValueError(
                f"{pair.ours} {tuple(source.shape)} cannot be copied into {', '.join(pair.theirs)} "
                f"{tuple(target.shape)}; expected one parameter of the same shape, and no conversion"
            )
        target.copy_(source)
