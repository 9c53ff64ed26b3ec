"""What `check` says of levels, people, rain, dated limits and outputs."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest

from daemon import example
from daemon.config import Site, SiteFileError

if TYPE_CHECKING:
    from pathlib import Path

TODAY = date.today()  # noqa: DTZ011 -- the site file's dates are local days
PLAN = 'levels = { rising = true, orange = 86.5, red = 87.5, source = "plan", approver = "W" }'


def site(folder: Path, *changes: tuple[str, str], more: str = "") -> Site:
    """The example site with changes."""
    text = example.text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    path = folder / "site.toml"
    path.write_text(text + more)
    return Site.load(path)


def problems(folder: Path, *changes: tuple[str, str], more: str = "") -> str:
    with pytest.raises(SiteFileError) as caught:
        site(folder, *changes, more=more)
    return "\n".join(map(str, caught.value.problems))


def warnings(folder: Path, *changes: tuple[str, str], more: str = "") -> str:
    return "\n".join(map(str, site(folder, *changes, more=more).warnings))


def limit(first: date, until: date, kind: str = "flood-season") -> str:
    return f'\n[[pond.limit]]\nkind = "{kind}"\nfrom = "{first}"\nuntil = "{until}"\n{PLAN}\n'


def pond_limits(*limits: str) -> tuple[str, str]:
    """A change that puts dated limits behind the pond's keys."""
    return "\n[[section]]\n", "".join(limits) + "\n[[section]]\n"


LEVEL = """
[[channel]]
id = "n.pond.level"
unit = "m"
item = "pond-level"
pond = "n"
from = "gnss1.up"
calibration = { kind = "linear", scale = 0.001 }
"""


def test_levels_nearer_than_three_times_the_uncertainty_are_named(tmp_path: Path) -> None:
    assert "three times" not in warnings(tmp_path)
    said = warnings(tmp_path, ("\nuncertainty = 0.05", "\nuncertainty = 0.4"))
    assert said.count("lie within three times the uncertainty, 0.4") == 3
    assert "channel[1].levels: blue 84 and yellow 85" in said


def test_levels_without_an_approver_are_named(tmp_path: Path) -> None:
    said = warnings(tmp_path, (', approver = "王工, 2024-09-01"', ""))
    assert "channel[1].levels.approver: is missing" in said


def test_the_lower_side_must_be_within_the_span_as_well(tmp_path: Path) -> None:
    low = ("\nlevels = { rising = true,", "\nlevels = { rising = true, low = { red = 0.0 },")
    span = (
        "\nadvice = { hampel = true, resolution",
        "\nspan = [0, 99]\nadvice = { hampel = true, resolution",
    )
    said = problems(tmp_path, low, span)
    assert said.endswith("levels.red: 0 can never be passed: a value outside the span 0 .. 99 is bad")


def test_todays_freeboard_is_no_quantity_for_the_standards_table(tmp_path: Path) -> None:
    board = LEVEL + (
        '\n[[channel]]\nid = "n.board"\nunit = "m"\nitem = "dry-beach"\npond = "n"\n'
        'derive = { kind = "freeboard", of = "n.pond.level", crest_elevation_m = 100.0 }\n'
        'levels = { rising = false, red = 1.0, source = "d", approver = "W" }\n'
    )
    assert "holds at the design flood's level, see projected-freeboard" in warnings(tmp_path, more=board)
    projected = board.replace(
        'kind = "freeboard", of = "n.pond.level", crest_elevation_m = 100.0',
        'kind = "projected-freeboard", of = "n.pond.level", beach_crests_m = [99.0], design_flood_m = 97.0',
    )
    assert "design flood's level" not in warnings(tmp_path, more=projected)


def test_a_shift_names_people_who_are_there_and_lasts_some_time(tmp_path: Path) -> None:
    said = problems(
        tmp_path, ('person = "li"\n', 'person = "lii"\n'), ('until = "20:00"\n', 'until = "08:00"\n')
    )
    assert "duty[0].person: there is no person 'lii'; did you mean 'li'?" in said
    assert "duty[0].until: is the time at which the shift begins" in said


