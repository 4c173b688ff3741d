"""Exercise 1: cut pictures into patches.

Write patchify(images, patch_size). It cuts every picture into squares of patch_size x patch_size pixels, row by row
like text, and flattens each square as (channel, row, column): first all of channel 0, row by row, then channel 1, ...

    Eq. 1 of the paper (arXiv 2010.11929) calls the result x_p, of N = H W / P^2 patches.

Shapes: images (b, c, H, W) -> patches (b, n, c * p * p), with p = patch_size and n = (H / p) * (W / p).
H and W are multiples of p; they may differ. Any p, not only 16. No parameters, no loops needed.

Minutes:     15
Difficulty:  1 of 3
Tutorial:    tutorials/01_patches.ipynb
Check:       vitscratch check 01_patchify.py
"""

from torch import Tensor


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(b, c, H, W) -> (b, n, c * p * p)."""
    raise NotImplementedError("write patchify: split height and width into (rows, p) and (columns, p)")
