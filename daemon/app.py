"""The composition root: builds the core from a site file, runs it, and takes it down in order.

Taken down in the order in which a reading travels: the lines stop, what they brought is committed, the
uplinks may deliver for a while, and only then everything else ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec

from daemon import audit as auditing
from daemon import dated, heap, requests, site_watch
from daemon import timekeeper as timekeeping
from daemon.alarms import ROTTEN, AlarmBook
from daemon.audit import Audit, config_state, ordered, record_config, record_shadow
from daemon.baselines import Baselines
from daemon.batch import GAP_REASONS
from daemon.cadence import Cadence
from daemon.channels import Channels
from daemon.clock import NS, Clock, boot_id
from daemon.config import UplinkTable
from daemon.control import Control
from daemon.duty import Calls, Roster
from daemon.guard import Guard, Room
from daemon.guard_verbs import GuardVerbs
from daemon.instruments import build_drivers, build_lines, build_outputs, build_rings, sources
from daemon.judge import Judge
from daemon.line_verbs import LineVerbs
from daemon.manual import Manual
from daemon.metrics import Endpoint, Metrics
from daemon.modes import Modes
from daemon.notify import Notifier
from daemon.pipeline import Pipeline
from daemon.public_siren import PublicSirens
from daemon.reading import rfc3339
from daemon.remeasure import Remeasure
from daemon.rules import HEARD, RulesFeed, Verdicts, supervise
from daemon.sealer import Sealer
from daemon.spool import Keeping, Spool, StoreError
from daemon.spool_verbs import SpoolVerbs
from daemon.state import State
from daemon.stations import Stations
from daemon.store_watch import StoreWatch, book_of
from daemon.surroundings import Surroundings
from daemon.taps import header
from daemon.timekeeper import Timekeeper
from daemon.uplink import dialects, orders
from daemon.uplink.dialect_uplink import DialectUplink
from daemon.uplink.envelope import Gate
from daemon.uplink.mqtt import MqttUplink, Status
from daemon.uplink.orders import Orders
from daemon.uplink.past import StoredPast
from daemon.uplink.queued import RECONNECT_MOST_S
from daemon.verbs import Verbs
from daemon.water import Water, local_day
from daemon.writer import Writer
from drivers.gnss.receiver import GnssReceiver
from drivers.recorder import Tap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from daemon.alarms import Alarm
    from daemon.config import Site
    from daemon.control import Verb
    from daemon.requests import Request
    from daemon.uplink.tables import OtherUplink
    from drivers.modbus import ModbusDevice

log = logging.getLogger(__name__)

VERSION = version("pondwatch")
BENCH_RECONNECT_S = 2.0  # on a fast bench an outage is short
DRAIN_LOOK_S = 0.05
DRAIN_S = 8.0  # at the end the uplinks may deliver for so long; units give 20 s to stop
AGAIN_FIRST_S, AGAIN_MOST_S = 1.0, 30.0
TRIM_EVERY_S = 600.0


def run(site: Site, run_dir: Path, wanted: Path, trouble: str = "") -> bool:
    """Run the core until SIGTERM or SIGINT; whether it is to begin again at once, with a new site file.

    Args:
        site: the site file in use.
        run_dir: of the sockets.
        wanted: the file that should be in use.
        trouble: why it is not.

    Raises:
        BenchRateRefused: a clock rate was asked of a site that is not simulated.
        StoreError, OSError: the store or a socket cannot be had.
    """
    clock = Clock.parse(
        os.environ.get("PONDWATCH_BENCH_CLOCK", ""),
        simulated=site.site.mode == "simulated",
        step=os.environ.get("PONDWATCH_BENCH_STEP", ""),
    )
    heap.give_back()
    core = _Core(site, run_dir, clock, wanted, trouble)
    asyncio.run(core.main())
    return core.again


class _Core:
    """Everything that runs, for as long as it runs."""

    def __init__(self, site: Site, run_dir: Path, clock: Clock, wanted: Path, trouble: str) -> None:
        self.again = False
        self._wanted = wanted
        self._trouble = trouble
        self._told = False
        self._site_watch: site_watch.SiteWatch | None = None
        self._site = site
        self._run_dir = run_dir
        self._clock = clock
        self._notifier = Notifier.from_environment()
        self._metrics = Metrics(VERSION, site.sha256)
        self._stop = asyncio.Event()

    async def main(self) -> None:
        site, clock = self._site, self._clock
        self._run_dir.mkdir(parents=True, exist_ok=True)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hup)
        observe = self._metrics.commit_seconds.observe
        for reason in GAP_REASONS:  # a counter that begins with its first event hides that event from rate()
            self._metrics.gaps.labels(reason)
        async with Spool.open(
            Path(site.store.path),
            site.site.mode,
            boot_id(),
            clock=clock,
            keeping=keeping(site),
            on_commit_s=observe,
            on_gap=lambda reason: self._metrics.gaps.labels(reason).inc(),
        ) as spool:
            if spool.lost is not None:  # the gap record is committed already
                log.error("%s: stream %s ends, %s begins", spool.lost.reason, spool.lost.of, spool.stream)
                self._metrics.gaps.labels(spool.lost.reason).inc()
            await self._run(spool)

    async def _run(self, spool: Spool) -> None:  # noqa: PLR0915 -- it is the list of what there is
        site, clock, metrics = self._site, self._clock, self._metrics
        drivers = build_drivers(site, clock)
        channels = Channels(site.channels, sources(site, drivers), dated.periods(site))
        rows = list((await book_of(spool)).values())
        room = build_room(site, clock, channels, rows)
        book, judge = room.book, room.judge
        verdicts = Verdicts(site, spool.stream)
        stored = readable(await spool.states())
        restore(stored, channels, verdicts, room)
        states = {**channels.states(), **verdicts.states(), **room.states()}
        writer = Writer(spool, clock, site, states, lambda reason: metrics.gaps.labels(reason).inc())
        writer.mode = room.modes.payload_mode
        audit, timekeeper = self._witnesses(drivers, writer, states, stored)
        baselines = build_baselines(site, drivers, clock, room, audit, writer, states, stored)
        guard = Guard(site, clock, room, audit)
        pipeline = Pipeline(site, channels, room, guard, writer, clock, metrics, verdicts)
        pipeline.keep_time(timekeeper)
        taps = {table.id: Tap(header(site, table, baselines), clock) for table in site.lines}
        baselines.shown_by({device.id: taps[device.line] for device in site.devices})
        lines = build_lines(site, drivers, clock, pipeline, taps)
        for line in lines:  # as of the gaps
            metrics.poll_overruns.labels(line)
        rings = build_rings(site, taps)
        outputs = build_outputs(site, drivers, lines, pipeline, clock)
        remeasure = Remeasure(
            site, sources(site, drivers), drivers, lines, outputs, clock, pipeline.remeasured
        )
        pipeline.pace(Cadence(site, judge, channels, lines, clock, room.water.stirs))
        uplinks = [
            build_uplink(table, site, spool, clock, metrics, pipeline, timekeeper) for table in site.uplinks
        ]
        sealer = build_sealer(site, spool, clock, audit, uplinks)
        feed = RulesFeed(self._run_dir / "rules.sock", site, spool, clock, pipeline.verdict)
        state = State(site, clock, spool, pipeline, judge, book, lines, uplinks, writer, timekeeper)
        guard.drive(outputs, lambda: not state.stuck(), remeasure)
        surroundings = Surroundings(site)
        metrics.watch(state)
        metrics.watch(surroundings)
        metrics.watch(feed)
        manual = Manual(site, clock, pipeline, room, audit)
        watch = self._watch_site(book, pipeline, audit)
        states[auditing.ORDER] = watch.order
        verbs: dict[type[requests.Request], Verb] = {
            requests.Apply: watch.apply,
            **Verbs(site, clock, state, pipeline, book, drivers, lines, audit, guard).table(),
            **GuardVerbs(clock, room, guard, manual, pipeline, audit).table(),
            **LineVerbs(site, drivers, lines, taps).table(),
            **SpoolVerbs(spool, uplinks, audit).table(),
            **baselines.table(),
        }
        obeying = build_orders(site, uplinks, audit, verbs, pipeline, states, stored)
        async with Control(self._run_dir / "control.sock", verbs), asyncio.TaskGroup() as group:

            def start(name: str, work: Callable[[], Awaitable[object]]) -> asyncio.Task[None]:
                return group.create_task(supervised(name, work), name=name)

            first = [start(f"line {each.id}", each.run) for each in lines.values()]
            first += self._rules(start, feed)
            writing = group.create_task(writer.run(), name="writer")
            rest = [start(f"uplink {each.id}", each.run) for each in uplinks]
            rest += [start(each.name, each.run) for each in obeying]
            rest += [start(f"recording {line}", ring.run) for line, ring in rings.items()]
            rest += [start(f"output {each.table.id}", each.run) for each in outputs]
            rest.append(start("remeasure", remeasure.run))
            rest += [
                start("pipeline", pipeline.run),
                start("metrics", Endpoint(site.metrics.listen, metrics, state.ills, state.ready).run),
                start("state", state.run),
                start("surroundings", surroundings.run),
                start("clock", timekeeper.run),
                start("sealer", sealer.run),
                start("site file", watch.run),
                start("trim", lambda: self._trim(spool)),
                start("store", build_watch(spool, book, clock, pipeline, writer, states, verdicts, feed).run),
            ]
            log.info(
                "started: %d lines, %d channels, stream %s", len(lines), len(site.channels), spool.stream
            )
            self._notifier.ready(f"{len(site.channels)} channels on {len(lines)} lines")
            await asyncio.to_thread(site_watch.keep, site, site_watch.folder(self._run_dir))
            gc.collect()
            gc.freeze()  # what is here now stays: no later collection goes through it again
            await self._until_stopped(state)
            self._notifier.stopping()
            await _cancelled(first)
            writer.stop()
            await writing
            with contextlib.suppress(StoreError):  # it was said when it failed
                await sealer.finish()
            if not self.again:
                await self._drained(state)
            await _cancelled(rest)
        log.info("stopped after batch %d", spool.last_seq)

    def _rules(
        self, start: Callable[[str, Callable[[], Awaitable[object]]], asyncio.Task[None]], feed: RulesFeed
    ) -> list[asyncio.Task[None]]:
        if self._site.rules.start == "off":
            return []
        tasks = [start("rules feed", feed.run)]
        if self._site.rules.start == "child":
            tasks.append(
                start("rules child", lambda: supervise(self._site.path, self._run_dir, feed.stalled_s))
            )
        return tasks

    def _hup(self) -> None:
        """Before there is anything to look at, it is remembered."""
        self._told = True
        if self._site_watch is not None:
            self._site_watch.hup()

    def _watch_site(self, book: AlarmBook, pipeline: Pipeline, audit: Audit) -> site_watch.SiteWatch:
        def restart() -> None:
            self.again = True
            self._notifier.reloading()
            self._stop.set()

        self._site_watch = site_watch.SiteWatch(
            self._site, self._wanted, self._trouble, book, self._clock, pipeline.announce, audit, restart
        )
        if self._told:
            self._site_watch.hup()
        return self._site_watch

    async def _until_stopped(self, state: State) -> None:
        """Feed the watchdog while every stage makes progress; until told to stop."""
        while not self._stop.is_set():
            if not state.stuck():
                self._notifier.watchdog()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._notifier.interval_s or 5.0):
                    await self._stop.wait()

    def _witnesses(
        self,
        drivers: Mapping[str, ModbusDevice | GnssReceiver],
        writer: Writer,
        states: dict[str, Callable[[], object]],
        stored: Mapping[str, tuple[int, bytes]],
    ) -> tuple[Audit, Timekeeper]:
        """Who keeps the audit and the time; what changed since the last start is recorded by them."""
        site = self._site
        audit = Audit(writer, self._clock, site)
        receivers = [each for each in drivers.values() if isinstance(each, GnssReceiver)]
        timekeeper = Timekeeper(self._clock, audit, receivers, site.store_folder)
        states[timekeeping.STATE] = timekeeper.state
        states[auditing.STATE] = config_state(site)
        _, clock = stored.get(timekeeping.STATE, (0, b"null"))
        timekeeper.resume(msgspec.json.decode(clock))
        _, config = stored.get(auditing.STATE, (0, None))
        record_shadow(audit, site, config)
        _, order = stored.get(auditing.ORDER, (0, None))
        record_config(audit, site, config, **ordered(site, order))
        return audit, timekeeper

    async def _trim(self, spool: Spool) -> None:
        """Drop what every archive has receipted and what is older than `keep`."""
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            await spool.trim(self._clock.wall_ns() - int(self._site.store.keep_s * NS))

    async def _drained(self, state: State) -> None:
        """Wait until the uplinks have settled everything, at most DRAIN_S."""
        end_s = asyncio.get_running_loop().time() + DRAIN_S
        while await state.backlog() and asyncio.get_running_loop().time() < end_s:  # noqa: ASYNC110 -- it settles at the other end
            await asyncio.sleep(DRAIN_LOOK_S)


async def supervised(name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` until cancelled; when it fails, say so and begin again: one failing part stops no other."""
    pause_s = AGAIN_FIRST_S
    while True:
        began_s = asyncio.get_running_loop().time()
        try:
            await work()
        except Exception:  # the one place: whatever it is, the other parts go on
            log.exception("%s failed; it begins again in %.0f s", name, pause_s)
        else:
            log.error("%s ended; it begins again in %.0f s", name, pause_s)
        if asyncio.get_running_loop().time() - began_s > AGAIN_MOST_S:
            pause_s = AGAIN_FIRST_S
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, AGAIN_MOST_S)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def readable(states: Mapping[str, tuple[int, bytes]]) -> dict[str, tuple[int, bytes]]:
    """Those that have not rotted; what the others held begins anew, for the core has to start."""
    found = {}
    for name, (seq, row) in states.items():
        try:
            msgspec.json.decode(row)
        except (msgspec.MsgspecError, TypeError) as error:
            why = error if row else ROTTEN
            log.error("%s begins anew, it cannot be read back from the store: %s", name, why)  # noqa: TRY400
        else:
            found[name] = (seq, row)
    return found


