"""Checks of the pictures and labels themselves."""

import math

import torch
from torch import Tensor

from vitscratch.training.doctor.case import Case, Failure, Outcome, Skip, listed

MANY = 0.2  # of the pictures looked at: so many contradictions are no slips of whoever labelled
_FORM = "the transforms are missing a step, or the batch is not (images, labels)"


def pictures(case: Case) -> Outcome:
    """Floats of shape (b, c, H, W), all finite, and not all the same picture."""
    images = case.images
    if not isinstance(images, Tensor) or images.dim() != 4 or images.numel() == 0:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        advice = "give a float tensor (pictures, channels, height, width); one picture becomes a batch by images[None]"
        raise Failure(f"the images are {shape}; expected a tensor (b, c, H, W)", _FORM, advice)
    if not images.is_floating_point():
        advice = "convert: images.float() / 255, then normalise (torchvision v2: ToDtype(torch.float32, scale=True))"
        raise Failure(f"the images are {images.dtype}; expected floats", "raw pixels reached the model", advice)
    finite = images.isfinite()
    if not bool(finite.all()):
        bad = [i for i, picture in enumerate(finite.flatten(1).all(dim=1).tolist()) if not picture]
        meaning = "a division by a standard deviation of 0, a damaged file, or a logarithm in the transforms"
        advice = f"look at picture {bad[0]} of the batch before and after each transform"
        evidence = f"nan or infinity in {len(bad)} of {len(images)} pictures, first in number {bad[0]}"
        raise Failure(evidence, meaning, advice, bad_pictures=len(bad))
    if len(images) > 1 and bool((images == images[0]).all()):
        meaning = "the dataset returns the same item for every index, or an augmentation wipes everything out"
        raise Failure(f"all {len(images)} pictures are the same", meaning, "compare dataset[0] and dataset[1]")
    b, c, height, width = images.shape
    return f"{b} pictures, {c} x {height} x {width}, {str(images.dtype).removeprefix('torch.')}", {"pictures": b}


def normalised(case: Case) -> Outcome:
    """Every channel has a mean around 0 and a standard deviation around 1."""
    images = case.images.double()
    low, high = images.min().item(), images.max().item()
    std, mean = (values.tolist() for values in torch.std_mean(images, dim=(0, 2, 3), correction=0))
    measured = {"mean": mean, "std": std, "min": low, "max": high}
    channels = f"mean {_numbers(mean)}, std {_numbers(std)}"
    evidence = f"{channels} per channel, from {low:.3g} to {high:.3g}"
    advice = "subtract the training set's mean and divide by its standard deviation, per channel, after scaling to 0..1"
    if flat := [i for i, spread in enumerate(std) if spread < 1e-6]:
        meaning = "a channel that holds nothing: an alpha channel, a wrong channel order, or black files"
        raise Failure(f"channel {flat[0]} is constant: {evidence}", meaning, "look at some pictures", **measured)
    if low >= 0.0 and high > 1.0:
        raise Failure(f"the pictures look like 0..255: {evidence}", "pixels were not scaled", advice, **measured)
    if low >= 0.0:
        raise Failure(f"the pictures look like 0..1: {evidence}", "Normalize is missing", advice, **measured)
    if max(map(abs, mean)) > 1.5 or not 0.2 <= min(std) <= max(std) <= 3.0:
        meaning = "normalised twice, with another set's statistics, or before the scaling to 0..1"
        raise Failure(f"expected about mean 0 and std 1: {evidence}", meaning, advice, **measured)
    constant = int((images.flatten(2).std(dim=2, correction=0) < 1e-6).all(dim=1).sum())
    if constant > len(images) / 2:
        raise Failure(
            f"{constant} of {len(images)} pictures are one plain colour", "crops of nothing, or blank files",
            "look at some pictures as the model sees them", **measured,
        )  # fmt: skip
    return channels + (f"; {constant} of one plain colour" if constant else ""), measured


