"""How the core is at this moment, for metrics, health and the control socket. It changes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from math import isnan
from typing import TYPE_CHECKING, Any

from daemon.poller import PolledLine
from daemon.present import ChannelNow, DeviceNow, LineNow, Present, UplinkNow, limits_of
from daemon.reading import rfc3339
from daemon.uplink.contract import Unsettled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daemon.alarms import AlarmBook
    from daemon.clock import Clock
    from daemon.config import Site
    from daemon.judge import Judge
    from daemon.pipeline import Pipeline
    from daemon.poller import StreamLine
    from daemon.spool import Spool
    from daemon.timekeeper import Timekeeper
    from daemon.uplink.contract import Uplink
    from daemon.writer import Writer

LOOK_EVERY_S = 1.0  # how often the store is asked for its size and backlog
HUNG_S = 60.0  # a commit that takes longer hangs

Gauge = tuple[str, tuple[str, ...], float]


class State:
    """Reads the parts of the core; `run` keeps the figures fresh that only the store's thread can give."""

    def __init__(
        self,
        site: Site,
        clock: Clock,
        spool: Spool,
        pipeline: Pipeline,
        judge: Judge,
        book: AlarmBook,
        lines: Mapping[str, PolledLine | StreamLine],
        uplinks: Sequence[Uplink],
        writer: Writer,
        timekeeper: Timekeeper,
    ) -> None:
        self._site = site
        self._clock = clock
        self._spool = spool
        self._pipeline = pipeline
        self._judge = judge
        self._book = book
        self._lines = lines
        self._uplinks = uplinks
        self._writer = writer
        self._began_s = asyncio.get_running_loop().time()
        self._store_bytes = 0
        self._unsettled = {uplink.id: Unsettled(0, 0.0) for uplink in uplinks}
        self._timekeeper = timekeeper
        self._periods_s = periods_s(site)

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        self._store_bytes = await self._spool.size_bytes()
        self._unsettled = {uplink.id: await uplink.unsettled() for uplink in self._uplinks}

    async def backlog(self) -> int:
        """Batches that some uplink has not settled yet, summed over uplinks."""
        await self.look()
        return sum(unsettled.batches for unsettled in self._unsettled.values())

    # -- health --------------------------------------------------------------------------------------

    def ills(self) -> list[str]:
        """All that is not well with the core, a sentence each. A dead device is no ill of the core."""
        ills = self.stuck()
        hanging_s = self._writer.hanging_s()
        if hanging_s > HUNG_S:
            ills.append(f"a commit hangs for {hanging_s:.0f} s")
        if self._spool.trouble:
            ills.append(f"batches stand in memory alone: {self._spool.trouble}")
        return ills

    def stuck(self) -> list[str]:
        """Of the ills those that a restart may cure: a disk is not among them."""
        now_s = self._now_s()
        return [
            f"line {line.id} has shown no life for {now_s - line.beat_s:.0f} s"
            for line in self._lines.values()
            if now_s - max(line.beat_s, self._began_s) > line.patience_s
        ]

    def ready(self) -> bool:
        """Whether every group of channels has been computed once."""
        return len(self._pipeline.latest) == self._pipeline.groups

    # -- metrics -------------------------------------------------------------------------------------

    def gauges(self) -> Iterable[Gauge]:
        yield from self._instruments()
        yield from self._channels()
        yield from self._judgement()
        yield from self._store()
        yield "pondwatch_clock_trusted", (), float(self._timekeeper.trusted)

    def _instruments(self) -> Iterable[Gauge]:
        for (line, device), up in self._pipeline.devices.items():
            yield "pondwatch_device_up", (line, device), float(up)
        for line_ in self._lines.values():
            if isinstance(line_, PolledLine):
                yield "pondwatch_line_busy_ratio", (line_.id,), self._busy(line_)

    def _channels(self) -> Iterable[Gauge]:
        now_ns = self._clock.wall_ns()
        tables = {table.id: table for table in self._site.channels}
        for channel, value, seen_ns in self._pipeline.values():
            table = tables[channel]
            if not isnan(value):
                yield "pondwatch_channel_value", (table.pond, table.item, channel, table.unit), value
            if seen_ns:
                yield "pondwatch_channel_age_seconds", (channel,), max(0.0, (now_ns - seen_ns) / 1e9)
        for channel, period_s in self._periods_s.items():
            yield "pondwatch_channel_period_seconds", (channel,), period_s
        for channel in self._judge.armed:
            yield "pondwatch_channel_level", (channel,), float(self._judge.level(channel))

    def _judgement(self) -> Iterable[Gauge]:
        for (pond, item), level in self._judge.items.items():
            yield "pondwatch_item_level", (pond, item), float(level)
        for pond, level in self._judge.ponds.items():
            yield "pondwatch_pond_level", (pond,), float(level)
        for section in self._site.sections:
            blind = section.id in self._judge.blind_sections(section.pond)
            yield "pondwatch_section_blind", (section.pond, section.id), float(blind)
        counts = Counter((alarm.level, alarm.response) for alarm in self._book.open())
        for labels, count in counts.items():
            yield "pondwatch_alarms_open", labels, float(count)
        yield "pondwatch_alarms_overdue", (), float(len(self._book.overdue(self._clock.wall_ns())))

    def _store(self) -> Iterable[Gauge]:
        yield "pondwatch_spool_bytes", (), float(self._store_bytes)
        yield "pondwatch_spool_durable", (), float(not self._spool.trouble)
        if not isnan(self._spool.days_left):
            yield "pondwatch_spool_days_left", (), self._spool.days_left
        for uplink in self._uplinks:
            batches, oldest_s = self._unsettled[uplink.id]
            yield "pondwatch_spool_unsettled_batches", (uplink.id,), float(batches)
            yield "pondwatch_spool_oldest_unsettled_seconds", (uplink.id,), oldest_s
            yield "pondwatch_uplink_connected", (uplink.id,), float(uplink.connected)

    # -- the control socket --------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """An overview for `pondwatch status` and for scripts."""
        return {
            "site": self._site.site.id,
            "gateway": self._site.site.gateway,
            "mode": self._site.site.mode,
            "config_sha256": self._site.sha256,
            "shadow": self._site.site.shadow,
            "stream": self._spool.stream,
            "last_seq": self._spool.last_seq,
            "ills": self.ills(),
            "clock": {"trusted": self._timekeeper.trusted, "why": self._timekeeper.why},
            "ponds": {pond: level.text for pond, level in self._judge.ponds.items()},
            "devices": {device: up for (_, device), up in self._pipeline.devices.items()},
            "uplinks": {
                uplink.id: {"connected": uplink.connected, "unsettled": self._unsettled[uplink.id].batches}
                for uplink in self._uplinks
            },
            "alarms_open": len(self._book.open()),
        }

    def present(self) -> Present:
        """All that the status page shows of this moment; the alarms beside it."""
        now_ns, days_left = self._clock.wall_ns(), self._spool.days_left
        return Present(
            time=rfc3339(now_ns),
            site=self._site.site.id,
            mode=self._site.site.mode,
            shadow=self._site.site.shadow,
            config_sha256=self._site.sha256,
            ills=self.ills(),
            clock_why="" if self._timekeeper.trusted else self._timekeeper.why,
            ponds={pond: level.text for pond, level in self._judge.ponds.items()},
            items=[(pond, item, level.text) for (pond, item), level in self._judge.items.items()],
            channels=list(self._channels_now()),
            lines=[
                LineNow(line.id, self._busy(line) if isinstance(line, PolledLine) else None)
                for line in self._lines.values()
            ],
            devices=[DeviceNow(device, line, up) for (line, device), up in self._pipeline.devices.items()],
            uplinks=[
                UplinkNow(uplink.id, uplink.connected, *self._unsettled[uplink.id])
                for uplink in self._uplinks
            ],
            store_bytes=self._store_bytes,
            store_trouble=self._spool.trouble,
            days_left=None if isnan(days_left) else days_left,
            overdue=[alarm.id for alarm in self._book.overdue(now_ns)],
        )

    def _channels_now(self) -> Iterable[ChannelNow]:
        for frame in self._pipeline.latest.values():
            for reading in frame:
                limits, rising = limits_of(self._judge.limits(reading.channel))
                level = self._judge.level(reading.channel).text
                yield ChannelNow(
                    reading.channel, reading.value, reading.quality, reading.time, level, limits, rising
                )

    def _busy(self, line: PolledLine) -> float:
        """Share of the time since start that the line was in use."""
        return min(1.0, line.busy_s / max(self._now_s() - self._began_s, 1e-3))

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def periods_s(site: Site) -> dict[str, float]:
    """Channel -> how often it is to have a reading: as its device, or as the slowest of its inputs."""
    every_s = {device.id: device.every_s for device in site.devices}
    tables = {channel.id: channel for channel in site.channels}

    def period_s(channel: str) -> float:
        table = tables[channel]
        if table.derive is None:
            return every_s[table.source.partition(".")[0]]
        return max(period_s(of) for of in table.derive.inputs)

    return {channel: period_s(channel) for channel in tables}
