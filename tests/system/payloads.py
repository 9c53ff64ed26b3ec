"""Version 1 of the payload, written down from its description: every member, its type, nothing else.

Shares no type with the daemon. A member that is missing, unknown or of another type is an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Moment = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
Quality = Annotated[str, msgspec.Meta(pattern="^(good|(uncertain|bad):[a-z0-9-]+)$")]
Level = Literal["none", "blue", "yellow", "orange", "red"]
Mode = Literal["real", "test", "simulated"]


class _Exact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Status(_Exact, frozen=True):
    v: Literal[1]
    mode: Mode
    state: Literal["online", "stopping", "offline"]
    version: str
    boot: str
    stream: str
    config_sha256: Hash
    started: Moment


class _Chained(_Exact, frozen=True):
    v: Literal[1]
    mode: Mode
    stream: str
    seq: Annotated[int, msgspec.Meta(ge=1)]
    prev: Hash
    site: str
    gateway: str


class Reading(_Exact, frozen=True):
    channel: str
    time: Moment
    value: float | None
    unit: str
    quality: Quality
    raw: dict[str, float]

    def __post_init__(self) -> None:
        if (self.value is None) != self.quality.startswith("bad:"):
            raise ValueError("a value is null exactly where its quality is bad")


class Readings(_Chained, frozen=True):
    readings: Annotated[list[Reading], msgspec.Meta(min_length=1, max_length=2000)]


class Reason(_Exact, frozen=True):
    zh: str
    en: str


class Alarm(_Chained, frozen=True):
    id: str
    kind: Literal["channel", "item", "pond", "advice", "fault", "system"]
    level: Level
    was: Level
    condition: Literal["present", "gone", "unknown"]
    response: Literal["new", "acknowledged", "assigned", "handled", "closed"]
    by: str | None
    role: str | None
    note: str | None
    pond: str | None
    section: str | None
    item: str | None
    monitoring_point: str | None
    channel: str | None
    line: str | None
    device: str | None
    rule: str | None
    value: float | None
    limit: float | None
    time: Moment
    due: Moment
    reason: Reason
    evidence: dict[str, Any]


class Gap(_Chained, frozen=True):
    of: str
    from_seq: int | None
    to_seq: int | None
    from_: Moment | None = msgspec.field(name="from")
    to: Moment
    count: int | None
    reason: str


class Audit(_Chained, frozen=True, forbid_unknown_fields=False):
    """Beside these, members of its own for each `what`."""

    time: Moment
    what: Annotated[str, msgspec.Meta(pattern=r"^[a-z]+(\.[a-z]+)*$")]
    by: Annotated[str, msgspec.Meta(min_length=1)]
    from_: Any = msgspec.field(name="from")
    to: Any
    subject: str | None
    uid: int | None
    why: str | None


class Seal(_Exact, frozen=True):
    v: Literal[1]
    mode: Mode
    stream: str
    seq: Annotated[int, msgspec.Meta(ge=1)]
    hash: Hash
    time: Moment
    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    alg: Literal["ed25519"]
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]


Payload = Status | Readings | Alarm | Gap | Audit | Seal
KINDS: dict[str, type[Payload]] = {
    "status": Status,
    "readings": Readings,
    "alarms": Alarm,
    "gaps": Gap,
    "audit": Audit,
    "seals": Seal,
}


def read(kind: str, payload: bytes) -> Payload:
    """The payload as its kind has it.

    Raises:
        msgspec.ValidationError: it is not what the description says.
    """
    return msgspec.json.decode(payload, type=KINDS[kind])
