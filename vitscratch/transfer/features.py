"""What the head of a classifier reads: computed once for each picture, and kept on disk while it stays true."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitscratch.data import EpochBatches, PictureFiles, Pictures, Preprocessing, content_digest, make_batches
from vitscratch.data.contents import tensor_digest
from vitscratch.data.remember import default_data_dir, versions
from vitscratch.files import write_atomically
from vitscratch.training.precision import autocast
from vitscratch.transfer.head import head_name

FORMAT = "vitscratch features 1"


@torch.no_grad()
def extract_features(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    precision: torch.dtype = torch.float32,
    on_batch: Callable[[int], object] | None = None,
) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """What the head reads of each picture, in eval mode and without gradients; the model is left as it was.

    Args:
        model: one of ours, torchvision's ViTs and ResNets, timm's: any whose head `head_name` finds.
        batches: (images, labels) pairs; moved to the model's device.
        precision: of the matrix products, as `choose_precision` gives it. The features are rounded to it, as the head
            itself would round them.
        on_batch: called after each batch with its number of pictures.

    Returns:
        (features, labels), a row for each picture in the order of the batches, on the CPU. Features are float32
        (float64 from a float64 model).

    Raises:
        ValueError: no batches, a head that does not read one vector for each picture, or features that are not finite.
    """
    device = next(model.parameters()).device
    features, labels = [], []
    with _eval_mode(model), _head_inputs(model) as read:
        for images, targets in batches:
            with autocast(device, precision):
                model(images.to(device, non_blocking=True))
            if len(read) != 1 or read[0].dim() != 2 or len(read[0]) != len(images):
                shapes = [tuple(seen.shape) for seen in read]
                raise ValueError(f"the head read {shapes} of {len(images)} pictures; expected one (b, d) tensor")
            rows = read.pop()
            features.append(rows.cpu() if precision == torch.float32 else rows.to(precision).float().cpu())
            labels.append(targets.cpu())
            if on_batch is not None:
                on_batch(len(images))
    if not features:
        raise ValueError("there are no batches to compute features of; expected at least one")
    together = torch.cat(features)
    if bad := int((~together.isfinite()).any(dim=1).sum()):
        raise ValueError(
            f"features of {bad:,} of {len(together):,} pictures are nan or infinite; look at the weights and at mean "
            f"and std of the preprocessing{'' if precision != torch.float16 else ', or compute with fp32 or bf16'}"
        )
    return together, torch.cat(labels)


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Every part in eval mode, and afterwards in the mode that it had: a frozen body's may not be the model's."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def _head_inputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list to which each call of the head adds what it was given."""
    read: list[Tensor] = []
    hook = model.get_submodule(head_name(model)).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        yield read
    finally:
        hook.remove()


@dataclass(frozen=True)
class CachedFeatures:
    """Features of a part of a set.

    Args:
        features, labels: see `extract_features`, in the order of the part.
        found: whether they were read from the cache.
        path: where they are kept, if that folder can be written. Whoever deletes it loses only time.
        notes: what somebody may want to know, such as a damaged file that was ignored.
    """

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    found: bool
    path: Path
    notes: tuple[str, ...] = ()


