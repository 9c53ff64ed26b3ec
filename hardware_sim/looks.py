"""How each fault looks on site, as `looks.toml` has it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec


class Look(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A short name, and a sentence that a technician who meets it would say."""

    name_zh: str
    name_en: str
    looks_zh: str
    looks_en: str


# Fault with the number that a switch gives it -> how it looks.
LOOKS: Final = msgspec.toml.decode(Path(__file__).with_suffix(".toml").read_bytes(), type=dict[str, Look])
