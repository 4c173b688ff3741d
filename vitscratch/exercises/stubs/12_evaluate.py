"""Exercise 12: loss and accuracy of a model.

Write the function whose numbers end up in the report:

    loss     = 1/N  sum over all N pictures of  -log softmax(logits)[label]        (cross-entropy)
    accuracy = 1/N  number of pictures whose largest logit is that of their label, in [0, 1]

- N counts pictures, not batches. The last batch is often smaller than the others, and every picture counts the same.
- The model is in eval mode while it is measured, and afterwards in the mode in which it was before.
- No gradients: nobody needs them here, and they cost memory. Afterwards autograd works as before.

model: logits (b, classes) for images (b, c, H, W). batches: pairs of images and labels; labels (b,) are whole numbers.
It may be a DataLoader that shuffles, another order in every pass, or a generator, which has no len, no dataset, and
nothing left for a second pass: so loop over it once, and ask it for nothing else.
Returned are two Python floats, first the loss, then the accuracy.

Minutes:     15
Difficulty:  2 of 3
Tutorial:    tutorials/06_training.ipynb
Check:       vitscratch check 12_evaluate.py
"""

from collections.abc import Iterable

from torch import Tensor, nn


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Batches of (b, c, H, W) and (b,) -> (loss, accuracy), two numbers."""
    raise NotImplementedError("write evaluate: begin with model.eval(), and add up over pictures, batch by batch")
