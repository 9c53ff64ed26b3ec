from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the rules process keeps its compiled kernels, as on a gateway, from test to test."""
    folder = tmp_path_factory.mktemp("kernels", numbered=False)
    return {"CACHE_DIRECTORY": str(folder)}
