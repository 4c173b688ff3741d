"""Every test runs with the package's jaxtyping shapes checked by beartype, and from a fixed random state."""

import pytest
from jaxtyping import install_import_hook

install_import_hook("vitscratch", "beartype.beartype")  # before the first import of the package

import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
