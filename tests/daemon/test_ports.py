"""The template of udev rules: well formed, names under /dev/pondwatch, the group the core is in."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RULES = [
    line
    for line in (ROOT / "systemd/60-pondwatch-ports.rules").read_text().splitlines()
    if line and not line.startswith("#")
]
# udev(7): key, operator, value in double quotes
PAIR = re.compile(r'([A-Z_]+(?:\{[A-Za-z_]+\})?)(==|!=|=|\+=|:=)"([^"]*)"')


def pairs(rule: str) -> list[tuple[str, str, str]]:
    found = [PAIR.fullmatch(part.strip()) for part in rule.split(", ")]
    assert all(found), rule
    return [(m[1], m[2], m[3]) for m in found if m]


def test_every_rule_is_a_list_of_keys_operators_and_values() -> None:
    assert len(RULES) >= 5
    for rule in RULES:
        assert any(operator == "==" for _, operator, _ in pairs(rule)), "it matches something"


def test_every_port_gets_a_name_of_its_own_that_a_site_file_can_use_and_the_group_of_the_core() -> None:
    named = [rule for rule in RULES if "SYMLINK+=" in rule]
    names = [
        value
        for rule in named
        for key, operator, value in pairs(rule)
        if (key, operator) == ("SYMLINK", "+=")
    ]
    assert len(set(names)) == len(named) == len(names)
    for name in names:
        assert re.fullmatch(r"pondwatch/[A-Za-z0-9_-]+", name)
    unit = (ROOT / "systemd/pondwatch.service").read_text()
    for rule in named:
        (group,) = (value for key, _, value in pairs(rule) if key == "GROUP")
        assert f"SupplementaryGroups={group}" in unit
        assert ("SUBSYSTEM", "==", "tty") in pairs(rule)


def test_the_example_site_names_ports_that_the_template_makes() -> None:
    wanted = set(
        re.findall(
            r'^port = "/dev/(pondwatch/[^"]+)"', (ROOT / "config/site.example.toml").read_text(), re.MULTILINE
        )
    )
    assert wanted
    assert wanted <= {value for rule in RULES for key, _, value in pairs(rule) if key == "SYMLINK"}
