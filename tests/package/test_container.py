"""The package on a Debian that systemd boots: installed, started, killed, hung, reloaded, removed.

A full disk, other versions, a technician's day and a bare Debian are in the files beside it.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.package.container import until
from tests.package.gateway import CORE, PAGE, PAGE_PORT, RULES, SITE, STORE, Gateway

if TYPE_CHECKING:
    from systemd.package.__main__ import Made

pytestmark = pytest.mark.timeout(400)  # the first makes the package and boots, the others wait for systemd


def test_the_package_starts_both_services_now_and_with_the_gateway(gateway: Gateway) -> None:
    for unit in (CORE, RULES):
        assert gateway.property(unit, "ActiveState") == "active"
        assert gateway.says("systemctl", "is-enabled", unit) == "enabled"
    owner = gateway.says("stat", "--format=%U %a", "/proc/1", f"/proc/{gateway.pid()}").splitlines()
    assert [each.split()[0] for each in owner] == ["root", "pondwatch"]
    assert gateway.says("stat", "--format=%U:%G %a", "/etc/pondwatch/secrets") == "root:root 700"
    entries = gateway.says("journalctl", "--no-pager", "--output=json", "--unit", CORE).splitlines()
    ours = [each for each in map(json.loads, entries) if str(each.get("LOGGER", "")).startswith("daemon.")]
    assert ours, entries
    assert all(re.fullmatch("[0-9a-f]{32}", each["MESSAGE_ID"]) for each in ours)
    read = gateway.run("pondwatch", "read", "n.pond.level").stdout
    assert re.match(r"n\.pond\.level  \S+ m  good", read), read


def test_systemd_finds_as_little_exposed_as_promised_once_they_run(gateway: Gateway) -> None:
    for unit, most in ((CORE, 13), (RULES, 3), (PAGE, 12)):
        gateway.run("systemd-analyze", "security", "--no-pager", f"--threshold={most}", unit)
    gateway.drop_in("IPAddressDeny=any", "IPAddressAllow=localhost")
    gateway.run("systemd-analyze", "security", "--no-pager", "--threshold=12", CORE)


def test_the_page_is_served_to_the_gateway_when_somebody_says_so(gateway: Gateway) -> None:
    assert gateway.says("systemctl", "is-enabled", PAGE) == "disabled"
    gateway.run("systemctl", "start", PAGE)
    page = until(lambda: gateway.get(f"http://127.0.0.1:{PAGE_PORT}/"), "the page")
    assert "n.pond.level" in page or "库水位" in page
    gateway.run("systemctl", "stop", PAGE)


def test_a_reload_with_a_mistake_is_refused_and_changes_nothing(gateway: Gateway) -> None:
    before = gateway.pid()
    gateway.write(SITE, gateway.site().replace('from = "radar1.pv"', 'from = "radar1.pw"'))
    assert gateway.run("systemctl", "reload", CORE, check=False).returncode != 0
    assert re.search(r"channel\[\d+\]\.from: .*radar1.*pw", gateway.journal(CORE))
    gateway.polls()
    assert (gateway.pid(), gateway.property(CORE, "ActiveState")) == (before, "active")
    gateway.write(SITE, gateway.site())
    gateway.run("systemctl", "reload", CORE)


def test_a_core_that_is_killed_is_started_again_and_its_chain_goes_on(gateway: Gateway) -> None:
    before, (stream, length) = gateway.pid(), gateway.stream()
    gateway.run("systemctl", "kill", "--signal=KILL", CORE)
    until(lambda: gateway.pid() not in (0, before), "another process")
    gateway.polls()
    until(lambda: gateway.stream()[1] > length, "the chain goes on")
    assert gateway.stream()[0] == stream
    assert "whole up to" in gateway.run("pondwatch", "spool", "verify").stdout


def test_a_core_that_hangs_feeds_no_watchdog_and_is_started_again(gateway: Gateway) -> None:
    """With a shorter watchdog than is packaged; `make container` waits for that one."""
    gateway.drop_in("WatchdogSec=4")
    gateway.run("systemctl", "restart", CORE)
    hang(gateway, within_s=60)


def hang(gateway: Gateway, within_s: float, unit: str = CORE) -> float:
    """SIGSTOP: nothing in it runs on. How long it took until another process ran."""
    before, began_s = gateway.pid(unit), time.monotonic()
    gateway.run("systemctl", "kill", "--signal=STOP", unit)
    until(lambda: gateway.pid(unit) not in (0, before), "another process", within_s)
    took_s = time.monotonic() - began_s
    assert "watchdog" in gateway.journal(unit).lower()
    gateway.polls()
    return took_s


def test_the_detectors_are_compiled_and_connected_without_network_or_device(gateway: Gateway) -> None:
    until(lambda: gateway.gauge("pondwatch_rules_up") == 1, "the rules process is connected", 110)
    assert gateway.property(RULES, "NRestarts") == "0", gateway.journal(RULES)


def test_rules_that_hang_feed_no_watchdog_and_are_started_again(gateway: Gateway) -> None:
    """With a shorter watchdog than is packaged. Judging feeds it, and so does waiting for a core that is away."""

    def fed_s() -> float:
        return int(gateway.property(RULES, "WatchdogTimestampMonotonic")) / 1e6

    gateway.drop_in("WatchdogSec=4", unit=RULES)
    gateway.run("systemctl", "restart", RULES)
    until(lambda: gateway.gauge("pondwatch_rules_up") == 1, "the rules process is connected", 110)
    before, first_s = gateway.pid(RULES), fed_s()
    until(lambda: fed_s() > first_s + 8, "it is fed while it judges")
    gateway.run("systemctl", "stop", CORE)
    until(lambda: fed_s() > first_s + 16, "it is fed while the core is away")
    gateway.run("systemctl", "start", CORE)
    assert gateway.pid(RULES) == before, gateway.journal(RULES)
    hang(gateway, 60, RULES)
    until(lambda: gateway.gauge("pondwatch_rules_up") == 1, "another is connected", 110)


def test_removing_keeps_site_file_and_readings_and_purging_the_readings_still(
    gateway: Gateway, made: Made
) -> None:
    def there(*paths: str) -> list[bool]:
        return [gateway.run("test", "-e", path, check=False).returncode == 0 for path in paths]

    gateway.run("dpkg", "--remove", "pondwatch")
    assert gateway.property(CORE, "ActiveState") == "inactive"
    assert there("/opt/pondwatch", "/usr/bin/pondwatch", SITE, f"{STORE}/spool.db") == [
        False,
        False,
        True,
        True,
    ]
    said = gateway.run("dpkg", "--purge", "pondwatch").stdout
    assert f"{STORE} are kept" in said
    assert there("/etc/pondwatch", "/var/cache/pondwatch", f"{STORE}/spool.db") == [False, False, True]
    gateway.run("dpkg", "--install", f"/mnt/{made.package.name}")
    gateway.run("env", "PONDWATCH_PURGE_READINGS=yes", "dpkg", "--purge", "pondwatch")
    assert there(STORE, "/opt/pondwatch", "/lib/systemd/system/pondwatch.service") == [False, False, False]
