"""What GNSS receivers speak: the codec that a profile names, and the driver it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from drivers.gnss import leap, sentences
from drivers.gnss.baseline import Baseline, Reference
from drivers.gnss.framer import Framer
from drivers.gnss.nmea import GgaGst
from drivers.gnss.receiver import POSITION_POINTS, VECTOR_POINTS, GnssReceiver, Mount, station
from drivers.gnss.rtklib import Solutions
from drivers.gnss.sbf import BaseVectorGeod
from drivers.gnss.sentences import Sentences
from drivers.gnss.ubx import HpPosLlh, RelPosNed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from drivers.contract import Stamps
    from drivers.gnss.epoch import Decoder, Told
    from drivers.gnss.framer import Message
    from drivers.model import Profile, Speaks

Origin = type[Baseline] | type[Reference]


class Dialect(Protocol):
    """Checked messages into epochs."""

    def take(self, message: Message) -> Iterable[Told]: ...

    def rest(self) -> Iterable[Told]:
        """What waits for its other half, without it."""
        ...


class Framed:
    """A Decoder: the framer, and the dialect that understands some of its messages."""

    def __init__(self, dialect: Dialect) -> None:
        self._framer = Framer()
        self._dialect = dialect

    def feed(self, data: bytes, at_ns: int) -> Iterable[Told]:
        return [told for message in self._framer.feed(data, at_ns) for told in self._dialect.take(message)]

    def flush(self, at_ns: int = 0) -> Iterable[Told]:
        hidden = [told for message in self._framer.quiet(at_ns) for told in self._dialect.take(message)]
        return [*hidden, *self._dialect.rest()]


@dataclass(frozen=True, slots=True)
class Codec:
    """`origin` is what displacement counts from; None: the profile's sentences decide.

    `make` takes the profile and the base station; with `names_base` the receiver names the one it uses.
    """

    speaks: Speaks
    origin: Origin | None
    make: Callable[[Profile, str], Decoder]
    names_base: bool = False


CODECS: Mapping[str, Codec] = {
    "nmea-gnss": Codec("lines", Baseline, lambda _, __: Framed(GgaGst()), names_base=True),
    "gnss-sentences": Codec("lines", None, lambda its, _: Framed(Sentences(its.layouts))),
    "ubx-relposned": Codec("ubx", Reference, lambda _, __: Framed(RelPosNed()), names_base=True),
    "ubx-hpposllh": Codec("ubx", Baseline, lambda _, __: Framed(HpPosLlh())),
    "sbf-basevectorgeod": Codec(
        "sbf", Reference, lambda _, base: Framed(BaseVectorGeod(base)), names_base=True
    ),
    "rtklib-enu": Codec("rtklib", Reference, lambda _, __: Solutions("enu")),
    "rtklib-llh": Codec("rtklib", Baseline, lambda _, __: Solutions("llh")),
    "rtklib-xyz": Codec("rtklib", Baseline, lambda _, __: Solutions("xyz")),
}


def origin_of(its: Profile) -> Origin:
    """What the site must say of where the point stood: a Baseline or a Reference."""
    codec = CODECS[its.codec]
    if codec.origin is not None:
        return codec.origin
    places = {sentences.place(layout.fields) for layout in its.layouts}
    return Baseline if places & {sentences.DEGREES, sentences.MINUTES} else Reference


def names_base(its: Profile) -> bool:
    """Whether a change of the base station can be seen in what the receiver says."""
    codec = CODECS[its.codec]
    return codec.names_base or (codec.origin is None and any("base" in each.fields for each in its.layouts))


def points(its: Profile) -> dict[str, str]:
    """Point -> unit of what a receiver of this profile yields."""
    return dict(POSITION_POINTS if origin_of(its) is Baseline else VECTOR_POINTS)


def decoder(its: Profile, base: str = "") -> Decoder:
    return CODECS[its.codec].make(its, base)


def receiver(device: str, its: Profile, mount: Mount, every_s: float, stamps: Stamps) -> GnssReceiver:
    """The driver of a device of this profile; `mount.origin` is of the kind `origin_of` says."""
    listening = decoder(its, station(mount.base))
    return GnssReceiver(device, listening, mount, every_s, stamps, leap.installed())
