"""Every test runs with the package's jaxtyping shapes checked by beartype (but for the exercises' checks, which have
none), from a fixed random state, and with an empty cache of its own."""

import os
import sys
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core already; threads would fight over them
    os.environ.setdefault("OMP_NUM_THREADS", "1")

install_import_hook("vitscratch", "beartype.beartype")  # before the first import of the package
# Not the exercises' checks: they write no shapes, and call small functions a hundred thousand times for one file.
HOOK = sys.meta_path[0]
HOOK.should_instrument = (  # type: ignore[attr-defined]
    lambda name: name.split(".")[0] == "vitscratch" and not name.startswith("vitscratch.exercises.checks.")
)

import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own: nothing is remembered from another one, or in the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder
