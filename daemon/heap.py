"""glibc's heap, told what a process wants of it that runs for years and whose blocks live for seconds.

By itself glibc gives each thread an arena, and takes larger blocks into it the larger those were that were
freed before; what was freed there stays with the process. Payloads are made in one thread and freed in
another, so a core under load kept fifteen megabytes of nothing. With one arena, and payloads mapped by
themselves, what is freed goes back. Source: mallopt(3).
"""

from __future__ import annotations

import ctypes

# malloc.h
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8
_BLOCK_BYTES = 64 << 10  # as large a block and larger is mapped; a payload that takes less is soon used again
_SPARE_BYTES = 128 << 10


def give_back() -> bool:
    """Have what is freed go back to the system; before there are threads. False where libc is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _BLOCK_BYTES), (_TRIM_THRESHOLD, _SPARE_BYTES))
    return all(bool(mallopt(which, value)) for which, value in settings)
