"""From what the kernels flagged to verdicts: rule, numbers, what was excluded, and the sentence for people."""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from math import copysign, isfinite
from typing import TYPE_CHECKING, Any

from edge_rules.advice import kernels, words
from edge_rules.advice.messages import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from edge_rules.advice.messages import Channel, Reason, Rule, Urgency

NS_PER_H = 3.6e12
PER_DAY = 24.0
SPIKE_K = 8.0
Found = tuple[int, int, Any]  # position in the batch, row, the kernel's record


@dataclass(slots=True)
class Say:
    """Where the next verdict stands: its batch, its channel, its time."""

    stream: str
    seq: int
    channel: Channel
    t: int

    def verdict(
        self,
        rule: Rule,
        reason: Reason,
        *,
        urgency: Urgency | None = None,
        present: bool = False,
        quality: bool = False,
        score: float = 0.0,
        value: float | None = None,
        limit: float | None = None,
        evidence: dict[str, float | str] | None = None,
        t: int | None = None,
    ) -> Verdict:
        return Verdict(
            stream=self.stream,
            seq=self.seq,
            channel=self.channel.id,
            rule=rule,
            kind="quality" if quality else "advice",
            condition="present" if present else "gone",
            urgency=urgency if present else None,
            score=score,
            value=value,
            limit=limit if limit is not None and isfinite(limit) else None,
            time=words.rfc3339(self.t if t is None else t),
            reason=reason,
            evidence=evidence or {},
        )


class Speaker:
    """Turns flags into verdicts.

    Args:
        armed: the channels, in the order of the rows of STATE.
        params: their PARAMS.
        modelled: ids of the rows of RESPONSE.
    """

    def __init__(self, armed: Sequence[Channel], params: kernels.Records, modelled: Sequence[str]) -> None:
        self._armed = armed
        self._params = params
        by_id = {channel.id: channel for channel in armed}
        self._modelled = [by_id[one] for one in modelled]
        self._domains: dict[str, list[str]] = {}
        for row, channel in enumerate(armed):
            if channel.advice and params[row].mates_to > params[row].mates_from:
                self._domains.setdefault(channel.advice.domain, []).append(channel.id)

    def say(
        self,
        stream: str,
        seq: int,
        t: npt.NDArray[np.int64],
        found: Sequence[Found],
        gaps: Sequence[Found],
        responses: Sequence[Found],
    ) -> list[Verdict]:
        """All verdicts of a batch in the order of its readings."""
        spoken: list[tuple[int, Verdict]] = []
        for j, row, o in found:
            say = Say(stream, seq, self._armed[row], int(t[j]))
            spoken += [(j, verdict) for verdict in self._of_sample(say, self._params[row], o)]
        for j, row, gap in gaps:
            say = Say(stream, seq, self._armed[row], int(t[j]))
            spoken.append((j, self._gap(say, self._params[row], gap)))
        for j, row, o in responses:
            say = Say(stream, seq, self._modelled[row], int(t[j]))
            spoken.append((j, _response(say, o)))
        spoken.sort(key=lambda each: each[0])
        return [verdict for _, verdict in spoken]

    def disarmed(self, stream: str, seq: int, t: int, channel: str, rule: Rule) -> Verdict:
        """The end of a condition that a new site file no longer watches for."""
        table = next(each for each in self._armed if each.id == channel)
        return Say(stream, seq, table, t).verdict(rule, words.DISARMED)

    def _of_sample(self, say: Say, p: Any, o: Any) -> list[Verdict]:  # noqa: C901
        said = int(o.said)
        verdicts = []
        if said & kernels.GAP_GONE:
            reason = words.gap_gone() if p.period_ns else words.DISARMED
            verdicts.append(say.verdict("gap", reason, quality=True))
        if said & kernels.SPIKE_PRESENT:
            verdicts.append(_spike(say, o))
        if said & kernels.SPIKE_GONE:
            evidence: dict[str, float | str] = {"k": SPIKE_K, "window": kernels.WINDOW}
            reason = words.spike_gone(kernels.WINDOW) if p.hampel else words.DISARMED
            verdicts.append(say.verdict("hampel", reason, quality=True, evidence=evidence))
        if said & (kernels.FLAT_PRESENT | kernels.FLAT_GONE):
            verdicts.append(_flat(say, p, o, present=bool(said & kernels.FLAT_PRESENT)))
        if said & (kernels.NOISE_PRESENT | kernels.NOISE_GONE):
            verdicts.append(_noise(say, p, o, present=bool(said & kernels.NOISE_PRESENT)))
        if said & (kernels.COMMON_PRESENT | kernels.COMMON_GONE):
            verdicts += self._common(say, p, o, present=bool(said & kernels.COMMON_PRESENT))
        if said & (kernels.RATE_PRESENT | kernels.RATE_GONE):
            verdicts.append(_rate(say, p, o, present=bool(said & kernels.RATE_PRESENT)))
        if said & (kernels.STEP_PRESENT | kernels.STEP_GONE):
            verdicts.append(_step(say, p, o, present=bool(said & kernels.STEP_PRESENT)))
        if said & (kernels.ONSET_PRESENT | kernels.ONSET_GONE):
            verdicts.append(_onset(say, p, o, present=bool(said & kernels.ONSET_PRESENT)))
        if said & (kernels.FORECAST_PRESENT | kernels.FORECAST_GONE):
            verdicts.append(_forecast(say, p, o, present=bool(said & kernels.FORECAST_PRESENT)))
        return verdicts

    def _gap(self, say: Say, p: Any, gap: Any) -> Verdict:
        silent_ns = say.t - int(gap.since)
        periods, dead = silent_ns / int(p.period_ns), int(gap.stage) > 1
        return say.verdict(
            "gap",
            words.gap(silent_ns / NS_PER_H, periods, dead=dead),
            present=True,
            quality=True,
            score=periods,
            limit=kernels.DEAD_PERIODS if dead else kernels.STALE_PERIODS,
            evidence={"last": words.rfc3339(int(gap.since)), "period_s": int(p.period_ns) / 1e9},
        )

    def _common(self, say: Say, p: Any, o: Any, *, present: bool) -> list[Verdict]:
        """Said once for the whole domain, of its first channel."""
        assert say.channel.advice is not None
        domain = say.channel.advice.domain
        members = self._domains.get(domain, [])
        if not members:
            return [say.verdict("common-mode", words.DISARMED)]
        if members[0] != say.channel.id:
            return []
        part, sd = float(o.common), float(p.r) ** 0.5
        evidence: dict[str, float | str] = {"domain": domain, "common": part, "members": ", ".join(members)}
        if not present:
            return [say.verdict("common-mode", words.common_gone(domain), evidence=evidence)]
        reason = words.common(domain, members, part, say.channel.unit)
        return [
            say.verdict(
                "common-mode",
                reason,
                urgency="inspect today",
                present=True,
                score=abs(part) / sd,
                value=part,
                limit=kernels.COMMON * sd,
                evidence=evidence,
            )  # fmt: skip  # noqa: RUF028
        ]


