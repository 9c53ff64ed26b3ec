"""Secrets out of texts: the very ones that lie on this machine, and everything that looks like one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MASK: Final = "[secret]"
LEAST: Final = 4  # shorter ones would blank out half of every text
_MOST_SECRET: Final = 64 << 10
_SECRET_KEY: Final = re.compile(
    r"password|passwd|secret|token|phone|private|credential|username", re.IGNORECASE
)
_PUBLIC_FILE: Final = re.compile(r".*_file|ca|certificate|key|host_key")  # they name files, and hold nothing
_LOOKS: Final = (
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        MASK,
    ),
    # up to the last @: a password that somebody wrote into a URL may have any of its other signs
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s\"']*@"), rf"\1{MASK}@"),
    (re.compile(r"(?i)(authorization\s*[:=]\s*)[^\r\n\"]+"), rf"\1{MASK}"),
    (
        re.compile(
            r"(?i)\b((?:\w*(?:password|passwd|pwd|secret|token|api[_-]?key))\"?\s*[:=]\s*)(?!\[secret\])(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;}\"']+)"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r'(?i)("private"\s*:\s*")[^"]*'), rf"\1{MASK}"),
)


def masked(value: Any, key: str = "") -> Any:
    """The value of a site file's key, secrets and personal data masked."""
    if isinstance(value, dict):
        people = {"name": MASK} if key == "person" else {}
        return {k: masked(v, k) if k not in people else MASK for k, v in value.items()}
    if isinstance(value, list):
        return [masked(each, key) for each in value]
    if _SECRET_KEY.search(key) and not _PUBLIC_FILE.fullmatch(key):
        return MASK
    return value


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """The text without any of these secrets, and without what looks like one."""
    for secret in secrets:
        for way in {secret, json.dumps(secret)[1:-1], quote(secret, safe="")}:
            text = text.replace(way, MASK)
    for pattern, instead in _LOOKS:
        text = pattern.sub(instead, text)
    return text


def told(value: Any, key: str = "") -> Iterable[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from told(each, name)
            if key == "person" and name == "name" and isinstance(each, str):
                yield each
    elif isinstance(value, list):
        for each in value:
            yield from told(each, key)
    elif isinstance(value, str):
        if _SECRET_KEY.search(key) and not _PUBLIC_FILE.fullmatch(key):
            yield value
        if (user := re.search(r"://(.+)@", value)) is not None:
            yield from (part for part in user[1].split(":", 1) if len(part) >= 2 * LEAST)


def named(value: Any, key: str = "") -> Iterable[str]:
    """Files with secrets that the site file names."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from named(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from named(each, key)
    elif isinstance(value, str) and (key.endswith("_file") or key == "key"):
        yield value


def files(folder: Path) -> Iterable[Path]:
    try:
        return sorted(path for path in folder.rglob("*") if path.is_file())
    except OSError:
        return ()


def lines_of(path: Path) -> set[str]:
    """The lines of a secret file, and the strings in it where it is JSON."""
    try:
        text = path.read_bytes()[:_MOST_SECRET].decode(errors="replace")
    except OSError:
        return set()
    found = {line.strip() for line in text.splitlines() if not line.startswith("-----")}
    if path.suffix in (".crt", ".pem", ".csr") and "PRIVATE" not in text:
        return set()
    return found | {text.strip()} | set(re.findall(r'"private"\s*:\s*"([^"]+)"', text))
