r"""How a platform signs a request to a gateway, and sends it; shares no code with the gateway's side.

    python -m hardware_sim.request --new-key platform.key
    python -m hardware_sim.request --broker mqtt://127.0.0.1:1883 --key platform.key n gw1 \
        '{"do":"warning", "pond":"n", "level":"orange", "until":"6 h", "source":"14/2026", "by":"desk"}'

The first prints the public key, for `request_keys` of the site file. The envelope:

    {"v":1, "key":ID, "seq":N, "request":TEXT, "signature":HEX}

ID is the first 16 hex digits of the SHA-256 of the public key. The signature is over six lines, joined by
newlines: `pondwatch-request 1`, site, gateway, ID, N, TEXT. N must rise; milliseconds since 1970 do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt import publish
from paho.mqtt.enums import MQTTProtocolVersion

if TYPE_CHECKING:
    from collections.abc import Sequence


def signed(
    key: Ed25519PrivateKey, site: str, gateway: str, seq: int, request: object, *, raw: bool = False
) -> bytes:
    """The payload for the topic `requests`; `raw` takes the request as text, as it is."""
    text = str(request) if raw else json.dumps(request)
    name = hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()[:16]
    lines = "\n".join(("pondwatch-request 1", site, gateway, name, str(seq), text))
    envelope = {
        "v": 1,
        "key": name,
        "seq": seq,
        "request": text,
        "signature": key.sign(lines.encode()).hex(),
    }
    return json.dumps(envelope).encode()


def new_key(path: Path) -> str:
    """Make a private key in a file of its own, 64 hex digits; the public key."""
    key = Ed25519PrivateKey.generate()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key.private_bytes_raw().hex() + "\n")
    return key.public_key().public_bytes_raw().hex()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m hardware_sim.request")
    parser.add_argument("--new-key", type=Path, help="make a key, print its public half, and end")
    parser.add_argument("--broker", default="mqtt://127.0.0.1:1883")
    parser.add_argument("--key", type=Path, help="the private key")
    for name in ("ca", "certificate", "certificate-key"):
        parser.add_argument(f"--{name}", help="for mqtts://")
    for name in ("site", "gateway", "request"):
        parser.add_argument(name, nargs="?")
    options = parser.parse_args(arguments)
    if options.new_key is not None:
        print(new_key(options.new_key))
        return
    if options.key is None or options.request is None:
        parser.error("a key, a site, a gateway and a request are needed")
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(options.key.read_text().strip()))
    seq = time.time_ns() // 1_000_000
    payload = signed(key, options.site, options.gateway, seq, options.request, raw=True)
    url = urlsplit(options.broker)
    tls: Any = None
    if url.scheme == "mqtts":
        tls = {
            "ca_certs": options.ca,
            "certfile": options.certificate,
            "keyfile": options.certificate_key,
        }
    publish.single(
        f"pondwatch/1/{options.site}/{options.gateway}/requests",
        payload,
        qos=1,
        hostname=url.hostname or "",
        port=url.port or (8883 if tls else 1883),
        tls=tls,
        protocol=MQTTProtocolVersion.MQTTv5,
    )


if __name__ == "__main__":
    main()
