"""A trained model in one file: weights, architecture, class names and preprocessing, as safetensors.

Nothing in such a file is executed when it is read.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitscratch.config import ViTConfig
from vitscratch.files import write_atomically
from vitscratch.vit import VisionTransformer
from vitscratch.weights.contents import Weights

FORMAT = "vitscratch model 1"


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
    described = {"config": asdict(config), "class_names": list(class_names), "preprocessing": preprocessing}
    metadata = {name: json.dumps(value) for name, value in {**described, "provenance": provenance}.items()}
    content = save(tensors, metadata={"format": "pt", "vitscratch": FORMAT, **metadata})
    write_atomically(path, lambda file: file.write(content))


def load_model(path: Path) -> SavedModel:
    """Read what `save_model` wrote.

    Raises:
        ValueError: there is no such file, or it is damaged or something else, in one line.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist; a finished run has it (vitscratch train --resume finishes one)")
    weights = read_saved(path)
    try:
        model = VisionTransformer.from_config(weights.config).eval()
        model.load_state_dict(weights.tensors)
    except (ValueError, TypeError, RuntimeError) as error:
        raise _refused(path, error) from error
    assert weights.class_names is not None and weights.preprocessing is not None
    return SavedModel(model, weights.config, weights.class_names, weights.preprocessing, weights.provenance)


def is_saved(path: Path) -> bool:
    """Whether `save_model` wrote a file, as far as its metadata say."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("vitscratch") == FORMAT
    except (SafetensorError, OSError):
        return False


def read_saved(path: Path) -> Weights:
    """What is in a file of `save_model`; the tensors are mapped, not copied.

    Raises:
        ValueError: it is damaged or something else, in one line.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        if metadata.get("vitscratch") != FORMAT:
            raise ValueError(f"its metadata does not say {FORMAT!r}")
        config, class_names, preprocessing, provenance = (
            json.loads(metadata[name]) for name in ("config", "class_names", "preprocessing", "provenance")
        )
        described = ViTConfig(**{name: _untuple(value) for name, value in config.items()})
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise _refused(path, error) from error
    return Weights(
        tensors,
        described,
        "vitscratch",
        class_names=tuple(class_names),
        preprocessing=preprocessing,
        provenance=provenance,
    )


def _refused(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is refused: {(str(error) or type(error).__name__).splitlines()[0]}")


def _untuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # JSON has no tuples
