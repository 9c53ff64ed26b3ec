"""docs/security.md says of ports and flows what the program and its units do."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from daemon.config import LineTable, MetricsTable, PageTable, UplinkTable
from daemon.uplink.tables import DIALECTS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/security.md").read_text()
LISTENERS = {"start_server", "start_unix_server", "create_server", "create_unix_server", "listen"}
LISTENERS |= {"create_datagram_endpoint", "recvfrom", "bind"}


def rows(heading: str) -> list[list[str]]:
    """The first table below a heading, without its head."""
    below = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = [line.strip("| ").split(" | ") for line in below.splitlines() if line.startswith("|")]
    assert len(found) > 2, heading
    return found[2:]


def quoted(cell: str) -> str:
    found = re.match(r"`([^`]+)`", cell)
    assert found is not None, cell
    return found[1]


def files_that_call(names: set[str]) -> set[str]:
    paths = [
        path for package in ("daemon", "drivers", "edge_rules") for path in (ROOT / package).rglob("*.py")
    ]
    return {str(path.relative_to(ROOT)) for path in paths if called(path) & names}


def called(path: Path) -> set[str]:
    """The last name of everything that a file calls as a member of something."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {call.attr for call in calls if isinstance(call, ast.Attribute)}


def test_the_ports_of_the_page_are_those_of_a_site_file_that_names_none() -> None:
    at = {who: quoted(where) for who, where, *_ in rows("Ports and sockets")}
    assert at == {
        "core, metrics": MetricsTable().listen,
        "page": PageTable().listen,
        "core, control socket": "/run/pondwatch/control.sock",
        "core, rules socket": "/run/pondwatch/rules.sock",
    }


def test_nothing_else_in_the_program_listens() -> None:
    """What runs is seen in tests/system: test_limits for the core and the rules, test_page for the page."""
    assert files_that_call(LISTENERS) == {"daemon/http.py", "daemon/control.py", "daemon/rules.py"}


def test_every_kind_of_line_and_uplink_has_a_flow_and_no_other_has() -> None:
    kinds = {quoted(kind) for kind, *_ in rows("Data flows")}
    lines = get_args(get_type_hints(LineTable)["kind"])
    assert kinds == {*lines, *get_args(get_type_hints(UplinkTable)["kind"]), *DIALECTS}


@pytest.mark.parametrize(
    ("unit", "directives"),
    [
        ("pondwatch-rules", ("PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX", "MemoryMax=")),
        ("pondwatch-page", ("IPAddressDeny=any", "IPAddressAllow=localhost", "MemoryMax=")),
        ("pondwatch", ("LoadCredential=", "CapabilityBoundingSet=", "MemoryDenyWriteExecute=yes")),
    ],
)
def test_the_units_hold_what_the_page_says_of_them(unit: str, directives: tuple[str, ...]) -> None:
    lines = (ROOT / f"systemd/{unit}.service").read_text().splitlines()
    for each in directives:
        assert any(line.startswith(each) for line in lines), each
    assert (
        "d /run/pondwatch 0750 pondwatch pondwatch" in (ROOT / "systemd/pondwatch.tmpfiles.conf").read_text()
    )


def test_what_nobody_could_read_in_print_says_so() -> None:
    heads = re.findall(r"^\| ((?:IEC|ETSI)[^|]+) \|", PAGE, re.MULTILINE)
    assert len(heads) == 2
    assert all("to be checked against the printed text" in head for head in heads)