def labels(case: Case) -> Outcome:
    """int64 class numbers of shape (b,), counted from 0, and below the number of classes."""
    found, classes, b = case.labels, case.num_classes, len(case.images)
    if not isinstance(found, Tensor) or found.shape != (b,) or found.dtype != torch.int64:
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        meaning = "one-hot or mixed labels, a column instead of a vector, or floats from a table"
        advice = "give class numbers: labels.long(), labels.squeeze(1), or one_hot.argmax(dim=1)"
        raise Failure(f"the labels are {what}; expected torch.int64 ({b},)", meaning, advice)
    everything = found if case.train_labels is None else torch.cat([found.cpu(), case.train_labels.cpu()])
    low, high = int(everything.min()), int(everything.max())
    assert classes is not None  # the check "logits" came before
    if low < 0 or high >= classes:
        shifted = low == 1 and high == classes
        meaning = "labels counted from 1" if shifted else "the head has too few outputs, or labels of another set"
        advice = "labels - 1" if shifted else f"build the model with num_classes={high + 1}, or map labels to 0..C-1"
        evidence = f"labels from {low} to {high}, but {classes} classes need 0 to {classes - 1}"
        raise Failure(evidence, meaning, advice, smallest=low, largest=high)
    numbers = {"smallest": low, "largest": high, "classes": classes}
    return f"int64, from {low} to {high}, {classes} classes{_same_picture_other_label(case.images, found)}", numbers


def _same_picture_other_label(images: Tensor, labels: Tensor) -> str:
    """Words for the evidence: a few such pictures are for whoever labelled them; many mean that labels are mixed up."""
    looked_at = labels[:64]
    pairs = contradictions(images[:64], looked_at)
    if not pairs:
        return ""
    first, second = pairs[0]
    evidence = f"pictures {first} and {second} are identical, but labelled {labels[first]} and {labels[second]}"
    evidence += f"; {len(pairs)} such pictures" if len(pairs) > 1 else ""
    if len(pairs) > MANY * len(looked_at):
        raise Failure(
            f"{evidence} of {len(looked_at)}",
            "labels shuffled apart from their pictures, or copies of files in two class folders",
            "sort out the duplicates; shuffle pairs, not two lists", first=first, second=second, pairs=len(pairs),
        )  # fmt: skip
    return f"; {evidence}: not learned by heart below, for nobody could"


def contradictions(images: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """(first, other) numbers of pictures that are identical to an earlier one, but labelled otherwise."""
    seen: dict[bytes, int] = {}
    pictures = [picture.contiguous().view(torch.uint8).numpy().tobytes() for picture in images.cpu()]
    pairs = [(seen.setdefault(picture, number), number) for number, picture in enumerate(pictures)]
    numbers = labels.tolist()
    return [(first, other) for first, other in pairs if numbers[first] != numbers[other]]


def classes(case: Case) -> Outcome:
    """The training labels (or else the batch) hold every class."""
    classes, b = case.num_classes, len(case.labels)
    assert classes is not None
    in_batch = len(case.labels.unique())
    if case.train_labels is None:
        if in_batch == 1:
            return _one_class_batch(case, b)
        return f"{in_batch} of {classes} classes in this batch (train_labels would tell more)", {"in_batch": in_batch}
    counts = torch.bincount(case.train_labels.cpu().flatten(), minlength=classes)
    if missing := [i for i, count in enumerate(counts.tolist()) if count == 0]:
        names = [repr(case.class_names[i]) if case.class_names else str(i) for i in missing]
        meaning = "a subset cut from a sorted list (only its first classes), labels counted from 1, or an empty folder"
        advice = "split at random and per class (stratified_split), and compare the class lists of all parts"
        evidence = f"{len(missing)} of {classes} classes have no training picture: {listed(names)}"
        raise Failure(evidence, meaning, advice, missing=missing, counts=counts.tolist())
    one_class = float(((counts / counts.sum()).double() ** b).sum())  # chance that a shuffled batch has one class
    if in_batch == 1 and one_class < 1e-3:
        return _one_class_batch(case, b)
    fewest, most = int(counts.min()), int(counts.max())
    evidence = f"all {classes} classes in the training labels, {fewest} to {most} pictures each"
    return evidence, {"counts": counts.tolist(), "in_batch": in_batch}


def _one_class_batch(case: Case, b: int) -> Outcome:
    if b < 8 and case.train_labels is None:
        raise Skip(f"{b} labels of one class say little; give more, or train_labels")
    raise Failure(
        f"all {b} labels of the batch are {int(case.labels[0])}",
        "a split of a sorted folder that left one class, or a loader that does not shuffle",
        "shuffle the training set (DataLoader(shuffle=True)), and split at random and per class", in_batch=1,
    )  # fmt: skip


def label_entropy(labels: Tensor) -> float:
    """The lowest loss that can be reached without looking at the pictures: the entropy of the labels, in nats."""
    shares = torch.bincount(labels.cpu()).double() / len(labels)
    return -sum(share * math.log(share) for share in shares.tolist() if share)


def _numbers(values: list[float]) -> str:
    return "/".join(f"{value:.2f}" for value in values)
