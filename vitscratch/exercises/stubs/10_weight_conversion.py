"""Exercise 10: pretrained weights from torchvision.

Write convert_torchvision(state_dict). It takes the state_dict of torchvision's VisionTransformer (any number of blocks)
and returns a new dict with all its tensors under the names of vitscratch.VisionTransformer, so that
model.load_state_dict(convert_torchvision(weights), strict=True) works and both models give the same logits.
The given dict stays as it is. Checkpoints that were saved from DataParallel have "module." before every name:
that prefix, where it is there, goes away.

Print both models' state_dict().keys() and make a table. No number changes here: both keep q, k and v packed in
this order, a Linear as (out, in), a kernel as (d, c, row, column). In torchvision's mlp, 0 and 3 are the layers.

Shapes: dict of names and tensors -> dict of names and tensors.

Minutes:     25
Difficulty:  2 of 3
Tutorial:    tutorials/05_vit_b_16.ipynb
Check:       vitscratch check 10_weight_conversion.py
"""

from torch import Tensor


def convert_torchvision(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's names -> ours."""
    raise NotImplementedError("write convert_torchvision: rename conv_proj, class_token, and so on")
