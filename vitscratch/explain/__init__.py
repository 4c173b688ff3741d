"""Look inside a trained model: what attends to what, which positions are alike, what patches are compared with."""

from vitscratch.explain.attention import attention_maps, record_attention
from vitscratch.explain.filters import PatchFilters, patch_filters
from vitscratch.explain.positions import position_similarity
from vitscratch.explain.rollout import attention_rollout, gaze
from vitscratch.explain.trajectories import Trajectories, token_trajectories

__all__ = [
    "PatchFilters",
    "Trajectories",
    "attention_maps",
    "attention_rollout",
    "gaze",
    "patch_filters",
    "position_similarity",
    "record_attention",
    "token_trajectories",
]
