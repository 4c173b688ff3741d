"""Pictures and labels: sets, splits, augmentation and batches. Knows nothing of the model."""

from vitscratch.data.augment import Augmentation, Chain, Cutout, RandomAffine, RandomCropFlip
from vitscratch.data.batches import TensorBatches
from vitscratch.data.builtin import digits
from vitscratch.data.files import FileBatches
from vitscratch.data.pictures import PictureError, open_picture
from vitscratch.data.preprocessing import Preprocessing
from vitscratch.data.sets import PictureFiles, Pictures, Splits, Statistics
from vitscratch.data.splits import class_counts, stratified_split

__all__ = [
    "Augmentation",
    "Chain",
    "Cutout",
    "FileBatches",
    "PictureError",
    "PictureFiles",
    "Pictures",
    "Preprocessing",
    "RandomAffine",
    "RandomCropFlip",
    "Splits",
    "Statistics",
    "TensorBatches",
    "class_counts",
    "digits",
    "open_picture",
    "stratified_split",
]