def restore(
    states: Mapping[str, tuple[int, bytes]], channels: Channels, verdicts: Verdicts, room: Room
) -> None:
    """Hand the stored states back: counters and rates, verdicts heard, and the guard room's."""
    for name, (_, row) in states.items():
        try:
            state = msgspec.json.decode(row)
            if name.startswith(HEARD):
                verdicts.restore(name, state)
            elif not room.restore(name, state):
                channels.restore(name, state)
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
            log.error("%s begins anew, it cannot be read back from the store: %s", name, error)  # noqa: TRY400


def keeping(site: Site) -> Keeping:
    """What the site file asks of the store."""
    own = [table for table in site.uplinks if isinstance(table, UplinkTable)]
    return Keeping(
        tuple(table.id for table in site.uplinks),
        frozenset(table.id for table in own if table.settle == "receipt"),
        frozenset(table.id for table in own if table.archive),
        site.store.most_bytes,
    )


def build_room(site: Site, clock: Clock, channels: Channels, rows: Sequence[Alarm]) -> Room:
    """The alarm book with what raises alarms and who answers them."""
    zone = ZoneInfo(site.site.timezone)
    roster = Roster(site.people, site.duties, zone, site.alarms.late_after)
    book = AlarmBook(rows, timezone=zone, due=roster.due_ns, group_s=site.alarms.group_s)
    judge = Judge(site, channels.groups, book, today=local_day(clock.wall_ns(), zone))
    return Room(
        book,
        judge,
        Water(site, channels.groups, judge, book, zone),
        Modes(site),
        Stations(book, site.alarms.gather_s),
        roster,
        Calls(site.alarms, roster),
        PublicSirens(site),
    )


