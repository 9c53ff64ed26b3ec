"""Which modules wait for `make campaign`, and what every fault test says of itself.

A fault test names its row, what is injected and what must hold (`@pytest.mark.fault`), and tells the figure it found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

# They measure time on a machine that must be quiet, or take minutes.
WANT_A_QUIET_MACHINE = {
    "tests/fault/test_rows_36_to_38_bus.py",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        module, _, _ = item.nodeid.partition("::")
        if module in WANT_A_QUIET_MACHINE or item.nodeid in WANT_A_QUIET_MACHINE:
            item.add_marker(pytest.mark.campaign)


class Figure(Protocol):
    def __call__(self, text: str) -> None: ...


@pytest.fixture
def figure(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Figure:
    """Say what was measured; it stands in the matrix beside the row of the test's `fault` mark."""
    mark = request.node.get_closest_marker("fault")
    assert mark is not None, "a fault test names its row: @pytest.mark.fault(row=..., ...)"
    for key in ("row", "fault", "injected", "holds"):
        record_property(key, mark.kwargs[key])

    def say(text: str) -> None:
        record_property("figure", text)
        print(f"row {mark.kwargs['row']}: {text}")  # noqa: T201 -- shown with -s and on failure

    return say
