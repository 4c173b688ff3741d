"""Pretrained weights into a model: all of them, or a refusal that says what does not fit and what to do."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from vitscratch.config import PRESETS, Size, ViTConfig
from vitscratch.encoder import EncoderBlock
from vitscratch.vit import VisionTransformer
from vitscratch.weights.contents import Weights
from vitscratch.weights.heads import of_head, with_head_of
from vitscratch.weights.reading import POOL_ASSUMED
from vitscratch.weights.resize import adapt_channels, resize_position_embedding
from vitscratch.weights.saved import SavedModel
from vitscratch.weights.sources import Source, read_weights
from vitscratch.weights.undrawn import undrawn

_HEAD_MADE_ANEW, _READ_AS = "head made anew: ", " read as "
_POSITIONS, _KERNEL = "pos_embed", "patch_embed.proj.weight"


@dataclass(frozen=True)
class LoadReport:
    """What became of pretrained weights; printed, it is a few lines.

    Args:
        ecosystem: who wrote them: vitscratch, torchvision, timm, huggingface or google.
        loaded: our names of the tensors that are in the model now, `resized` among them.
        missing: our names of those that the model has and the weights have not; the model keeps its own.
        unexpected: names of those that the model has no place for; theirs, where we have none.
        resized: what was fitted to another size, such as "pos_embed: 14 x 14 -> 24 x 24 patches".
        ignored: the weights' head, where the model kept its own.
        notes: what else is worth knowing.
    """

    ecosystem: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded ({self.ecosystem})"]
        lines += [f"{name}: {_listed(found)}" for name in ("missing", "unexpected") if (found := getattr(self, name))]
        lines += [f"resized: {change}" for change in self.resized]
        lines += [f"ignored: {', '.join(self.ignored)} (the model keeps its own head)"] if self.ignored else []
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def load(model: VisionTransformer, source: Source, *, head: bool = True, partial: bool = False) -> LoadReport:
    """Put pretrained weights into a model: on its device, in its precision, frozen or not.

    Positions are interpolated to the model's grid of patches, and the patch embedding is fitted to its channels
    (`vitscratch.weights.resize`); the report says so. If anything is refused, the model is as it was, to the bit.

    Args:
        model: changed in place.
        source: a file or folder of any ecosystem, a member of torchvision's weights, "timm:NAME", "hf:ORG/NAME", or
            the name of weights that come with the package.
        head: False: the model keeps its own head, whatever the weights have.
        partial: True: tensors may be missing or unexpected (a depth that differs, a decoder, another head's
            norm); the report names them.

    Raises:
        ValueError: weights that do not fit: another architecture, number of classes or kind of head; a tensor missing
            or unexpected without `partial`; nothing of a ViT; a source that is not there or cannot be read.
        TypeError: the model is not one of ours. ImportError: a package that the source needs.
        OSError: a download that failed.
    """
    if not isinstance(model, VisionTransformer):
        raise TypeError(
            f"load fills vitscratch's VisionTransformer, not {type(model).__name__}; a wrapped model (compiled, "
            "parallel) has ours within: load into that"
        )
    if model.cls_token.is_meta:
        raise ValueError("the model is on the meta device, where nothing can be loaded; build_from makes one that can")
    # No tensor tells the heads of an unusual width, or the sides of a grid that can be no square: then the model does.
    own = all(preset.embed_dim != model.cls_token.shape[2] for preset in PRESETS.values())
    weights = read_weights(
        source, image_size=model.patch_embed.image_size, num_heads=_num_heads(model) if own else None
    )
    tensors, report = _fitted(weights, model, source, head=head, partial=partial)
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)
    return report


def build_from(
    source: Source,
    *,
    image_size: Size | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    pool: Literal["cls", "mean"] | None = None,
    num_heads: int | None = None,
    partial: bool = False,
    progress: bool = True,
) -> SavedModel:
    """Build the model that fits pretrained weights, with its class names and preprocessing.

    No parameter is drawn at random first, and a local file in torch's layouts is not copied but mapped into memory
    (copy on write; a program that overwrites the file in place, instead of replacing it, would change the model).

    Args:
        source: as for `load`.
        image_size, in_channels: of the pictures to come, if others than the weights' own.
        num_classes: another number gets a new head, at 0 as `vitscratch.transfer.replace_head` makes it.
        pool: what the head reads, "cls" or "mean", if other than the weights' own.
        num_heads: needed only for an unusual width without a config.json: no tensor tells it.
        partial: as for `load`; what is missing is drawn as `init_weights` does.
        progress: a bar while weights are downloaded.

    Raises:
        As `load`. ValueError: also weights without a head, if `num_classes` does not ask for a new one.
    """
    weights = read_weights(source, image_size=image_size, num_heads=num_heads, progress=progress)
    if num_heads not in (None, weights.config.num_heads):
        raise ValueError(f"num_heads={num_heads}: {source} was trained with {weights.config.num_heads}; leave it out")
    chosen = dict(image_size=image_size, in_channels=in_channels, num_classes=num_classes, pool=pool)
    asked: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    has_head = _classifies(weights.tensors)
    if not has_head and num_classes is None:
        raise ValueError(
            f"{source} has no head that tells classes; build_from(..., num_classes=10), say, gives it a new one for "
            "10 classes, to be trained (`vitscratch finetune` does both)"
        )
    config = replace(weights.config, **asked)
    kept = has_head and config.num_classes == weights.config.num_classes
    model, report = assemble(
        weights,
        source,
        lambda: VisionTransformer.from_config(config),
        head=kept,
        partial=partial,
        any_pool=pool is not None,
    )
    names = weights.class_names if kept else None
    said = [note for note in report.notes if pool is None or note != POOL_ASSUMED]
    notes = [*said, *report.resized, *(f"{_HEAD_MADE_ANEW}{name}" for name in report.ignored)]
    return SavedModel(
        model.eval(),
        config,
        names or tuple(f"class {i}" for i in range(config.num_classes)),
        _preprocessing(weights, model),
        {**weights.provenance, "source": str(source), "ecosystem": weights.ecosystem, "notes": notes},
    )


def surprises(notes: Iterable[str]) -> tuple[str, ...]:
    """Notes on weights, without what is as it should be: a new head where one was asked for, and numbers in torch's
    own precision."""
    return tuple(note for note in notes if _HEAD_MADE_ANEW not in note and _READ_AS not in note)


def assemble(
    weights: Weights,
    source: Source,
    make: Callable[[], VisionTransformer],
    *,
    head: bool = True,
    partial: bool = False,
    any_pool: bool = False,
) -> tuple[VisionTransformer, LoadReport]:
    """Build a model without memory, and give it the weights' own tensors.

    Args:
        weights: as read. source: what they are called in errors. make: builds the model.
        head, partial: as for `load`; what the weights do not have is drawn as `init_weights` does.
        any_pool: True: what the head reads was asked for, so it may be another token than the weights' head read.
    """
    given = weights.tensors if head else _without(weights.tensors, of_head(weights.tensors))
    model = undrawn(lambda: with_head_of(make(), given))
    tensors, report = _fitted(weights, model, source, head=head, partial=partial, any_pool=any_pool)
    dtype = torch.get_default_dtype()
    state = {name: tensor.detach().to(dtype).contiguous() for name, tensor in tensors.items()}
    rest = _without(model.state_dict(), state)
    new_head = of_head(rest)  # starts at 0, as `init_weights` has it; as a rule, nothing else needs to be drawn
    drawn = with_head_of(make(), given).state_dict() if _without(rest, new_head) else {}
    for name, tensor in rest.items():
        state[name] = torch.zeros(tensor.shape, device="cpu") if name in new_head else drawn[name].cpu()
    model.load_state_dict(state, assign=True)
    others = sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.dtype != dtype})
    cast = [f"{' and '.join(others)}{_READ_AS}{str(dtype).removeprefix('torch.')}"] if others else []
    return model, replace(report, notes=(*report.notes, *cast))


def _fitted(
    weights: Weights,
    model: VisionTransformer,
    source: Source,
    *,
    head: bool,
    partial: bool,
    any_pool: bool = False,
) -> tuple[dict[str, Tensor], LoadReport]:
    """The tensors as the model takes them, and what is to be said of it; nothing is changed."""
    state, tensors = model.state_dict(), dict(weights.tensors)
    if not state.keys() & tensors.keys():
        raise ValueError(f"{source}: nothing in it fits a ViT; it has {_listed([*tensors, *weights.unexpected])}")
    ignored = () if head else of_head(tensors)
    if head:
        _check_head(tensors, state, source)
    else:
        state, tensors = (_without(named, of_head(named)) for named in (state, tensors))
    tensors, resized = _resized(weights, tensors, model)
    _check_shapes(tensors, state, source)
    notes = (*weights.notes, *_check_function(weights, model, source, reads=head and not any_pool))
    missing = tuple(name for name in state if name not in tensors)
    unexpected = (*(name for name in tensors if name not in state), *weights.unexpected)
    if (missing or unexpected) and not partial:
        said = [f"missing: {_listed(missing)}"] if missing else []
        said += [f"unexpected: {_listed(unexpected)}"] if unexpected else []
        said += [note for note in weights.notes if any(name in note for name in (*missing, *unexpected))]
        raise ValueError(f"{source} does not fit: {'; '.join(said)}; partial=True takes what fits")
    fitting = {name: tensor for name, tensor in tensors.items() if name in state}
    report = LoadReport(weights.ecosystem, tuple(fitting), missing, unexpected, resized, ignored, notes)
    return fitting, report


def _check_head(tensors: dict[str, Tensor], state: dict[str, Tensor], source: Source) -> None:
    theirs, ours = of_head(tensors), of_head(state)
    keeps = "head=False keeps the model's head as it is"
    if not _classifies(theirs):
        raise ValueError(f"{source} has no head, the model has {', '.join(ours) or 'none'}; {keeps}")
    if set(theirs) != set(ours):
        builds = "; build_from builds a model with such a head" if "head.linear.weight" in theirs else ""
        raise ValueError(
            f"{source} has the head {', '.join(theirs)}, the model {', '.join(ours) or 'none'}; {keeps}{builds}"
        )
    last = next(name for name in reversed(theirs) if name.endswith("weight"))
    if len(tensors[last]) != len(state[last]):
        raise ValueError(
            f"the head of {source} has {len(tensors[last]):,} classes ({', '.join(theirs)}), the model's has "
            f"{len(state[last]):,}; {keeps}, or load first and then vitscratch.transfer.replace_head"
        )


def _check_function(weights: Weights, model: VisionTransformer, source: Source, reads: bool) -> tuple[str, ...]:
    """What no shape shows: with other heads, or another token read, a model computes something else in silence.

    Args:
        reads: whether the head has to read what the weights' head read.

    Returns:
        Notes, where the weights' own were a guess.
    """
    notes = []
    heads, mine = weights.config.num_heads, _num_heads(model)
    if heads != mine and not _assumed(weights, "num_heads"):
        raise ValueError(
            f"{source} was trained with {heads} attention heads, the model has {mine}; build it with num_heads={heads}"
        )
    if heads != mine:
        notes.append(f"num_heads: the model has {mine}, the usual number for this width is {heads}")
    theirs = weights.config.pool
    if reads and theirs != model.pool and not _assumed(weights, "class token"):
        raise ValueError(
            f"the head of {source} reads pool={theirs!r}, the model's {model.pool!r}; build it with pool={theirs!r}, "
            "or head=False keeps the model's head as it is"
        )
    return tuple(notes)


def _assumed(weights: Weights, what: str) -> bool:
    return any(what in note and "assumed" in note for note in weights.notes)


def _num_heads(model: VisionTransformer) -> int:
    block = model.blocks[0]
    assert isinstance(block, EncoderBlock)
    return block.attn.num_heads


def _check_shapes(tensors: dict[str, Tensor], state: dict[str, Tensor], source: Source) -> None:
    wrong = [
        f"{name} is {tuple(tensor.shape)} there, {tuple(state[name].shape)} in the model"
        for name, tensor in tensors.items()
        if name in state and tensor.shape != state[name].shape
    ]
    if wrong:
        more = f", and {len(wrong) - 2} more differ" if len(wrong) > 2 else ""
        raise ValueError(
            f"{source} does not fit: {'; '.join(wrong[:2])}{more}; build_from builds a model of its architecture"
        )


def _resized(
    weights: Weights, tensors: dict[str, Tensor], model: VisionTransformer
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    resized, tensors = [], dict(tensors)
    old, new = _grid(weights.config), model.patch_embed.grid_size
    if _POSITIONS in tensors and old != new:
        method: Literal["timm", "torchvision"] = "torchvision" if weights.ecosystem == "torchvision" else "timm"
        tensors[_POSITIONS] = resize_position_embedding(tensors[_POSITIONS], old, new, method)
        resized.append(f"{_POSITIONS}: {old[0]} x {old[1]} -> {new[0]} x {new[1]} patches")
    channels = model.patch_embed.in_channels
    if _KERNEL in tensors and tensors[_KERNEL].shape[1] != channels:
        resized.append(f"{_KERNEL}: {tensors[_KERNEL].shape[1]} -> {channels} channels")
        tensors[_KERNEL] = adapt_channels(tensors[_KERNEL], channels)
    return tensors, tuple(resized)


def _grid(config: ViTConfig) -> tuple[int, int]:
    (height, width), (patch_height, patch_width) = (
        size if isinstance(size, tuple) else (size, size) for size in (config.image_size, config.patch_size)
    )
    return height // patch_height, width // patch_width


def _without(tensors: Mapping[str, Tensor], names: Container[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def _classifies(tensors: Iterable[str]) -> bool:
    """Whether there are logits: a pooler (pre-logits) alone, or a bias, makes none."""
    return bool({"head.weight", "head.linear.weight"} & set(tensors))


def _preprocessing(weights: Weights, model: VisionTransformer) -> dict[str, Any]:
    """The weights' own, for the size and channels of the model; {} if it is not known."""
    known, channels = weights.preprocessing, model.patch_embed.in_channels
    if known is None or channels not in (1, 3):
        return {}
    size = list(model.patch_embed.image_size)
    if channels == known["channels"]:
        return {**known, "image_size": size}
    averages = {name: [sum(known[name]) / len(known[name])] * channels for name in ("mean", "std")}
    return {**known, **averages, "image_size": size, "channels": channels}


def _listed(names: Iterable[str]) -> str:
    shown = list(names) or ["nothing"]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4:,} more" if len(shown) > 4 else "")
