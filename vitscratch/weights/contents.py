"""What a file of weights holds, whoever wrote it, in our names."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vitscratch.config import ViTConfig


@dataclass(frozen=True)
class Weights:
    """Pretrained weights, before they are put into a model.

    Args:
        tensors: by our names; only what has a counterpart in our models. A pre-logits layer is
            "head.pre_logits.weight" and "head.pre_logits.bias" beside "head.linear.weight" and "head.linear.bias"
            (`PreLogitsHead`); a norm that follows the mean over the patches, "head.norm.weight" and so on
            (`NormedHead`).
        config: the architecture, as far as tensors and the files beside them tell.
        ecosystem: who wrote it: vitscratch, torchvision, timm, huggingface or google.
        unexpected: names, theirs, of tensors that have no counterpart.
        class_names: one for each logit, if known.
        preprocessing: fields of `vitscratch.data.Preprocessing`, if known.
        notes: what was done on the way, such as "prefix 'module.' taken off".
        provenance: where it comes from.
    """

    tensors: dict[str, Tensor]
    config: ViTConfig
    ecosystem: str
    unexpected: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    preprocessing: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
