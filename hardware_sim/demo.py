"""`make demo`: bench and daemon as two processes, watched over the surfaces that anybody has.

Started: the bench (instruments on pseudo-terminals and TCP, a receiving platform) and `pondwatch run` on
`config/demo.toml`. Shown: what the daemon says on its control socket and on /metrics, and what the platform
received. At the end both are compared: what is in the store must be at the platform, once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_sim.control import assert_free
from hardware_sim.ports import free_port
from hardware_sim.show import Seen, Show, open_show

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RUN_DIR = Path("build/run")
SITE_FILE = Path("config/demo.toml")
START_S = 30.0  # bench and daemon must be up by then
SETTLE_S = 20.0  # at the end the platform may take so long to receipt the rest
REFRESH_S = 0.5
_PR_SET_PDEATHSIG = 1
COLOURS = ("red", "orange", "yellow", "blue", "none")


class DemoFailed(Exception):
    """One sentence for the person at the terminal."""


async def main_async(options: argparse.Namespace) -> int:
    try:
        assert_free(RUN_DIR)
    except OSError as error:
        raise DemoFailed(str(error)) from None
    _clean(RUN_DIR)
    async with contextlib.AsyncExitStack() as stack:
        bench = await stack.enter_async_context(
            _process(_bench_command(options), {"PONDWATCH_RUN": str(RUN_DIR)}, "bench.log")
        )
        facts = await _bench_facts(bench)
        site, channels, listen = _site_file(facts)
        environment = {
            "PONDWATCH_BENCH_CLOCK": facts["clock"],
            "PONDWATCH_BENCH_STEP": facts["clock_step"],
            "PONDWATCH_RUN": str(RUN_DIR),
        }
        command = [sys.executable, "-m", "daemon.commands", "--config", str(site)]
        daemon = await stack.enter_async_context(_process([*command, "run"], environment, "daemon.log"))
        await _wait_for(RUN_DIR / "control.sock", daemon, "daemon.log")
        seen = Seen()
        show = stack.enter_context(open_show(channels, facts))
        show.started(listen, facts, RUN_DIR)
        watchers = [
            asyncio.create_task(_tail(seen), name="demo tail"),
            asyncio.create_task(_look(seen, listen, show, options), name="demo look"),
        ]
        try:
            await _until_end(options.seconds, daemon, bench)
        finally:
            for task in watchers:
                task.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
        show.note("stopping: waiting for the platform's receipts")
        await _settled(listen)
        await _stop(daemon)
        stored = await _spool_status([*command, "--json", "spool", "status"], environment)
        seen.platform = await _ask(RUN_DIR / "bench.sock", {"do": "summary"})
    return _summary(seen, channels, stored)


# -- processes ---------------------------------------------------------------------------------------


def _bench_command(options: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "hardware_sim", options.scenario]
    command += ["--run-dir", str(RUN_DIR), "--speed", str(options.speed)]
    if options.page is not None:
        command += ["--page", str(options.page)]
    return command


@contextlib.asynccontextmanager
async def _process(
    command: list[str], environment: dict[str, str], log: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child whose output goes to a file under build/run; ended at the latest on the way out."""
    with (RUN_DIR / log).open("wb") as out:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
            start_new_session=True,
            preexec_fn=_die_with_us,
        )
    try:
        yield child
    finally:
        await _stop(child)


def _die_with_us() -> None:
    """In the child: a demo killed hard takes bench and daemon with it (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(10):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


async def _wait_for(path: Path, child: asyncio.subprocess.Process, log: str) -> None:
    deadline = time.monotonic() + START_S
    while not path.exists():
        if child.returncode is not None or time.monotonic() > deadline:
            last = (RUN_DIR / log).read_text().strip().splitlines()[-3:]
            raise DemoFailed(f"{path} did not appear; {RUN_DIR / log} ends with: {' / '.join(last)}")
        await asyncio.sleep(0.05)


async def _bench_facts(bench: asyncio.subprocess.Process) -> dict[str, Any]:
    await _wait_for(RUN_DIR / "bench.json", bench, "bench.log")
    facts: dict[str, Any] = json.loads((RUN_DIR / "bench.json").read_text())
    return facts


def _clean(run_dir: Path) -> None:
    """A demo begins with an empty store; nothing outside build/run is touched."""
    run_dir.mkdir(parents=True, exist_ok=True)
    for path in sorted(run_dir.rglob("*"), key=lambda p: len(p.parts), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def _site_file(facts: dict[str, Any]) -> tuple[Path, dict[str, str], str]:
    """config/demo.toml with this run's ports, its channels with their units, and the metrics address."""
    text = SITE_FILE.read_text()
    listen = f"127.0.0.1:{_free_port(9464)}"
    ports = {
        "127.0.0.1:15020": facts["lines"]["weather"],
        "127.0.0.1:18830": facts["platform"],
        "127.0.0.1:9464": listen,
    }
    for written, found in ports.items():
        text = text.replace(written, found)
    site = RUN_DIR / "site.toml"
    site.write_text(text)
    blocks = re.findall(r'\[\[channel\]\]\nid = "([^"]+)"\nunit = "([^"]+)"', text)
    return site, dict(blocks), listen


def _free_port(wanted: int) -> int:
    import socket  # noqa: PLC0415 -- only here

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", wanted))
            return wanted
    return free_port()


