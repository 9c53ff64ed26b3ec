"""Row 21: thirty days without an uplink, on virtual time; with room for all, and with too little of it.

The store lives through the month by itself, as quickly as it can, packed as the core packs what is cold; then the real
daemon starts on it and finds its platform again. Who judges is the platform: what came, in which order, under whose seal.
"""

from __future__ import annotations

import json
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from daemon.archive import Archive
from daemon.room import Keeping
from daemon.store import Draft, Store
from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver
from tests.bench.store import Scans
from tests.fault.way import Instruments, settled, site_file, uplink
from tests.system.running import Daemon, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Figure

DAYS, CHANNELS = 30, 25
TICKS_A_DAY, TICK_NS = 144, 600 * 10**9  # every ten minutes
UP = frozenset({"up"})
pytestmark = pytest.mark.timeout(300)


class Noting(Receiver):
    """Keeps the order in which batches came first."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: dict[int, tuple[str, dict[str, object]]] = {}

    def take(self, topic: str, payload: bytes) -> int:
        kind = topic.rpartition("/")[2]
        if kind in ("readings", "alarms", "gaps", "audit"):
            body = json.loads(payload)
            self.arrived.setdefault(body["seq"], (kind, body))
        return super().take(topic, payload)

    def seqs(self, *kinds: str) -> list[int]:
        """In the order of their arrival."""
        return [seq for seq, (kind, _) in self.arrived.items() if kind in kinds]


def month(folder: Path, most_bytes: int) -> dict[str, list[int]]:
    """Thirty days of scans, an alarm every six hours, an audit record every day; kind -> the seqs they got."""
    scans = Scans(CHANNELS)
    store = Store.open(folder, "test", "boot", keeping=Keeping(("up",), UP, UP, most_bytes))
    seqs: dict[str, list[int]] = {"readings": [], "alarms": [], "audit": []}
    begin_ns = time.time_ns() - DAYS * TICKS_A_DAY * TICK_NS
    for tick in range(0, DAYS * TICKS_A_DAY, 6):
        times = [begin_ns + (tick + n) * TICK_NS for n in range(6)]
        drafts = [Draft("readings", scans.body(t), t, t, CHANNELS) for t in times]
        if tick % (TICKS_A_DAY // 4) == 0:
            drafts.append(Draft("alarms", ALARM % tick, times[-1], times[-1], 1))
        if tick % TICKS_A_DAY == 0:
            drafts.append(Draft("audit", b'"what":"mute","to":%d' % tick, times[-1], times[-1], 1))
        for batch in store.commit(drafts):
            seqs[batch.kind].append(batch.seq)
        if store.wal_bytes > store.keeping.wal_bytes:
            store.checkpoint_wal()
        while store.pack(times[0]):
            pass
    store.close()
    return seqs


ALARM = (
    b'"id":"a%d","kind":"channel","level":"yellow","was":"none","condition":"present","response":"new",'
    b'"time":"2026-11-23T08:00:00.000Z","reason":{"zh":"x","en":"x"}'
)


async def delivered(folder: Path, max_size: str) -> tuple[Noting, float]:
    """The daemon on that store, until all is settled; what came, and in how many seconds."""
    receiver = Noting()
    async with AsyncExitStack() as stack:
        instruments = await stack.enter_async_context(Instruments(1).serving())
        platform = await stack.enter_async_context(Platform(receiver))
        port = int(platform.address.rpartition(":")[2])
        site = site_file(folder, instruments, uplink("up", port), answer="500 ms")
        site.write_text(site.read_text().replace("[metrics]", f'max_size = "{max_size}"\n[metrics]'))
        began_s = time.monotonic()
        daemon = await stack.enter_async_context(Daemon(site, folder))
        newest = (await daemon.ask("status"))["last_seq"]
        await until(lambda: settled(daemon), "the month is settled", 90)
        took_s = time.monotonic() - began_s
        await until(
            lambda: max(receiver.summary().sealed_up_to.values(), default=0) >= newest, "a seal over it", 90
        )
        assert await daemon.stop() == 0
    return receiver, took_s


def in_order(receiver: Noting, backlog: dict[str, list[int]]) -> None:
    """Alarms of the month before its readings but for those of the first window; each kind by seq."""
    for kind in ("alarms", "readings", "gaps"):
        ours = [seq for seq in receiver.seqs(kind) if seq <= backlog["readings"][-1]]
        assert ours == sorted(ours)
    came = list(receiver.arrived)
    last_alarm = came.index(backlog["alarms"][-1])
    assert sum(receiver.arrived[seq][0] == "readings" for seq in came[:last_alarm]) < 40


@pytest.mark.fault(
    row=21,
    fault="thirty days without an uplink",
    injected="4,320 scans of 25 channels, 120 alarms, 30 audit records on virtual time; then the daemon and its platform",
    holds="all of it arrives, alarms first; nothing lost, at most 12 bytes on disk per routine reading",
)
async def test_a_month_offline_arrives_whole_and_alarms_first(tmp_path: Path, figure: Figure) -> None:
    backlog = month(tmp_path / "store", 64 << 20)
    with Archive(tmp_path / "store/spool.db") as archive:
        ((packed, pages),) = archive.rows(
            "SELECT (SELECT sum(count) FROM pack), (SELECT sum(pgsize) FROM dbstat WHERE name = 'pack')"
        )
    receiver, took_s = await delivered(tmp_path, "64 MB")
    in_order(receiver, backlog)
    summary = receiver.summary()
    assert (summary.holes, summary.gaps, summary.chain_breaks, summary.seal_findings) == (0, 0, 0, [])
    assert set(receiver.arrived) >= {seq for seqs in backlog.values() for seq in seqs}
    assert packed > 0.9 * DAYS * TICKS_A_DAY * CHANNELS
    assert pages / packed <= 12
    figure(
        f"{len(backlog['readings']):,} batches, {pages / packed:.1f} bytes a reading; all at the platform and "
        f"settled {took_s:.1f} s after the start, alarms first, 0 lost"
    )


@pytest.mark.fault(
    row=21,
    fault="thirty days without an uplink, and too little room for them",
    injected='the same month in a store of max_size "1 MB"',
    holds="routine readings go, oldest first; alarms and audit stay; each loss is a gap record under a seal, at the platform",
)
async def test_without_room_for_a_month_the_oldest_readings_go_and_the_platform_is_told(
    tmp_path: Path, figure: Figure
) -> None:
    backlog = month(tmp_path / "store", 1_000_000)
    receiver, _ = await delivered(tmp_path, "1 MB")
    in_order(receiver, backlog)
    summary = receiver.summary()
    gone = [seq for seq in backlog["readings"] if seq not in receiver.arrived]
    assert gone == backlog["readings"][: len(gone)]  # the oldest, without a break
    assert 100 < len(gone) < len(backlog["readings"]) - 100
    assert set(backlog["alarms"] + backlog["audit"]) <= set(receiver.arrived)
    told = {seq for gap in gaps(receiver) for seq in range(gap[0], gap[1] + 1)}
    assert told == set(gone)
    assert (summary.holes, summary.chain_breaks, summary.seal_findings) == (0, 0, [])
    (sealed,) = summary.sealed_up_to.values()
    assert sealed >= max(receiver.seqs("gaps"))
    figure(
        f"{len(gone):,} of {len(backlog['readings']):,} batches of readings pushed out, all of them in "
        f"{summary.gaps} sealed gap records at the platform; 0 of {len(backlog['alarms'])} alarms, "
        f"0 of {len(backlog['audit'])} audit records"
    )


def gaps(receiver: Noting) -> list[tuple[int, int]]:
    found = []
    for _, body in receiver.arrived.values():
        if "from_seq" in body:
            assert body["reason"] == "pushed-out"
            found.append((int(str(body["from_seq"])), int(str(body["to_seq"]))))
    return found
