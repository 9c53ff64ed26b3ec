"""TLS for uplinks: always verified, and possible while the wall clock shows what cannot be.

A gateway without a battery-backed clock wakes in 1970, and no certificate is valid yet. Python's ssl takes no
time to verify at, but OpenSSL can be told to leave time out (X509_V_FLAG_NO_CHECK_TIME); chain,
signatures and name are verified as ever. The time is then checked here, after the handshake and before a byte
of ours is sent, against what is known of the present: a receiver's time, or the floor below which the
present cannot lie. Of a floor only expiry follows; that a certificate is not valid yet cannot be known. The
dates of the authorities above it are not checked then: Python 3.11 does not show the chain.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final, Protocol

from daemon.credentials import handed

if TYPE_CHECKING:
    from daemon.timekeeper import Known

_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME, openssl/x509_vfy.h


class Times(Protocol):
    """Who knows whether the wall clock can be right."""

    def known(self) -> Known | None: ...


class WallClock:
    """Without anybody who knows more, the wall clock counts."""

    def known(self) -> None:
        return None


class Files(Protocol):
    """What the table of an uplink says of certificates; an empty name is none."""

    @property
    def ca(self) -> str: ...
    @property
    def certificate(self) -> str: ...
    @property
    def key(self) -> str: ...


def context(table: Files, times: Times) -> ssl.SSLContext:
    """TLS 1.2 or newer, the peer always verified, our certificate shown if there is one.

    Raises:
        OSError: a file cannot be read, or is no certificate.
    """
    try:
        made = _Context(ssl.PROTOCOL_TLS_CLIENT)
        made.load_verify_locations(handed(table.ca)) if table.ca else made.load_default_certs()
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if table.certificate:
            made.load_cert_chain(handed(table.certificate), handed(table.key) or None)
    except OSError as error:  # it does not say which file
        files = ", ".join(filter(None, (table.ca, table.certificate, table.key)))
        raise OSError(f"certificate files ({files or 'of the system'}): {error}") from error
    made.present = times.known()
    if made.present is not None:
        made.verify_flags |= _NO_CHECK_TIME
        made.sslsocket_class = _DatedSocket
    return made


class _Context(ssl.SSLContext):
    """A context that knows the present where the wall clock does not."""

    present: Known | None = None


class _DatedSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 -- the signature is ssl's
        super().do_handshake(block)
        assert isinstance(self.context, _Context)
        if self.context.present is not None:
            check_dates(self.getpeercert() or {}, self.context.present)


def check_dates(certificate: Any, present: Known) -> None:
    """Refuse a peer's certificate (as `getpeercert` gives it) that is expired, or known not to be valid yet.

    Raises:
        SSLCertVerificationError: it is.
    """
    seconds = present.ns / 1e9
    if ssl.cert_time_to_seconds(certificate["notAfter"]) < seconds:
        raise ssl.SSLCertVerificationError(f"certificate has expired: {certificate['notAfter']}")
    if present.exact and ssl.cert_time_to_seconds(certificate["notBefore"]) > seconds:
        raise ssl.SSLCertVerificationError(f"certificate is not yet valid: {certificate['notBefore']}")
