"""The way back: our tensors under another ecosystem's names."""

from collections.abc import Mapping

from torch import Tensor

from vitscratch.config import ViTConfig
from vitscratch.patches import pair
from vitscratch.weights.reading import ECOSYSTEMS
from vitscratch.weights.table import from_ours


def to_ecosystem(tensors: Mapping[str, Tensor], config: ViTConfig, ecosystem: str) -> dict[str, Tensor]:
    """Rename and reshape our tensors: the exact inverse of reading.

    torchvision's and timm's are what `load_state_dict` takes (timm's with a pre-logits layer: until timm 0.6);
    Hugging Face's are the names in files, of `ViTForImageClassification` or, without a head, of `ViTModel`, whose
    pooler is the pre-logits layer; Google's are the arrays of an .npz. Only config.json and the like can say how many
    heads there are and what the head reads; that is for whoever writes the file.

    Args:
        tensors: a `state_dict()` of ours. config: its architecture.
        ecosystem: torchvision, timm, huggingface or google.

    Raises:
        ValueError: another ecosystem, or a model that it does not have.
    """
    if ecosystem not in ECOSYSTEMS:
        raise ValueError(f"ecosystem {ecosystem!r} is unknown; there are {', '.join(ECOSYSTEMS)}")
    square = all(height == width for height, width in map(pair, (config.image_size, config.patch_size)))
    head, pre_logits = any(name.startswith("head.") for name in tensors), "head.pre_logits.weight" in tensors
    classifier = head and ("head.weight" in tensors or "head.linear.weight" in tensors)
    for impossible, what in (
        (ecosystem == "torchvision" and not square, "pictures and patches that are not square"),
        (ecosystem in ("torchvision", "huggingface") and config.pool != "cls", f"pool {config.pool!r}"),
        (ecosystem == "huggingface" and pre_logits and classifier, "a pre-logits layer before a classifier"),
    ):
        if impossible:
            raise ValueError(f"{ecosystem} has no model with {what}; timm has most")
    theirs = from_ours(ECOSYSTEMS[ecosystem], tensors, config.num_heads)
    if ecosystem == "huggingface" and classifier:
        theirs = {name if name.startswith("classifier.") else f"vit.{name}": tensor for name, tensor in theirs.items()}
    return theirs
