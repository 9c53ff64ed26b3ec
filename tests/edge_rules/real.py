"""Real measurements, read where they lie; a test that needs them skips with the reason where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[3] / "shared" / "data"


def data(name: str) -> Path:
    path = Path(os.environ.get("PONDWATCH_DATA", _BESIDE)) / name
    if not path.exists():
        pytest.skip(f"real data {name} not found; set PONDWATCH_DATA to the folder that holds it")
    return path
