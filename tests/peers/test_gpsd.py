"""gpsd and rtklib's str2str, from Debian: what the simulated receiver sends, decoded and passed on by others.

gpsd knows GNSS receivers better than anybody; what it and our driver make of the same bytes must be the same. A
str2str between receiver and gateway, serial on one side and TCP on the other, is how receivers are shared in the field.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from daemon.clock import Clock
from drivers import profile
from drivers.contract import LineDown
from drivers.gnss import codecs
from drivers.gnss.baseline import Baseline
from drivers.gnss.receiver import Mount
from drivers.sample import Quality
from drivers.wire import TcpWire
from hardware_sim.dam import Dam, Truth
from hardware_sim.faults import Fault
from hardware_sim.instruments.gnss import GnssReceiver
from hardware_sim.instruments.gnss_nmea import sentences
from hardware_sim.ports import free_port
from hardware_sim.site import GNSS_ORIGIN
from hardware_sim.wires import TalkerPtyWire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from drivers.sample import Frame

pytestmark = pytest.mark.peer

DATA = Path(os.environ.get("PONDWATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
LOG = DATA / "gpsd_logs" / "nmea-rtk.log"
ORIGIN = Baseline(GNSS_ORIGIN.latitude_deg, GNSS_ORIGIN.longitude_deg, GNSS_ORIGIN.height_m)
STILL = replace(Dam(lambda _t: 0.0, seed=1).at(0.0), gnss_noise_m=(0.0, 0.0, 0.0))
GPSD_STATUS: dict[int, int] = {2: 2, 3: 4, 4: 5}  # gpsd: 2 DGPS, 3 RTK fixed, 4 RTK float -> GGA's quality


def speaking_nmea() -> GnssReceiver:
    return GnssReceiver(GNSS_ORIGIN, 1, sentences)


def needs(program: str, package: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if found is None:
        pytest.skip(f"needs {program} (Debian: {package})")
    return found


def moved_by(mm: Sequence[float]) -> Truth:
    east, north, up = (each / 1000.0 for each in mm)
    return replace(STILL, displacement_m=(east, north, up))


def heard(data: bytes, every_s: float = 1.0) -> list[dict[str, tuple[float, Quality]]]:
    """What our driver makes of it, a solution a period."""
    device = codecs.receiver("g", profile.load("nmea-gga-gst"), Mount(ORIGIN), every_s, Clock())
    frames = device.feed(data)  # the last one too: the receiver's pace is known by then
    return [{sample.point: (sample.value, sample.quality) for sample in frame} for frame in frames]


@contextlib.asynccontextmanager
async def running(*command: str, stdout: int | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=stdout, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def reports(lines: asyncio.StreamReader, kind: str) -> dict[str, Any]:
    """The next report of this class."""
    async with asyncio.timeout(30):
        while True:
            line = await lines.readline()
            assert line, "gpspipe ended"
            report: dict[str, Any] = json.loads(line)
            if report.get("class") == kind:
                return report


async def gpsd_answers(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


async def test_gpsd_hears_the_simulated_receiver_as_our_driver_does(tmp_path: Path) -> None:
    """A real gpsd has the bench's port open; float and lost corrections are seen by both."""
    gpsd, gpspipe = needs("gpsd", "gpsd"), needs("gpspipe", "gpsd-clients")
    wire, port, instrument = TalkerPtyWire(tmp_path / "gnss"), free_port(), speaking_nmea()
    await wire.open()
    second = int(time.time())
    told: list[tuple[bytes, dict[str, Any], dict[str, Any]]] = []
    daemon = running(gpsd, "-N", "-n", "-b", "-S", str(port), os.path.realpath(wire.address))
    async with daemon:
        await gpsd_answers(port)
        async with running(gpspipe, "-w", f"127.0.0.1:{port}", stdout=asyncio.subprocess.PIPE) as listening:
            assert listening.stdout is not None
            await reports(listening.stdout, "WATCH")
            for at, fault in enumerate(("", "", "float", "base_lost", "")):
                instrument.fault = Fault(fault) if fault else None
                sent = instrument.epoch(second + at, moved_by((12.0 * at, -7.0 * at, 3.0 * at)))
                wire.send(sent)
                position = await reports(listening.stdout, "TPV")
                told.append((sent, position, await reports(listening.stdout, "GST")))
    wire.close()
    ours = heard(b"".join(sent for sent, _, _ in told))
    assert len(ours) == len(told) == 5
    for its, (_, position, scatter) in zip(ours, told, strict=True):
        quality = its["fix"][0]
        assert position["mode"] == 3
        assert position.get("status", 1) == {4.0: 3, 5.0: 4, 1.0: 1}[quality]
        assert (
            scatter["lat"] == pytest.approx(its["sd_north"][0] / 1000, abs=6e-4, nan_ok=True) or quality == 1
        )
        if quality == 1:
            assert its["east"][1] == Quality.NO_FIX
            continue
        assert its["latitude"][0] == pytest.approx(position["lat"], abs=6e-10)
        assert its["longitude"][0] == pytest.approx(position["lon"], abs=6e-10)
        assert its["height"][0] == pytest.approx(position["altHAE"], abs=6e-4)
    assert [its["east"][1] for its in ours] == [0, 0, Quality.GNSS_FLOAT, Quality.NO_FIX, 0]
    assert [ours[at][axis][0] for at in (1, 4) for axis in ("east", "north", "up")] == pytest.approx(
        (12.0, -7.0, 3.0, 48.0, -28.0, 12.0), abs=0.1
    )


