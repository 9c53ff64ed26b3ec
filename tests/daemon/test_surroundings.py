"""Room and certificates, and how old a channel may be, against independent witnesses."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from datetime import UTC, datetime
from math import isnan
from typing import TYPE_CHECKING

from daemon.config import Site
from daemon.state import periods_s
from daemon.surroundings import Surroundings, expiry_s, free_bytes
from tests.system.running import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def certificate(folder: Path, days: int) -> Path:
    """Made by openssl, as an installer would."""
    path = folder / "gw1.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", str(folder / "gw1.key"), "-out", str(path), "-days", str(days), "-subj", "/CN=gw1"]
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    return path


def test_the_end_of_a_certificate_is_what_the_standard_library_reads(tmp_path: Path) -> None:
    path = certificate(tmp_path, 30)
    context = ssl.create_default_context(cafile=str(path))
    (seen,) = context.get_ca_certs()
    expires_s = expiry_s(path)
    assert expires_s == ssl.cert_time_to_seconds(str(seen["notAfter"]))
    assert 29 < (expires_s - datetime.now(UTC).timestamp()) / 86400 <= 30


def test_a_file_that_is_no_certificate_has_no_end_and_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    assert expiry_s(tmp_path / "x.pem") is None
    assert expiry_s(tmp_path / "absent.pem") is None


def test_free_room_is_what_the_system_says_and_unknown_where_there_is_no_folder(tmp_path: Path) -> None:
    assert abs(free_bytes(tmp_path) - shutil.disk_usage(tmp_path).free) < 500e6
    assert isnan(free_bytes(tmp_path / "absent"))


def test_a_site_with_a_certificate_shows_its_end(tmp_path: Path) -> None:
    path = certificate(tmp_path, 400)
    text = (ROOT / "config/demo.toml").read_text()
    tls = f'url = "mqtts://localhost:8883"\ncertificate = "{path}"\nkey = "{tmp_path / "gw1.key"}"'
    text = text.replace('url = "mqtt://127.0.0.1:18830"', tls).replace("build/run/store", str(tmp_path))
    (tmp_path / "site.toml").write_text(text)
    around = Surroundings(Site.load(tmp_path / "site.toml"))
    assert list(around.gauges()) == []
    around.look()
    shown = {name: (labels, value) for name, labels, value in around.gauges()}
    assert shown["pondwatch_certificate_expires_timestamp_seconds"] == (("company",), expiry_s(path))
    assert shown["pondwatch_disk_free_bytes"][1] > 0


def test_a_derived_channel_is_as_slow_as_its_slowest_input(tmp_path: Path) -> None:
    text = (ROOT / "config/demo.toml").read_text()
    slow = text.replace(
        'profile = "wenkon-vtn416"\nunit = 1\nevery = "1 min"',
        'profile = "wenkon-vtn416"\nunit = 1\nevery = "7 min"',
    )
    assert slow != text
    (tmp_path / "site.toml").write_text(slow)
    periods = periods_s(Site.load(tmp_path / "site.toml"))
    assert periods["n.pz01.pressure"] == periods["n.pz01.elevation"] == 420.0
    assert periods["n.rain.1h"] == periods["n.gn01.horizontal"] == 60.0
