"""What the core stands on and is not told of: the room on its disk, and when its certificates end."""

from __future__ import annotations

import asyncio
import os
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.config import Site

EVERY_S: Final = 30.0


class Surroundings:
    """Looks now and then, in a thread: a disk that hangs holds up nothing else."""

    def __init__(self, site: Site) -> None:
        self._folder = site.store_folder
        self._certificates = {
            each.id: Path(name) for each in site.uplinks if (name := getattr(each, "certificate", ""))
        }
        self._free_bytes = nan
        self._expires_s: dict[str, float] = {}

    async def run(self) -> None:
        """Look, over and over, until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(EVERY_S)

    def look(self) -> None:
        self._free_bytes = free_bytes(self._folder)
        self._expires_s = {
            uplink: expires_s
            for uplink, path in self._certificates.items()
            if (expires_s := expiry_s(path)) is not None
        }

    def gauges(self) -> Iterable[tuple[str, tuple[str, ...], float]]:
        if not isnan(self._free_bytes):
            yield "pondwatch_disk_free_bytes", (), self._free_bytes
        for uplink, expires_s in self._expires_s.items():
            yield "pondwatch_certificate_expires_timestamp_seconds", (uplink,), expires_s


def free_bytes(folder: Path) -> float:
    """What this user may still write where `folder` lies; NaN where that cannot be told."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return nan
    return float(found.f_bavail * found.f_frsize)


def expiry_s(path: Path) -> float | None:
    """When the first certificate in a PEM file ends (s since 1970); None where the file has none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return None