async def test_the_gpsd_of_debian_decodes_a_real_rtk_log_as_we_do() -> None:
    if not LOG.exists():
        pytest.skip(f"gpsd's logs are not in {DATA}")
    decode = needs("gpsdecode", "gpsd-clients")
    process = await asyncio.create_subprocess_exec(
        decode, "-j", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(LOG.read_bytes())
    theirs = {
        report["time"]: report
        for report in map(json.loads, out.splitlines())
        if report["class"] == "TPV" and "time" in report and "lat" in report
    }
    ours = {}
    for its, tick_ns in epochs_of_the_log():
        at_ms = round(tick_ns / 1e6)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000))
        ours[f"{stamp}.{at_ms % 1000:03}Z"] = its
    both = theirs.keys() & ours.keys()
    assert len(both) > 10
    for at in both:
        report, its = theirs[at], ours[at]
        assert its["fix"][0] == GPSD_STATUS[report["status"]], at
        if its["east"][1] is Quality.NO_FIX:
            continue
        assert its["latitude"][0] == pytest.approx(report["lat"], abs=6e-10)
        assert its["longitude"][0] == pytest.approx(report["lon"], abs=6e-10)
        assert its["height"][0] == pytest.approx(report["altHAE"], abs=6e-4)
    assert any(ours[at]["east"][1] is not Quality.NO_FIX for at in both)


def epochs_of_the_log() -> list[tuple[dict[str, tuple[float, Quality]], int]]:
    its = profile.load("nmea-gga-gst")
    device = codecs.receiver("g", its, Mount(Baseline(41.5750, -93.7506, 249.0)), 0.1, Clock())
    frames: list[Frame] = device.feed(LOG.read_bytes())
    return [({s.point: (s.value, s.quality) for s in frame}, frame.tick_ns) for frame in frames]


async def test_str2str_may_stand_between_the_receiver_and_our_driver(tmp_path: Path) -> None:
    """Serial in, TCP out; killed and started again the line comes back, and no value is wrong."""
    str2str = needs("str2str", "rtklib")
    wire, port, instrument = TalkerPtyWire(tmp_path / "gnss"), free_port(), speaking_nmea()
    await wire.open()
    terminal = os.path.realpath(wire.address).removeprefix("/dev/")
    relay = (str2str, "-in", f"serial://{terminal}:115200", "-out", f"tcpsvr://:{port}")
    device = codecs.receiver("g", profile.load("nmea-gga-gst"), Mount(ORIGIN), 1.0, Clock())
    frames: list[Frame] = []
    lost: list[LineDown] = []
    line = TcpWire("127.0.0.1", port)
    second = int(time.time())

    async def relayed(wanted: int) -> None:
        nonlocal second
        async with asyncio.timeout(60):
            while len(frames) < wanted:
                second += 1
                wire.send(instrument.epoch(second, moved_by((5.0, -4.0, 2.0))))
                await asyncio.sleep(0.05)

    async with running(*relay):
        await opened(line, lambda data: frames.extend(device.feed(data)), lost.append)
        await relayed(5)
    async with asyncio.timeout(30):
        while not lost:
            await asyncio.sleep(0.02)
    before = len(frames)
    async with running(*relay):
        await opened(line, lambda data: frames.extend(device.feed(data)), lost.append)
        await relayed(before + 5)
        line.close()
    wire.close()
    good = [frame for frame in frames if frame.qualities[0] == Quality.GOOD]
    assert len(good) >= 10
    for frame in good:
        assert list(frame.values[:3]) == pytest.approx([5.0, -4.0, 2.0], abs=0.1)
    ticks = [frame.tick_ns for frame in frames]
    assert ticks == sorted(set(ticks))


async def opened(
    line: TcpWire, on_bytes: Callable[[bytes], None], on_loss: Callable[[LineDown], None]
) -> None:
    """As a gateway does it: again and again until somebody listens."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(LineDown):
                await line.open(on_bytes, on_loss)
                return
            await asyncio.sleep(0.1)
