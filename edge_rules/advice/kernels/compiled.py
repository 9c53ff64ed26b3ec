"""How the kernels are compiled, where that is kept, and the records they work on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import config, njit
from numba.core import caching

from edge_rules.advice.cache import fingerprint

_F = TypeVar("_F", bound=Callable[..., Any])
Records = npt.NDArray[np.void]


class _OfAllSources:
    """Numba by itself notices a change in the file of the entry point, and in none of those it calls."""

    def get_source_stamp(self) -> str:
        return fingerprint()


class Named(_OfAllSources, caching.UserProvidedCacheLocator):
    """Below `NUMBA_CACHE_DIR`."""


class Beside(_OfAllSources, caching.InTreeCacheLocator):
    """In the `__pycache__` of this folder."""


class AtHome(_OfAllSources, caching.UserWideCacheLocator):
    """In the user's own cache, where this folder cannot be written to."""


_PLACES = ",".join(f"{__name__}.{place.__name__}" for place in (Named, Beside, AtHome))


def compiled(function: _F) -> _F:
    return cast("_F", njit(error_model="numpy", forceinline=True)(function))


def entry(function: _F) -> _F:
    """Cached with all that it calls, until a file of this folder changes."""
    others, config.CACHE_LOCATOR_CLASSES = config.CACHE_LOCATOR_CLASSES, _PLACES  # type: ignore[attr-defined]
    try:
        return cast("_F", njit(cache=True, nogil=True, error_model="numpy")(function))
    finally:
        config.CACHE_LOCATOR_CLASSES = others  # type: ignore[attr-defined]


def records(dtype: np.dtype[np.void], count: int) -> Records:
    """`count` zeroed records, whose fields are attributes with the compiler on and off."""
    return np.zeros(count, dtype).view(np.recarray)


def bare(array: Records) -> Records:
    """The same memory as the entry points take it fastest: a view without the attributes.

    Numba recognises a structured array by its dtype, at once when it is the very object seen before and field
    by field when it is only equal. With the compiler off it is the attributes that are needed.
    """
    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        return array
    return array.view(_plain(array.dtype), np.ndarray)


@cache
def _plain(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    return np.dtype(dtype.descr)
