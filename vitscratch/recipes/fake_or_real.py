"""Real or generated: a competition's set, in two folders and undivided.

Command: `vitscratch compare fake-or-real --data FOLDER`, where FOLDER has fake_images and real_images. A fifth is held
out to choose by and a fifth for the end, stratified, by `--split-seed`; copies of a picture stay in one part.

What is compared: as in `vitscratch compare cifake`, at `--image-size` pixels (64, because photographs hold more than
32 show).

Device, time and result: not measured.
"""

from dataclasses import dataclass

from vitscratch.recipes.comparison import PictureComparison


@dataclass(frozen=True, kw_only=True)
class FakeOrReal(PictureComparison):
    """Real pictures against generated ones, in two folders (fake_images, real_images) that nobody has divided."""

    image_size: int = 64
