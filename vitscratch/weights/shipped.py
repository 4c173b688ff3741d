"""Weights that come with the package, for machines without a network."""

from pathlib import Path

FILES = Path(__file__).parent / "files"


def shipped_names() -> tuple[str, ...]:
    """The names that `shipped` knows."""
    return tuple(sorted(path.stem for path in FILES.glob("*.safetensors")))


def shipped(name: str) -> Path:
    """The file of weights that come with the package.

    Raises:
        ValueError: no such name.
    """
    if name not in shipped_names():
        raise ValueError(f"no weights {name!r} come with vitscratch; there are {', '.join(shipped_names()) or 'none'}")
    return FILES / f"{name}.safetensors"
