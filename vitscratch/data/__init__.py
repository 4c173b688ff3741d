"""Pictures and labels: sets, splits, augmentation and batches. Knows nothing of the model."""

from vitscratch.data.augment import random_affine
from vitscratch.data.batches import TensorBatches
from vitscratch.data.digits import Pictures, digits
from vitscratch.data.splits import class_counts, stratified_split

__all__ = ["Pictures", "TensorBatches", "class_counts", "digits", "random_affine", "stratified_split"]
