"""`make bench`: every figure on screen, in build/bench.json, and with --write in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import bus, end_to_end, fleet, kernels, simulator, store

PAGE = Path("docs/benchmarks.md")
HEAD = """# Benchmarks

Written by `make bench ARGS=--write`; run it on your machine before you rely on a figure. {machine}, {date}.

One process of the daemon on one core; Modbus servers, platform and measuring on the other. CPU is user and
system time of the whole process, divided by the values it brought from the wire through decoding,
calibration, trigger levels, hash chain and fully synchronised commit to the platform's receipt. The last row is a
plain loop of pymodbus, sqlite3 and aiomqtt on the same servers: it decodes, scales, commits and publishes, and
neither judges nor chains nor waits for receipts.

"""
BUS = """
## The bus

Serial: a device in a process of its own that keeps the time of its wire by spinning; theoretical time is characters
and two gaps. Both clients send the next request as soon as the gap allows. TCP: request after request against one
libmodbus server, client and server on one core, clients in turns, the best of five.

"""

SIMULATOR = """
## The simulator

The bench of simulated instruments in a process of its own: 20 serial and 20 TCP lines of 50 units, every unit asked
once a second, so that it never is what a load test measures.

"""

STORE = """
## The store

200 channels every ten seconds, as they come and as thirty days without an uplink leave them, which the store itself
commits and packs on virtual time. Then the daemon starts on that, raises an alarm at once, and drains to a platform
that verifies and receipts. The plain outbox is a row per message in sqlite3, published by aiomqtt, oldest first,
deleted on the broker's word: it chains, packs and verifies nothing, nor does who receives from it, and an alarm waits
behind all that lies before it. The ratio is the outbox over the store.

"""

FLEET = """
## The receiving side

Uplinks of the daemon, one mosquitto, two consumers of one shared subscription, PostgreSQL, all on this machine; nothing
lost or doubled, which is asserted. docs/fleet.md plans with it.

"""

KERNELS = """
## The detectors

ns of CPU per sample and channel, one sample of each channel a call; the calls of Python are in it. Numpy and C compute
gate, Hampel and trend with the same flags on every sample (asserted before they are timed); "all armed" is flatline,
noise, gap, steps and onset beside them. River has no trend of this kind; it gets three rolling quantiles and a running
mean for each channel, called one by one as it is made to be. The goal for 1,000 channels is 40 ns.

"""


def table(rows: list[end_to_end.Figures]) -> str:
    lines = [
        "| load | channels | values/s | CPU us per value | CPU % | RSS MB | commit ms | missed % | lost |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lost = "-" if row.lost is None else row.lost
        lines.append(
            f"| {row.name} | {row.channels} | {row.values_per_s:,.0f} | {row.cpu_us_per_value:.1f} "
            f"| {row.cpu_percent:.2f} | {row.rss_mb:.0f} | {row.commit_ms:.1f} | {100 * row.missed:.1f} | {lost} |"
        )
    return "\n".join(lines)


def ratio(rows: list[end_to_end.Figures]) -> str:
    """CPU per value of the plain loop over ours, at the load both had."""
    ours = next(row for row in rows if row.name == end_to_end.COMPARED)
    return f"The plain loop takes {rows[-1].cpu_us_per_value / ours.cpu_us_per_value:.1f} times our CPU per value."


def machine() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cpu = found[1] if found else platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE} as well")
    options = parser.parse_args()
    rows = end_to_end.measure()
    serial, tcp = bus.measure()
    detectors = kernels.measure()
    text = f"{table(rows)}\n\n{ratio(rows)}\n{BUS}{bus.tables(serial, tcp)}\n{KERNELS}{kernels.table(detectors)}\n"
    simulated = simulator.measure()
    receiving = fleet.measure()
    ours, plain = store.measure()
    text += f"{STORE}{store.table(ours, plain)}\n"
    text += f"{SIMULATOR}{simulator.table(simulated)}\n"
    text += f"{FLEET}{fleet.table(receiving)}\n"
    print(f"{machine()}\n\n{text}")
    now = datetime.now(UTC)
    figures = {
        "machine": machine(),
        "time": now.isoformat(),
        "end_to_end": [asdict(row) for row in rows],
        "detectors": [asdict(row) for row in detectors],
        "simulator": asdict(simulated),
        "fleet": [asdict(row) for row in receiving],
        "store": {"ours": asdict(ours), "plain": asdict(plain)},
        "bus": {"serial": [asdict(row) for row in serial], "tcp": [asdict(row) for row in tcp]},
    }
    Path("build/bench.json").write_text(json.dumps(figures, indent=1))
    if options.write:
        PAGE.write_text(HEAD.format(machine=machine(), date=f"{now:%Y-%m-%d}") + text)


if __name__ == "__main__":
    main()