def test_red_must_be_closable_by_somebody(tmp_path: Path) -> None:
    said = warnings(tmp_path, ('role = "supervisor"', 'role = "supervisors"'))
    assert "alarms.red_closed_by: no person has the role 'supervisor'; did you mean 'supervisors'?" in said


def test_rain_is_summed_in_millimetres_from_channels_that_are_there(tmp_path: Path) -> None:
    rain = ("#rain = ", "rain = ")
    assert "there is no channel 'n.rain.depth'" in problems(tmp_path, rain)
    wrong = ('#rain = { gauges = ["n.rain.depth"]', 'rain = { gauges = ["n.pz03.pressure"]')
    assert "is in kPa; rain is summed in mm" in problems(tmp_path, wrong)


def test_dated_limits_arm_the_ponds_level_and_are_told_when_none_holds(tmp_path: Path) -> None:
    week = timedelta(days=7)
    bare = warnings(tmp_path, more=LEVEL)
    assert "n.pond.level has no trigger levels" in bare
    holds = warnings(tmp_path, pond_limits(limit(TODAY - week, TODAY + week)), more=LEVEL)
    assert "no trigger levels" not in holds
    assert "pond[0].limit" not in holds
    over = warnings(tmp_path, pond_limits(limit(TODAY - 2 * week, TODAY - week)), more=LEVEL)
    assert f"none holds today, {TODAY}" in over
    winter = warnings(tmp_path, pond_limits(limit(TODAY - week, TODAY + week, "normal")), more=LEVEL)
    assert "renew it before the flood season" in winter


def test_levels_of_the_ponds_level_stand_in_one_place(tmp_path: Path) -> None:
    armed = LEVEL + 'levels = { rising = true, red = 87.0, source = "d", approver = "W" }\n'
    said = problems(tmp_path, pond_limits(limit(TODAY, TODAY)), more=armed)
    assert "give the levels in one place" in said
    said = problems(tmp_path, pond_limits(limit(TODAY, TODAY - timedelta(days=1))), more=LEVEL)
    assert "pond[0].limit[0]: until" in said


@pytest.mark.parametrize(
    ("kind", "write", "words"),
    [
        ("pulse", "relay1", "relay1 stays on until it is written off: no pulse"),
        ("watchdog", "relay1", "no watchdog"),
        ("switch", "pulse1", "pulse1 ends by itself: use it with kind = pulse or watchdog"),
        ("pulse", "pulse1", ""),
    ],
)
def test_a_pulse_needs_a_write_that_ends_by_itself_and_a_switch_one_that_does_not(
    tmp_path: Path, kind: str, write: str, words: str
) -> None:
    changes = [('\nwrite = "relay1"', f'\nwrite = "{write}"'), ('\n#kind = "switch"', f'\nkind = "{kind}"')]
    if words:
        assert words in problems(tmp_path, *changes)
    else:
        assert site(tmp_path, *changes).outputs[0].kind == kind


PUBLIC = """
[[output]]
id = "public"
device = "relay1"
write = "relay2"
pond = "n"
kind = "public"
"""
KEY = "d7712120f3f55fc693d5639d4943126063d360b6951dc7a94940a6372963afe2"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("", "nobody could have the public siren sound"),
        ('authority_keys = ["x"]', "no public Ed25519 key"),
        (f'authority_keys = ["{"0" * 64}"]', "its requests would not be heard"),
    ],
)
def test_a_public_siren_needs_an_authority_that_is_heard(tmp_path: Path, keys: str, said: str) -> None:
    text = example.text()
    assert f'#request_keys = ["{KEY}"]' in text
    heard = (f'#request_keys = ["{KEY}"]', f'request_keys = ["{KEY}"]')
    assert said in problems(tmp_path, heard, more=f"{PUBLIC}{keys}\n")
    site(tmp_path, heard, more=f'{PUBLIC}authority_keys = ["{KEY}"]\n')


def test_a_site_in_shadow_is_told_so(tmp_path: Path) -> None:
    assert "no output moves" in warnings(tmp_path, ("#shadow = false", "shadow = true"))
