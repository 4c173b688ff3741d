"""A plain training loop for any `nn.Module`: train, evaluate, fit."""

from vitscratch.training.doctor import Diagnosis, doctor
from vitscratch.training.history import EpochRecord, save_history
from vitscratch.training.loop import evaluate, fit, train_one_epoch
from vitscratch.training.lr_find import LRRange, lr_find
from vitscratch.training.metrics import Metrics
from vitscratch.training.nonfinite import explain_out_of_memory, first_nonfinite, is_out_of_memory
from vitscratch.training.optimizer import adamw, decay_groups
from vitscratch.training.schedule import warmup_cosine

__all__ = [
    "Diagnosis",
    "EpochRecord",
    "LRRange",
    "Metrics",
    "adamw",
    "decay_groups",
    "doctor",
    "evaluate",
    "explain_out_of_memory",
    "first_nonfinite",
    "fit",
    "is_out_of_memory",
    "lr_find",
    "save_history",
    "train_one_epoch",
    "warmup_cosine",
]
