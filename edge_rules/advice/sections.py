"""Corroboration: monitoring points of one section that say the same independently of each other.

Two points of a section under advice at once call for an inspection now. Points count by failure domain: those
that share a base station, a logger or a barometer count once while their domain is off as a whole, or moves
as a whole at their rate, and a channel that has fallen silent counts neither among those that agree nor among those that live.
"""  # noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_rules.advice import words
from edge_rules.advice.kernels import SHARED
from edge_rules.advice.messages import Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_rules.advice.kernels import Records
    from edge_rules.advice.messages import Channel, Rule
    from edge_rules.advice.response import Responses

AGREE = 2
_COUNTS = ("trend", "step", "onset", "response")


class Sections:
    """Which conditions stand in which section."""

    def __init__(self, armed: Sequence[Channel]) -> None:
        self._channels = {channel.id: channel for channel in armed}
        self._members: dict[str, list[Channel]] = {}
        for channel in armed:
            if channel.section:
                self._members.setdefault(channel.section, []).append(channel)
        self._standing: set[tuple[str, Rule]] = set()
        self._shared: set[str] = set()  # channels that move as their whole domain does

    def restore(self, state: Records, responses: Responses) -> None:
        """Take what stands from the state behind it."""
        self._standing, self._shared = set(), set()
        fields: tuple[tuple[str, Rule], ...] = (
            ("rate_on", "trend"),
        ("step_left", "step"), ("onset_on", "onset"), ("gap_on", "gap"), ("common_on", "common-mode"),
        )  # fmt: skip
        for row, name in enumerate(self._channels):
            for field, rule in fields:
                if state[row][field]:
                    self._standing.add((name, rule))
            if state[row].rate_on == SHARED:
                self._shared.add(name)
        for row, name in enumerate(responses.ids):
            if responses.state[row].on:
                self._standing.add((name, "response"))

    def corroborate(self, stream: str, seq: int, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """The verdicts, each followed by what it makes of its section."""
        said: list[Verdict] = []
        for verdict in verdicts:
            said.append(verdict)
            section = self._channels[verdict.channel].section
            before = self._agreeing(section)
            self._note(verdict)
            after = self._agreeing(section)
            if (len(before) >= AGREE) != (len(after) >= AGREE):
                said.append(self._verdict(stream, seq, section, after, verdict.time))
        return said

    def _note(self, verdict: Verdict) -> None:
        key = (verdict.channel, verdict.rule)
        if verdict.rule == "trend":
            alike = "shared_rate_per_day" in verdict.evidence
            (self._shared.add if alike else self._shared.discard)(verdict.channel)
        if verdict.condition == "present":
            self._standing.add(key)
        else:
            self._standing.discard(key)

    def _agreeing(self, section: str) -> list[str]:
        """Monitoring points under advice, those of a domain that is off as a whole counted as one."""
        points: dict[str, str] = {}
        for channel in self._members.get(section, ()):
            if (channel.id, "gap") in self._standing:
                continue
            if any((channel.id, rule) in self._standing for rule in _COUNTS):
                point = channel.monitoring_point or channel.id
                domain = channel.advice.domain if channel.advice else ""
                together = self._moved(domain) or channel.id in self._shared
                points.setdefault(f"domain {domain}" if together else point, point)
        return list(dict.fromkeys(points.values()))

    def _moved(self, domain: str) -> bool:
        return bool(domain) and any(
            rule == "common-mode" and (advice := self._channels[name].advice) and advice.domain == domain
            for name, rule in self._standing
        )

    def _verdict(self, stream: str, seq: int, section: str, points: Sequence[str], time: str) -> Verdict:
        """Said of the first channel of the section, so that its end finds its beginning."""
        members = self._members[section]
        live = {
            channel.monitoring_point or channel.id
            for channel in members
            if (channel.id, "gap") not in self._standing
        }
        present = len(points) >= AGREE
        reason: Reason = (
            words.corroborated(points, len(live), section) if present else words.corroborated_gone(section)
        )
        return Verdict(
            stream=stream,
            seq=seq,
            channel=members[0].id,
            rule="corroborated",
            kind="advice",
            condition="present" if present else "gone",
            urgency="inspect now" if present else None,
            score=float(len(points)),
            value=float(len(points)),
            limit=float(AGREE),
            time=time,
            reason=reason,
            evidence={"section": section, "points": ", ".join(points), "live": len(live)},
        )
