from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest

from edge_rules.advice import kernels
from edge_rules.advice.detectors import Detectors
from edge_rules.advice.messages import Advice, Channel, Reading, Verdict

START = datetime(2026, 11, 23, 8, tzinfo=UTC)
PIEZO = Channel("pz", "kPa", Advice(hampel=True, resolution=0.01))
GNSS = Channel("g", "mm", Advice(trend_noise=2.0, trend_rate_per_day=2.0))
QUIET = [0.0, 0.02, -0.01, 0.01, 0.0, -0.02, 0.01, 0.0, 0.02, -0.01, 0.0]


def reading(channel: str, hours: float, value: float | None, quality: str = "good") -> Reading:
    return Reading(channel, START + timedelta(hours=hours), value, quality)


def feed_all(detectors: Detectors, readings: list[Reading]) -> list[Verdict]:
    """One batch per reading."""
    return [v for seq, r in enumerate(readings, 1) for v in detectors.feed("s", seq, [r])]


def creep(mm_per_day: float, hours: range, seed: int = 1) -> list[Reading]:
    noise = random.Random(seed)
    return [reading("g", h, mm_per_day * h / 24 + noise.gauss(0.0, 2.0)) for h in hours]


def test_a_spike_is_said_once_with_its_own_time_and_numbers_and_ends_when_the_window_is_clean() -> None:
    values = [100.0 + q for q in (*QUIET, 5.0, *QUIET, *QUIET)]
    present, gone = feed_all(Detectors([PIEZO]), [reading("pz", i, v) for i, v in enumerate(values)])
    assert (present.rule, present.kind, present.condition, present.urgency) == (
        "hampel",
        "quality",
        "present",
        None,
    )
    assert (present.value, present.seq, present.time) == (105.0, 14, "2026-11-23T19:00:00.000Z")
    spread = 1.25 * (sum((b - a) ** 2 for a, b in pairwise(QUIET)) / (len(QUIET) - 1)) ** 0.5
    assert present.limit == pytest.approx(100.0 + 8 * spread)
    assert present.score == pytest.approx(5.0 / spread)
    assert present.evidence == {"median": 100.0, "spread": pytest.approx(spread), "k": 8.0, "window": 11}
    assert "105 kPa" in present.reason.en
    assert "105 kPa" in present.reason.zh
    assert (gone.condition, gone.value, gone.seq) == ("gone", None, 25)


def test_a_number_that_nothing_measures_is_no_sample_and_loses_no_filter() -> None:
    hours = range(24 * 20)
    absurd = [reading("g", 200 + i / 10, 1e200) for i in range(1, 9)]
    moving = creep(6.0, hours)
    both = sorted([*moving, *absurd], key=lambda r: r.time)
    plain, disturbed = Detectors([GNSS]), Detectors([GNSS])
    verdicts = feed_all(plain, moving)
    assert [v.evidence for v in feed_all(disturbed, both)] == [v.evidence for v in verdicts] != []
    assert disturbed.state.tobytes() == plain.state.tobytes()


def test_a_missing_or_uncertain_reading_is_no_sample() -> None:
    with_holes = []
    for i, q in enumerate([*QUIET, 5.0, *QUIET]):
        with_holes += [
            reading("pz", i, 100.0 + q),
            reading("pz", i + 0.3, None, "bad:no-reply"),
            reading("pz", i + 0.6, 900.0, "uncertain:maintenance"),
        ]
    (present,) = feed_all(Detectors([PIEZO]), with_holes)
    assert present.value == 105.0


def test_a_trend_beyond_its_rate_asks_for_an_inspection_today_and_says_how_sure_it_is() -> None:
    (present,) = feed_all(Detectors([GNSS]), creep(6.0, range(240)))
    assert (present.rule, present.kind, present.urgency) == ("trend", "advice", "inspect today")
    assert present.value is not None
    assert present.limit == 2.0
    assert abs(present.value) > 2.0
    assert present.score > 3.0
    assert present.evidence["rate_sd_per_day"] == pytest.approx(abs(present.value) / present.score)
    assert "inspect today" in present.reason.en


def test_no_trend_is_said_of_noise_around_a_creep_well_below_the_rate() -> None:
    for seed in range(20):
        assert feed_all(Detectors([GNSS]), creep(0.5, range(24 * 30), seed)) == []


def test_a_batch_says_what_its_readings_one_by_one_say() -> None:
    spikes = [reading("pz", i, 100.0 + q) for i, q in enumerate([*QUIET, 5.0, *QUIET])]
    mixed = [one for pair in zip(spikes, creep(48.0, range(23)), strict=True) for one in pair]
    single = feed_all(Detectors([PIEZO, GNSS]), mixed)
    batch = Detectors([PIEZO, GNSS]).feed("s", 7, [reading("unarmed", 0, 1.0), *mixed])
    assert len(batch) == len(single) == 2
    assert [msgspec.structs.replace(v, seq=7) for v in single] == batch


def test_a_taken_over_state_continues_to_the_last_bit_whatever_the_order_of_channels() -> None:
    readings = [
        *creep(3.0, range(200)),
        *(reading("pz", 200 + i, 100.0 + q) for i, q in enumerate([*QUIET, 5.0, *QUIET])),
    ]
    whole, part = Detectors([PIEZO, GNSS]), Detectors([PIEZO, GNSS])
    expected = feed_all(whole, readings)
    first = feed_all(part, readings[:110])
    rest = Detectors([GNSS, PIEZO])
    assert rest.take_over(part.tables, statistics=True)
    second = [msgspec.structs.replace(v, seq=v.seq + 110) for v in feed_all(rest, readings[110:])]
    assert first + second == expected
    assert rest.state[::-1].tobytes() == whole.state.tobytes()


def test_a_new_configuration_starts_the_statistics_anew_and_ends_what_it_no_longer_watches() -> None:
    before = Detectors([PIEZO, GNSS])
    assert len(feed_all(before, creep(48.0, range(48)))) == 1
    after = Detectors([PIEZO, GNSS])
    assert not after.take_over(before.tables, statistics=False)
    assert after.state["n"].tolist() == [0, 0]
    assert after.state["rate_on"].tolist() == [0, 1]
    assert feed_all(after, creep(48.0, range(48, 96))) == [], "it still stands: nothing changed"
    disarmed = Detectors([Channel("g", "mm", Advice(hampel=True))])
    disarmed.take_over(after.tables, statistics=False)
    (gone,) = feed_all(disarmed, [reading("g", 100, 0.0)])
    assert (gone.condition, gone.rule) == ("gone", "trend")
    assert gone.reason.en == "this detector is no longer armed"


def test_every_number_of_a_verdict_is_json() -> None:
    verdicts = feed_all(Detectors([GNSS]), creep(48.0, range(48)))
    assert msgspec.json.decode(msgspec.json.encode(verdicts), type=list[Verdict]) == verdicts
    assert kernels.STATE.itemsize < 600, "bytes per channel"
