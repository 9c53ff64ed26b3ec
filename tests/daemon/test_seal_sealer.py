"""The sealer over a real store: when it seals, with which key, and what the verifiers make of it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from daemon import sealer as sealer_module
from daemon.audit import Audit
from daemon.clock import Clock
from daemon.config import File, SiteTable, StoreTable
from daemon.seal import verify
from daemon.sealer import Checkpoints, Sealer
from daemon.spool import Draft, Spool
from daemon.witness import Witness
from daemon.writer import Writer
from hardware_sim.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from daemon.config import Site
    from daemon.spool import Mode

ROOM = "pondwatch/1/site/gw1/"


class Here:
    """A store whose chain is sealed."""

    def __init__(
        self, folder: Path, spool: Spool, writer: Writer, sealer: Sealer, seals: list[bytes]
    ) -> None:
        self.folder = folder
        self.spool = spool
        self.writer = writer
        self.sealer = sealer
        self._seals = seals

    @property
    def seals(self) -> list[dict[str, Any]]:
        return [json.loads(seal) for seal in self._seals]

    async def add(self, kind: str = "readings") -> int:
        (batch,) = await self.spool.commit([Draft(cast("Any", kind), b'"x":1', 1, 1, 1)])
        return batch.seq

    async def audits(self) -> list[dict[str, Any]]:
        return [json.loads(batch.payload) for batch in await self.spool.peek(kinds=("audit",), limit=10_000)]

    async def checked(self) -> list[str]:
        witness = Witness(self.folder, "test", self.spool.stream)
        assert verify(witness.watch(await self.spool.peek(limit=10_000))) is None
        assert witness.seals > 0
        return [finding.says for finding in witness.findings]


@asynccontextmanager
async def sealed(folder: Path, mode: Mode = "test") -> AsyncIterator[Here]:
    file = File(site=SiteTable(id="site", gateway="gw1", mode=mode), store=StoreTable(linger_s=0.01))
    seals: list[bytes] = []
    async with Spool.open(folder, mode, "boot") as spool:
        clock = Clock()
        writer = Writer(spool, clock, cast("Site", file), {}, lambda _: None)
        audit = Audit(writer, clock, cast("Site", file))
        sealer = Sealer(spool, clock, audit, folder, mode, seals.append)
        tasks = [asyncio.create_task(part.run()) for part in (writer, sealer)]
        try:
            await until(lambda: spool.last_seq >= 1)  # the key was announced
            yield Here(folder, spool, writer, sealer, seals)
        finally:
            tasks[1].cancel()
            writer.stop()
            await asyncio.gather(*tasks, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.005)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealer_module, "EVERY_S", 0.05)
    monkeypatch.setattr(sealer_module, "LEAST_S", 0.05)


async def test_an_alarm_is_sealed_at_once_and_readings_wait_for_their_minute(tmp_path: Path) -> None:
    async with sealed(tmp_path) as here:
        await here.add()
        await asyncio.sleep(0.2)
        assert here.seals == []
        seq = await here.add("alarms")
        await until(lambda: bool(here.seals))
        assert here.seals[-1]["seq"] == seq
        (batch,) = await here.spool.peek(seq - 1, seq)
        assert here.seals[-1]["hash"] == batch.hash.hex()
        assert await here.checked() == []


@pytest.mark.usefixtures("quick")
async def test_what_grew_is_sealed_each_interval_and_what_did_not_is_not(tmp_path: Path) -> None:
    async with sealed(tmp_path) as here:
        await until(lambda: bool(here.seals))
        await here.add()
        await until(lambda: here.seals[-1]["seq"] == 2)
        count = len(here.seals)
        await asyncio.sleep(0.3)
        assert len(here.seals) == count
        assert [seal.seq for seal in Checkpoints(tmp_path, "test")] == [seal["seq"] for seal in here.seals]


@pytest.mark.usefixtures("quick")
async def test_a_new_epoch_begins_with_its_certificate_in_the_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer_module, "EPOCH_S", 0.2)
    receiver = Receiver()
    async with sealed(tmp_path) as here:
        first = here.sealer.key
        for _ in range(30):
            await here.add()
            await asyncio.sleep(0.03)
        await until(lambda: len({seal["key"] for seal in here.seals}) >= 4)
        assert here.sealer.key != first
        monkeypatch.setattr(sealer_module, "EPOCH_S", 1e6)
        last = here.sealer.key
        await until(lambda: here.sealer.key != last)  # the step that was due is the last one
        while here.sealer.key not in [record["subject"] for record in await here.audits()]:
            await asyncio.sleep(0.01)
        await until(lambda: here.seals[-1]["seq"] == here.spool.last_seq)
        seals = here.seals
        assert await here.checked() == []
        for seal in seals:  # by the platform's verifier, seals before the keys they are by
            receiver.take(ROOM + "seals", json.dumps(seal).encode())
        for batch in await here.spool.peek(limit=10_000):
            receiver.take(ROOM + batch.kind, b"".join([batch.payload]))
    summary = receiver.summary()
    assert summary.seal_findings == []
    assert summary.seals == len(seals)


@pytest.mark.usefixtures("quick")
async def test_a_restart_goes_on_with_the_same_keys_and_says_which(tmp_path: Path) -> None:
    async with sealed(tmp_path) as here:
        await until(lambda: bool(here.seals))
        key = here.sealer.key
    async with sealed(tmp_path) as here:
        await until(lambda: bool(here.seals))
        assert here.sealer.key == key
        records = [json.loads(batch.payload) for batch in await here.spool.peek(kinds=("audit",))]
        assert [record["to"]["key"] for record in records if record["what"] == "key"] == [key, key]
        assert await here.checked() == []


@pytest.mark.usefixtures("quick")
async def test_simulated_data_is_never_signed_with_the_key_of_real_data(tmp_path: Path) -> None:
    keys = {}
    modes: tuple[Mode, ...] = ("real", "simulated", "test")
    for mode in modes:
        folder = tmp_path / mode
        folder.mkdir()
        if mode != "real":  # one folder of keys for all, as when a site is turned into a bench
            (folder / "keys").symlink_to(tmp_path / "real" / "keys")
        async with sealed(folder, mode) as here:
            await until(lambda: bool(here.seals))
            assert {seal["mode"] for seal in here.seals} == {mode}
            keys[mode] = here.sealer.key
    assert len(set(keys.values())) == 3


@pytest.mark.usefixtures("quick")
async def test_a_disk_that_takes_no_checkpoints_costs_no_seal_upstream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    async with sealed(tmp_path) as here:
        for n in range(3):
            await here.add()
            await until(lambda: len(here.seals) > n)  # noqa: B023
    assert caplog.text.count("it is tried again") == 1


def test_checkpoints_are_bounded_and_keep_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daemon.seal import Seal

    monkeypatch.setattr(sealer_module, "SEGMENT_BYTES", 5_000)
    kept = Checkpoints(tmp_path, "test")
    for n in range(200):
        kept.append(Seal(1, "test", "s", n, "0" * 64, "t", "k", "ed25519", "0" * 128))
    seqs = [seal.seq for seal in kept]
    assert seqs == list(range(seqs[0], 200))
    assert 15 <= len(seqs) <= 40
    with (tmp_path / "checkpoints" / "test.new").open("ab") as file:
        file.write(b'{"v":1,"mode":"te')  # torn by a power cut
    kept.append(Seal(1, "test", "s", 200, "0" * 64, "t", "k", "ed25519", "0" * 128))
    assert [seal.seq for seal in kept][-1] in (199, 200)
