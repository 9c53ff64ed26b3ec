"""A message of a gateway taken apart into what a database keeps of it; no broker and no disk in here.

Written from the README's description of the payload. What is read here is checked; members beyond it are
kept in the payload's own bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
import zstandard

MOST_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
SUBSCRIBED: Final = ("readings", "alarms", "gaps", "audit", "seals")
_TOPIC_LEVELS: Final = 5
_MOST_SEQ: Final = (1 << 63) - 1

Seq = Annotated[int, msgspec.Meta(ge=1, le=_MOST_SEQ)]
Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Refused(Exception):
    """It is no payload of version 1; the message says why."""


class _Chained(msgspec.Struct, frozen=True):
    v: Annotated[int, msgspec.Meta(ge=1, le=1)]
    mode: str
    stream: str
    seq: Seq
    prev: Hash


class Reading(msgspec.Struct, frozen=True, gc=False):
    channel: str
    time: str
    value: float | None
    unit: str
    quality: str


class Readings(_Chained, frozen=True):
    readings: list[Reading]


class Reason(msgspec.Struct, frozen=True):
    zh: str
    en: str


class Alarm(_Chained, frozen=True):
    id: str
    kind: str
    level: str
    condition: str
    response: str
    time: str
    due: str
    reason: Reason
    by: str | None = None
    role: str | None = None
    note: str | None = None
    pond: str | None = None
    channel: str | None = None


class Gap(_Chained, frozen=True):
    of: str
    reason: str
    from_seq: Seq | None = None
    to_seq: Annotated[int, msgspec.Meta(ge=0, le=_MOST_SEQ)] | None = None


class Audit(_Chained, frozen=True):
    """What it says is read when seals are verified, out of the payload."""


class Seal(msgspec.Struct, frozen=True):
    stream: str
    seq: Seq


Body = Readings | Alarm | Gap | Audit | Seal
_DECODERS: Final[dict[str, msgspec.json.Decoder[Body]]] = {
    kind: msgspec.json.Decoder(body)
    for kind, body in zip(SUBSCRIBED, (Readings, Alarm, Gap, Audit, Seal), strict=True)
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """One payload: whose it is by its topic, what it says by its bytes."""

    site: str
    gateway: str
    kind: str
    body: Body
    sha256: bytes
    payload: bytes

    @property
    def topic(self) -> str:
        return f"pondwatch/1/{self.site}/{self.gateway}/{self.kind}"


def parse(topic: str, payload: bytes) -> Arrival:
    """Take a message apart.

    Raises:
        Refused: it is none of a gateway's, or not version 1.
    """
    levels = topic.split("/")
    if len(levels) != _TOPIC_LEVELS or levels[:2] != ["pondwatch", "1"] or levels[4] not in _DECODERS:
        raise Refused("its topic is none of a gateway's")
    _, _, site, gateway, kind = levels
    try:
        body = _DECODERS[kind].decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(f"it is no {kind} payload of version 1: {error}") from None
    return Arrival(site, gateway, kind, body, hashlib.sha256(payload).digest(), payload)


def unpacked(payload: bytes) -> bytes:
    """The payload before compression.

    Raises:
        Refused: it is no zstd, or far too long.
    """
    try:
        return zstandard.ZstdDecompressor().decompress(payload, max_output_size=MOST_PAYLOAD_BYTES)
    except zstandard.ZstdError as error:
        raise Refused(f"it is marked as zstd and cannot be unpacked: {error}") from None
