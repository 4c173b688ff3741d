"""Pictures and labels: sets, splits, augmentation and batches. Knows nothing of the model."""

from vitscratch.data.augment import Augmentation, Chain, Cutout, RandomAffine, RandomCropFlip
from vitscratch.data.batches import EpochBatches, TensorBatches
from vitscratch.data.builtin import BUILT_IN, digits
from vitscratch.data.check import Report, check_set
from vitscratch.data.contents import content_digest
from vitscratch.data.corrupt import CORRUPTIONS, Corruption
from vitscratch.data.files import FileBatches, make_batches
from vitscratch.data.findings import Finding
from vitscratch.data.folders import list_folder
from vitscratch.data.load import load_splits
from vitscratch.data.npz import list_npz
from vitscratch.data.pictures import PictureError, open_picture
from vitscratch.data.preprocessing import Preprocessing
from vitscratch.data.sets import PictureFiles, Pictures, Splits, Statistics
from vitscratch.data.shortcuts import Shortcut
from vitscratch.data.show import Examples, augmented_views, choose_examples
from vitscratch.data.splits import class_counts, stratified_split

__all__ = [
    "BUILT_IN",
    "CORRUPTIONS",
    "Augmentation",
    "Chain",
    "Corruption",
    "Cutout",
    "EpochBatches",
    "Examples",
    "FileBatches",
    "Finding",
    "PictureError",
    "PictureFiles",
    "Pictures",
    "Preprocessing",
    "RandomAffine",
    "RandomCropFlip",
    "Report",
    "Shortcut",
    "Splits",
    "Statistics",
    "TensorBatches",
    "augmented_views",
    "check_set",
    "choose_examples",
    "class_counts",
    "content_digest",
    "digits",
    "list_folder",
    "list_npz",
    "load_splits",
    "make_batches",
    "open_picture",
    "stratified_split",
]
