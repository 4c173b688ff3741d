"""A trained model in one file: weights, architecture, class names and preprocessing, as safetensors.

Nothing in such a file is executed when it is read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitscratch.config import ViTConfig
from vitscratch.files import write_atomically
from vitscratch.vit import VisionTransformer
from vitscratch.weights.heads import with_head_of
from vitscratch.weights.table import check_tensors

FORMAT = "vitscratch model 1"
DESCRIPTION = "vitscratch description 1"  # the same header over tensors in another library's layout


@dataclass(frozen=True)
class SavedModel:
    """What `load_model` gives: all that a prediction needs.

    Args:
        model: in eval mode, on the CPU.
        config: its architecture.
        class_names: one for each logit.
        preprocessing: as it was saved; for pictures, `vitscratch.data.Preprocessing.from_dict` reads it.
        provenance: whatever was said of the model's origin.
    """

    model: VisionTransformer
    config: ViTConfig
    class_names: tuple[str, ...]
    preprocessing: dict[str, Any]
    provenance: dict[str, Any]


def save_model(
    path: Path,
    model: VisionTransformer,
    config: ViTConfig,
    class_names: Sequence[str],
    preprocessing: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    """Write a model; a reader sees the old file or the whole new one.

    Raises:
        ValueError: not one name for each class. OSError: it cannot be written.
    """
    from safetensors.torch import save

    if len(class_names) != config.num_classes:
        raise ValueError(f"{len(class_names)} class names for {config.num_classes} logits; expected one for each")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = header(config, class_names, preprocessing, provenance)
    content = save(tensors, metadata={"format": "pt", "vitscratch": FORMAT, **metadata})
    write_atomically(path, lambda file: file.write(content))


def load_model(path: Path) -> SavedModel:
    """Read what `save_model` wrote.

    Raises:
        ValueError: there is no such file, or it is damaged or something else, in one line.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(f"{path} does not exist; a finished run has it (vitscratch train --resume finishes one)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        if metadata.get("vitscratch") != FORMAT:
            raise ValueError(f"its metadata does not say {FORMAT!r}")
        config, class_names, preprocessing, provenance = read_header(metadata)
        check_tensors(tensors)
        model = with_head_of(VisionTransformer.from_config(config), tensors).eval()
        model.load_state_dict(tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is refused: {reason}") from error
    return SavedModel(model, config, class_names, preprocessing, provenance)


def header(
    config: ViTConfig, class_names: Sequence[str], preprocessing: dict[str, Any], provenance: dict[str, Any]
) -> dict[str, str]:
    """What a prediction needs beside the weights, for the metadata of a file: each as JSON."""
    described = {"config": asdict(config), "class_names": list(class_names), "preprocessing": preprocessing}
    return {name: json.dumps(value) for name, value in {**described, "provenance": provenance}.items()}


def read_header(
    metadata: Mapping[str, str],
) -> tuple[ViTConfig, tuple[str, ...], dict[str, Any], dict[str, Any]]:
    """What `header` wrote: architecture, class names, preprocessing and provenance.

    Raises:
        ValueError: a damaged header.
    """
    try:
        said = {name: json.loads(metadata[name]) for name in ("config", "class_names", "preprocessing", "provenance")}
        # JSON has no tuples.
        sizes: dict[str, Any] = {
            name: tuple(size) if isinstance(size, list) else size for name, size in said["config"].items()
        }
        config = ViTConfig(**sizes)
        return config, tuple(said["class_names"]), {**said["preprocessing"]}, {**said["provenance"]}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"its header is damaged ({error})") from error
