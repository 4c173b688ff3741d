"""A plain training loop for any `nn.Module`: train, evaluate, fit."""

from vitscratch.training.doctor import Diagnosis, doctor
from vitscratch.training.history import EpochRecord, save_history
from vitscratch.training.loop import evaluate, fit, train_one_epoch
from vitscratch.training.metrics import Metrics
from vitscratch.training.optimizer import adamw, decay_groups
from vitscratch.training.schedule import warmup_cosine

__all__ = [
    "Diagnosis",
    "EpochRecord",
    "Metrics",
    "adamw",
    "decay_groups",
    "doctor",
    "evaluate",
    "fit",
    "save_history",
    "train_one_epoch",
    "warmup_cosine",
]
