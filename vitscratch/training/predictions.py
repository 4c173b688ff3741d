"""What a model says of pictures, kept: from it every later number can be computed."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitscratch.training.inputs import Batch
from vitscratch.training.precision import autocast


@torch.no_grad()
def predictions(
    model: nn.Module, batches: Iterable[Batch], precision: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "n classes"], Int[Tensor, " n"]]:
    """Probabilities of the classes, by the model in eval mode, and the labels, for every picture in order, on the CPU.

    Args:
        model: returns logits (b, classes) for images (b, c, H, W); its mode is put back.
        batches: (images, labels) pairs; moved to the model's device.
        precision: of the matrix products; see `choose_precision`.

    Raises:
        ValueError: no batches.
    """
    device = next(model.parameters()).device
    probabilities, labels = [], []
    was_training = model.training
    model.eval()
    try:
        for images, given in batches:
            with autocast(device, precision):
                logits = model(images.to(device, non_blocking=True))
            probabilities.append(logits.float().softmax(dim=1).cpu())
            labels.append(given.cpu())
    finally:
        model.train(was_training)
    if not labels:
        raise ValueError("no pictures to predict the classes of")
    return torch.cat(probabilities), torch.cat(labels)