def cached_features(
    model: nn.Module,
    part: Pictures | PictureFiles,
    preprocessing: Preprocessing,
    precision: torch.dtype = torch.float32,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    folder: Path | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> CachedFeatures:
    """`extract_features` of pictures without augmentation, computed once and then read from the user's cache folder.

    They are found again for the same weights (but the head's, which they do not depend on), kind of model, device,
    preprocessing, precision, and bytes of the pictures; labels have no part in it. A change of the model's code is in
    none of these: so features of three pictures are computed again, and if they differ, all are. Of several processes
    that want the same, one computes, and the others wait and read. Nothing deletes old files.

    Args:
        model, precision: see `extract_features`.
        part, preprocessing, batch_size, workers: see `make_batches`. The batch size changes features by rounding only;
            None: 32 on a CPU, whose caches hold little, else 128.
        folder: where they are kept; None: "features" in the user's cache folder.
        progress: called with the pictures that are done, and all of them.

    Raises:
        ValueError: see `extract_features`. OSError: a picture that cannot be read any more.
    """
    from filelock import FileLock

    work = _Work(model, part, preprocessing, precision, workers)
    path = (folder if folder is not None else default_data_dir() / "features") / f"{work.key()}.safetensors"
    notes: list[str] = []
    with ExitStack() as stack:
        with suppress(OSError, NotImplementedError):  # the latter from file systems without locks
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        features = _read(path, len(part), notes)
        if features is not None and not work.agrees(features):
            notes.append(f"the same weights give other features than {path}: the code was changed; computed anew")
            features = None
        if features is not None:
            return CachedFeatures(features, part.labels, True, path)
        on_cpu = next(model.parameters()).device.type == "cpu"
        features = work.compute(part, batch_size or (32 if on_cpu else 128), progress)
        _write(path, features if precision == torch.float32 else features.to(precision), notes)
    return CachedFeatures(features, part.labels, False, path, tuple(notes))


@dataclass(frozen=True)
class _Work:
    """Everything that features depend on."""

    model: nn.Module
    part: Pictures | PictureFiles
    preprocessing: Preprocessing
    precision: torch.dtype
    workers: int | None

    def key(self) -> str:
        """A digest of all of it but code."""
        head = head_name(self.model)
        told = hashlib.blake2b(digest_size=16)
        for name, tensor in chain(self.model.named_parameters(), self.model.named_buffers()):
            if not name.startswith(f"{head}."):
                told.update(f"{name} {tensor_digest(tensor)}\n".encode())
        for name, module in self.model.named_modules():
            if name != head:
                told.update(f"{name} {type(module).__name__} {module.extra_repr()}\n".encode())
        decoding = versions() if isinstance(self.part, PictureFiles) else {}
        device = next(self.model.parameters()).device.type
        about = (device, self.preprocessing.to_dict(), str(self.precision), decoding, content_digest(self.part))
        told.update(repr(about).encode())
        return told.hexdigest()

    def compute(
        self, part: Pictures | PictureFiles, batch_size: int, progress: Callable[[int, int], object] | None = None
    ) -> Float[Tensor, "n d"]:
        """Features of this part or a part of it, in order."""
        done = 0

        def on_batch(pictures: int) -> None:
            nonlocal done
            done += pictures
            if progress is not None:
                progress(done, len(part))

        return extract_features(self.model, self._batches(part, batch_size), self.precision, on_batch)[0]

    def _batches(self, part: Pictures | PictureFiles, batch_size: int) -> EpochBatches:
        device = next(self.model.parameters()).device
        return make_batches(part, self.preprocessing, batch_size, device=device, workers=self.workers)

    def agrees(self, features: Float[Tensor, "n d"]) -> bool:
        """Whether these are, but for rounding, what the model gives for the first, middle and last picture."""
        rows = torch.tensor([0, len(self.part) // 2, len(self.part) - 1]).unique()
        again = replace(self, workers=0).compute(self.part.part(rows), len(rows))
        kept, allowed = features[rows], 1e-3 if self.precision == torch.float32 else 0.05
        if kept.shape != again.shape:
            return False
        return bool(((again - kept).norm(dim=1) <= allowed * again.norm(dim=1)).all())


def _read(path: Path, pictures: int, notes: list[str]) -> Float[Tensor, "n d"] | None:
    """What `_write` kept, if it is whole; a file that is not is worth a note."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            features, metadata = file.get_tensor("features"), file.metadata() or {}
        if metadata != {"format": "pt", "vitscratch": FORMAT, "digest": tensor_digest(features)}:
            raise ValueError("its digest is another")
        if features.dim() != 2 or len(features) != pictures:
            raise ValueError(f"shape {tuple(features.shape)} for {pictures} pictures")
    except (SafetensorError, OSError, ValueError) as error:
        notes.append(f"{path} is damaged ({str(error).splitlines()[0]}); computed anew")
        return None
    return features if features.dtype == torch.float64 else features.float()


def _write(path: Path, features: Tensor, notes: list[str]) -> None:
    """With the precision that they were rounded to, so bf16 takes half the space."""
    from safetensors.torch import save

    metadata = {"format": "pt", "vitscratch": FORMAT, "digest": tensor_digest(features)}
    content = save({"features": features.contiguous()}, metadata=metadata)
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        notes.append(f"features are not kept: {path} cannot be written ({error.strerror or error})")
