"""The site file of a new gateway: whole, commented, and no more certain than what was found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.check_devices import points
from drivers import profile
from drivers.model import OWN_UNIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.founding.found import FoundLine

EVERY = "10 min"
STORE = "/var/lib/pondwatch"
_HEAD = """\
# Written by pondwatch init. What was found stands; what nobody can know by looking is a comment.
# config/site.example.toml has every key; pondwatch check says what is missing and why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person was asked, or said as options."""

    site: str
    gateway: str
    pond: str
    kind: str
    grade: int
    name: str = ""
    mode: str = "real"
    store: str = STORE
    uplink: str = ""
    settle: str = ""


def text(asked: Asked, lines: Sequence[FoundLine], client: tuple[str, str]) -> str:
    """The whole file; `client`: where the client's certificate will lie, and its key lies."""
    parts = [
        _HEAD,
        "\n".join(_site(asked)),
        *("\n".join(_line(line)) for line in lines),
        *("\n".join(part) for line in lines for part in _devices(asked.pond, line)),
        "\n".join(_uplink(asked, *client)),
    ]
    return "\n\n".join(parts) + "\n"


def quoted(words: str) -> str:
    """As a TOML string: those of JSON are."""
    return json.dumps(words, ensure_ascii=False)


def _site(asked: Asked) -> Iterator[str]:
    yield "[site]"
    yield f"id = {quoted(asked.site)}"
    yield f"gateway = {quoted(asked.gateway)}"
    if asked.name:
        yield f"name = {quoted(asked.name)}"
    if asked.mode != "real":
        yield f"mode = {quoted(asked.mode)}"
    if asked.store != STORE:
        yield "\n[store]"
        yield f"path = {quoted(asked.store)}"
    yield "\n[[pond]]"
    yield f"id = {quoted(asked.pond)}"
    yield f"kind = {quoted(asked.kind)}"
    yield f"grade = {asked.grade}"
    yield "# [[pond.limit]]: the dated limits of the pond's level, from the flood control plan"


def _line(line: FoundLine) -> Iterator[str]:
    table = line.table
    if line.why_not:
        yield f"# {line.why_not}"
    yield "[[line]]"
    yield f"id = {quoted(table.id)}"
    yield f"kind = {quoted(table.kind)}"
    if table.port:
        yield f"port = {quoted(table.port)}"
        yield f"serial = {quoted(str(table.serial))}"
    else:
        yield f"address = {quoted(table.address)}"


def _devices(pond: str, line: FoundLine) -> Iterator[list[str]]:
    table = line.table
    if line.sentences:
        yield list(_receiver(pond, line))
    for found, mode in line.units:
        name = f"{table.id}-u{found.unit}"
        said = f"# unit {found.unit}: {found.said}"
        if mode and mode != str(table.serial):
            said += (
                f"; it answered at {mode}, others of this line at {table.serial}: it needs a line of its own"
            )
        if _is_certain(found.profiles) and (not mode or mode == str(table.serial)):
            yield [said, *_device(name, table.id, found.profiles[0], found.unit)]
            yield list(_channels(pond, name, found.profiles[0]))
        else:
            could = ", ".join(found.profiles) or "no profile knows it by its registers; see drivers/profiles"
            unknown = [*_device(name, table.id, (*found.profiles, "?")[0], found.unit)]
            yield [f"{said}; could be: {could}", *(f"#{each}" for each in unknown)]


def _is_certain(profiles: Sequence[str]) -> bool:
    """One profile alone, and by a word of the model's own: a register with the unit's number is chance."""
    if len(profiles) != 1:
        return False
    words = profile.identities()[profiles[0]].words
    return any(word is not None and word != OWN_UNIT for word in words)


def _device(name: str, line: str, its_profile: str, unit: int) -> Iterator[str]:
    yield "[[device]]"
    yield f"id = {quoted(name)}"
    yield f"line = {quoted(line)}"
    yield f"profile = {quoted(its_profile)}"
    yield f"unit = {unit}"
    yield f'every = "{EVERY}"'


def _channels(pond: str, device: str, its_profile: str) -> Iterator[str]:
    """Every point as it comes. An item is a statement about the dam, so it is left to a person."""
    its = profile.load(its_profile)
    yield f"# {its.title}"
    yield "# Each point as it comes, under health, where nothing is judged. Give each the item it measures,"
    yield "# its monitoring point, calibration and the designer's levels, or strike it out."
    for point, unit in points(its).items():
        yield "[[channel]]"
        yield f"id = {quoted(f'{pond}.{device}.{point}')}"
        yield f"unit = {quoted(unit or '1')}"
        yield f"pond = {quoted(pond)}"
        yield 'item = "health"'
        yield f"from = {quoted(f'{device}.{point}')}"


def _receiver(pond: str, line: FoundLine) -> Iterator[str]:
    name = f"{line.table.id}-gnss"
    yield f"# it sends {' '.join(line.sentences)}; could be: {', '.join(line.profiles) or 'no profile'}"
    yield "# Displacement counts from a surveyed origin: put it in, and strike out the comment signs."
    yield "#[[device]]"
    yield f"#id = {quoted(name)}"
    yield f"#line = {quoted(line.table.id)}"
    yield f"#profile = {quoted((*line.profiles, '?')[0])}"
    yield f'#every = "{EVERY}"'
    yield "#baseline = { latitude_deg = 0.0, longitude_deg = 0.0, height_m = 0.0 }"
    for axis in ("east", "north", "up"):
        yield f'#[[channel]]\n#id = {quoted(f"{pond}.{name}.{axis}")}\n#unit = "mm"\n#pond = {quoted(pond)}'
        yield f'#item = "displacement"\n#from = {quoted(f"{name}.{axis}")}'


def _uplink(asked: Asked, certificate: str, key: str) -> Iterator[str]:
    sign = "" if asked.uplink else "#"
    url, settle = asked.uplink or "mqtts://broker.example:8883", asked.settle or "receipt"
    yield f"{sign}[[uplink]]"
    yield f'{sign}id = "platform"'
    yield f'{sign}kind = "mqtt"'
    yield f"{sign}url = {quoted(url)}"
    yield f"{sign}settle = {quoted(settle)}"
    yield "# once the platform's authority has answered the certificate request:"
    yield f"#certificate = {quoted(certificate)}"
    yield f"#key = {quoted(key)}"
