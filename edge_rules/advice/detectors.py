"""The state around the kernels: what is armed, what a batch changes, and how that is said.

Thresholds here are those of data quality and advice, never of a trigger level: k = 8 spreads for an
outlier, the rate that the site file calls worth a look.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf, isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_rules.advice import kernels
from edge_rules.advice.messages import Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_rules.advice.messages import Channel, Reading

K = 8.0
FLOOR_OF_RESOLUTION = 2.0
# q for a noise of one unit: 1e-6 mm^2/h^3 at 2 mm, the setting for hourly GNSS, made free of the unit.
Q_OF_VARIANCE = 2.5e-7
HOURS_PER_DAY = 24.0
CONDITIONS = ("spike_on", "rate_on")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DISARMED = Reason(zh="该检测已停用", en="this detector is no longer armed")


class Detectors:
    """All armed channels of one configuration.

    `state` is one STATE record per armed channel, in the order of `ids`: all there is to keep.
    """

    def __init__(self, channels: Iterable[Channel]) -> None:
        armed = [(c, c.advice) for c in channels if c.advice is not None]
        self.ids = [channel.id for channel, _ in armed]
        self._units = [channel.unit for channel, _ in armed]
        self._row = {one: i for i, one in enumerate(self.ids)}
        self.state = kernels.records(kernels.STATE, len(armed))
        self._params = kernels.records(kernels.PARAMS, len(armed))
        for i, (_, advice) in enumerate(armed):
            noise, rate = advice.trend_noise, advice.trend_rate_per_day
            variance = 0.0 if noise is None else noise * noise
            self._params[i] = (
                int(advice.hampel),
                K,
                FLOOR_OF_RESOLUTION * advice.resolution,
                int(variance > 0.0),
                variance,
                Q_OF_VARIANCE * variance,
                inf if rate is None else rate / HOURS_PER_DAY,
            )

    def take_over(self, ids: Sequence[str], state: kernels.Records, *, statistics: bool) -> None:
        """Continue from another configuration's state, channel by channel, by id.

        Without `statistics` only the conditions that stand are kept, so that they can end one day.
        """
        rows = {one: i for i, one in enumerate(ids)}
        names = (kernels.STATE.names or ()) if statistics else CONDITIONS
        for here, one in enumerate(self.ids):
            if one in rows:
                for name in names:
                    self.state[name][here] = state[name][rows[one]]

    def feed(self, stream: str, seq: int, readings: Sequence[Reading]) -> list[Verdict]:
        """What one batch changes, in the order of its readings; those of channels not armed are passed by."""
        mine = [reading for reading in readings if reading.channel in self._row]
        if not mine:
            return []
        idx = np.array([self._row[reading.channel] for reading in mine], np.int64)
        t = np.array([_ns(reading.time) for reading in mine], np.int64)
        x = np.array([_value(reading) for reading in mine], np.float64)
        out = kernels.records(kernels.OUT, len(mine))
        kernels.step(idx, t, x, self.state, self._params, out)
        verdicts: list[Verdict] = []
        for j in np.flatnonzero(out["said"] & kernels.CHANGED):
            verdicts += self._say(stream, seq, int(idx[j]), int(t[j]), out[j])
        return verdicts

    def _say(self, stream: str, seq: int, row: int, t: int, o: Any) -> list[Verdict]:
        said = int(o.said)
        verdicts = []
        if said & kernels.SPIKE_PRESENT:
            verdicts.append(self._spike(stream, seq, row, o))
        if said & kernels.SPIKE_GONE:
            verdicts.append(self._spike_gone(stream, seq, row, t))
        if said & (kernels.RATE_PRESENT | kernels.RATE_GONE):
            verdicts.append(self._rate(stream, seq, row, t, o))
        return verdicts

    def _spike(self, stream: str, seq: int, row: int, o: Any) -> Verdict:
        value, median, spread = float(o.spike), float(o.spike_median), float(o.spike_spread)
        score = abs(value - median) / spread
        unit, time = self._units[row], _rfc3339(int(o.spike_t))
        return Verdict(
            stream=stream,
            seq=seq,
            channel=self.ids[row],
            rule="hampel",
            kind="quality",
            condition="present",
            urgency=None,
            score=score,
            value=value,
            limit=median + (K if value > median else -K) * spread,
            time=time,
            reason=Reason(
                zh=f"{time} 读数 {value:g} {unit} 偏离前后中位数 {median:g} {unit} 达 {score:.1f} 倍离散度，"
                "随后两次读数恢复：疑为粗差，请检查仪器和接线",
                en=f"the reading of {time}, {value:g} {unit}, lies {score:.1f} spreads off the median "
                f"{median:g} {unit} and the next two came back: a spike; look at instrument and wiring",
            ),
            evidence={"median": median, "spread": spread, "k": K, "window": kernels.WINDOW},
        )

    def _spike_gone(self, stream: str, seq: int, row: int, t: int) -> Verdict:
        window = kernels.WINDOW
        quiet = Reason(zh=f"连续 {window} 次读数无粗差", en=f"no spike among the last {window} readings")
        return Verdict(
            stream=stream,
            seq=seq,
            channel=self.ids[row],
            rule="hampel",
            kind="quality",
            condition="gone",
            urgency=None,
            score=0.0,
            value=None,
            limit=None,
            time=_rfc3339(t),
            reason=quiet if self._params[row].hampel else _DISARMED,
            evidence={"k": K, "window": window},
        )

    def _rate(self, stream: str, seq: int, row: int, t: int, o: Any) -> Verdict:
        present = bool(o.said & kernels.RATE_PRESENT)
        rate, sd = float(o.rate) * HOURS_PER_DAY, float(o.rate_sd) * HOURS_PER_DAY
        limit = float(self._params[row].rate_limit) * HOURS_PER_DAY
        unit = f"{self._units[row]}/d"
        if present:
            reason = Reason(
                zh=f"变化速率 {rate:.3g} ± {sd:.2g} {unit}，超过 {limit:g} {unit}：请当日检查",
                en=f"moves by {rate:.3g} ± {sd:.2g} {unit}, beyond {limit:g} {unit}: inspect today",
            )
        elif not self._params[row].trend:
            reason = _DISARMED
        else:
            reason = Reason(
                zh=f"变化速率回落至 {rate:.3g} ± {sd:.2g} {unit}",
                en=f"moves by {rate:.3g} ± {sd:.2g} {unit} again",
            )
        return Verdict(
            stream=stream,
            seq=seq,
            channel=self.ids[row],
            rule="trend",
            kind="advice",
            condition="present" if present else "gone",
            urgency="inspect today" if present else None,
            score=abs(rate) / sd if sd > 0.0 else 0.0,
            value=rate,
            limit=limit if isfinite(limit) else None,
            time=_rfc3339(t),
            reason=reason,
            evidence={
                "rate_per_day": rate,
                "rate_sd_per_day": sd,
                "level": float(o.level),
                "noise": float(self._params[row].r) ** 0.5,
                "steps": int(o.steps),
            },
        )


def compile_kernels() -> None:
    """Run the entry point once with the very types of `Detectors.feed`, so that it is compiled and loaded."""
    state, params = kernels.records(kernels.STATE, 1), kernels.records(kernels.PARAMS, 1)
    nothing = np.zeros(0, np.int64)
    kernels.step(nothing, nothing, np.zeros(0), state, params, kernels.records(kernels.OUT, 0))


def _value(reading: Reading) -> float:
    return reading.value if reading.value is not None and reading.quality == "good" else nan


def _ns(time: datetime) -> int:
    """Exact: the payload's milliseconds never pass through a float."""
    since = time - _EPOCH
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def _rfc3339(t: int) -> str:
    moment = datetime.fromtimestamp(t // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{t // 10**6 % 1000:03d}Z"
