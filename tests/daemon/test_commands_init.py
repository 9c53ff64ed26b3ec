"""`pondwatch init`: from nothing to a gateway that polls what it found, asked little and reading only."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from daemon.commands import main
from daemon.config import Site, SiteFileError
from daemon.founding import addresses, enrol, found
from hardware_sim.ports import free_port
from tests.daemon.test_systemd import SERVICES, UNITS, exposure, needs
from tests.system.running import ROOT, Bench, Daemon, until

if TYPE_CHECKING:
    from pathlib import Path


def typed(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False
    )


async def test_a_gateway_made_by_init_polls_the_bench_and_signs_with_the_key_that_init_made(
    tmp_path: Path,
) -> None:
    run, site, store, secrets = (tmp_path / name for name in ("run", "etc/site.toml", "store", "secrets"))
    async with Bench(run, "calm", 1) as bench:
        lines = bench.facts["lines"]
        command = [
            *(sys.executable, "-m", "daemon.commands", "--config", str(site), "init"),
            *("--site", "demo", "--gateway", "gw1", "--pond", "n", "--mode", "simulated"),
            *(f"--line={name}={lines[name]}" for name in ("rs485-1", "weather", "gnss-1")),
            *("--line=gone=/dev/none", "--units", "1-3,192", "--modes", "9600 8N1", "--timeout", "150 ms"),
            *("--store", str(store), "--secrets", str(secrets), "--drop-in", str(tmp_path / "list.conf")),
        ]
        done = typed(command)
        assert done.returncode == 0, done.stderr
        assert "no problem found" in done.stdout
        text = site.read_text()
        made = Site.load(site)
        assert {(line.id, line.kind) for line in made.lines} == {
            ("rs485-1", "modbus-rtu"),
            ("weather", "modbus-tcp"),
            ("gnss-1", "serial"),
            ("gone", "modbus-rtu"),
        }
        assert [(d.id, d.profile, d.unit) for d in made.devices] == [("rs485-1-u192", "dfrobot-sen0575", 192)]
        assert "could be: qdy30a" in text, (
            "which it is not: one register with the unit's number proves nothing"
        )
        for unit in (1, 3):  # they answer, and no register of theirs says for certain what they are
            assert f'#id = "rs485-1-u{unit}"' in text
        assert all(f'#id = "weather-u{unit}"' in text for unit in (1, 2))
        assert re.search("it sends .*GGA", text)
        assert "nmea-gga-gst" in text
        (root,) = re.findall(r"its first key: (\w+)", done.stdout)
        soon = text.replace('every = "10 min"', 'every = "2 s"')
        site.write_text(soon + f'\n[metrics]\nlisten = "127.0.0.1:{free_port()}"\n[rules]\nstart = "off"\n')
        async with Daemon(site, run) as daemon:
            await daemon.shows("pondwatch_readings_total", lambda value: value > 0)
            assert (await daemon.ask("status"))["devices"] == {"rs485-1-u192": True}
            await until(lambda: root in daemon.log.read_text(), "it signs with that key")
    again = typed(command)
    assert (again.returncode, site.read_text().startswith(soon)) == (2, True)


def test_the_request_names_site_and_gateway_and_a_key_that_never_leaves_is_kept(tmp_path: Path) -> None:
    path = enrol.request(tmp_path / "secrets", "liaocheng-1", "gw1")
    asked = x509.load_pem_x509_csr(path.read_bytes())
    names = {
        oid: asked.subject.get_attributes_for_oid(oid)[0].value
        for oid in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)
    }
    assert list(names.values()) == ["liaocheng-1", "gw1"]
    assert asked.is_signature_valid
    key = path.with_suffix(".key")
    assert key.stat().st_mode & 0o777 == 0o600
    mine = serialization.load_pem_private_key(key.read_bytes(), None).public_key()
    assert asked.public_key() == mine
    before = key.read_bytes()
    enrol.request(tmp_path / "secrets", "liaocheng-1", "gw1")
    assert key.read_bytes() == before


def small_site(folder: Path, uplink: str, device: str = "10.0.0.5:502") -> Site:
    path = folder / "site.toml"
    path.write_text(
        f'[site]\nid = "s"\ngateway = "g"\n[[pond]]\nid = "n"\n[[line]]\nid = "air"\nkind = "modbus-tcp"\n'
        f'address = "{device}"\n[[uplink]]\nid = "up"\nkind = "mqtt"\nurl = "{uplink}"\nsettle = "receipt"\n'
    )
    return Site.load(path)


def known(host: str) -> list[str]:
    if host == "nowhere.example":
        raise OSError(-2, "Name or service not known")
    return [host] if host[0].isdigit() else ["192.0.2.7", "2001:db8::7"]


def test_the_address_list_has_devices_platforms_and_name_servers_and_nobody_else(tmp_path: Path) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("search example\nnameserver 198.51.100.53\nnameserver 127.0.0.53\nnameserver ../etc\n")
    text = addresses.drop_in(small_site(tmp_path, "mqtts://broker.example:8883"), known, resolv)
    allowed = [
        word for line in re.findall("^IPAddressAllow=(.*)$", text, re.MULTILINE) for word in line.split()
    ]
    assert allowed == ["localhost", "10.0.0.5", "192.0.2.7", "2001:db8::7", "198.51.100.53"]
    assert "IPAddressDeny=any" in text
    bare = addresses.drop_in(small_site(tmp_path, "mqtt://192.0.2.9:1883", "localhost:502"), known, resolv)
    assert "198.51.100.53" not in bare, "without a name nobody is asked for one"
    with pytest.raises(SiteFileError, match=r"uplink\[0\].url: nowhere.example cannot be looked up"):
        addresses.drop_in(small_site(tmp_path, "mqtts://nowhere.example:8883"), known, resolv)


@needs("systemd-analyze")
def test_with_the_list_that_init_writes_the_core_is_exposed_by_1_2_at_most(tmp_path: Path) -> None:
    listed = addresses.drop_in(small_site(tmp_path, "mqtts://broker.example:8883"), known, tmp_path / "none")
    service = tmp_path / SERVICES[0]
    service.write_text((UNITS / SERVICES[0]).read_text() + "\n" + listed)
    assert exposure(service) <= 1.2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gateway", "g", "--pond", "n"], "--site is missing"),
        (["--site", "a/b", "--gateway", "g", "--pond", "n"], "letters, digits"),
        (["--site", "s", "--gateway", "g", "--pond", "n", "--uplink", "mqtts://a:1"], "--settle go together"),
        (["--site", "s", "--gateway", "g", "--pond", "n", "--line", "a"], "is not ID=WHERE"),
        (
            ["--site", "s", "--gateway", "g", "--pond", "n", "--line", "a=/dev/x", "--modes", "9600"],
            "is no serial mode",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    site = tmp_path / "site.toml"
    assert main(["--config", str(site), "init", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not site.exists()


def test_ports_that_two_names_lead_to_are_found_once_by_our_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("ours", "by-id"):
        (tmp_path / folder).mkdir()
    (tmp_path / "ttyUSB0").touch()
    (tmp_path / "ttyUSB1").touch()
    (tmp_path / "ours/rs485-1").symlink_to(tmp_path / "ttyUSB0")
    (tmp_path / "by-id/usb-FTDI_FT232R:if00").symlink_to(tmp_path / "ttyUSB0")
    (tmp_path / "by-id/usb-FTDI_FT4:if01").symlink_to(tmp_path / "ttyUSB1")
    monkeypatch.setattr(found, "PORTS", (f"{tmp_path}/ours/*", f"{tmp_path}/by-id/*"))
    assert found.ports() == {
        "rs485-1": str(tmp_path / "ours/rs485-1"),
        "usb-FTDI_FT4-if01": str(tmp_path / "by-id/usb-FTDI_FT4:if01"),
    }
