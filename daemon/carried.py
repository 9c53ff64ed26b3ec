"""Which of a pond's required items each uplink carries, and which its dialect cannot express.

An item is carried when the uplink names at least one channel that monitors it; that it names all of them is
not asked. What no channel monitors nobody can carry; `crosscheck` warns of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.uplink.tables import DIALECTS, GeohazardTable, Sl651Table, TailingsFilesTable
from daemon.uplink.tailings_files import MEASURED, RECORDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.config import File, Pond, UplinkTable
    from daemon.uplink.tables import OtherUplink

# GB 39496-2020 5.5.2; video is no channel. The extras are asked "when necessary", of grade 3 and above.
WET = ("displacement", "phreatic-line", "dry-beach", "rainfall", "pond-level", "landslide")
DRY = ("displacement", "phreatic-line", "rainfall")
WET_EXTRA = ("pore-pressure", "seepage-flow", "turbidity")
EXTRA_GRADE = 3

# What a dialect has a word for. A landslide is told by displacement. The others carry every channel.
_WORDS: Final[Mapping[type, tuple[str, ...]]] = {
    TailingsFilesTable: (
        "displacement", "phreatic-line", "dry-beach", "rainfall", "pond-level", "landslide",
    ),
    Sl651Table: ("rainfall", "pond-level", "phreatic-line", "pore-pressure", "seepage-flow", "turbidity"),
    GeohazardTable: (
        "displacement", "landslide", "rainfall", "pond-level", "phreatic-line", "pore-pressure",
    ),
}  # fmt: skip


class Carried(NamedTuple):
    """One uplink and one pond; each required item stands in exactly one of the four."""

    uplink: str
    kind: str
    pond: str
    carries: list[str]
    leaves_out: list[str]  # monitored here, the dialect has a word, the uplink names no channel of it
    cannot_express: list[str]  # the dialect has no word; SL 651 takes an element of the vendor's own
    not_monitored: list[str]


def carried(file: File) -> list[Carried]:
    """Every uplink with every pond, in the order of the site file."""
    return [_of(uplink, pond, file) for uplink in file.uplinks for pond in file.ponds]


def required(pond: Pond) -> tuple[str, ...]:
    if pond.kind != "wet":
        return DRY
    return WET + (WET_EXTRA if pond.grade <= EXTRA_GRADE else ())


def _of(uplink: UplinkTable | OtherUplink, pond: Pond, file: File) -> Carried:
    monitored = {channel.item for channel in file.channels if channel.pond == pond.id}
    named = _named(uplink)
    told = {
        channel.item
        for channel in file.channels
        if channel.pond == pond.id and (named is None or channel.id in named)
    }
    words = _WORDS.get(type(uplink))
    kinds: dict[type, str] = {table: kind for kind, table in DIALECTS.items()}
    its = Carried(uplink.id, kinds.get(type(uplink), "mqtt"), pond.id, [], [], [], [])
    for item in required(pond):
        if item in told:
            its.carries.append(item)
        elif words is not None and item not in words:
            its.cannot_express.append(item)
        else:
            (its.leaves_out if item in monitored else its.not_monitored).append(item)
    return its


def _named(uplink: UplinkTable | OtherUplink) -> set[str] | None:
    """The channels that the uplink names; None: it takes all there are."""
    if isinstance(uplink, TailingsFilesTable):
        return _in_files(uplink)
    if isinstance(uplink, Sl651Table):
        return {element.channel for element in uplink.elements}
    if isinstance(uplink, GeohazardTable):
        return {value.channel for value in uplink.values}
    return None


def _in_files(uplink: TailingsFilesTable) -> set[str]:
    """What is measured and stands in a field of a real-time record; a GNSS point has all fields."""
    records = dict(RECORDS) | {record.type: record.fields for record in uplink.records}
    told = set()
    for point in uplink.points:
        fields = MEASURED if point.type == "GNSS" else MEASURED & set(records.get(f"{point.type}SS", ()))
        told |= {getattr(point, field) for field in fields}
    return told - {""}
