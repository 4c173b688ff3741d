"""A pretrained model learns to tell apart the classes of a folder of pictures.

Command: `vitscratch finetune WEIGHTS DATA [--how HOW]`. WEIGHTS is what `vitscratch.weights.load` takes: weights that
come with the package, a file of any ecosystem, "timm:NAME" or "hf:ORG/NAME". DATA is a folder with one folder for each
class, or what else `--data` of `vitscratch train` takes.

==========  ==========================================================  ==========================================
HOW         what is trained                                             when to use it
==========  ==========================================================  ==========================================
probe       the head, by logistic regression on features computed       a few pictures of each class; a first look:
            once; its regularisation chosen on validation pictures      it takes as long as one look at each picture
head        the head, by the loop, on augmented pictures                as probe, where augmentation matters
last-n      the last `--last` blocks and the head                       some hundreds of pictures of each class
full        everything, lower blocks more slowly                        many pictures, or unlike those of the
                                                                        pretraining
fine-tune   first the head alone, then everything (the default)         as full; safer, because a head that still
                                                                        guesses does no harm
scratch     everything, from random weights                             to see what the pretraining was worth
==========  ==========================================================  ==========================================

Measured on five kinds of flowers with the weights "cifar10" (`vitscratch bench transfer --data FLOWERS`, test accuracy,
mean of three seeds; docs/transfer.md has the ranges), from 10, 50 and 250 labelled pictures of each class: fine-tune
48.9, 59.7 and 68.6 %; head 47.9, 56.3 and 61.4 %; scratch 42.9, 48.6 and 54.4 %. probe, from all 3,018: 65.0 % (mean of
five divisions). last-n and full are not measured there.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from vitscratch.config import ViTConfig
from vitscratch.recipes.base import Recipe, absolute_weights

if TYPE_CHECKING:
    from torch import Tensor

    from vitscratch.data import Augmentation, Preprocessing
    from vitscratch.recipes.experiment import Experiment
    from vitscratch.training import Checkpoints, EpochRecord
    from vitscratch.vit import VisionTransformer

_NOT_IN_PROBE = ("mixup", "cutmix", "label_smoothing", "ema_decay", "accumulate", "patience", "balance_classes")

How = Literal["probe", "head", "last-n", "full", "fine-tune", "scratch"]


@dataclass(frozen=True, kw_only=True)
class FineTune(Recipe):
    """Pretrained weights and any folder of pictures: probe, head, last-n, full or fine-tune."""

    data: str = ""
    preset: str = "vit_nano_32"  # not looked at: the weights know their architecture
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 5e-4
    warmup_epochs: float = 1.0

    weights: str = "cifar10"
    """The pretrained weights: a name, a file, timm:NAME or hf:ORG/NAME."""

    num_heads: int | None = None
    """Attention heads, where neither the weights nor a config.json beside them say so."""

    how: How = "fine-tune"
    """What is trained. probe: the head, by logistic regression on features computed once. head: the head, in the loop
    (ten times as fast as `learning_rate` says). last-n: the last blocks and the head. full: everything, lower blocks
    more slowly. fine-tune: the head for `head_epochs`, then everything. scratch: the same model from random weights."""

    last: int = 2
    """For last-n: how many blocks."""

    head_epochs: int = 1
    """For fine-tune: epochs of the head alone, before `epochs` of everything."""

    layer_decay: float = 0.75
    """For fine-tune, full and last-n: each block learns so many times as fast as the one above it."""

    flip: float = 0.5
    """Probability of a mirror image; 0 where left and right matter, as in letters. probe has no augmentation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last < 1 or self.head_epochs < 1:
            raise ValueError(f"last {self.last}, head_epochs {self.head_epochs}: expected at least 1")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay {self.layer_decay}: expected above 0, at most 1")
        if self.how == "probe":
            self._check_probe()

    def _check_probe(self) -> None:
        if self.validation_fraction == 0:
            raise ValueError("how probe chooses the regularisation on validation pictures; validation_fraction is 0")
        for option in _NOT_IN_PROBE:
            if (value := getattr(self, option)) != getattr(FineTune, option):
                raise ValueError(f"{option} {value} has no effect in a probe; leave it out, or use how head")

    def provenance(self) -> dict[str, Any]:
        """The weights and the SHA-256 of their file, how they were trained on, and what was assumed of them."""
        if self.how == "scratch":  # of them it has nothing but the shape
            return {"how": self.how}
        return {
            "weights": self.weights,
            **_digest(self.weights, _state(self.weights)),
            "how": self.how,
            "notes": list(self._pretrained()[2]),
        }

    def learns(self, config: ViTConfig) -> str:
        """What of such a model is trained, and how many parameters that is."""
        from vitscratch.transfer import freeze, unfreeze
        from vitscratch.vit import VisionTransformer
        from vitscratch.weights.undrawn import undrawn

        model = undrawn(lambda: VisionTransformer.from_config(config))  # only to be counted
        parameters = list(model.parameters())
        every = f"{sum(parameter.numel() for parameter in parameters):,}"
        if self.how in ("full", "scratch"):
            how = "from random weights" if self.how == "scratch" else "lower blocks more slowly"
            return f"Everything learns, {how}: all {every} parameters."
        freeze(model)
        if self.how == "last-n":
            unfreeze(model, last=self.last)
        some = (
            f"{sum(parameter.numel() for parameter in parameters if parameter.requires_grad):,} of {every} parameters"
        )
        if self.how == "last-n":
            blocks = "last block" if self.last == 1 else f"last {self.last} blocks"
            return f"The {blocks}, the norm after them and the head learn: {some}."
        if self.how == "probe":
            return f"The head alone is fitted, to features that are computed once: {some}."
        if self.how == "head":
            return f"The head alone learns: {some}."
        epochs = f"{self.head_epochs} epoch{'s' * (self.head_epochs > 1)}"
        return f"The head alone learns for {epochs}: {some}; then everything, for {self.epochs}."

    @property
    def all_epochs(self) -> int:
        """Those of the head alone among them; the probe looks at each picture once."""
        return {"probe": 1, "fine-tune": self.head_epochs + self.epochs}.get(self.how, self.epochs)

    def absolute(self) -> "FineTune":
        """Likewise; weights may be a file, too."""
        return replace(super().absolute(), weights=absolute_weights(self.weights))  # type: ignore[call-arg,return-value]

    def _pretrained(self) -> "_Pretrained":
        return _pretrained(self.weights, self.image_size, self.num_heads, _state(self.weights))

    def preprocessing(self) -> "Preprocessing":
        """As the weights were trained, in the size that is asked for."""
        return self._pretrained()[1]

    def picture_shape(self) -> tuple[tuple[int, int], int]:
        """The weights', or the size that is asked for."""
        preprocessing = self.preprocessing()
        return preprocessing.image_size, preprocessing.channels

    def model_config(self, num_classes: int) -> ViTConfig:
        """The weights' architecture, for so many classes."""
        return replace(self._pretrained()[0], num_classes=num_classes)

    def build(self, config: ViTConfig) -> "VisionTransformer":
        """The pretrained body with a new head; with scratch the same model at random."""
        from torch import nn

        from vitscratch.transfer import replace_head
        from vitscratch.weights import PreLogitsHead, build_from
        from vitscratch.weights.heads import with_head_of

        if self.how == "scratch":
            return with_head_of(super().build(config), self._pretrained()[3])
        model = build_from(
            self.weights,
            image_size=config.image_size,
            num_heads=self.num_heads,
            num_classes=config.num_classes,
        ).model
        if isinstance(model.head, PreLogitsHead):  # a pre-logits layer belongs to the old classes
            model.head = nn.Linear(config.embed_dim, config.num_classes)
        replace_head(model, config.num_classes)  # also where the old one has as many classes: they are others
        return model

    def augmentation(self) -> "Augmentation | None":
        """Random shift by at most an eighth of the picture, and mirror image."""
        from vitscratch.data import RandomCropFlip

        height, width = self.picture_shape()[0]
        return RandomCropFlip(min(height, width) // 8, self.flip)

    def fit(self, experiment: "Experiment", **options: Any) -> "list[EpochRecord]":
        """As `how` says; see `vitscratch.transfer`."""
        from vitscratch.transfer import fine_tune, train_all, train_head, train_last

        if self.how == "probe":
            return [_probe(experiment, options.get("checkpoints"))]
        model, train = experiment.model, experiment.batches("train", training=True)
        if self.how == "head":
            return train_head(model, train, replace(self, learning_rate=10 * self.learning_rate), **options)
        if self.how == "last-n":
            return train_last(model, train, self, self.last, self.layer_decay, **options)
        if self.how == "full":
            return train_all(model, train, self, self.layer_decay, **options)
        if self.how == "scratch":
            return super().fit(experiment, **options)
        return fine_tune(model, train, self, head_epochs=self.head_epochs, layer_decay=self.layer_decay, **options)


_Pretrained: TypeAlias = "tuple[ViTConfig, Preprocessing, tuple[str, ...], dict[str, Tensor]]"
_State: TypeAlias = tuple[tuple[str | int, ...], ...]


def _state(weights: str) -> _State:
    """Name, size and time of a file and of what may lie beside it, or of a folder's files; () for what has no path."""
    from vitscratch.data.remember import file_state
    from vitscratch.weights import shipped_names

    path = Path(weights)
    if not weights or weights in shipped_names() or not path.exists():
        return ()
    beside = [path.with_name(name) for name in ("config.json", "preprocessor_config.json")]
    files = sorted(path.iterdir()) if path.is_dir() else [path, *beside]
    return tuple((str(file.absolute()), *found[:2]) for file in files if (found := file_state(file)))


@lru_cache(maxsize=1)
def _pretrained(weights: str, image_size: int | None, num_heads: int | None, state: _State) -> "_Pretrained":
    """Architecture and preprocessing of pretrained weights, for pictures of a size, notes on what was assumed, and a
    norm that belongs to the head.

    Args:
        state: of the files: others are read anew.
    """
    from vitscratch.data import Preprocessing
    from vitscratch.weights import build_from
    from vitscratch.weights.loading import surprises

    if not weights:
        raise ValueError("this recipe needs pretrained weights: --weights FILE, timm:NAME or hf:ORG/NAME")
    saved = build_from(weights, image_size=image_size, num_heads=num_heads, num_classes=1)
    if not saved.preprocessing:
        raise ValueError(f"{weights} does not say how its pictures are prepared; convert it with vitscratch first")
    norm = {name: tensor for name, tensor in saved.model.state_dict().items() if name.startswith("head.norm.")}
    return saved.config, Preprocessing.from_dict(saved.preprocessing), surprises(saved.provenance["notes"]), norm


@lru_cache(maxsize=1)
def _digest(weights: str, state: _State) -> dict[str, str]:
    """SHA-256 of the file of pretrained weights; nothing for timm's, whose files are timm's own affair."""
    import hashlib

    from vitscratch.weights.sources import find_file

    path = find_file(weights)
    if path is None:
        return {}
    with path.open("rb") as file:
        return {"weights_sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _probe(experiment: "Experiment", checkpoints: "Checkpoints | None") -> "EpochRecord":
    """Fit the head to features that are computed once, and give it to the model.

    The validation numbers are of the fit that chose the regularisation, which saw the training pictures alone. Nothing
    is saved on the way: features that are done are found again by the next run.
    """
    import time

    import torch
    import torch.nn.functional as F

    from vitscratch.training import EpochRecord, Interrupted, choose_precision
    from vitscratch.transfer import cached_features, head_name, logistic_probe

    started, recipe, splits = time.perf_counter(), experiment.recipe, experiment.splits

    def stop_if_asked(done: int = 0, total: int = 0) -> None:
        if checkpoints is not None and checkpoints.stop.signal_number is not None:
            raise Interrupted(checkpoints.stop.signal_number)

    precision = choose_precision(recipe.precision, torch.device(experiment.device))
    assert splits.validation is not None  # `FineTune` wants one
    train, validation = (
        cached_features(
            experiment.model,
            part,
            experiment.preprocessing,
            precision,
            batch_size=recipe.batch_size,
            workers=recipe.workers,
            progress=stop_if_asked,
        )
        for part in (splits.train, splits.validation)
    )
    stop_if_asked()  # features that were found on disk take no time
    seconds = time.perf_counter() - started
    probe = logistic_probe(train.features, train.labels, validation.features, validation.labels)
    experiment.model.get_submodule(head_name(experiment.model)).load_state_dict(probe.state_dict())
    experiment.notes.append(f"logistic regression, C = {probe.c:g} of {len(probe.tried)} tried")
    experiment.notes.extend(probe.notes)
    experiment.probe = probe
    logits = F.linear(train.features, probe.weight, probe.bias)
    _, accuracy, loss = next(row for row in probe.tried if row[0] == probe.c)
    return EpochRecord(
        epoch=1,
        learning_rate=0.0,  # L-BFGS has none
        train_loss=float(F.cross_entropy(logits, train.labels)),
        train_accuracy=float((logits.argmax(dim=1) == train.labels).double().mean()),
        validation_loss=loss,
        validation_accuracy=accuracy,
        seconds=time.perf_counter() - started,
        images_per_second=(len(train.labels) + len(validation.labels)) / max(seconds, 1e-9),
        data_wait=0.0,
    )
