"""A plain training loop for any `nn.Module`: train, evaluate, fit; and what keeps a run from being lost."""

from vitscratch.config import TrainingConfig
from vitscratch.randomness import random_state, seed_everything, set_random_state
from vitscratch.training.activation import activation_checkpointing, checkpoint_activations
from vitscratch.training.checkpoint import Checkpoints, read_checkpoint, write_checkpoint
from vitscratch.training.doctor import Diagnosis, doctor
from vitscratch.training.ema import MovingAverage
from vitscratch.training.history import EpochRecord, best_epoch, read_history, save_history
from vitscratch.training.loop import evaluate, fit, train_one_epoch
from vitscratch.training.lr_find import LRRange, lr_find
from vitscratch.training.metrics import Metrics
from vitscratch.training.mixing import mixing
from vitscratch.training.nonfinite import explain_out_of_memory, first_nonfinite, is_out_of_memory
from vitscratch.training.optimizer import adamw, decay_groups
from vitscratch.training.precision import choose_precision
from vitscratch.training.predictions import predictions
from vitscratch.training.run import Run
from vitscratch.training.schedule import warmup_cosine
from vitscratch.training.signals import Interrupted, stop_on_signals
from vitscratch.training.statistics import (
    Calibration,
    CalibrationBin,
    McNemar,
    calibration,
    confusion_matrix,
    mcnemar,
    surest_mistakes,
    wilson_interval,
)
from vitscratch.training.watch import NonFiniteLoss
from vitscratch.training.weighting import balanced_weights

__all__ = [
    "Calibration",
    "CalibrationBin",
    "Checkpoints",
    "Diagnosis",
    "EpochRecord",
    "Interrupted",
    "LRRange",
    "McNemar",
    "Metrics",
    "MovingAverage",
    "NonFiniteLoss",
    "Run",
    "TrainingConfig",
    "activation_checkpointing",
    "adamw",
    "balanced_weights",
    "best_epoch",
    "calibration",
    "checkpoint_activations",
    "choose_precision",
    "confusion_matrix",
    "decay_groups",
    "doctor",
    "evaluate",
    "explain_out_of_memory",
    "first_nonfinite",
    "fit",
    "is_out_of_memory",
    "lr_find",
    "mcnemar",
    "mixing",
    "predictions",
    "random_state",
    "read_checkpoint",
    "read_history",
    "save_history",
    "seed_everything",
    "set_random_state",
    "stop_on_signals",
    "surest_mistakes",
    "train_one_epoch",
    "warmup_cosine",
    "wilson_interval",
    "write_checkpoint",
]
