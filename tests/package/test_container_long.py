"""The longer part of a gateway's life, and the way from a bare Debian 12; with `make container` the slowest of it too."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest

from systemd.package import bundle, deb
from tests.package.container import until
from tests.package.gateway import CORE, RULES, SITE, STORE, Gateway
from tests.package.test_container import hang

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from systemd.package.__main__ import Made

pytestmark = pytest.mark.timeout(400)
NEWER = "0.1.1~test"
PORTS = "/etc/udev/rules.d/60-pondwatch-ports.rules"


def test_from_a_bare_debian_to_polling_it_takes_three_commands(
    made: Made, bare: Path, tmp_path: Path
) -> None:
    with Gateway(bare, tmp_path / "bare", {made.package.parent: "/mnt"}) as gateway:
        assert gateway.run("which", "python3", check=False).returncode != 0, "this Debian is not bare"
        began_s = time.monotonic()
        gateway.run("apt-get", "install", "--yes", f"/mnt/{made.package.name}")
        installed_s = time.monotonic() - began_s
        gateway.start_bench()  # the instruments of this site; nobody waits for the next full minute
        began_s = time.monotonic()
        gateway.write(SITE, gateway.site())
        gateway.run("systemctl", "start", CORE, RULES)
        until(lambda: gateway.gauge("pondwatch_readings_total") > 0, "readings")
        assert "good" in gateway.run("pondwatch", "read", "n.pond.level").stdout
        polling_s = time.monotonic() - began_s
        print(f"three commands: {installed_s:.1f} s to install, {polling_s:.1f} s more to the first readings")
        gateway.polls()


@pytest.mark.campaign
def test_the_signed_bundle_installs_where_there_is_no_network(gateway: Gateway, made: Made) -> None:
    gateway.run("dpkg", "--purge", "pondwatch")
    folder = made.package.with_name("bundle")
    bundle.collect(folder, [(made.package, made.package.name)], bundle.signing_key(None))
    said = gateway.run("sh", "/mnt/bundle/install.sh", "--key", "/mnt/bundle/signer.pem").stdout
    print(said.splitlines()[-1])
    assert "every file is as signed" in said
    assert gateway.run("pondwatch", "--help").returncode == 0


@pytest.mark.campaign
def test_the_packaged_watchdog_restarts_a_core_that_hangs(gateway: Gateway) -> None:
    assert gateway.property(CORE, "WatchdogUSec") == "30s"
    print(f"hung, another process after {hang(gateway, within_s=90):.0f} s")


@pytest.fixture
def small_disk(gateway: Gateway) -> Iterator[Gateway]:
    """The store on a disk of its own of 64 MB, which others can fill."""
    gateway.run("systemctl", "stop", CORE, RULES)
    gateway.run("mount", "-t", "tmpfs", "-o", "size=64M,mode=0750", "tmpfs", STORE)
    gateway.run("chown", "pondwatch:pondwatch", STORE)
    gateway.run("systemctl", "start", CORE)
    gateway.polls()
    yield gateway
    gateway.run("systemctl", "stop", CORE)
    gateway.run("umount", STORE)


def test_a_full_disk_stops_neither_polling_nor_a_start(small_disk: Gateway) -> None:
    def fill() -> None:
        small_disk.run("sh", "-c", f"cat /dev/zero >> {STORE}/filler", check=False)

    before = small_disk.pid()
    for _ in range(5):
        fill()  # also what the store gives back to have room
        small_disk.polls()
    assert small_disk.run("pondwatch", "read", "n.pond.level").returncode == 0
    assert small_disk.pid() == before

    small_disk.run("systemctl", "stop", CORE)
    fill()
    small_disk.run("systemctl", "start", CORE)
    small_disk.polls()
    durable = small_disk.gauge("pondwatch_spool_durable")
    print(f"started on a full disk: pondwatch_spool_durable {durable:g}, and it polls")

    small_disk.run("rm", f"{STORE}/filler")
    until(lambda: small_disk.gauge("pondwatch_spool_durable") == 1, "what waited in memory is on the disk")
    _, length = small_disk.stream()
    until(lambda: small_disk.stream()[1] > length, "the chain goes on")
    assert "whole up to" in small_disk.run("pondwatch", "spool", "verify").stdout


@pytest.fixture(scope="module")
def newer(made: Made, tree: Path) -> str:
    """The package of the next version, as the container sees it."""
    return f"/mnt/{newer_than(made, tree).name}"


def test_an_upgrade_keeps_what_was_not_delivered_and_an_older_version_can_be_put_back(
    gateway: Gateway, made: Made, newer: str
) -> None:
    """Nobody sits at it, and both sides have changed the names of the ports: the gateway's stay, unasked."""
    gateway.write(PORTS, "# ours\n")
    gateway.bench("platform", away_s=3600)
    until(lambda: gateway.gauge("pondwatch_spool_unsettled_batches") > 5, "a backlog")
    stream, length = gateway.stream()
    gateway.run("dpkg", "--install", newer)
    until(lambda: gateway.version() == NEWER, "the newer version runs")
    assert gateway.run("cat", PORTS).stdout == "# ours\n"
    assert gateway.gauge("pondwatch_spool_unsettled_batches") > 5
    until(lambda: gateway.stream()[1] > length, "the chain goes on")
    assert gateway.stream()[0] == stream
    gateway.run("dpkg", "--install", f"/mnt/{made.package.name}")
    until(lambda: gateway.version() == made.version, "the older version runs")
    gateway.bench("platform", away_s=0.1)
    until(lambda: gateway.gauge("pondwatch_spool_unsettled_batches") == 0, "everything is settled")
    assert gateway.stream()[0] == stream
    assert gateway.bench("summary")["holes"] == 0


def test_an_upgrade_for_which_there_is_no_room_leaves_the_version_before_running(
    gateway: Gateway, made: Made, newer: str
) -> None:
    free = int(gateway.says("df", "--block-size=1", "--output=avail", "/").split()[-1])
    gateway.run("fallocate", "--length", str(free - 60_000_000), "/filler")
    refused = gateway.run("dpkg", "--install", newer, check=False)
    gateway.run("rm", "/filler")
    assert refused.returncode != 0
    assert "No space left on device" in refused.stdout
    gateway.polls()
    assert gateway.version() == made.version


def newer_than(made: Made, tree: Path) -> Path:
    """The same program as another version: what apt, dpkg and the maintainer scripts see of an upgrade."""
    copy = made.package.with_name("newer")
    shutil.copytree(tree, copy, symlinks=True)
    packages = copy / "opt/pondwatch/venv/lib/python3.11/site-packages"
    (packages / f"pondwatch-{made.version}.dist-info").rename(packages / f"pondwatch-{NEWER}.dist-info")
    for path in (copy / "DEBIAN/control", packages / f"pondwatch-{NEWER}.dist-info/METADATA"):
        text = path.read_text()
        assert f"\nVersion: {made.version}\n" in text
        path.write_text(text.replace(f"\nVersion: {made.version}\n", f"\nVersion: {NEWER}\n"))
    package = deb.pack(copy, made.package.with_name(f"pondwatch_{NEWER}_{made.kind}.deb"), level=1)
    shutil.rmtree(copy)
    return package