def _spike(say: Say, o: Any) -> Verdict:
    value, median, spread = float(o.spike), float(o.spike_median), float(o.spike_spread)
    score = abs(value - median) / spread
    t = int(o.spike_t)
    return say.verdict(
        "hampel",
        words.spike(words.rfc3339(t), value, median, score, say.channel.unit),
        present=True,
        quality=True,
        score=score,
        value=value,
        limit=median + (SPIKE_K if value > median else -SPIKE_K) * spread,
        evidence={"median": median, "spread": spread, "k": SPIKE_K, "window": kernels.WINDOW},
        t=t,
    )


def _flat(say: Say, p: Any, o: Any, *, present: bool) -> Verdict:
    if not present:
        return say.verdict("flatline", words.flat_gone() if p.flat_ns else words.DISARMED, quality=True)
    same, longest = int(o.same), int(o.longest)
    hours = (say.t - int(o.same_t)) / NS_PER_H
    limit = int(o.flat_limit)
    return say.verdict(
        "flatline",
        words.flat(same, hours, longest),
        present=True,
        quality=True,
        score=same / limit,
        value=float(same),
        limit=float(limit),
        evidence={"hours": hours, "longest_before": longest},
    )


def _noise(say: Say, p: Any, o: Any, *, present: bool) -> Verdict:
    if not present:
        return say.verdict("noise", words.noisy_gone() if p.noise else words.DISARMED, quality=True)
    recent, usual = float(o.recent), max(float(o.usual), float(p.resolution))
    more = recent > usual
    return say.verdict(
        "noise",
        words.noisy(recent / usual, more=more),
        present=True,
        quality=True,
        score=recent / usual,
        value=recent,
        limit=(kernels.NOISE_MORE if more else kernels.NOISE_LESS) * usual,
        evidence={"recent": recent, "usual": usual},
    )


