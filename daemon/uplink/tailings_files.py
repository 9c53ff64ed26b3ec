"""Files for the tailings platform: `GTX JYL KSW BWY QRX` as text, GNSS as JSON.

De facto and unverified: the shapes come from public code that feeds such a platform, not from the platform's
own text, which is not public. So separators, order and choice of fields are the site file's to change.
A missing value makes no record: the text has no word for it. All times are local, as the platform's are.

The moment in a name is that of the newest record inside, so the same batches make the same file, whenever
they are handed over again.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Final
from zoneinfo import ZoneInfo

from daemon.uplink.dialect import Parcel, Told, json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from daemon.alarms import Alarm
    from daemon.clock import Clock
    from daemon.uplink.dialect import Link
    from daemon.uplink.folders import Folder
    from daemon.uplink.tables import TailingsFilesTable, TailingsPoint

_HEAD = ("code", "name", "installed", "location")
_MIDDLE = ("manufacturer", "device_type", "power_comm", "accuracy")
_TAIL = ("longitude", "latitude", "altitude", "level1", "level2", "level3", '"1"')
# Public code shows no real-time record of BWY: a site that has the platform's text names its fields.
RECORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "GTXDY": (*_HEAD, *_MIDDLE, *_TAIL),
    "JYLDY": (*_HEAD, *_MIDDLE, *_TAIL),
    "KSWDY": (*_HEAD, "install_height", *_MIDDLE, *_TAIL),
    "BWYDY": (*_HEAD, *_MIDDLE, *_TAIL),
    "QRXDY": (*_HEAD, *_MIDDLE, "hole_depth", "control_depth", *_TAIL),
    "GTXSS": ("code", "time", "value", "second", '"0"'),
    "JYLSS": ("code", "time", "value"),
    "KSWSS": ("code", "time", "value"),
    "QRXSS": ("code", "time", "value", '"0"'),
}
_MEASURED = ("value", "second", "x", "y", "z", "x_speed", "y_speed", "z_speed")
_ACCELERATIONS = ("x_acceleration", "y_acceleration", "z_acceleration")
MEASURED: Final = frozenset((*_MEASURED, *_ACCELERATIONS))
# Inferred, no text says it: 1 is red, 4 is blue, 0 is clear.
_ALARM_LEVEL: Final[Mapping[str, str]] = {"red": "1", "orange": "2", "yellow": "3", "blue": "4", "none": "0"}
_MOST_TOLD = 1000
_ALARMED: Final[Mapping[str, str]] = {
    "horizontal": "horizontal_displacement",
    "horizontal_speed": "horizontal_velocity",
    "horizontal_acceleration": "horizontal_acceleration",
}


class TailingsFiles:
    """The dialect; `folder` is where its files go."""

    says_mode: ClassVar[bool] = False

    def __init__(self, table: TailingsFilesTable, folder: Folder, timezone: str, clock: Clock) -> None:
        self.where = table.folder
        self._table = table
        self._folder = folder
        self._zone = ZoneInfo(timezone)
        self._clock = clock
        self._records = dict(RECORDS) | {record.type: record.fields for record in table.records}
        self._of: dict[str, list[tuple[TailingsPoint, str]]] = defaultdict(list)
        for point in table.points:
            for field in (*_MEASURED, *_ACCELERATIONS):
                if getattr(point, field):
                    self._of[getattr(point, field)].append((point, field))
        self._told: dict[
            str, tuple[str, tuple[str, str | None, str | None]]
        ] = {}  # alarm -> when, which deed
        self._alarmed = {
            getattr(point, field): (point, key)
            for point in table.points
            for field, key in _ALARMED.items()
            if point.type == "GNSS" and getattr(point, field)
        }

    def open(self) -> AbstractAsyncContextManager[Link]:
        """Each connection begins with the definitions: the platform keeps the newest."""
        return self._folder.open(lambda: self.definitions(self._clock.wall_ns()))

    # -- definitions ---------------------------------------------------------------------------------

    def definitions(self, now_ns: int) -> list[Parcel]:
        """What each point is, one file for each type that there is."""
        now = datetime.fromtimestamp(now_ns // 1_000_000_000, self._zone)
        made = []
        for kind in ("GTX", "JYL", "KSW", "BWY", "QRX"):
            points = [point for point in self._table.points if point.type == kind]
            if points:
                fields = self._records[f"{kind}DY"]
                rows = [self._row(fields, point, {}, now) for point in points]
                made.append(self._text(f"{kind}DY", now, rows))
        if gnss := [point for point in self._table.points if point.type == "GNSS"]:
            rows_ = [self._base(point, now) for point in gnss]
            made.append(self._json("gnssbaseinfo", now, 0, {"data": rows_}))
        return made

    def _base(self, point: TailingsPoint, now: datetime) -> dict[str, str]:
        return {
            "equip_no": point.code,
            "equip_name": point.name,
            "equip_location": point.location,
            "open_pit_no": self._table.open_pit,
            "slope_no": self._table.slope,
            "installation_date": point.installed,
            "longitude": point.longitude,
            "latitude": point.latitude,
            "altitude": point.altitude,
            "manufacture": point.manufacturer,
            "equip_range": point.range,
            "in_use": "1",
            "breakdown": "0",
            "create_time": point.installed,
            "update_time": f"{now:%Y-%m-%d %H:%M:%S}",
        }

    # -- what was measured, and what was done --------------------------------------------------------

    def encode(self, told: Sequence[Told]) -> list[Parcel]:
        """One file of each type, one of GNSS, and two for each alarm of a GNSS point at most."""
        seen: dict[tuple[str, str], tuple[TailingsPoint, dict[str, float]]] = {}
        for one in told:
            for reading in one.readings:
                if reading.value is None:
                    continue
                for point, field in self._of.get(reading.channel, ()):
                    seen.setdefault((point.code, reading.time), (point, {}))[1][field] = reading.value
        by_type: dict[str, list[tuple[datetime, TailingsPoint, dict[str, float]]]] = defaultdict(list)
        for (_, time), (point, values) in seen.items():
            by_type[point.type].append((self._local(time), point, values))
        texts = [self._real_time(kind, rows) for kind, rows in by_type.items() if kind != "GNSS"]
        made = [parcel for parcel in texts if parcel is not None]
        first = min((one.seq for one in told), default=0)
        if gnss := by_type.get("GNSS"):
            made.append(self._gnss(gnss, first))
        for one in told:
            if one.alarm is not None and one.alarm.channel in self._alarmed:
                made += self._alarm(one.alarm, *self._alarmed[one.alarm.channel], one.seq)
        return made

    def _real_time(
        self, kind: str, rows: Sequence[tuple[datetime, TailingsPoint, dict[str, float]]]
    ) -> Parcel | None:
        fields = self._records.get(f"{kind}SS")
        if fields is None:
            return None
        newest = max(time for time, _, _ in rows)
        lines = [
            self._row(fields, point, values, time)
            for time, point, values in rows
            if set(values) & set(fields)
        ]
        return self._text(f"{kind}SS", newest, lines) if lines else None

    def _gnss(self, rows: Sequence[tuple[datetime, TailingsPoint, dict[str, float]]], seq: int) -> Parcel:
        newest = max(time for time, _, _ in rows)
        data = []
        for time, point, values in rows:
            said = {name: self._number(values.get(name)) for name in MEASURED}
            data.append(
                {
                    "equip_no": point.code,
                    "monitor_time": f"{time:%Y-%m-%d %H:%M:%S}",
                    "longitude": point.longitude,
                    "latitude": point.latitude,
                    "altitude": point.altitude,
                    **{f"{axis}_disp": said[axis] for axis in "xyz"},
                    **{f"{axis}_speed": said[f"{axis}_speed"] for axis in "xyz"},
                    **{f"{axis}_acc_speed": said[f"{axis}_acceleration"] for axis in "xyz"},
                }
            )
        return self._json("gnssrealtime", newest, seq, {"open_pit_no": self._table.open_pit, "data": data})

    def _alarm(self, alarm: Alarm, point: TailingsPoint, key: str, seq: int) -> Iterator[Parcel]:
        """The level that holds; and once something was done about it, when and what."""
        changed = self._local(alarm.time)
        raised = f"{self._raised(alarm):%Y-%m-%d %H:%M:%S}"
        row = {
            "equip_no": point.code,
            "alarm_time": raised,
            "alarm_level": _ALARM_LEVEL[alarm.level],
            "warning_parameters": self._parameters(key, alarm.limit),
            "alarm_value": self._parameters(key, alarm.value),
        }
        yield self._json("gnssalarm", changed, seq, {"data": [row]})
        if alarm.response == self._table.clear_at and self._is_news(alarm):
            done = {
                "equip_no": point.code,
                "alarm_time": raised,
                "handle_time": f"{changed:%Y-%m-%d %H:%M:%S}",
                "description": "，".join(filter(None, (alarm.by, alarm.note))),
            }
            yield self._json("clearalarm", changed, seq, {"data": [done]})

    def _is_news(self, alarm: Alarm) -> bool:
        """Whether this deed was not told yet: what is measured may change under the same deed."""
        deed = (alarm.response, alarm.by, alarm.note)
        when, known = self._told.get(alarm.id, (alarm.time, deed))
        if known == deed and when != alarm.time:
            return False
        self._told[alarm.id] = (alarm.time, deed)
        while len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]
        return True

    def _parameters(self, key: str, value: float | None) -> dict[str, str]:
        return {name: self._number(value) if name == key else "" for name in (*_ALARMED.values(), "duration")}

    def _raised(self, alarm: Alarm) -> datetime:
        """When it was raised, which its name ends with."""
        stamp = alarm.id.rpartition(":")[2]
        moment = datetime.strptime(stamp, "%Y%m%dT%H%M%S.%f%z")
        return moment.astimezone(self._zone)

    # -- writing -------------------------------------------------------------------------------------

    def _row(
        self, fields: Iterable[str], point: TailingsPoint, values: Mapping[str, float], time: datetime
    ) -> str:
        said = []
        for field in fields:
            if field.startswith('"'):
                said.append(field.strip('"'))
            elif field == "time":
                said.append(f"{time:%Y-%m-%d %H:%M:%S}")
            elif field in MEASURED:
                said.append(self._number(values.get(field)))
            else:
                said.append(self._safe(getattr(point, field)))
        return self._table.field_end.join(said)

    def _text(self, kind: str, time: datetime, rows: Sequence[str]) -> Parcel:
        its = self._table
        head = its.field_end.join((its.project, self._safe(its.project_name), f"{time:%Y-%m-%d %H:%M:%S}"))
        text = "".join(row + its.record_end for row in (head, *rows)) + its.file_end
        return Parcel(f"{its.txt_folder}/{its.project}_{kind}_{time:%Y%m%d%H%M%S}.txt", text.encode())

    def _json(self, kind: str, time: datetime, seq: int, members: Mapping[str, object]) -> Parcel:
        name = f"{self._table.project}_{kind}_{time:%Y%m%d%H%M%S}_{seq % 10_000:04d}.json"
        return Parcel(
            f"{self._table.gnss_folder}/{name}", json({"send_time": f"{time:%Y-%m-%d %H:%M:%S}", **members})
        )

    def _number(self, value: float | None) -> str:
        return "" if value is None else f"{value:.{self._table.decimals}f}"

    def _safe(self, text: str) -> str:
        """Text in which no separator stands: there is no way to quote one."""
        for separator in (self._table.file_end, self._table.field_end, self._table.record_end):
            text = text.replace(separator, " ")
        return text

    def _local(self, time: str) -> datetime:
        return datetime.fromisoformat(time).astimezone(self._zone)
