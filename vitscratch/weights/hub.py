"""A trained model on the Hugging Face Hub, through huggingface_hub's own mixin.

Needs the extra "hub": `pip install 'vitscratch[hub]'`.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitscratch.files import write_atomically
from vitscratch.weights.saved import SavedModel, load_model, save_model

try:
    from huggingface_hub import ModelCard, ModelHubMixin, constants, hf_hub_download
except ImportError as error:
    raise ImportError("the Hub needs huggingface_hub: pip install 'vitscratch[hub]'") from error

_CARD = """---
{{ card_data }}
---

# {{ title }}

A Vision Transformer of {{ parameters }} parameters for {{ classes | length }} classes, on pictures of
{{ height }} x {{ width }} pixels, made with vitscratch. `model.safetensors` holds the weights and, in its metadata,
architecture, class names, preprocessing and provenance.

```python
from vitscratch.weights.hub import HubModel

saved = HubModel.from_pretrained("ORG/NAME").saved  # the name of this repository
saved.model, saved.class_names, saved.preprocessing
```

Classes: {{ classes | join(", ") }}.
"""


class HubModel(
    ModelHubMixin,
    library_name="vitscratch",
    pipeline_tag="image-classification",
    tags=["vision-transformer"],
    model_card_template=_CARD,
):
    """A saved model with the mixin's methods: `save_pretrained`, `from_pretrained` and `push_to_hub`.

    `HubModel(load_model(path)).push_to_hub("me/flowers")` uploads (after `hf auth login`), and
    `HubModel.from_pretrained("me/flowers").saved` is the same model, bit for bit, with class names and preprocessing.
    A folder of `save_pretrained` is as good as a name. Source: huggingface_hub, "Integrate your library with the Hub".

    Args:
        saved: from `load_model`, say.
    """

    def __new__(cls, saved: SavedModel) -> "HubModel":
        return super().__new__(cls)  # without `saved`, which the mixin would copy, weights and all, for its config.json

    def __init__(self, saved: SavedModel) -> None:
        self.saved = saved

    def _save_pretrained(self, save_directory: Path) -> None:
        saved = self.saved
        file = save_directory / constants.SAFETENSORS_SINGLE_FILE
        save_model(file, saved.model, saved.config, saved.class_names, saved.preprocessing, saved.provenance)
        described = json.dumps(asdict(saved.config), indent=2) + "\n"  # what the Hub counts downloads by
        write_atomically(save_directory / constants.CONFIG_NAME, lambda file: file.write(described), "w")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "HubModel":
        name = constants.SAFETENSORS_SINGLE_FILE
        local = Path(model_id)
        file = local / name if local.is_dir() else Path(hf_hub_download(model_id, name, **options))
        return cls(load_model(file))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The README.md of the repository: what the model is and how to load it."""
        height, width = self.saved.model.patch_embed.image_size
        facts = {"height": height, "width": width, "parameters": f"{self.saved.config.num_parameters:,}"}
        title = f"{self.saved.config.depth} blocks of width {self.saved.config.embed_dim}"
        return super().generate_model_card(*args, title=title, classes=self.saved.class_names, **facts, **kwargs)
