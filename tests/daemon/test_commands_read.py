"""`pondwatch read --times N`: how long a device takes to answer, as percentiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from daemon import requests
from daemon.commands import main
from daemon.commands.read import RoundTrips, percentile
from daemon.requests import Measured

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


@given(st.lists(st.floats(0, 1e4), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_is_the_smallest_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found is not None
    assert sum(v <= found for v in ordered) >= share * len(ordered) - 1e-9
    assert all(sum(v <= w for v in ordered) < share * len(ordered) for w in ordered if w < found)


def test_polls_without_an_answer_count_as_asked_alone() -> None:
    trips = RoundTrips.of("vw1", [10.0, None, 30.0, 20.0])
    assert trips == RoundTrips("vw1", 4, 3, 20.0, 30.0, 30.0, 30.0)
    assert RoundTrips.of("vw1", [None]).cells() == ["vw1", "1", "0", "-", "-", "-", "-"]


def test_a_device_is_asked_as_often_as_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([12.0, 8.0, None])

    def ask(_path: Path, _request: object, _type: object, _deadline_s: float) -> list[Measured]:
        ms = next(answers)
        quality = "good" if ms else "bad:no-reply"
        return [Measured("w", "weather", "pressure", (0x447C, 0x0D71), 1008.21, "hPa", quality, ms)]

    monkeypatch.setattr(requests, "ask", ask)
    monkeypatch.setenv("PONDWATCH_RUN", str(tmp_path))
    assert main(["read", "--times", "3"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split() == ["device", "asked", "answered", "p50_ms", "p90_ms", "p99_ms", "max_ms"]
    assert lines[-1].split() == ["weather", "3", "2", "8.0", "12.0", "12.0", "12.0"]
    assert main(["read", "--times", "0"]) == 2
    assert "must lie within 1 .. 1000" in capsys.readouterr().err
