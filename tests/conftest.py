"""What every fault test says of itself, and kernels compiled beforehand.

A fault test names its row, what is injected and what must hold (`@pytest.mark.fault`), and tells the figure it found.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# No property is a measure of time: on a machine with much else to do an example may take long.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


COMPILE = """
import sys
from pathlib import Path
from edge_rules.advice import cache
folder = cache.open_cache(Path(sys.argv[1]))
from edge_rules.advice.detectors import compile_kernels
compile_kernels()
cache.seal(folder)
"""


class Figure(Protocol):
    def __call__(self, text: str) -> None: ...


@pytest.fixture
def figure(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Figure:
    """Say what was measured; it stands in the matrix beside the row of the test's `fault` mark."""
    mark = request.node.get_closest_marker("fault")
    assert mark is not None, "a fault test names its row: @pytest.mark.fault(row=..., ...)"
    for key in ("row", "fault", "injected", "holds"):
        record_property(key, mark.kwargs[key])
    if request.node.get_closest_marker("campaign"):
        record_property("campaign", "yes")

    def say(text: str) -> None:
        record_property("figure", text)
        print(f"row {mark.kwargs['row']}: {text}")  # noqa: T201 -- shown with -s and on failure

    return say


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the rules process finds its kernels compiled, as at any start but its first.

    The first takes ten seconds, on a busy machine a minute: longer than the days of a fast scenario.
    """
    folder = tmp_path_factory.mktemp("kernels", numbered=False)
    subprocess.run([sys.executable, "-c", COMPILE, str(folder)], check=True)
    return folder
