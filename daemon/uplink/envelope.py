r"""Signed requests from a platform: which of them may be done. Bytes in, a request or a refusal out.

    {"v":1, "key":KEY ID, "seq":N, "request":"{\"do\":\"resend\", ...}", "signature":HEX}

`request` is text within the envelope, so that what is signed are exact bytes (`statement`), for this site and
gateway alone. `seq` rises with each request of a key: what is not above the last that was admitted is a
replay. Only keys that the site file names count, at most REQUEST_BYTES are looked at, and the text is decoded
into one of the closed list of requests below or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from daemon.seal import key_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

REQUEST_BYTES = 16 << 10
MOST_SEQ = (1 << 63) - 1


class Wanted(msgspec.Struct, frozen=True, tag_field="do", forbid_unknown_fields=True):
    """What a platform may ask for."""


class Measure(Wanted, frozen=True, tag="measure"):
    """Measure now; no channels: all. The answer is an audit record."""

    channels: tuple[str, ...] = ()


class Resend(Wanted, frozen=True, tag="resend"):
    """Send a range of the stream once more over the uplink that the request came by."""

    stream: str
    from_seq: int
    to_seq: int


class Acknowledge(Wanted, frozen=True, tag="acknowledge"):
    """Write down what somebody at the platform did about an alarm; likewise for the three below."""

    alarm: str
    by: str
    role: str | None = None
    note: str | None = None


class Assign(Acknowledge, frozen=True, tag="assign"):
    """The note names to whom."""


class Handle(Acknowledge, frozen=True, tag="handle"):
    """The note says what was done."""


class Close(Acknowledge, frozen=True, tag="close"):
    pass


class StormWarning(Wanted, frozen=True, tag="warning"):
    """A warning of the weather service for a pond, until an instant (RFC 3339) or for a time.

    `text` are its words, `ref` is the platform's own name for it; level none takes it back.
    """

    pond: str
    level: Literal["none", "blue", "yellow", "orange", "red"]
    until: str
    source: str
    by: str
    text: str | None = None
    ref: str | None = None


class Sound(Wanted, frozen=True, tag="siren.sound"):
    """Have a public siren sound for so long; done for a key of that siren's authority only."""

    output: str
    seconds: float
    by: str
    note: str | None = None


class Silence(Wanted, frozen=True, tag="siren.silence"):
    output: str
    by: str
    note: str | None = None


Known = Measure | Resend | Acknowledge | Assign | Handle | Close | StormWarning | Sound | Silence


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: Literal[1]
    key: str
    seq: int
    request: str
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]  # nothing else means the same bytes


T = TypeVar("T")
_ENVELOPE = msgspec.json.Decoder(Envelope)
_REQUEST: msgspec.json.Decoder[Known] = msgspec.json.Decoder(Known)


class NotAdmitted(Exception):
    """The request is refused; the message says why, in words of ours."""

    def __init__(self, why: str, key: str = "") -> None:
        super().__init__(why)
        self.key = key


def statement(site: str, gateway: str, envelope: Envelope) -> bytes:
    """The signed bytes; the request stands last, so nothing in it can be taken for another member."""
    members = ("pondwatch-request 1", site, gateway, envelope.key, str(envelope.seq), envelope.request)
    return "\n".join(members).encode()


class Gate:
    """Admits requests of the keys it knows, each once.

    Args:
        keys: public keys, 64 hex digits each.
        site: the request must be for it.
        gateway: likewise.
        admitted: key id -> the last seq admitted, as `state` gave it before a restart.
    """

    def __init__(self, keys: Iterable[str], site: str, gateway: str, admitted: Mapping[str, int]) -> None:
        publics = [bytes.fromhex(key) for key in keys]
        self._keys = {key_id(public): Ed25519PublicKey.from_public_bytes(public) for public in publics}
        self._site, self._gateway = site, gateway
        self._admitted = {key: admitted.get(key, 0) for key in self._keys}

    def state(self) -> dict[str, int]:
        """The last seq admitted of each key."""
        return dict(self._admitted)

    def admit(self, payload: bytes) -> tuple[Envelope, Known]:
        """The request of a payload; from then on it is a replay.

        Raises:
            NotAdmitted: with the reason. Nothing of the payload is in it but the id of a known key.
        """
        if len(payload) > REQUEST_BYTES:
            raise NotAdmitted(f"it has {len(payload)} bytes, more than {REQUEST_BYTES}")
        envelope: Envelope = _decoded(_ENVELOPE, payload, "it is no envelope")
        key = self._keys.get(envelope.key)
        if key is None:
            raise NotAdmitted("the site file does not name its key")
        try:
            key.verify(bytes.fromhex(envelope.signature), statement(self._site, self._gateway, envelope))
        except (InvalidSignature, ValueError):
            raise NotAdmitted("its signature does not hold", envelope.key) from None
        last = self._admitted[envelope.key]
        if not last < envelope.seq <= MOST_SEQ:
            raise NotAdmitted(f"seq {envelope.seq} is a replay: the last was {last}", envelope.key)
        request = _decoded(_REQUEST, envelope.request.encode(), "it asks for nothing known", envelope.key)
        self._admitted[envelope.key] = envelope.seq
        return envelope, request


def _decoded(decoder: msgspec.json.Decoder[T], payload: bytes, wrong: str, key: str = "") -> T:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise NotAdmitted(wrong, key) from None
