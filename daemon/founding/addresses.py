"""Who the core may speak to, as a drop-in for its unit: devices and platforms of the site file, nobody else.

systemd's list is of addresses (systemd.resource-control(5), IPAddressAllow=), so names are looked up when it
is written: a platform that moves needs it written anew. Name servers are in it where a name is.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from daemon.binder import Problem
from daemon.config import SiteFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daemon.config import Site

PLACE: Final = Path("/etc/systemd/system/pondwatch.service.d/20-addresses.conf")
RESOLV: Final = Path("/etc/resolv.conf")


def hosts(site: Site) -> dict[str, str]:
    """Host -> where in the site file it stands; the loopback is always allowed."""
    found: dict[str, str] = {}
    for i, line in enumerate(site.lines):
        if line.address:
            found.setdefault(line.address.rpartition(":")[0].strip("[]"), f"line[{i}].address")
    for i, uplink in enumerate(site.uplinks):
        for key in ("url", "folder", "address"):
            where = getattr(uplink, key, "")
            host = urlsplit(where).hostname if "://" in where else where.rpartition(":")[0].strip("[]")
            if host and not host.startswith("/"):
                found.setdefault(host, f"uplink[{i}].{key}")
    return {host: where for host, where in found.items() if host not in ("localhost", "127.0.0.1", "::1")}


def looked_up(host: str) -> list[str]:
    """The addresses of a host.

    Raises:
        OSError: nobody knows it.
    """
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return sorted({str(info[4][0]).partition("%")[0] for info in infos})


def drop_in(site: Site, look_up: Callable[[str], Sequence[str]] = looked_up, resolv: Path = RESOLV) -> str:
    """The text of the drop-in.

    Raises:
        SiteFileError: a host cannot be looked up; a list without it would cut the core off.
    """
    lines, problems, named = [], [], False
    for host, where in hosts(site).items():
        try:
            found = look_up(host)
        except OSError as error:
            problems.append(Problem(where, f"{host} cannot be looked up: {error.strerror or error}"))
            continue
        named = named or not _is_address(host)
        lines.append(f"# {where}: {host}\nIPAddressAllow={' '.join(found)}")
    if problems:
        raise SiteFileError(site.path, problems)
    if named:
        lines += [f"# {resolv}\nIPAddressAllow={server}" for server in _name_servers(resolv)]
    head = (
        f"# Written by pondwatch init from {site.path}: who the core may speak to.\n"
        "# After a change of the site file or of a platform's address: pondwatch init --addresses\n"
        "[Service]\nIPAddressDeny=any\nIPAddressAllow=localhost"
    )
    return "\n".join([head, *lines]) + "\n"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _name_servers(resolv: Path) -> Iterator[str]:
    try:
        text = resolv.read_text()
    except OSError:
        return
    for server in re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE):
        if (
            _is_address(server.partition("%")[0])
            and not ipaddress.ip_address(server.partition("%")[0]).is_loopback
        ):
            yield server.partition("%")[0]
