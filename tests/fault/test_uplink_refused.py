"""Row 31: certificates that are not taken, by either side, against a real broker."""

from __future__ import annotations

import datetime as dt
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from daemon.config import UplinkTable
from daemon.spool import Draft, Spool
from tests.daemon.test_mqtt_tls import NOW, YEAR, made
from tests.fault.test_uplink_link import sending
from tests.fault.way import MOSQUITTO, Mosquitto
from tests.system.running import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Figure

pytestmark = [
    # paho leaves a socket whose handshake failed to the garbage collector, which closes it at once and says so.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.peer,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]


def authority(folder: Path) -> None:
    """Two authorities, the broker's certificate, two of the gateway, the second of them revoked."""
    for name in ("ca", "stranger"):
        made(folder, name, None, NOW - YEAR, NOW + YEAR)
    for name in ("server", "client", "revoked"):
        made(folder, name, "ca", NOW - YEAR, NOW + YEAR)
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    revoked = x509.load_pem_x509_certificate((folder / "revoked.pem").read_bytes())
    one = x509.RevokedCertificateBuilder().serial_number(revoked.serial_number).revocation_date(NOW).build()
    crl = x509.CertificateRevocationListBuilder().issuer_name(authority.subject).add_revoked_certificate(one)
    crl = crl.last_update(NOW - dt.timedelta(days=1)).next_update(NOW + YEAR)
    (folder / "crl.pem").write_bytes(crl.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def table(folder: Path, port: int, ca: str, client: str) -> UplinkTable:
    return UplinkTable(
        "up",
        "mqtt",
        f"mqtts://localhost:{port}",
        "puback",
        ca=str(folder / f"{ca}.pem"),
        certificate=str(folder / f"{client}.pem") if client else "",
        key=str(folder / f"{client}.key") if client else "",
    )


@pytest.mark.fault(
    row=31,
    fault="wrong authority, no client certificate, a revoked one",
    injected="mosquitto that asks for certificates, with a revocation list",
    holds="nothing is sent, the reason is logged, all is kept and delivered with the right files",
)
@pytest.mark.parametrize(
    ("ca", "client"),
    [("stranger", "client"), ("ca", ""), ("ca", "revoked")],
    ids=["wrong authority", "no certificate", "revoked"],
)
async def test_a_connection_that_is_not_trusted_carries_nothing_and_loses_nothing(
    tmp_path: Path, ca: str, client: str, figure: Figure, caplog: pytest.LogCaptureFixture
) -> None:
    authority(tmp_path)
    files = "cafile ca.pem\ncertfile server.pem\nkeyfile server.key\ncrlfile crl.pem\n"
    extra = files.replace("file ", f"file {tmp_path}/") + "require_certificate true\n"
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path / "broker", extra=extra))
        spool = await stack.enter_async_context(Spool.open(tmp_path / "store", "test", "boot"))
        await spool.commit([Draft("readings", b'"n":%d' % n, n, n, 1) for n in range(20)])
        async with sending(table(tmp_path, broker.port, ca, client), spool) as uplink:
            await until(lambda: uplink._trouble, "it is said")
            trouble = uplink._trouble
            await until(lambda: broker.log.read_text().count("OpenSSL Error") >= 3, "it tries again")
            assert not uplink.connected
        assert not await spool.settled("up")
        assert trouble in caplog.text
        async with sending(table(tmp_path, broker.port, "ca", "client"), spool) as uplink:
            # Nobody subscribes here, which a broker of MQTT 5 says: that it connects is what is looked at.
            await until(lambda: uplink.connected, "the right files are taken")
    figure(f'"{trouble}"; 20 batches kept')
