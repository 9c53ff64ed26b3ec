from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def kernels(compiled: Path) -> dict[str, str]:
    """An environment in which the rules process finds its compiled kernels, as on a gateway."""
    return {"CACHE_DIRECTORY": str(compiled)}
