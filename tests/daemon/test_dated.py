"""Dated constants: each reading is computed with those of its own instant, and with old ones it says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon import dated
from daemon.channels import Channels, Source
from daemon.config import Site, SiteFileError
from drivers import profile
from drivers.gnss import codecs
from drivers.gnss.receiver import Mount
from drivers.sample import Block, Frame, Quality
from tests.drivers.test_gnss import NOON, Clock, named
from tests.drivers.test_gnss_receiver import REFERENCE, gpntr, play

S = 1_000_000_000
RADAR = Block("radar1", "pv", ("pv",), ("m",))
RAIN = Block("rain1", "tips", ("tips",), ("",))
SITE = """
[site]
id = "s"
gateway = "g"

[[pond]]
id = "n"
kind = "dry"
raise = [{ on = "2026-09-01", by = "王工", note = "lift 14" }]

[[line]]
id = "bus"
kind = "modbus-rtu"
port = "/dev/ttyS0"

[[device]]
id = "radar1"
line = "bus"
profile = "vegapuls"
every = "1 min"

[[channel]]
id = "level"
unit = "m"
item = "pond-level"
pond = "n"
from = "radar1.pv"
calibration = { kind = "linear", scale = 1.0, offset = 75.0 }
sensor = "R-2"
[[channel.was]]
until = "2026-05-01T00:00:00+08:00"
by = "张工"
calibration = { kind = "linear", scale = 1.0, offset = 70.0 }
sensor = "R-0"
[[channel.was]]
until = "2026-05-10T09:30:00+08:00"
by = "王工"
calibration = { kind = "linear", scale = 1.0, offset = 74.0 }
sensor = "R-1"
taken = { on = "2026-01-01", by = "李工", valid = "30 d" }

