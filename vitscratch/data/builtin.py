"""Sets by name: what they are, where they come from, how they are read. Nothing is unpickled."""

import torch

from vitscratch.data.sets import Pictures


def digits() -> Pictures:
    """Digits 0 to 9, grey, 8 x 8 pixels: the test part of UCI's optical recognition set (Alpaydin and Kaynak, 1998)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16  # scans count 0 to 16 ink dots
    return Pictures(images, torch.tensor(bunch.target), tuple("0123456789"))
