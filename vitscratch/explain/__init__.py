"""Look inside a trained model: what attends to what, and which positions it holds to be alike."""

from vitscratch.explain.attention import attention_maps, record_attention
from vitscratch.explain.positions import position_similarity

__all__ = ["attention_maps", "position_similarity", "record_attention"]
