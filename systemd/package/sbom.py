"""What is inside, as a CycloneDX 1.5 bill of materials made from the wheels themselves."""

from __future__ import annotations

import hashlib
import zipfile
from email.parser import HeaderParser
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import Message
    from pathlib import Path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def metadata(wheel: Path) -> Message:
    """The wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if PurePosixPath(n).match("*.dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode())


def licence(of: Message) -> str:
    """What the package says of its licence, in the first place where it says it; empty: nowhere."""
    classifiers = [c.rpartition(" :: ")[2] for c in of.get_all("Classifier", []) if c.startswith("License")]
    said = (of.get("License-Expression", ""), " AND ".join(classifiers), of.get("License", ""))
    return next((text.splitlines()[0] for text in said if text.strip() not in ("", "UNKNOWN")), "")


def bill(wheels: Iterable[Path], version: str) -> dict[str, Any]:
    """The bill of `wheels` as CycloneDX JSON; it names no time, so the same wheels give the same bill."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "pondwatch", "version": version}},
        "components": [_component(wheel) for wheel in wheels],
    }


def _component(wheel: Path) -> dict[str, Any]:
    of = metadata(wheel)
    name, version = of["Name"], of["Version"]
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": sha256(wheel)}],
        "licenses": [{"license": {"name": licence(of) or "not stated"}}],
    }
