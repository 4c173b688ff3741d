"""Exercise 9: positions for larger pictures.

Write resize_position_embedding(pos_embed, old_grid, new_grid). A model that was trained on pictures of one size has a
position for each of their patches. For pictures of another size, the positions of the patches are interpolated on
their grid, bicubic (section 3.2 of the paper). The class token has no place in the grid: its row stays as it is.

torch.nn.functional.interpolate does the arithmetic; align_corners=True (as torchvision), antialias=True (as timm)
or neither: all three are right here. Grids need not be square, the result must have the right size for every grid, and
a grid of 5 x 3 is another one than a grid of 3 x 5, though it has as many patches.

Shapes: pos_embed (1, 1 + rows * columns, d), class token first, then row by row
        -> (1, 1 + new_rows * new_columns, d). old_grid and new_grid are (rows, columns).

Minutes:     20
Difficulty:  2 of 3
Tutorial:    tutorials/08_transfer.ipynb
Check:       vitscratch check 09_position_interpolation.py
"""

from torch import Tensor


def resize_position_embedding(pos_embed: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """(1, 1 + rows * columns, d) -> (1, 1 + new_rows * new_columns, d)."""
    raise NotImplementedError("write resize_position_embedding: set the class token's row aside first")
