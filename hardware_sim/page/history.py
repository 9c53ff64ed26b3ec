"""What has passed, for the slider: the whole run in bounded memory, coarser the longer it lasts."""

from __future__ import annotations

from typing import Final

MOST: Final = 720


class History:
    """Keeps encoded instants at an even distance; full, every other one goes and the distance doubles."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self._distance = 1
        self._offered = 0

    def offer(self, instant: bytes) -> None:
        if self._offered % self._distance == 0:
            if len(self.kept) == MOST:
                del self.kept[1::2]
                self._distance *= 2
            self.kept.append(instant)
        self._offered += 1
