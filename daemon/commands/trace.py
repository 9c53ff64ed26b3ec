"""The bytes on a line as they pass, until Ctrl-C; or golden frames for a profile, out of a recording."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from daemon import requests
from daemon.commands.surface import CommandError, control_socket
from daemon.reading import rfc3339
from drivers import profile, recorder, replay
from drivers.profile import ProfileError
from drivers.recorder import Event, Header, Unreadable
from drivers.sample import Quality

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from drivers.model import CompiledBlock, Profile
    from drivers.replay import Read

_ARROWS = {"tx": "->", "rx": "<-"}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("line", nargs="?", metavar="LINE", help="a line of the running core")
    parser.add_argument("--to", type=Path, metavar="FILE", help="record; pondwatch replay feeds it back")
    parser.add_argument("--proof", type=Path, metavar="FILE", help="golden frames out of a recording")
    parser.add_argument("--profile", metavar="ID", help="with --proof: decode with this profile")


def run(options: argparse.Namespace) -> int:
    if (options.line is None) == (options.proof is None):
        raise CommandError("give either a LINE to listen to, or --proof FILE", 2)
    if options.proof is not None:
        print("\n".join(_proofs(options.proof, options.profile)))
        return 0
    rows = requests.stream(control_socket(options), requests.Trace(options.line), msgspec.Raw)
    head = msgspec.json.decode(next(rows), type=Header)
    if options.to is not None:
        return _record(options.to, head, rows)
    for row in rows:
        print(
            bytes(row).decode() if options.json else _shown(msgspec.json.decode(row, type=Event)), flush=True
        )
    return 0


def _record(path: Path, head: Header, rows: Iterator[msgspec.Raw]) -> int:
    """Write until Ctrl-C, each line at once: whoever pulls the plug has what was there before."""
    with path.open("wb", buffering=0) as out:
        out.write(recorder.encoded(head))
        for row in rows:
            out.write(bytes(row) + b"\n")
    return 0


def _shown(event: Event) -> str:
    time = rfc3339(event.time_ns)
    if event.dir == "frame":
        return f"{time}     {event.block}  {event.why or 'decoded'}"
    if event.dir == "end":
        return f"{time}     given up"
    if event.dir == "tie":
        return f"{time}     {event.block}: base station {event.base or '(unnamed)'} was tied"
    if event.dir == "lost":
        return f"{time}     {event.count} events were not recorded"
    return f"{time}  {_ARROWS[event.dir]} {event.hex.upper()}"


# -- golden frames -----------------------------------------------------------------------------------------


def _proofs(path: Path, wanted: str | None) -> Iterator[str]:
    """Of each different question the first good answer, as [[proof]] of a profile."""
    with path.open("rb") as lines:
        try:
            head, events = recorder.read(lines, str(path))
            known = {d.unit: d.profile for d in head.devices}
            profiles = {name: _profile(name) for name in ({wanted} if wanted else set(known.values()))}
            units = {p.bus.unit: p for p in profiles.values()} | {
                unit: profiles[name] for unit, name in known.items() if unit is not None and name in profiles
            }
            seen: Counter[bytes] = Counter()
            for read in replay.reads(events, head.kind):
                seen[read.tx] += 1
                if seen[read.tx] == 1:
                    yield from _proof(read, profiles[wanted] if wanted else units.get(read.unit))
        except Unreadable as error:
            raise CommandError(str(error), 1) from None
    if not seen:
        raise CommandError(f"{path}: holds no read that was answered", 1)


def _profile(name: str) -> Profile:
    try:
        return profile.load(name)
    except ProfileError as error:
        raise CommandError(f"{name}: {error.problems[0]}", 1) from None


def _proof(read: Read, its: Profile | None) -> Iterator[str]:
    yield "[[proof]]"
    if its is None or its.bus.unit != read.unit:
        yield f"unit = {read.unit}"
    yield f'tx = "{read.tx.hex(" ").upper()}"'
    yield f'rx = "{read.rx.hex(" ").upper()}"'
    block = (
        next((b for b in its.blocks if (b.fn, b.at, b.count) == (read.fn, read.at, read.count)), None)
        if its
        else None
    )
    if block is None:
        words = " ".join(read.data[i : i + 2].hex().upper() for i in range(0, len(read.data), 2))
        yield f"# function {read.fn}, address {read.at}, {read.count} of them: {words}"
        yield "expect = { }  # what the instrument's display showed at that moment\n"
    else:
        yield f"expect = {{ {', '.join(_expected(block, read.data))} }}  # compare with the display\n"


def _expected(block: CompiledBlock, data: bytes) -> Iterator[str]:
    _, values, qualities = block.decode(data)
    for name, value, quality in zip(block.block.points, values, qualities, strict=True):
        if Quality(quality).is_bad:
            yield f'{name} = "bad"'
        elif quality == Quality.GOOD:
            yield f"{name} = {value!r}"
