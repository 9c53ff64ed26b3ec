"""Uplinks of the site file that go to a url with TLS and a password: whether these fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from daemon.credentials import is_there, missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.findings import Findings
    from daemon.uplink.tables import GeohazardTable, InfluxTable, Secured, SparkplugTable

_HERE = ("localhost", "127.0.0.1", "::1")


def check_influx(path: str, its: InfluxTable, found: Findings) -> None:
    url = _whole(its.url)
    if url is None or url.scheme not in ("http", "https") or url.username is not None or url.fragment:
        found.wrong(f"{path}.url", f"{its.url!r} must be https://host:port/write?db=NAME, without a password")
        return
    if url.path in ("", "/"):
        found.wrong(
            f"{path}.url", "names no place to write to: /write?db=NAME, or /api/v2/write?org=NAME&bucket=NAME"
        )
    if "precision=" in url.query:
        found.wrong(f"{path}.url", "must not say precision: it is always ns")
    if its.token_file and its.username:
        found.wrong(f"{path}.token_file", "stands beside a username: one of them")
    files = {"token_file": its.token_file}
    _tls(path, its, encrypted=url.scheme == "https", host=url.hostname or "", more=files, found=found)


def check_sparkplug(path: str, its: SparkplugTable, found: Findings) -> None:
    if _broker(path, its, found) and not its.primary_host:
        found.warn(
            f"{path}.primary_host",
            "is missing: nobody is waited for, and what no host listens to is lost there",
        )


def check_geohazard(path: str, its: GeohazardTable, found: Findings) -> None:
    _broker(path, its, found)


def _broker(path: str, its: SparkplugTable | GeohazardTable, found: Findings) -> bool:
    """Whether the url is that of a broker at all."""
    url = _whole(its.url)
    if url is None or url.scheme not in ("mqtt", "mqtts") or url.path not in ("", "/"):
        found.wrong(f"{path}.url", f"{its.url!r} must be mqtt://host:port or mqtts://host:port")
        return False
    _tls(path, its, encrypted=url.scheme == "mqtts", host=url.hostname or "", more={}, found=found)
    return True


def _whole(text: str) -> SplitResult | None:
    """A url with a host and, if any, a possible port."""
    try:
        url = urlsplit(text)
        whole = bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        return None
    return url if whole else None


def _tls(
    path: str, its: Secured, *, encrypted: bool, host: str, more: Mapping[str, str], found: Findings
) -> None:
    files = {"ca": its.ca, "certificate": its.certificate, "key": its.key}
    for key, name in files.items():
        if name and not encrypted:
            found.wrong(f"{path}.{key}", "is for TLS, which the url does not ask for")
    if bool(its.certificate) != bool(its.key):
        lacking = "key" if its.certificate else "certificate"
        found.wrong(f"{path}.{lacking}", "is missing: certificate and key go together")
    if its.password_file and not its.username:
        found.wrong(f"{path}.username", "is missing: a password needs a name")
    if not encrypted and host not in _HERE:
        found.warn(f"{path}.url", "is not encrypted: anybody on the way can read and change what is sent")
    for key, name in {**files, **more, "password_file": its.password_file}.items():
        if name and not is_there(name):
            found.warn(f"{path}.{key}", missing(name))
