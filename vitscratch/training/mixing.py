"""Mixup and cutmix, by torchvision."""

from collections.abc import Callable

from torch import Tensor

from vitscratch.training.inputs import check_labels

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixing(num_classes: int | None, mixup: float, cutmix: float) -> Mix | None:
    """A function (images, labels) -> (mixed images, class probabilities (b, classes)); None if both are 0.

    Args:
        num_classes: length of the logits; needed unless both amounts are 0.
        mixup, cutmix: parameters of the Beta distributions, at least 0; 0 leaves that one out. With both, each batch
            draws one of them. The amounts come from torch's global random state.
    """
    if not mixup and not cutmix:
        return None
    if num_classes is None:
        raise ValueError(f"mixup {mixup} and cutmix {cutmix} turn labels into probabilities: give num_classes too")
    from torchvision.transforms import v2

    choices = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
    choices += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
    chosen = choices[0] if len(choices) == 1 else v2.RandomChoice(choices)

    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        check_labels(labels, (len(images), num_classes))
        return chosen(images, labels)

    return mix