# -- building what the site file lists ---------------------------------------------------------------


def build_baselines(
    site: Site,
    drivers: Mapping[str, ModbusDevice | GnssReceiver],
    clock: Clock,
    room: Room,
    audit: Audit,
    writer: Writer,
    states: dict[str, Callable[[], object]],
    stored: Mapping[str, tuple[int, bytes]],
) -> Baselines:
    """The receivers' baselines, going on with the ties of before."""
    receivers = [each for each in drivers.values() if isinstance(each, GnssReceiver)]
    baselines = Baselines(site, receivers, clock, room.roster, audit, writer.mark)
    states |= baselines.states()
    baselines.restore(stored)
    return baselines


def build_watch(
    spool: Spool,
    book: AlarmBook,
    clock: Clock,
    pipeline: Pipeline,
    writer: Writer,
    states: Collection[str],
    verdicts: Verdicts,
    feed: RulesFeed,
) -> StoreWatch:
    def renew() -> None:
        writer.mark(states)
        verdicts.follow(spool.stream)
        feed.renew()

    return StoreWatch(spool, book, clock, pipeline.announce, renew)


def build_uplink(
    table: UplinkTable | OtherUplink,
    site: Site,
    spool: Spool,
    clock: Clock,
    metrics: Metrics,
    pipeline: Pipeline,
    timekeeper: Timekeeper,
) -> MqttUplink | DialectUplink:
    if not isinstance(table, UplinkTable):
        return DialectUplink(
            table,
            dialects.build(table, site, clock, timekeeper, StoredPast(spool)),
            spool,
            clock,
            on_rejected=metrics.uplink_rejected.labels(table.id).inc,
            on_quarantined=partial(pipeline.quarantined, table.id),
            again_s=getattr(table, "again_s", 0.0),
            reconnect_most_s=RECONNECT_MOST_S if clock.rate == 1.0 else BENCH_RECONNECT_S,
        )
    started = rfc3339(clock.wall_ns())
    status = Status(
        site.site.mode, VERSION, boot_id(), spool.stream, site.sha256, started, shadow=site.site.shadow
    )
    return MqttUplink(
        table,
        site.site.id,
        site.site.gateway,
        spool,
        status,
        clock,
        on_rejected=metrics.uplink_rejected.labels(table.id).inc,
        on_quarantined=partial(pipeline.quarantined, table.id),
        times=timekeeper,
        reconnect_most_s=RECONNECT_MOST_S if clock.rate == 1.0 else BENCH_RECONNECT_S,
    )


