"""Where pretrained weights come from: files, the package, downloads of torchvision, timm and the Hugging Face Hub."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vitscratch.config import Size
from vitscratch.data import Preprocessing
from vitscratch.weights.contents import Weights
from vitscratch.weights.reading import file_in, from_timm
from vitscratch.weights.reading import read_weights as read_file
from vitscratch.weights.shipped import shipped, shipped_names

Source = str | Path | Enum
"""A path, a member of torchvision's weights such as `ViT_B_16_Weights.DEFAULT` or its name, "timm:NAME",
"hf:ORG/NAME", or the name of weights that come with the package."""

TIMM, HUB = "timm:", "hf:"
TORCHVISION = re.compile(r"\w+_Weights\.\w+")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # one is enough
_CHECKPOINTS = ("last.pt", "previous.pt", "best.pt")  # of a run: not what it ended with


def read_weights(
    source: Source, *, image_size: Size | None = None, num_heads: int | None = None, progress: bool = True
) -> Weights:
    """Read pretrained weights, in our names, from wherever they are; downloads stay where their library keeps them.

    Args:
        source: see `Source`; a folder is a run's, or has config.json and model.safetensors.
        image_size, num_heads: what a file alone may not tell: the size of pictures that were not square, and the heads
            of an unusual width.
        progress: a bar while torchvision's are downloaded; the other libraries have their own settings.

    Raises:
        ValueError: no such file, name or repository, or something else than the weights of a ViT.
        ImportError: the package that knows the source. OSError: a download that failed.
    """
    source = _member(source)
    if isinstance(source, str) and source.startswith(TIMM):
        return _from_timm(source)
    path = find_file(source, progress=progress)
    assert path is not None  # all but timm's have one
    if isinstance(source, Enum):
        return _described_by(source, read_file(path))
    read = read_file(path, image_size=image_size, num_heads=num_heads)
    if source in shipped_names() and isinstance(source, str) and Path(source).exists():
        note = f"{source!r} means the weights that come with vitscratch; ./{source} is a file or folder of that name"
        return replace(read, notes=(*read.notes, note))
    return read


def find_file(source: Source, *, progress: bool = True) -> Path | None:
    """The file that the weights of a source are read from, downloaded first if need be; None for timm's own.

    Args:
        source, progress: as for `read_weights`.

    Raises:
        As `read_weights`.
    """
    source = _member(source)
    if isinstance(source, Enum):
        return _from_torchvision(source, progress)
    if isinstance(source, str) and source.startswith(TIMM):
        return None
    if isinstance(source, str) and source.startswith(HUB):
        return file_in(_from_hub(source))
    if isinstance(source, str) and source in shipped_names():
        return shipped(source)
    path = Path(source)
    if not path.exists():
        names = "".join(f"{name}, " for name in shipped_names())
        raise ValueError(
            f"{path} does not exist; expected the folder of a run, a file or folder of weights, {names}timm:NAME or "
            "hf:ORG/NAME"
        )
    if path.name in _CHECKPOINTS and (path.parent / "config.json").exists():
        raise ValueError(f"{path} is a checkpoint; name the run's folder, {path.parent}")
    return file_in(path)


def _member(source: Source) -> Source:
    """The member of torchvision's weights that a name is of; other sources as they are."""
    if isinstance(source, str) and TORCHVISION.fullmatch(source):
        from torchvision.models import get_weight

        return get_weight(source)
    return source


def _from_torchvision(member: Enum, progress: bool) -> Path:
    import torch
    from torchvision.models import WeightsEnum

    if not isinstance(member, WeightsEnum):
        raise ValueError(f"{member!r} is no member of torchvision's weights, such as ViT_B_16_Weights.IMAGENET1K_V1")
    path = Path(torch.hub.get_dir()) / "checkpoints" / member.url.rpartition("/")[2]
    if not path.exists():
        try:  # only to have it there, checked: on "meta" no tensor is read
            torch.hub.load_state_dict_from_url(
                member.url, map_location="meta", progress=progress, check_hash=True, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"{member!r} is not on this machine, and {member.url} could not be downloaded ({_line(error)}); put it "
                f"at {path}, or name the path of a copy as the source"
            ) from error
    return path


def _described_by(member: Any, read: Weights) -> Weights:
    """With the class names and the preprocessing that torchvision's member has."""
    return replace(
        read,
        notes=tuple(note for note in read.notes if not note.startswith(("class names of", "preprocessing assumed"))),
        class_names=tuple(member.meta["categories"]),
        preprocessing=_of_torchvision(member.transforms()).to_dict(),
        provenance={"weights": repr(member), "url": member.url},
    )