# -- watching ----------------------------------------------------------------------------------------


async def _ask(path: Path, request: dict[str, Any]) -> Any:
    reader, writer = await asyncio.open_unix_connection(path, limit=2**22)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        return json.loads(await reader.readline())
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _tail(seen: Seen) -> None:
    """Follow the readings on the control socket, over and over if it goes away."""
    while True:
        with contextlib.suppress(ConnectionError, FileNotFoundError, json.JSONDecodeError):
            reader, writer = await asyncio.open_unix_connection(RUN_DIR / "control.sock")
            writer.write(b'{"do":"tail"}\n')
            try:
                while line := await reader.readline():
                    _took(seen, json.loads(line).get("row", {}))
            finally:
                writer.close()
        await asyncio.sleep(0.2)


def _took(seen: Seen, reading: dict[str, Any]) -> None:
    if "channel" not in reading:
        return
    seen.readings[reading["channel"]] = reading
    seen.count += 1
    if reading["value"] is not None:
        seen.polled.add(reading["channel"])


async def _look(seen: Seen, listen: str, show: Show, options: argparse.Namespace) -> None:
    """Alarms, metrics and the platform's view, twice a second, onto the screen."""
    while True:
        with contextlib.suppress(OSError, json.JSONDecodeError):
            listed = await _ask(RUN_DIR / "control.sock", {"do": "alarms.list"})
            for alarm in listed.get("ok", []):
                old = seen.alarms.get(alarm["id"], {})
                if (alarm["level"], alarm["condition"]) != (old.get("level"), old.get("condition")):
                    show.alarm(alarm)
                seen.alarms[alarm["id"]] = alarm
                seen.worst = min(seen.worst, alarm["level"], key=COLOURS.index)
            seen.metrics = await asyncio.to_thread(_metrics, listen)
            seen.platform = await _ask(RUN_DIR / "bench.sock", {"do": "summary"})
        show.refresh(seen, options.speed)
        await asyncio.sleep(REFRESH_S)


def _metrics(listen: str) -> dict[str, float]:
    """Every sample of /metrics by its name with labels."""
    with urllib.request.urlopen(f"http://{listen}/metrics", timeout=2) as reply:
        lines = reply.read().decode().splitlines()
    rows = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


async def _until_end(seconds: float | None, *children: asyncio.subprocess.Process) -> None:
    """Until the time is up, somebody presses Ctrl-C, or a child dies."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    waits = [asyncio.create_task(child.wait()) for child in children]
    waits.append(asyncio.create_task(stop.wait()))
    done, rest = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    if any(task in done for task in waits[: len(children)]):
        raise DemoFailed(f"a process ended by itself; see {RUN_DIR}/daemon.log and {RUN_DIR}/bench.log")


async def _settled(listen: str) -> None:
    """Wait until every batch is settled, as far as the platform lets us."""
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            metrics = await asyncio.to_thread(_metrics, listen)
            backlog = [v for k, v in metrics.items() if k.startswith("pondwatch_spool_unsettled_batches")]
            if sum(backlog) <= 1:
                return
        await asyncio.sleep(0.1)


async def _spool_status(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, **environment}
    )
    out, _ = await child.communicate()
    status: dict[str, Any] = json.loads(out)
    return status


# -- the end -----------------------------------------------------------------------------------------


def _summary(seen: Seen, channels: dict[str, str], stored: dict[str, Any]) -> int:
    """Print what happened; 0 only if nothing was lost and everything was polled."""
    platform = seen.platform
    batches = sum(kind["batches"] for kind in stored["kinds"])
    readings = sum(kind["records"] for kind in stored["kinds"] if kind["kind"] == "readings")
    unsettled = sum(stored["unsettled"].values())
    lost = batches - platform["received"]
    by_level: dict[str, int] = {}
    for alarm in seen.alarms.values():
        by_level[alarm["level"]] = by_level.get(alarm["level"], 0) + 1
    silent = sorted(set(channels) - seen.polled)
    broken = platform["holes"] + platform["forks"] + platform["chain_breaks"]
    rows = [
        ("polled", f"{len(seen.polled)} of {len(channels)} channels"),
        ("stored", f"{readings} readings, {batches} batches in all"),
        ("forwarded", f"{platform['received']} batches, {platform['repeats']} repeats dropped"),
        ("settled", f"{batches - unsettled} batches"),
        ("lost", f"{lost}"),
        ("repeats after de-duplication", f"{platform['forks']}"),
        ("holes or breaks in the chain", f"{broken}"),
        ("worst level", seen.worst),
        ("alarms open", ", ".join(f"{by_level[c]} {c}" for c in COLOURS if c in by_level) or "none"),
    ]
    print("\nsummary")
    for name, value in rows:
        print(f"  {name:<30} {value}")
    if silent:
        print(f"  never polled: {', '.join(silent)}")
    well = lost == 0 and broken == 0 and not silent
    print("nothing was lost" if well else f"NOT WELL: see {RUN_DIR}/daemon.log and {RUN_DIR}/bench.log")
    return 0 if well else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--scenario", default="storm")
    parser.add_argument("--speed", type=float, default=60.0)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--page", type=int, metavar="PORT", help="serve the technician's page there")
    options = parser.parse_args()
    try:
        return asyncio.run(main_async(options))
    except DemoFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
