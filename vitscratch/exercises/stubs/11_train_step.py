"""Exercise 11: one training step.

Write what happens to one batch. The order matters:

    put the model into train mode       dropout and BatchNorm behave as in training only then
    forget old gradients                backward() adds to what is there; or, for the next step, after this one
    loss = mean over the batch of  -log softmax(logits)[label]        (cross-entropy)
    g = gradient of the loss by the weights
    if |g| > clip_norm:  g = g * clip_norm / |g|      |g|: length of all gradients as one vector
    weights = weights - learning_rate * g             whatever rule the optimizer has

model: logits (b, classes) for images (b, c, H, W). labels: (b,) whole numbers, 0 to classes - 1.
The optimizer holds the model's parameters. Returned is the loss of this batch, a Python float: a tensor would keep
the whole graph of the step alive for as long as somebody keeps the tensor.

Minutes:     15
Difficulty:  2 of 3
Tutorial:    tutorials/06_training.ipynb
Check:       vitscratch check 11_train_step.py
"""

import torch
from torch import Tensor, nn


def train_step(
    model: nn.Module, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer, clip_norm: float = 1.0
) -> float:
    """(b, c, H, W), (b,) -> the loss, a number; the weights have taken one step."""
    raise NotImplementedError("write train_step: begin with model.train(), then the loss of model(images)")