def _of_torchvision(transforms: Any) -> Preprocessing:
    (side,), (resized,) = transforms.crop_size, transforms.resize_size
    return Preprocessing(
        (side, side),
        3,
        tuple(transforms.mean),
        tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        fraction=side / resized,
    )


def _from_timm(source: str) -> Weights:
    _need("timm", source, "timm")
    import timm
    from timm.data import resolve_model_data_config  # type: ignore[attr-defined]

    name = source.removeprefix(TIMM)
    if not timm.is_model(name) or not timm.is_model_pretrained(name):
        near = timm.list_models(f"{name.partition('.')[0]}*", pretrained=True)[:3]
        hint = f"; there are {', '.join(near)}" if near else " (timm.list_models('vit_*', pretrained=True) lists them)"
        raise ValueError(f"{source}: timm has no pretrained model of that name{hint}")
    try:
        with _patience():
            model: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # whatever its downloader raises
        raise OSError(
            f"{source} is not on this machine, and timm could not download it ({_line(error)}); on a machine with a "
            f"network, torch.save(timm.create_model({name!r}, pretrained=True).state_dict(), PATH), and name that path"
        ) from error
    described = {
        "architecture": name,
        "num_features": model.num_features,
        "global_pool": getattr(model, "global_pool", None),
        "pretrained_cfg": resolve_model_data_config(model),  # type: ignore[no-untyped-call]
        "model_args": {"num_heads": model.blocks[0].attn.num_heads} if hasattr(model, "blocks") else {},
    }
    return from_timm(source, model.state_dict(), described)


def _from_hub(source: str) -> Path:
    """The folder with a repository's files, downloaded if they are not there yet."""
    _need("huggingface_hub", source, "hub")
    repository = source.removeprefix(HUB)
    if repository.count("/") != 1:
        raise ValueError(f"{source}: expected hf:ORG/NAME, such as hf:google/vit-base-patch16-224")
    config = _fetched(repository, "config.json")
    if config is None:
        raise ValueError(f"{source} has no config.json; expected a model of transformers or timm")
    _fetched(repository, "preprocessor_config.json")
    if not any(_fetched(repository, file) for file in _HUB_FILES):
        raise ValueError(f"{source} has neither {' nor '.join(_HUB_FILES)}; expected a model of transformers or timm")
    return config.parent


def _fetched(repository: str, file: str) -> Path | None:
    """A file of a repository on the Hub; None if the repository does not have it."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        with _patience():
            return Path(hf_hub_download(repository, file))
    except RepositoryNotFoundError as error:
        raise ValueError(f"hf:{repository}: there is no such repository, or it is not open to everybody") from error
    except Exception as error:  # the hub's, its client's, the system's
        known = try_to_load_from_cache(repository, file)  # a mark if the repository was known not to have it
        if known or (isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)):
            return None
        raise OSError(
            f"{file} of hf:{repository} is not on this machine, and could not be downloaded from the Hugging Face Hub "
            f"({_line(error)}); put config.json, preprocessor_config.json and {_HUB_FILES[0]} of it into a folder, and "
            "name that folder as the source"
        ) from error


@contextmanager
def _patience() -> Iterator[None]:
    """The Hub's client tries for a minute and tells of each try: only where there is a network, and without a word.

    Raises:
        ConnectionError: there is none, and what was wanted is not on this machine.
    """
    from huggingface_hub import constants

    logger = logging.getLogger("huggingface_hub")
    level, offline = logger.level, constants.HF_HUB_OFFLINE
    logger.setLevel(logging.ERROR)
    reason = None if offline else _no_way_to(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = offline or reason is not None  # as its environment variable: only what is here already
    try:
        yield
    except Exception as error:
        if reason is None:
            raise
        raise ConnectionError(reason) from error
    finally:
        constants.HF_HUB_OFFLINE = offline
        logger.setLevel(level)


def _no_way_to(address: str) -> str | None:
    """Why no connection to an address can even begin (no network, no name service), after one try by the Hub's own way
    (proxies, certificates); None if it can, or if that takes long: a slow network is one."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    try:
        get_session().head(address, timeout=5)
    except Exception as error:  # httpx's or requests', as the client's version is
        return _line(error) if type(error).__name__ in ("ConnectError", "ConnectionError") else None
    return None


def _need(package: str, source: str, extra: str) -> None:
    if find_spec(package) is None:
        raise ImportError(f"{source} needs {package}; pip install 'vitscratch[{extra}]' brings it")


def _line(error: Exception) -> str:
    """Its first sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
