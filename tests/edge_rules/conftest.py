"""One compile cache for all tests in this process, under build/, named after what it was compiled from."""

from __future__ import annotations

import os
from pathlib import Path

from edge_rules.advice.cache import folder_for

CACHE = Path(__file__).parents[2] / "build" / "test-cache"
os.environ["NUMBA_CACHE_DIR"] = str(folder_for(CACHE))
