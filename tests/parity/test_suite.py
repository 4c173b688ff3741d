"""Our parts are the functions that torchvision, timm and torch.nn compute."""

import pytest

from tests.parity.checks import CHECKS
from tests.parity.library import real_library


@pytest.mark.parametrize("name", CHECKS)
def test_agrees(name: str) -> None:
    CHECKS[name](real_library())
