"""A technician's day on a gateway, with the installed package: founded, changed, looked at, backed up, put back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from tests.package.container import until
from tests.package.gateway import CORE, RULES, SITE, STORE, Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(400)
SECRETS = "/etc/pondwatch/secrets"
PASSWORD = "correct-horse-battery"  # pragma: allowlist secret
DROP_INS = f"/etc/systemd/system/{CORE}.d"


@pytest.fixture
def new(gateway: Gateway) -> Iterator[Gateway]:
    """Installed and never started: no site file, no store, no keys."""
    gateway.run("systemctl", "stop", CORE, RULES)
    gateway.run("sh", "-c", f"rm -rf {SITE} {STORE} {SECRETS}/* {DROP_INS}")
    yield gateway
    gateway.run("rm", "-rf", DROP_INS)
    gateway.run("systemctl", "daemon-reload")


def test_a_technicians_day(new: Gateway) -> None:
    """Each verb as root, as a technician has it by sudo; the services run as their own user all the same."""
    found(new)
    change(new)
    ask(new)
    support(new)
    put_back(new)


def well(gateway: Gateway) -> None:
    gateway.polls()
    assert gateway.gauge("pondwatch_spool_durable") == 1
    strangers = gateway.run("find", STORE, "-not", "-user", "pondwatch").stdout
    assert strangers == "", "what root leaves in the service's folder stops the service"


def found(gateway: Gateway) -> None:
    lines = gateway.facts["lines"]
    said = gateway.run(
        *("pondwatch", "init", "--site", "demo", "--gateway", "gw1", "--pond", "n", "--mode", "simulated"),
        *("--line", f"rs485-1={lines['rs485-1']}", "--line", f"weather={lines['weather']}"),
        *("--units", "1-3,192", "--modes", "9600 8N1", "--timeout", "100 ms"),
        *("--uplink", f"mqtt://{gateway.facts['platform']}", "--settle", "receipt"),
    ).stdout  # fmt: skip
    assert "unit 192 9600 8N1" in said
    assert "no problem found" in said
    assert gateway.says("stat", "--format=%U %a", f"{SECRETS}/gw1.key") == "root 600"
    request = gateway.run(
        "openssl", "req", "-verify", "-noout", "-subject", "-in", f"{SECRETS}/gw1.csr"
    ).stdout
    assert "O = demo, CN = gw1" in request
    gateway.run("systemctl", "daemon-reload")
    assert set(gateway.property(CORE, "IPAddressDeny").split()) == {"0.0.0.0/0", "::/0"}
    gateway.run("systemctl", "start", CORE, RULES)
    well(gateway)


def change(gateway: Gateway) -> None:
    """The rest of the instruments, and a password, in the name of who brings them."""
    gateway.write(f"{SECRETS}/password", PASSWORD)
    text = gateway.site().replace(
        'settle = "receipt"', f'settle = "receipt"\nusername = "gw1"\npassword_file = "{SECRETS}/password"'
    )
    gateway.write("/root/next.toml", text.replace('from = "radar1.pv"', 'from = "radar1.pw"'))
    refused = gateway.run("pondwatch", "apply", "/root/next.toml", "--by", "王工", check=False)
    assert (refused.returncode, "Traceback" in refused.stdout) == (1, False)
    gateway.write("/root/next.toml", text)
    said = gateway.run(
        "pondwatch", "apply", "/root/next.toml", "--by", "王工", "--reason", "commissioning"
    ).stdout
    assert "in use, by 王工" in said
    assert "no problem found" in gateway.run("pondwatch", "check").stdout
    well(gateway)
    assert "good" in gateway.run("pondwatch", "read", "n.pond.level").stdout
    assert "password was not handed over; is it there, systemctl restart pondwatch" in gateway.journal(CORE)
    gateway.run("systemctl", "restart", CORE)
    until(lambda: gateway.gauge("pondwatch_uplink_connected") == 1, "the uplink has its password")


def ask(gateway: Gateway) -> None:
    """Who is in the service's group may ask and change nothing; who is not gets a sentence."""
    gateway.run("useradd", "--no-create-home", "--groups", "pondwatch", "technician")
    assert (
        "good" in gateway.run("runuser", "-u", "technician", "--", "pondwatch", "read", "n.pond.level").stdout
    )
    drill = ("drill", "n", "--level", "red", "--by", "x", "--reason", "x", "--until", "10 min")
    for who, verb, sentence in (
        ("technician", ("apply", "/root/next.toml", "--by", "x"), "Permission denied"),
        ("technician", drill, "only root and pondwatch may"),
        ("nobody", ("alarms",), "this user may not speak to the core"),
        ("nobody", ("check",), "Permission denied"),
    ):
        refused = gateway.run("runuser", "-u", who, "--", "pondwatch", *verb, check=False)
        assert refused.returncode == 3, refused.stdout
        assert sentence in refused.stdout
        assert len(refused.stdout.splitlines()) == 1
    month = gateway.clock().astimezone(ZoneInfo("Asia/Shanghai")).strftime("%Y-%m")
    said = gateway.run("pondwatch", "report", "--language", "en", "--month", month).stdout
    assert re.search(r"n\.pond\.level .*\n(.*\n)*.* 王工 +channel n\.pond\.level", said), said


def support(gateway: Gateway) -> None:
    """Whatever is secret on this box is in no part of the bundle; what is not, is."""
    keys = f"{SECRETS}/password {SECRETS}/gw1.key {STORE}/keys/simulated.key"
    gateway.run("sh", "-ec", f"for f in {keys}; do test -s $f; done; grep -hv -e ----- {keys} > /root/secret")
    gateway.run("pondwatch", "doctor", "--to", "/root/doctor.tar.gz")
    assert gateway.says("stat", "--format=%U %a", "/root/doctor.tar.gz") == "root 600"
    gateway.run("tar", "-C", "/root", "-xzf", "/root/doctor.tar.gz")
    found = gateway.run("grep", "-rlF", "-f", "/root/secret", "/root/pondwatch-doctor", check=False)
    assert (found.returncode, found.stdout) == (1, "")
    parts = gateway.run("ls", "/root/pondwatch-doctor").stdout.split()
    assert {"site.json", "journal.txt", "metrics.txt", "store.json", "status.json"} <= set(parts)
    assert "started: 3 lines" in gateway.run("cat", "/root/pondwatch-doctor/journal.txt").stdout


def put_back(gateway: Gateway) -> None:
    """The box is gone; another one, and the file that was kept."""
    assert "without private keys" in gateway.run("pondwatch", "backup", "--to", "/root/gw1.tar.gz").stdout
    well(gateway)
    stream, _ = gateway.stream()
    gateway.run("systemctl", "stop", CORE, RULES)
    gateway.run("rm", "-rf", STORE, SITE)
    assert f"stream {stream} up to batch" in gateway.run("pondwatch", "restore", "/root/gw1.tar.gz").stdout
    assert "no problem found" in gateway.run("pondwatch", "check").stdout
    gateway.run("systemctl", "start", CORE, RULES)
    well(gateway)
    assert gateway.stream()[0] != stream
    until(lambda: gateway.bench("summary")["gaps"] == 1, "the platform hears of the restored store")
    assert gateway.bench("summary")["forks"] == 0
