"""What a process keeps of the memory that its threads have freed."""

from __future__ import annotations

import asyncio
import platform
import sys

import pytest

# Threads make payloads of growing size, another one frees them; between two that stay, so that none is at the end.
CHURN = """
import re, sys, threading
from daemon import heap
if sys.argv[1] == "tidy":
    assert heap.give_back()
def rss_kb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
def fill(made, kept):
    for n in range(40):
        made.append(bytearray(100_000 + 5_000 * n))
        kept.append(bytearray(3_000))
before = rss_kb()
for _ in range(3):
    made, kept = [], []
    threads = [threading.Thread(target=fill, args=(made, kept)) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    made.clear()
print(rss_kb() - before)
"""


async def kept_kb(how: str) -> int:
    churn = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHURN, how, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await churn.communicate()
    return int(out)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
async def test_what_threads_have_freed_goes_back_to_the_system() -> None:
    assert await kept_kb("tidy") < 8_000
    assert await kept_kb("as it comes") > 12_000
