"""`$dp` frames of the geological-hazard platforms, over MQTT. De facto: no printed page was seen.

A frame is a type byte, the length of the JSON in two bytes, high byte first, and the JSON. Type 2 is a time
series, `{"device":{"L1_GP_1":{"2026-03-14T06:00:00.000Z":{"gpsTotalX":9.9}}}}`, and all that is sent here:
type 1 has no time of measurement, so it cannot tell what was measured during an outage, and type 3 is for
files.

Where the site file says which number stands for a sensor without a value, `sensor_state` of the device's
status tells of each sensor whether it has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from daemon.uplink.dialect import Parcel, json
from daemon.uplink.geohazard_codes import STATUS
from daemon.uplink.puback import PubAck

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from daemon.reading import Reading
    from daemon.uplink.dialect import Link, Told
    from daemon.uplink.tables import GeohazardTable, GeohazardValue
    from daemon.uplink.tls import Times

SERIES: Final = 2
_FRAME_BYTES = 32 << 10  # no frame grows longer if it can be two; two bytes of length end at 64 KiB
NORMAL: Final = 0

_Row = tuple[str, "Reading", "GeohazardValue"]
_Codes = dict[str, dict[str, Any]]  # code -> time -> a number, or fields


class Geohazard:
    """The dialect."""

    says_mode: ClassVar[bool] = False

    def __init__(self, table: GeohazardTable, times: Times) -> None:
        self.where = table.url
        self._table = table
        self._values = {value.channel: value for value in table.values}
        self._times = times

    def open(self) -> AbstractAsyncContextManager[Link]:
        return PubAck(self._table, self._table.client_id or self._table.device, self._times).open()

    def encode(self, told: Sequence[Told]) -> Sequence[Parcel]:
        """Frames of one device each, in the order of time."""
        rows: dict[str, list[_Row]] = {}
        for one in told:
            for reading in one.readings:
                if (value := self._values.get(reading.channel)) is not None:
                    device = value.device or self._table.device
                    rows.setdefault(device, []).append((reading.time, reading, value))
        return [
            Parcel(self._table.topic, frame(SERIES, json({device: codes})))
            for device, its in rows.items()
            for codes in self._split(device, sorted(its, key=lambda row: row[0]))
        ]

    def _split(self, device: str, rows: Sequence[_Row]) -> Iterator[_Codes]:
        """As few frames as the length allows; what was measured at one time stays together if it can."""
        codes = self._codes(rows)
        if len(json({device: codes})) <= _FRAME_BYTES or len(rows) == 1:
            if codes:
                yield codes
            return
        half = len(rows) // 2
        while half < len(rows) - 1 and rows[half][0] == rows[half - 1][0]:
            half += 1
        yield from self._split(device, rows[:half])
        yield from self._split(device, rows[half:])

    def _codes(self, rows: Sequence[_Row]) -> _Codes:
        codes: _Codes = {}
        states: dict[str, dict[str, int]] = {}
        for time, reading, value in rows:
            if not value.code.startswith(STATUS):
                state = states.setdefault(time, {})
                state[value.code] = max(state.get(value.code, NORMAL), self._state(reading))
            if reading.value is None:
                continue
            number = reading.value * value.scale
            if value.field:
                codes.setdefault(value.code, {}).setdefault(time, {})[value.field] = number
            else:
                codes.setdefault(value.code, {})[time] = number
        if self._table.sensor_fault is not None:
            for time, state in states.items():
                codes.setdefault(self._table.status, {}).setdefault(time, {})["sensor_state"] = state
        return codes

    def _state(self, reading: Reading) -> int:
        return NORMAL if reading.value is not None else self._table.sensor_fault or NORMAL


def frame(kind: int, body: bytes) -> bytes:
    """Type, length, JSON."""
    return bytes([kind]) + len(body).to_bytes(2, "big") + body
