"""TLS while the wall clock shows what cannot be: time is left to what is known, nothing else is left out."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from daemon.config import UplinkTable
from daemon.timekeeper import Known
from daemon.uplink.tls import WallClock, context

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.uplink.tls import Times
    from tests.conftest import Figure

NOW = dt.datetime.now(dt.UTC)
YEAR = dt.timedelta(days=365)


def made(folder: Path, name: str, issuer: str | None, since: dt.datetime, until: dt.datetime) -> None:
    """A certificate and key for `name`; an authority if nobody issues it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, by = key, subject
    if issuer is not None:
        pem = (folder / f"{issuer}.key").read_bytes()
        loaded = serialization.load_pem_private_key(pem, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer, by = loaded, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    certificate = builder.sign(signer, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


class Told:
    def __init__(self, present: Known | None) -> None:
        self._present = present

    def known(self) -> Known | None:
        return self._present


def at(moment: dt.datetime, *, exact: bool) -> Told:
    return Told(Known(int(moment.timestamp() * 1e9), exact=exact))


def handshake(folder: Path, times: Times, *, ca: str = "ca", name: str = "localhost") -> str:
    """Why the server's certificate is refused, or nothing; and the first bytes only follow the check."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    heard: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            with suppress(OSError):
                plain, _ = listener.accept()
                with server.wrap_socket(plain, server_side=True) as peer:
                    heard.append(peer.recv(1))

        thread = threading.Thread(target=serve)
        thread.start()
        table = UplinkTable("up", "mqtt", "mqtts://localhost", "puback", ca=str(folder / f"{ca}.pem"))
        made_context = context(table, times)
        try:
            with socket.create_connection(listener.getsockname()) as plain:
                # As paho does it: wrapped first, then the handshake.
                peer = made_context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
                with peer:
                    peer.do_handshake()
                    peer.send(b"x")
        except ssl.SSLCertVerificationError as error:
            return str(error)
        finally:
            thread.join(5)
            assert heard in ([], [b""], [b"x"])
    return ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made(tmp_path, "ca", None, NOW - 20 * YEAR, NOW + 20 * YEAR)
    made(tmp_path, "server", "ca", NOW - YEAR, NOW + YEAR)
    return tmp_path


@pytest.mark.fault(
    row=20,
    fault="server certificate expired, or not yet valid",
    injected="certificates of a test CA, a clock that can be trusted",
    holds="refused, with the reason",
)
def test_with_a_clock_to_be_trusted_openssl_checks_the_dates_itself(folder: Path, figure: Figure) -> None:
    assert handshake(folder, WallClock()) == ""
    made(folder, "server", "ca", NOW - 2 * YEAR, NOW - YEAR)
    assert "expired" in handshake(folder, WallClock())
    made(folder, "server", "ca", NOW + YEAR, NOW + 2 * YEAR)
    assert "not yet valid" in handshake(folder, WallClock())
    figure("both refused")


@pytest.mark.fault(
    row=20,
    fault="no clock yet (1970): only a floor is known",
    injected="the same with a floor",
    holds="what has certainly expired is refused; what may be valid is let in",
)
def test_below_the_floor_a_certificate_that_has_certainly_expired_is_refused_and_a_newer_one_is_not(
    folder: Path, figure: Figure
) -> None:
    floor = at(NOW, exact=False)
    assert handshake(folder, floor) == ""
    made(folder, "server", "ca", NOW + YEAR, NOW + 2 * YEAR)  # the present may well be later than the floor
    assert handshake(folder, floor) == ""
    made(folder, "server", "ca", NOW - 2 * YEAR, NOW - YEAR)
    assert "expired" in handshake(folder, floor)
    figure("expired refused, valid and newer let in")


@pytest.mark.fault(
    row=20,
    fault="no clock, a receiver that knows the time",
    injected="the same with the time of a receiver",
    holds="decides both ways",
)
def test_a_receivers_time_decides_both_ways(folder: Path, figure: Figure) -> None:
    assert handshake(folder, at(NOW, exact=True)) == ""
    assert "not yet valid" in handshake(folder, at(NOW - 2 * YEAR, exact=True))
    assert "expired" in handshake(folder, at(NOW + 2 * YEAR, exact=True))
    figure("both refused")


def test_without_a_time_chain_and_name_are_verified_as_ever(folder: Path) -> None:
    floor = at(NOW, exact=False)
    made(folder, "other", None, NOW - YEAR, NOW + YEAR)
    assert "self-signed" in handshake(folder, floor, ca="other") or "unable to get" in handshake(
        folder, floor, ca="other"
    )
    assert "Hostname mismatch" in handshake(folder, floor, name="broker.example")


def test_an_old_version_of_tls_is_not_spoken(folder: Path) -> None:
    table = UplinkTable("up", "mqtt", "mqtts://localhost", "puback", ca=str(folder / "ca.pem"))
    for times in (WallClock(), at(NOW, exact=False)):
        made_context = context(table, times)
        assert made_context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert made_context.verify_mode == ssl.CERT_REQUIRED
        assert made_context.check_hostname


def test_a_file_that_is_no_certificate_is_named(folder: Path) -> None:
    (folder / "junk.pem").write_text("junk")
    table = UplinkTable("up", "mqtt", "mqtts://localhost", "puback", ca=str(folder / "junk.pem"))
    with pytest.raises(OSError, match=r"certificate files .*junk\.pem"):
        context(table, WallClock())