[[channel]]
id = "freeboard"
unit = "m"
item = "pond-level"
pond = "n"
derive = { kind = "freeboard", of = "level", crest_elevation_m = 102.0 }
taken = { on = "2026-06-20", by = "李工", document = "survey 2026-06" }
[[channel.was]]
until = "2026-06-20T12:00:00+08:00"
by = "王工"
derive = { kind = "freeboard", of = "level", crest_elevation_m = 100.0 }
"""


def loaded(folder: Path, text: str = SITE) -> Site:
    (folder / "site.toml").write_text(text)
    return Site.load(folder / "site.toml")


def computed(site: Site, moment: str, value: float = 10.0) -> dict[str, tuple[float, Quality]]:
    """The channels at an instant, by an instrument that shows `value`."""
    channels = Channels(site.channels, [Source(RADAR, 60 * S)], dated.periods(site))
    ns = dated.ns(datetime.fromisoformat(moment))
    frame = Frame(RADAR, ns, ns, 0, (value,), [value], bytes(1))
    return {
        name: (value, Quality(quality))
        for _, readings in channels.on_frame(frame)
        for name, value, quality in zip(readings.channels, readings.values, readings.qualities, strict=True)
    }


@pytest.mark.parametrize(
    ("moment", "level", "freeboard"),
    [
        ("2026-04-30T23:59:59+08:00", (80.0, "good"), (20.0, "good")),
        ("2026-05-01T00:00:00+08:00", (84.0, "uncertain:old-constants"), (16.0, "uncertain:uncertain-input")),
        ("2026-05-10T01:29:59+00:00", (84.0, "uncertain:old-constants"), (16.0, "uncertain:uncertain-input")),
        ("2026-05-10T01:30:00+00:00", (85.0, "good"), (15.0, "good")),
        ("2026-06-20T11:59:59+08:00", (85.0, "good"), (15.0, "good")),
        ("2026-06-20T12:00:00+08:00", (85.0, "good"), (17.0, "good")),
        ("2026-08-31T23:59:59+08:00", (85.0, "good"), (17.0, "good")),
        ("2026-09-01T00:00:00+08:00", (85.0, "good"), (17.0, "uncertain:old-constants")),
    ],
)
def test_each_instant_has_its_constants_and_after_a_raise_the_old_survey_is_doubted(
    tmp_path: Path, moment: str, level: tuple[float, str], freeboard: tuple[float, str]
) -> None:
    shown = {
        name: (value, quality.text) for name, (value, quality) in computed(loaded(tmp_path), moment).items()
    }
    assert shown == {"level": level, "freeboard": freeboard}


def test_a_survey_is_doubted_after_three_months_or_what_the_pond_or_the_survey_itself_says(
    tmp_path: Path,
) -> None:
    text = SITE.replace('raise = [{ on = "2026-09-01", by = "王工", note = "lift 14" }]', "")
    for pond, survey, days in (
        ("", "", 92),
        ('survey_valid = "30 d"', "", 30),
        ('survey_valid = "30 d"', ', valid = "10 d"', 10),
    ):
        site = loaded(
            tmp_path,
            text.replace('kind = "dry"\n', f'kind = "dry"\n{pond}\n').replace(
                'document = "survey 2026-06" }', f'document = "survey 2026-06"{survey} }}'
            ),
        )
        ends = datetime.fromisoformat("2026-06-20T00:00:00+08:00") + timedelta(days=days)
        before, after = (
            computed(site, moment.isoformat())["freeboard"][1]
            for moment in (ends - timedelta(seconds=1), ends)
        )
        assert (before, after) == (Quality.GOOD, Quality.OLD_CONSTANTS)


def test_the_check_says_what_is_too_old_and_what_has_no_date(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    old = loaded(tmp_path, SITE.replace('on = "2026-06-20"', f'on = "{today - timedelta(days=93)}"'))
    said = {str(each) for each in old.warnings if ".taken" in each.path}
    assert any("survey anew" in each and "channel[1].taken" in each for each in said), said
    undated = loaded(tmp_path, SITE.replace('taken = { on = "2026-06-20"', '#taken = { on = "2026-06-20"'))
    assert any("nobody sees when the survey" in each.message for each in undated.warnings)


def test_an_exchanged_instrument_asks_for_a_look_at_the_calibrations_behind_it(tmp_path: Path) -> None:
    was = '[[device.was]]\nuntil = "2026-05-20T08:00:00+08:00"\nby = "王工"\nserial_number = "R-8"\n'
    text = SITE.replace('every = "1 min"\n', f'every = "1 min"\nserial_number = "R-9"\n{was}')
    assert any("exchanged" in each.message for each in loaded(tmp_path, text).warnings)
    looked = text.replace('sensor = "R-2"\n', 'sensor = "R-2"\ntaken = { on = "2026-05-20", by = "李工" }\n')
    assert not any("exchanged" in each.message for each in loaded(tmp_path, looked).warnings)


WRONG = {
    "oldest first": ('until = "2026-05-10T09:30:00+08:00"', 'until = "2026-04-10T09:30:00+08:00"'),
    "no instant with its offset": ('until = "2026-05-10T09:30:00+08:00"', 'until = "2026-05-10T09:30:00"'),
    "of the same kind and from the same channels": (
        'derive = { kind = "freeboard", of = "level", crest_elevation_m = 100.0 }',
        'derive = { kind = "burial-depth", of = "level", ground_elevation_m = 100.0 }',
    ),
    "lies after until": ('taken = { on = "2026-01-01"', 'taken = { on = "2026-05-11"'),
    "one of quite another kind": (
        'calibration = { kind = "linear", scale = 1.0, offset = 74.0 }',
        'calibration = { kind = "counter", per_count = 0.2, bits = 16, max_step = 9 }',
    ),
    "corrects with a barometer": (
        'calibration = { kind = "linear", scale = 1.0, offset = 74.0 }',
        'calibration = { kind = "vibrating-wire", family = "geokon", zero_digits = 9000, kpa_per_digit = -0.2, zero_hpa = 1008.0 }',
    ),
    "by: is missing": (
        'until = "2026-05-01T00:00:00+08:00"\nby = "张工"',
        'until = "2026-05-01T00:00:00+08:00"',
    ),
    "must be written": ('by = "李工", valid', 'by = " ", valid'),
    "says nothing of what was different": (
        'by = "王工"\nderive = { kind = "freeboard", of = "level", crest_elevation_m = 100.0 }',
        'by = "王工"',
    ),
}


@pytest.mark.parametrize("said", WRONG)
def test_dated_constants_that_cannot_be_meant_are_refused(tmp_path: Path, said: str) -> None:
    good, bad = WRONG[said]
    assert good in SITE
    with pytest.raises(SiteFileError) as refused:
        loaded(tmp_path, SITE.replace(good, bad))
    assert any(said in str(each) for each in refused.value.problems), refused.value.problems


def test_what_remembers_cannot_have_had_other_constants(tmp_path: Path) -> None:
    text = SITE + (
        '[[channel]]\nid = "rate"\nunit = "m/d"\nitem = "pond-level"\npond = "n"\n'
        'derive = { kind = "rate", of = "level", per = "d", noise = 0.01 }\n'
        '[[channel.was]]\nuntil = "2026-05-10T09:30:00+08:00"\nby = "王工"\n'
        'derive = { kind = "rate", of = "level", per = "d", noise = 0.02 }\n'
    )
    with pytest.raises(SiteFileError, match="remembers what went before"):
        loaded(tmp_path, text)


def test_a_counter_recalibrated_counts_each_tip_as_its_time_had_it(tmp_path: Path) -> None:
    text = SITE + (
        '[[device]]\nid = "rain1"\nline = "bus"\nprofile = "dfrobot-sen0575"\nevery = "1 min"\nunit = 9\n'
        '[[channel]]\nid = "rain"\nunit = "mm"\nitem = "rainfall"\npond = "n"\nfrom = "rain1.tips"\n'
        'calibration = { kind = "counter", per_count = 0.25, bits = 32, max_step = 500 }\n'
        '[[channel.was]]\nuntil = "2026-05-10T00:00:00+08:00"\nby = "王工"\n'
        'calibration = { kind = "counter", per_count = 0.2, bits = 32, max_step = 500 }\n'
    )
    site = loaded(tmp_path, text)
    channels = Channels(
        [each for each in site.channels if each.id == "rain"], [Source(RAIN, 60 * S)], dated.periods(site)
    )
    until = dated.ns(datetime.fromisoformat("2026-05-10T00:00:00+08:00"))
    depths = []
    for minute, tips in ((-2, 100.0), (-1, 110.0), (0, 120.0)):
        ns = until + minute * 60 * S
        frame = Frame(RAIN, ns, ns, 0, (tips,), [tips], bytes(1))
        depths += [readings.values[0] for _, readings in channels.on_frame(frame)]
    assert depths[1:] == [pytest.approx(2.0), pytest.approx(2.5)]


def test_a_receivers_old_positions_count_from_their_old_origin() -> None:
    clock = Clock()
    before = replace(REFERENCE, east_m=REFERENCE.east_m - 1.0)
    mount = Mount(REFERENCE, was=[(NOON + 60 * S, before)])
    receiver = codecs.receiver("g1", profile.load("comnav-gpntr"), mount, 60.0, clock)
    old, new, *_ = play(receiver, clock, [gpntr(0), gpntr(60), gpntr(120)], 60.0)
    assert named(old)["east"][0] == pytest.approx(1000.0)
    assert named(new)["east"][0] == pytest.approx(0.0)


def test_the_example_of_the_page_loads(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/dated.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0].replace("n.pond.level", "level")
    assert [len(each.was) for each in loaded(tmp_path, SITE + example).channels] == [2, 1, 1]