def build_sealer(
    site: Site, spool: Spool, clock: Clock, audit: Audit, uplinks: Sequence[MqttUplink | DialectUplink]
) -> Sealer:
    """It seals for every uplink that carries seals, with the key of the site's mode."""

    def tell(seal: bytes) -> None:
        for uplink in uplinks:
            if isinstance(uplink, MqttUplink):
                uplink.seal(seal)

    return Sealer(spool, clock, audit, site.store_folder, site.site.mode, tell)


def build_orders(
    site: Site,
    uplinks: Sequence[MqttUplink | DialectUplink],
    audit: Audit,
    verbs: Mapping[type[Request], Verb],
    pipeline: Pipeline,
    states: dict[str, Callable[[], object]],
    stored: Mapping[str, tuple[int, bytes]],
) -> list[Orders]:
    """What platforms may ask for: for each uplink whose table names a key."""
    made = []
    for table, uplink in zip(site.uplinks, uplinks, strict=True):
        if isinstance(table, UplinkTable) and isinstance(uplink, MqttUplink) and table.request_keys:
            _, admitted = stored.get(f"{orders.STATE}{table.id}", (0, b"{}"))
            gate = Gate(table.request_keys, site.site.id, site.site.gateway, msgspec.json.decode(admitted))
            each = Orders(table.id, gate, audit, verbs, uplink.resend, pipeline)
            states[each.name] = each.state
            uplink.obey(each.take)
            made.append(each)
    return made
