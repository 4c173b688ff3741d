"""Real or generated: a competition's set, in two folders and undivided.

Command: `vitscratch compare fake-or-real --data FOLDER`, where FOLDER has fake_images and real_images. A fifth is held
out to choose by and a fifth for the end, stratified, by `--split-seed`; copies of a picture stay in one part.

What is compared: as in `vitscratch compare cifake`, at `--image-size` pixels (64, because photographs hold more than
32 show).

Device, time and result: not measured on the competition's set, nor at 64 pixels. On 1,734 pictures of 32 pixels in
such folders (those of `cifake`'s docstring, parts mixed), with `--image-size 32 --models pca svm vit --epochs 10
--threads 1`, on one CPU core (AMD EPYC, torch 2.15, bf16), seed 0, 347 test pictures: svm 72.91 % (68.00 to 77.32) in
12 s, vit 65.13 % (59.97 to 69.95) in 54 s, pca 51.30 % (46.05 to 56.51) in half a second.
"""

from dataclasses import dataclass

from vitscratch.recipes.comparison import PictureComparison


@dataclass(frozen=True, kw_only=True)
class FakeOrReal(PictureComparison):
    """Real pictures against generated ones, in two folders (fake_images, real_images) that nobody has divided."""

    image_size: int = 64