def _rate(say: Say, p: Any, o: Any, *, present: bool) -> Verdict:
    rate, sd = float(o.rate) * PER_DAY, float(o.rate_sd) * PER_DAY
    limit, unit = float(p.rate_limit) * PER_DAY, say.channel.unit
    if present:
        reason = words.trend(rate, sd, limit, unit)
    else:
        reason = words.trend_gone(rate, sd, unit) if p.trend else words.DISARMED
    return say.verdict(
        "trend",
        reason,
        urgency="inspect today",
        present=present,
        score=abs(rate) / sd if sd > 0.0 else 0.0,
        value=rate,
        limit=limit,
        evidence={
            "rate_per_day": rate,
            "rate_sd_per_day": sd,
            "level": float(o.level),
            "noise": float(p.r) ** 0.5,
            "steps": int(o.steps),
            **_removed(say, o),
            **({"shared_rate_per_day": float(o.common_rate) * PER_DAY} if present and o.shared else {}),
        },
    )


def _step(say: Say, p: Any, o: Any, *, present: bool) -> Verdict:
    size, sd = float(o.step), float(p.r) ** 0.5
    if present:
        reason = words.step(size, kernels.STEP_RUN, say.channel.unit)
    else:
        reason = words.step_gone() if p.onset else words.DISARMED
    return say.verdict(
        "step",
        reason,
        urgency="inspect today",
        present=present,
        score=abs(size) / sd if sd > 0.0 else 0.0,
        value=size,
        limit=kernels.GATE * sd if size > 0.0 else -kernels.GATE * sd,
        evidence={"step": size, "noise": sd, "in_a_row": kernels.STEP_RUN, **_removed(say, o)},
    )


def _onset(say: Say, p: Any, o: Any, *, present: bool) -> Verdict:
    rate, fast, sd = float(o.rate) * PER_DAY, float(o.fast) * PER_DAY, float(o.fast_sd) * PER_DAY
    if present:
        reason = words.onset(rate, fast, say.channel.unit)
    else:
        reason = words.onset_gone(rate, say.channel.unit) if p.onset else words.DISARMED
    return say.verdict(
        "onset",
        reason,
        urgency="inspect today",
        present=present,
        score=abs(fast - rate) / sd if sd > 0.0 else 0.0,
        value=fast,
        limit=rate + (kernels.ONSET_GAIN * sd if rate > 0.0 else -kernels.ONSET_GAIN * sd),
        evidence={"trend_per_day": rate, "lately_per_day": fast, "sd_per_day": sd, **_removed(say, o)},
    )


def _forecast(say: Say, p: Any, o: Any, *, present: bool) -> Verdict:
    if not present:
        return say.verdict("forecast", words.forecast_gone() if p.onset else words.DISARMED)
    soon, median, late = float(o.h05), float(o.h50), float(o.h95)
    return say.verdict(
        "forecast",
        words.forecast(soon, median, late),
        urgency="inspect now",
        present=True,
        score=float(o.stage),
        value=median,
        limit=kernels.STAGES_H[int(o.stage) - 1],
        evidence={
            "hours_5_percent": soon,
            "hours_50_percent": median,
            "hours_95_percent": late,
            "law": "rate ~ (t_f - t)^-1/(alpha-1), alpha 1.7 to 2.4, profile likelihood of 96 hourly means",
        },
    )


def _response(say: Say, o: Any) -> Verdict:
    measured, expected, sd, z = (float(o[name]) for name in ("measured", "expected", "sd", "z"))
    present = bool(int(o.said) & kernels.RESPONSE_PRESENT)
    unit = say.channel.unit
    by_mean = abs(float(o.drift)) > float(o.drift_limit)
    return say.verdict(
        "response",
        words.response(measured, expected, sd, z, unit)
        if present
        else words.response_gone(measured, expected, unit),
        urgency="inspect now",
        present=present,
        score=abs(float(o.drift)) / sd if by_mean else abs(z),
        value=measured,
        limit=expected + copysign(float(o.drift_limit) if by_mean else float(o.z_limit) * sd, z),
        evidence={
            "statistic": "mean residual of a week" if by_mean else "residual",
            "expected": expected,
            "sd": sd,
            "z": z,
            "z_limit": float(o.z_limit),
            "week_mean": float(o.drift),
            "week_mean_limit": float(o.drift_limit),
            "explained_variance": float(o.evp),
            "residual_correlation": float(o.phi),
            "from_rain": float(o.rain),
            "from_evaporation": float(o.evaporation),
            "from_pond": float(o.pond),
            "block_end": words.rfc3339(int(o.block_t)),
        },
    )


def _removed(say: Say, o: Any) -> dict[str, float | str]:
    """What was taken away as common to the failure domain, where there is one."""
    if say.channel.advice is None or not say.channel.advice.domain:
        return {}
    return {"domain": say.channel.advice.domain, "common_removed": float(o.common)}
