"""The way of a frame: channels, judgement, outputs, writer. One consumer, in the event loop's one thread.

Nothing on this way waits: the judgement and the outputs come before the disk, and a slow disk is the writer's
affair. Whoever wants to watch (tail, metrics) is shown what passes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from daemon import alarms, reasons
from daemon.alarms import Observation, Subject
from daemon.control import Fanout
from daemon.duty import CALLS
from daemon.reading import parse_rfc3339
from daemon.spool import Draft
from daemon.uplink.envelope import Sound
from daemon.writer import site_head
from drivers.sample import Quality

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client import Counter, Histogram

    from daemon.alarms import Alarm
    from daemon.batch import Mode
    from daemon.cadence import Cadence
    from daemon.channels import Channels, Group
    from daemon.clock import Clock
    from daemon.config import OutputTable, Site
    from daemon.guard import Guard, Room
    from daemon.metrics import Metrics
    from daemon.reading import ReadingFrame
    from daemon.rules import Verdict, Verdicts
    from daemon.timekeeper import Timekeeper
    from daemon.uplink.envelope import Silence
    from daemon.writer import Writer
    from drivers.sample import Frame

log = logging.getLogger(__name__)

EXPIRE_EVERY_S = 1.0


class Pipeline:
    """Takes frames and verdicts, raises alarms; the poller's observer."""

    def __init__(
        self,
        site: Site,
        channels: Channels,
        room: Room,
        guard: Guard,
        writer: Writer,
        clock: Clock,
        metrics: Metrics,
        verdicts: Verdicts,
    ) -> None:
        self._judge = room.judge
        self._water = room.water
        self._modes = room.modes
        self._stations = room.stations
        self._book = room.book
        self._guard = guard
        self._channels = channels
        self._writer = writer
        self._clock = clock
        self._metrics = metrics
        self._verdicts = verdicts
        self._head = site_head(site)
        self._alarm_mode: Mode | None = None
        if site.site.shadow:
            self._head += b'"shadow":true,'
            self._alarm_mode = "test" if site.site.mode == "real" else None
        self._line_of = {device.id: device.line for device in site.devices}
        self._tables = {channel.id: channel for channel in site.channels}
        self._cadence: Cadence | None = None
        self._timekeeper: Timekeeper | None = None
        self.shown: Fanout[ReadingFrame] = Fanout()
        self._counters: dict[str, Sequence[Counter]] = {}
        self._poll_seconds: dict[str, Histogram] = {}
        self.groups = len(channels.groups)
        self.latest: dict[int, ReadingFrame] = {}
        self._seen_ns: dict[str | int, int] = {}  # channel, or id of a group that had all its values -> when
        self.devices: dict[tuple[str, str], bool] = {}
        self.frames_taken = 0

    def pace(self, cadence: Cadence) -> None:
        """Have the devices' periods follow the levels."""
        self._cadence = cadence
        cadence.follow()

    def keep_time(self, timekeeper: Timekeeper) -> None:
        """Have it see every stamp, and say which readings are stamped by a clock not to be trusted."""
        self._timekeeper = timekeeper

    def values(self) -> Iterator[tuple[str, float, int]]:
        """Channel, its latest value (NaN where bad), and when (ns, UTC) it last had one, 0 for never."""
        for group, readings in self.latest.items():
            all_ns = self._seen_ns.get(group, 0)
            for channel, value in zip(readings.channels, readings.values, strict=True):
                yield channel, value, max(all_ns, self._seen_ns.get(channel, 0))

    # -- frames --------------------------------------------------------------------------------------

    def take(self, frame: Frame) -> None:
        self.frames_taken += 1
        if self._timekeeper is not None and self._clock.is_off(frame.time_ns, frame.mono_ns):
            self._timekeeper.check()
        if frame.block.device in self._modes.maintained:
            frame = self._modes.marked(frame)
        for group, readings in self._channels.on_frame(frame):
            self._judged(group, readings)

    def remeasured(self, alarm_id: str, found: Sequence[Mapping[str, Any]]) -> None:
        """What was measured again around a red channel becomes evidence of its alarm."""
        self.announce(self._guard.attach(alarm_id, found))

    def order(self, request: Sound | Silence, key: str) -> list[str]:
        """A signed request about a public siren; ids of the alarms that change.

        Raises:
            NotAllowed: see `PublicSirens`.
        """
        if isinstance(request, Sound):
            changed = self._guard.sound(
                request.output, key=key, by=request.by, seconds=request.seconds, why=request.note
            )
        else:
            changed = self._guard.silence(request.output, key=key, by=request.by, why=request.note)
        self.announce(changed)
        return [alarm.id for alarm in changed]

    def fill_in(self, readings: ReadingFrame) -> None:
        """A person's readings in place of those an instrument does not have: kept and forwarded."""
        self._writer.put(readings)
        if len(self.shown):
            self.shown.publish(readings)

    async def run(self) -> None:
        """Finish, now and then, ticks whose inputs never came; until cancelled."""
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            for group, readings in self._channels.expire(self._clock.monotonic_ns()):
                self._judged(group, readings)
            self.announce(self._guard.look())
            if self._cadence is not None:
                self._cadence.follow()

    def _judged(self, group: Group, readings: ReadingFrame) -> None:
        if self._timekeeper is not None and not self._timekeeper.trusted:
            readings = self._timekeeper.marked(readings)
        raised = self._judge.take(group, readings) + self._water.take(group, readings)
        if raised:
            raised += self._guard.ring(raised)
            if self._cadence is not None:
                self._cadence.follow()
        raised += self._guard.turned(group, readings)
        self._writer.put(readings)
        self._writer.mark(group.stateful)
        self._writer.mark(self._judge.moved())
        self._writer.mark(self._water.moved())
        if raised:
            self.announce(raised)
        self.latest[id(group)] = readings
        self._count(group, readings)
        if len(self.shown):
            self.shown.publish(readings)

    def _count(self, group: Group, readings: ReadingFrame) -> None:
        qualities = readings.qualities
        counters = self._counters.get(group.device) or self._new_counters(group.device)
        if not any(qualities):
            self._seen_ns[id(group)] = readings.time_ns
            counters[0].inc(len(qualities))
            return
        bad = sum(q >= Quality.NO_REPLY for q in qualities)
        good = qualities.count(0)
        if not bad:
            self._seen_ns[id(group)] = readings.time_ns
        elif bad < len(qualities):
            seen = zip(readings.channels, qualities, strict=True)
            self._seen_ns |= {c: readings.time_ns for c, q in seen if q < Quality.NO_REPLY}
        for counter, n in zip(counters, (good, len(qualities) - good - bad, bad), strict=True):
            if n:
                counter.inc(n)

    def _new_counters(self, device: str) -> Sequence[Counter]:
        """The device's counters of good, uncertain and bad readings; looking them up each time is dear."""
        labels = (self._line_of[device], device)
        counters = [self._metrics.readings.labels(*labels, q) for q in ("good", "uncertain", "bad")]
        self._counters[device] = counters
        return counters

    # -- alarms --------------------------------------------------------------------------------------

    def announce(self, changed: Sequence[Alarm]) -> None:
        """Commit changed alarms at once, with whom they call, and let them be seen in the log.

        Of a site that runs in shadow they say so, and that they are a test: no platform is to act on them.
        """
        changed = self._guard.called(changed)
        if not changed:
            return
        self._writer.mark([CALLS])
        mono_ns = self._clock.monotonic_ns()
        drafts = [
            Draft(
                "alarms",
                self._head + alarms.body(alarm),
                self._clock.wall_ns(),
                mono_ns,
                1,
                self._alarm_mode,
            )
            for alarm in changed
        ]
        self._writer.put_urgent(drafts, {alarm.id: alarms.encode(alarm) for alarm in changed})
        for alarm in changed:
            log.warning("alarm %s %s %s: %s", alarm.level, alarm.condition, alarm.id, alarm.reason.en)

    def verdict(self, verdict: Verdict) -> None:
        """A detector's advice becomes an alarm of its own kind, an instrument that is stuck or noisy a fault.

        A spike calls nobody: it is shown beside the level that stands on its channel, where one does.
        """
        moved = self._verdicts.take(verdict)
        if moved is None:
            return
        self._writer.mark([moved])
        table = self._tables[verdict.channel]
        if verdict.rule == "hampel":
            self._doubt(table.id, verdict)
            return
        subject = Subject(
            "fault" if verdict.kind == "quality" else "advice",
            f"{table.id}.{verdict.rule}",
            pond=table.pond,
            section=table.section or None,
            item=table.item,
            monitoring_point=table.monitoring_point or None,
            channel=table.id,
            rule=verdict.rule,
        )
        present = verdict.condition == "present"
        seen = Observation(
            "none",
            "present" if present else "gone",
            parse_rfc3339(verdict.time),
            reasons.Reason(verdict.reason.get("zh", ""), verdict.reason.get("en", "")),
            value=verdict.value if verdict.value is not None else float("nan"),
            limit=verdict.limit if verdict.limit is not None else float("nan"),
            evidence={
                "urgency": verdict.urgency,
                "kind": verdict.kind,
                "score": verdict.score,
                "rests_on": {"stream": verdict.stream, "seq": verdict.seq},
                **verdict.evidence,
            },
        )
        self._observe(subject, seen)

    def _doubt(self, channel: str, verdict: Verdict) -> None:
        if verdict.condition != "present":
            return
        log.info("%s: %s", channel, verdict.reason.get("en", ""))
        alarm = self._book.of(Subject("channel", channel))
        if alarm is not None:
            spike = {"time": verdict.time, "value": verdict.value, "score": verdict.score, **verdict.evidence}
            self.announce([self._book.attach(alarm.id, {"spike": spike})])

    def _observe(self, subject: Subject, seen: Observation) -> None:
        alarm = self._book.observe(subject, seen)
        if alarm is not None:
            self.announce([alarm])

    # -- health, told by the poller and the outputs --------------------------------------------------

    def device_error(self, line: str, device: str, reason: str) -> None:
        self._metrics.device_errors.labels(line, device, reason).inc()

    def device_state(self, line: str, device: str, *, up: bool, error: str) -> None:
        now_ns = self._clock.wall_ns()
        self.devices[line, device] = up
        if up:
            silent_s = self._stations.silent_s(device, now_ns)
            log.info("%s on %s answers%s", device, line, f" again after {silent_s:.0f} s" if silent_s else "")
            self.announce(self._stations.up(line, device, now_ns))
        else:
            log.warning("%s on %s is silent: %s", device, line, error)
            self._stations.down(line, device, error, now_ns)

    def output_fault(self, table: OutputTable, error: str) -> None:
        """An output does not follow, which calls people; an empty error takes that back."""
        now_ns = self._clock.wall_ns()
        subject = Subject("fault", f"output.{table.id}", pond=table.pond, device=table.device)
        if error:
            reason = reasons.output_fault(table.id, error)
            evidence = {"error": error, "urgency": "inspect now"}  # people are called in its place
            seen = Observation("none", "present", now_ns, reason, evidence=evidence)
        else:
            seen = Observation("none", "gone", now_ns, reasons.output_well(table.id))
        self._observe(subject, seen)

    def quarantined(self, uplink: str, seq: int, kind: str, why: str) -> None:
        """An uplink will not take a batch, whenever it is tried; the alarm stands for the latest of them."""
        reason = reasons.quarantined(uplink, seq, why)
        evidence = {"seq": seq, "kind": kind, "why": why}
        seen = Observation("none", "present", self._clock.wall_ns(), reason, evidence=evidence)
        self._observe(Subject("system", f"quarantine.{uplink}"), seen)

    def polled(self, line: str, seconds: float) -> None:
        histogram = self._poll_seconds.get(line)
        if histogram is None:
            histogram = self._poll_seconds[line] = self._metrics.poll_seconds.labels(line)
        histogram.observe(seconds)

    def overrun(self, line: str, ticks: int) -> None:
        self._metrics.poll_overruns.labels(line).inc(ticks)
