"""Frames printed by makers and found in public captures, checksums recomputed: no code of ours made them."""

from __future__ import annotations

VTN416_REQUEST = "01 03 00 64 00 14 04 1A"
VTN416_REPLY = (
    "01 03 28 31 19 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 "
    "34 13 27 0F 27 0F 27 0F 27 0F 41 9E"
)
KELLER_REQUEST = "01 03 00 02 00 02 65 CB"
KELLER_REPLY = "01 03 04 3F 75 F0 7B E3 DE"  # 0.9607007 bar, ABCD
GEOKON_REQUEST = "02 03 01 02 00 02 64 04"
GEOKON_REPLY = "02 03 04 C8 7C 46 28 04 F5"  # 10802.12 ohm, CDAB
SCANS = ("FF 03 07 D0 00 01 91 59", "50 03 00 34 00 01 C8 45", "01 03 01 00 00 04 45 F5")


def raw(text: str) -> bytes:
    return bytes.fromhex(text)
