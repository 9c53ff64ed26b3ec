"""How a platform signs a request to a gateway; shares no code with the gateway's side.

    {"v":1, "key":ID, "seq":N, "request":TEXT, "signature":HEX}

ID is the first 16 hex digits of the SHA-256 of the public key. The signature is over six lines, joined by
newlines: `pondwatch-request 1`, site, gateway, ID, N, TEXT. N must rise; milliseconds since 1970 do.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


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
