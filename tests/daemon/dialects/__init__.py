"""The test kit of dialects: what goes in is written down, and what must come out.

An example is a folder `golden/KIND/NAME` with `site.toml` (an `[[uplink]]` of that kind, and what it needs),
`batches.jsonl` (payloads of version 1, one a line) and `parcels.txt`, what the dialect must make of them:
for each parcel a line `== name`, and its bytes as text or, where they are none, in hex. A new dialect adds a
table, an encoder, and folders here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.binder import Problem, bind
from daemon.config import File
from daemon.spool import Batch, Draft
from daemon.uplink.dialect import told
from daemon.uplink.tables import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daemon.uplink.dialect import Parcel, Told
    from daemon.uplink.tables import OtherUplink

GOLDEN = Path(__file__).parent / "golden"
NOON_NS = 1_795_665_600_000_000_000  # 2026-11-26T04:00:00Z, noon in Shandong


def table(kind: str, settings: Mapping[str, Any]) -> Any:
    """An uplink's table as the binder makes it of the site file."""
    problems: list[Problem] = []
    bound: OtherUplink | None = bind(DIALECTS[kind], dict(settings), "uplink[0]", problems)
    assert not problems, problems
    return bound


def whole(file: Mapping[str, Any]) -> File:
    problems: list[Problem] = []
    bound = bind(File, file, "", problems)
    assert not problems, problems
    assert bound is not None
    return bound


def batches(lines: Iterable[str]) -> list[Told]:
    """Payloads as the store hands them out, read."""
    made = []
    for seq, line in enumerate(lines, 1):
        members = json.loads(line)
        kind = "readings" if "readings" in members else "alarms"
        made.append(told(Batch(seq, kind, NOON_NS, 1, line.encode(), b"")))  # type: ignore[arg-type]
    return made


def shown(parcels: Sequence[Parcel]) -> str:
    """As `parcels.txt` has them."""
    parts = []
    for name, payload in parcels:
        try:
            text = payload.decode()
            readable = text.isprintable() or text.replace("\n", "").isprintable()
        except UnicodeDecodeError:
            readable = False
        parts.append(f"== {name}\n{text if readable else payload.hex()}\n")
    return "".join(parts)


def reading(
    channel: str, value: float | None, time: str, unit: str = "m", quality: str = "good"
) -> dict[str, Any]:
    return {"channel": channel, "time": time, "value": value, "unit": unit, "quality": quality, "raw": {}}


def readings(*rows: Mapping[str, Any]) -> Draft:
    body = b'"site":"s","gateway":"g","readings":' + json.dumps(list(rows)).encode()
    return Draft("readings", body, NOON_NS, 1, len(rows))


def alarm(**changes: Any) -> Draft:
    members: dict[str, Any] = {
        "id": "channel:n.g01.horizontal:20261126T033000.000Z",
        "kind": "channel",
        "level": "yellow",
        "was": "none",
        "condition": "present",
        "response": "new",
        "channel": "n.g01.horizontal",
        "value": 31.5,
        "limit": 30.0,
        "time": "2026-11-26T03:30:00.000Z",
        "due": "2026-11-26T16:00:00.000Z",
        "reason": {"zh": "水平位移黄色预警", "en": "horizontal displacement yellow"},
    } | changes
    return Draft("alarms", json.dumps(members, ensure_ascii=False).encode()[1:-1], NOON_NS, 1, 1)
