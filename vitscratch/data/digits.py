"""scikit-learn's handwritten digits: 1,797 real scans of 8 x 8 pixels, in the package, no download."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pictures:
    """A labelled set in memory: images (n, c, H, W) in [0, 1], labels (n,), and the name of each class."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]


def digits() -> Pictures:
    """Digits 0 to 9, grey, 8 x 8 pixels: the test part of UCI's optical recognition set (Alpaydin and Kaynak, 1998)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16  # scans count 0 to 16 ink dots
    return Pictures(images, torch.tensor(bunch.target), tuple("0123456789"))
