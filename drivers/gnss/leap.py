"""How far GPS time is ahead of UTC: data that somebody keeps, and that runs out.

Debian keeps the list of the IERS in `leap-seconds.list`, and says in it until when it holds. What is built in
is for a machine without it: 18 s since 2017, which the IERS had confirmed until BUILT_IN's expiry. After the
expiry the last offset still counts, with one warning: it is off by a second at most, and only the interval
that an epoch belongs to depends on it.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger(__name__)

INSTALLED = Path("/usr/share/zoneinfo/leap-seconds.list")
_NTP_BEFORE_UNIX_S = 2_208_988_800  # 1900 to 1970
_GPS_BEHIND_TAI_S = 19
_S = 1_000_000_000
_ROW = re.compile(r"(\d+)\s+(\d+)\b")
_EXPIRY = re.compile(r"#@\s*(\d+)")


@dataclass(frozen=True, slots=True)
class LeapSeconds:
    """Steps as (instant in ns since 1970 UTC, seconds that GPS time is ahead of UTC from then on)."""

    steps: tuple[tuple[int, int], ...]
    expires_ns: int

    def gps_ahead_s(self, utc_ns: int) -> int:
        return next((ahead_s for since_ns, ahead_s in reversed(self.steps) if since_ns <= utc_ns), 0)

    def warn_if_expired(self, utc_ns: int) -> None:
        if utc_ns > self.expires_ns:
            log.warning(
                "the list of leap seconds expired on %s: update tzdata; GPS time counts as %d s ahead",
                datetime.fromtimestamp(self.expires_ns // _S, UTC).date(),
                self.gps_ahead_s(utc_ns),
            )


BUILT_IN = LeapSeconds(((1_483_228_800 * _S, 18),), 1_782_604_800 * _S)  # 2017-01-01; 2026-06-28


def read(text: str) -> LeapSeconds:
    """A `leap-seconds.list` of the IERS: NTP seconds and TAI-UTC in rows, the expiry behind `#@`.

    Raises:
        ValueError: it is none.
    """
    steps = tuple(
        ((int(row[1]) - _NTP_BEFORE_UNIX_S) * _S, int(row[2]) - _GPS_BEHIND_TAI_S)
        for row in map(_ROW.match, text.splitlines())
        if row is not None
    )
    expiry = _EXPIRY.search(text)
    if not steps or expiry is None:
        raise ValueError("no list of leap seconds")
    return LeapSeconds(steps, (int(expiry[1]) - _NTP_BEFORE_UNIX_S) * _S)


def installed(path: Path = INSTALLED) -> LeapSeconds:
    """The machine's own list, or what is built in where that holds longer."""
    try:
        found = read(path.read_text())
    except (OSError, ValueError):
        return BUILT_IN
    return max(found, BUILT_IN, key=lambda each: each.expires_ns)
