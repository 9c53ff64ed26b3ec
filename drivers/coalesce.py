"""Which blocks of a device are asked for in one request.

Blocks that one cycle reads right after each other, with the same function and side by side, become one
request as long as the device takes so many registers at once; a profile that says `bridge_holes` lets the
request run over registers between them. A block is never divided. The order of the cycle stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.pdu import read_pdu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drivers.model import CompiledBlock

_REGISTER_READS = (3, 4)  # coils are bits of bytes, and no device has many blocks of them


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request and the blocks its reply holds, by rising address."""

    blocks: tuple[CompiledBlock, ...]
    at: int
    count: int  # registers, or coils
    data_bytes: int
    pdu: bytes

    @classmethod
    def of(cls, *blocks: CompiledBlock) -> Request:
        """The request from the first register of the first block to the last of the last.

        Raises:
            ValueError: no device could answer it.
        """
        first, last = blocks[0], blocks[-1]
        count = last.at + last.count - first.at
        size = first.data_bytes if len(blocks) == 1 else 2 * count
        return cls(blocks, first.at, count, size, read_pdu(first.fn, first.at, count))

    def parts(self, data: bytes) -> list[tuple[CompiledBlock, bytes]]:
        """The data of each block, as if it had been asked for alone."""
        if len(self.blocks) == 1:
            return [(self.blocks[0], data)]
        starts = (2 * (block.at - self.at) for block in self.blocks)
        return [
            (block, data[start : start + block.data_bytes])
            for block, start in zip(self.blocks, starts, strict=True)
        ]


def coalesce(blocks: Sequence[CompiledBlock], most: int, *, bridge: bool) -> list[Request]:
    """The requests for `blocks`, which a cycle reads in this order; `most` registers in one."""
    runs: list[list[CompiledBlock]] = []
    for block in blocks:
        if runs and _joins(runs[-1], block, most, bridge=bridge):
            runs[-1].append(block)
        else:
            runs.append([block])
    return [Request.of(*run) for run in runs]


def divide(request: Request) -> list[Request]:
    """What to ask for where a device refuses: the same without its holes, or else each block alone."""
    whole = coalesce(request.blocks, request.count, bridge=False)
    return whole if len(whole) > 1 else [Request.of(block) for block in request.blocks]


def _joins(run: Sequence[CompiledBlock], block: CompiledBlock, most: int, *, bridge: bool) -> bool:
    last = run[-1]
    end = last.at + last.count
    return (
        block.fn == last.fn
        and block.fn in _REGISTER_READS
        and (block.at == end or (bridge and block.at > end))
        and block.at + block.count - run[0].at <= most
    )
