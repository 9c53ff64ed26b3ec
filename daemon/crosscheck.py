"""What the types of the site file cannot say: that the tables fit each other, the profiles and the pond.

Everything that would make the daemon fail or measure nonsense is a problem; what it can run with, and a
person should know, is a warning. A file that has mistakes of form is checked as far as it is well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import available_timezones

from daemon.binder import nearest
from daemon.carried import DRY, EXTRA_GRADE, WET, WET_EXTRA
from daemon.check_alarms import check_alarms
from daemon.check_channels import check_channels
from daemon.check_dated import check_dated
from daemon.check_devices import check_devices
from daemon.check_uplinks import check_uplinks
from daemon.findings import Findings, Row, is_whole, rows

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from daemon.binder import Problem
    from daemon.config import File, Pond

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def warnings(file: File, problems: list[Problem]) -> list[Problem]:
    """Add to `problems` all that makes `file` unusable; return what a person should know."""
    found = Findings(problems)
    _site(file, found)
    for name, table in _tables(file).items():
        _unique(name, table, found)
    for path, section in rows("section", file.sections):
        found.refers(f"{path}.pond", section.pond, "pond", file.ponds)
    profiles = check_devices(file, found)
    check_channels(file, profiles, found)
    check_dated(file, found)
    check_alarms(file, profiles, found)
    for path, output in rows("output", file.outputs):
        found.refers(f"{path}.pond", output.pond, "pond", file.ponds)
        known = found.refers(f"{path}.device", output.device, "device", file.devices)
        if known and output.device in profiles:
            _write(f"{path}.write", output.write, profiles[output.device].writes, found)
    check_uplinks(file, found)
    for path, pond in rows("pond", file.ponds):
        _items(path, pond, file, found)
    return found.warnings


def _tables(file: File) -> dict[str, Sequence[Row]]:
    return {
        "pond": file.ponds,
        "section": file.sections,
        "line": file.lines,
        "device": file.devices,
        "channel": file.channels,
        "output": file.outputs,
        "uplink": file.uplinks,
        "person": file.people,
        "duty": file.duties,
    }


def _unique(name: str, table: Sequence[Row], found: Findings) -> None:
    first: dict[str, int] = {}
    for i, row in enumerate(table):
        if row.id and first.setdefault(row.id, i) != i:
            found.wrong(f"{name}[{i}].id", f"{row.id!r} is the id of {name}[{first[row.id]}] already")


def _site(file: File, found: Findings) -> None:
    if not is_whole(file.site):
        return
    zone, known = file.site.timezone, available_timezones()
    if zone not in known:
        remedy = nearest(zone, known) if known else ": this machine has no time zones, install tzdata"
        found.wrong("site.timezone", f"{zone!r} is no time zone{remedy}")
    if file.site.mode != "real":
        found.warn("site.mode", f"every payload says that it is {file.site.mode}")
    if file.site.shadow:
        found.warn(
            "site.shadow", "is on: no output moves, nobody is called, and alarms say that they are a test"
        )
    _page(file, found)
    if not file.uplinks:
        found.warn("uplink", "there is none: readings are kept here and go nowhere")
    advised = any(channel.advice for _, channel in rows("channel", file.channels))
    if is_whole(file.rules) and file.rules.start == "off" and advised:
        found.warn("rules.start", "is off, so the advice that channels ask for is not given")


def _page(file: File, found: Findings) -> None:
    """Who could read the status page that should not."""
    if is_whole(file.page):
        host = file.page.listen.rpartition(":")[0].strip("[]")
        if host not in LOOPBACK:
            found.warn("page.listen", f"{host} is not the loopback: whoever reaches it reads the page")


def _write(path: str, write: str, writes: Collection[str], found: Findings) -> None:
    if write not in writes:
        known = f"it has {', '.join(writes)}" if writes else "it has none"
        found.wrong(path, f"the device's profile has no write {write!r}: {known}{nearest(write, writes)}")


def _items(path: str, pond: Pond, file: File, found: Findings) -> None:
    """What the standard asks of a pond of this kind and grade, and no channel monitors."""
    monitored = {c.item for _, c in rows("channel", file.channels) if c.pond == pond.id}
    for item in WET if pond.kind == "wet" else DRY:
        if item not in monitored:
            found.warn(
                path, f"no channel monitors {item}, which GB 39496-2020 5.5.2 asks of a {pond.kind} pond"
            )
    if pond.kind == "wet" and pond.grade <= EXTRA_GRADE:
        extra = [item for item in WET_EXTRA if item not in monitored]
        if extra:
            found.warn(
                path,
                f"no channel monitors {', '.join(extra)}, which GB 39496-2020 5.5.2 asks of a wet pond of "
                f"grade {pond.grade} where necessary",
            )
