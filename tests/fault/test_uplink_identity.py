"""Who a stream is: restored images, lost stores, two gateways with one identity, hostile requests, tampering."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hardware_sim import mqtt
from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver
from hardware_sim.request import signed
from hardware_sim.verify import verify
from tests.fault.way import Instruments, settled, site_file, uplink
from tests.system.running import Daemon, rows, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.conftest import Figure

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw().hex()
ROOM = "pondwatch/1/fault/gw1/"

pytestmark = pytest.mark.timeout(90)


class Site:
    """One instrument, one platform that outlives gateways, and the site file of a gateway in `folder`."""

    def __init__(self, folder: Path, instruments: Instruments, platform: Platform) -> None:
        self.folder = folder
        self.platform = platform
        self._instruments = instruments

    def gateway(self, name: str = "one") -> Daemon:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        port = int(self.platform.address.rpartition(":")[2])
        rest = f'request_keys = ["{PUBLIC}"]\nreceipt_deadline = "1 s"'
        site = site_file(
            folder, self._instruments, uplink("up", port, rest=rest), every="200 ms", answer="100 ms"
        )
        return Daemon(site, folder)

    @property
    def summary(self) -> Any:
        return self.platform.receiver.summary()

    async def grown(self, by: int = 4) -> None:
        """So many batches more are at the platform."""
        before = self.summary.received
        await until(lambda: self.summary.received >= before + by, "batches arrive")


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    receiver = Receiver(folder / "p.db")
    async with AsyncExitStack() as stack:
        stack.callback(receiver.close)
        instruments = await stack.enter_async_context(Instruments(1).serving())
        platform = await stack.enter_async_context(Platform(receiver))
        yield Site(folder, instruments, platform)


async def stopped(daemon: Daemon) -> None:
    await until(lambda: settled(daemon), "all is settled")
    assert await daemon.stop() == 0


@pytest.mark.fault(
    row=57,
    fault="the store is lost, or an older image of it is put back",
    injected="spool.db deleted; spool.db of before put back beside its newer head",
    holds="a new stream begins with a gap record that names the old one; nothing at the platform changes",
)
@pytest.mark.parametrize("how", ["lost", "restored"])
async def test_a_lost_or_restored_store_begins_a_new_stream_and_says_what_may_lack(
    tmp_path: Path, how: str, figure: Figure
) -> None:
    async with site(tmp_path) as here:
        async with here.gateway() as daemon:
            await here.grown()
            await stopped(daemon)
            shutil.copy(daemon.store / "spool.db", tmp_path / "image")
        async with here.gateway() as daemon:
            await here.grown()
            await stopped(daemon)
        before = stored(tmp_path / "p.db")
        (daemon.store / "spool.db").unlink()
        if how == "restored":
            shutil.copy(tmp_path / "image", daemon.store / "spool.db")
        async with here.gateway() as daemon:
            await here.grown()
            await stopped(daemon)
        summary = here.summary
        assert len(summary.streams) == 2
        assert (summary.forks, summary.twins, summary.chain_breaks, summary.seal_findings) == (0, 0, 0, [])
        after = stored(tmp_path / "p.db")
        assert before.items() <= after.items()
        gaps = [json.loads(payload) for kind, payload in after.values() if kind == "gaps"]
        assert [(gap["of"], gap["reason"]) for gap in gaps] == [(next(iter(before))[0], f"store-{how}")]
    figure(f"{how}: second stream, one gap record, no fork")


@pytest.mark.fault(
    row=57,
    fault="the whole folder of before is put back: store, head, keys",
    injected="a copy of the store's folder, replaced while the gateway is down",
    holds="the gateway cannot know; the platform reports forks, keeps both, and loses nothing it had",
)
async def test_a_whole_image_put_back_is_a_fork_at_the_platform_and_overwrites_nothing(
    tmp_path: Path, figure: Figure
) -> None:
    async with site(tmp_path) as here:
        async with here.gateway() as daemon:
            await here.grown()
            await stopped(daemon)
            shutil.copytree(daemon.store, tmp_path / "image")
        async with here.gateway() as daemon:
            await here.grown(8)
            await stopped(daemon)
        before = stored(tmp_path / "p.db")
        shutil.rmtree(daemon.store)
        shutil.copytree(tmp_path / "image", daemon.store)
        async with here.gateway() as daemon:
            await until(lambda: here.summary.forks >= 4, "the platform sees forks")
            await stopped(daemon)
        summary = here.summary
        assert before.items() <= stored(tmp_path / "p.db").items()
        assert len(summary.streams) == 1
        findings, _ = verify(tmp_path / "p.db")
        assert any("a fork" in finding for finding in findings)
    figure(f"{summary.forks} forks reported, both versions kept")


@pytest.mark.fault(
    row=57,
    fault="two gateways with one identity at the same time",
    injected="a clone with a copy of the store; another with a store of its own",
    holds="reported (forks; streams in turns); each gateway's batches are all kept",
)
@pytest.mark.parametrize("how", ["clone", "namesake"])
async def test_two_gateways_with_one_identity_are_reported_and_lose_nothing(
    tmp_path: Path, how: str, figure: Figure
) -> None:
    async with site(tmp_path) as here:
        async with here.gateway() as one:
            await here.grown()
            await stopped(one)
        two = here.gateway("two")
        if how == "clone":
            shutil.copytree(one.store, two.store)
        async with here.gateway() as one, two:
            seen = (lambda: here.summary.forks >= 3) if how == "clone" else (lambda: here.summary.twins >= 2)
            await until(seen, "the platform notices", 40)
            log = one.log.read_text() + two.log.read_text()
            await one.kill()  # one of them is taken away: the other delivers all it has
            await until(lambda: settled(two), "the remaining one settles", 40)
            assert await two.stop() == 0
        summary = here.summary
        kept = {(sha256) for (sha256,) in rows(tmp_path / "p.db", "SELECT sha256 FROM batch")}
        assert {batch.sha256 for batch in two.batches()} <= kept
        assert "another client has our identity" in log
    figure(f"{how}: {summary.forks} forks, {summary.twins} changes of stream reported")


@pytest.mark.fault(
    row=53,
    fault="hostile requests over MQTT",
    injected="junk, deep JSON, oversize, strangers' and changed signatures, replays, beside sound requests",
    holds="refused and audited, at most ten a minute; sound ones are done, once",
)
async def test_hostile_requests_are_refused_and_audited_and_sound_ones_are_done_once(
    tmp_path: Path, figure: Figure
) -> None:
    async with site(tmp_path) as here:
        async with here.gateway() as daemon:
            await here.grown()
            stream = (await daemon.ask("status"))["stream"]
            resend = {"do": "resend", "stream": stream, "from_seq": 1, "to_seq": 3}
            now = int(time.time() * 1000)
            good = signed(KEY, "fault", "gw1", now, resend)
            hostile = [
                b"",
                b"\xff" * 100,
                b"[" * 16_000,
                b"x" * 60_000,
                signed(Ed25519PrivateKey.generate(), "fault", "gw1", now, resend),
                signed(KEY, "fault", "gw2", now + 1, resend),
                good.replace(b"from_seq", b"frOm_seq"),
                signed(KEY, "fault", "gw1", now + 2, {"do": "shell"}),
            ]
            for payload in [*hostile, good, good]:
                send(here.platform, payload)
            await until(lambda: here.summary.repeats >= 3, "the range comes again")
            for _ in range(200):
                send(here.platform, b"{}")
            send(
                here.platform, signed(KEY, "fault", "gw1", now + 9, {"do": "measure", "channels": ["u1.c1"]})
            )
            await until(lambda: len(audits(daemon, "request.done")) == 2, "it has measured")
            await here.grown()
            await stopped(daemon)
        refused = audits(daemon, "request.refused")
        done = audits(daemon, "request.done")
        assert here.summary.repeats == 3
        assert len(refused) == 10
        whys = " ".join(record["why"] for record in refused)
        for words in ("no envelope", "more than", "does not name", "signature", "nothing known", "replay"):
            assert words in whys
        assert done[0]["to"] == {"ok": None}
        assert done[1]["to"]["ok"][0]["channel"] == "u1.c1"
        async with here.gateway() as daemon:  # the numbers outlive a restart
            await here.grown()
            send(here.platform, good)
            await until(lambda: len(audits(daemon, "request.refused")) == 11, "the replay is refused")
            assert audits(daemon, "request.refused")[-1]["why"].startswith("seq")
            await stopped(daemon)
    figure(f"{len(hostile) + 201} hostile, none done, {len(refused)} audited; 2 sound ones done once")


@pytest.mark.fault(
    row=57,
    fault="a stored row changed, the tail deleted, all hashes written anew",
    injected="SQL on a copy of the store, with and without care for the chain",
    holds="pondwatch spool verify names the first bad batch, or between which seals it lies; exit code 1",
)
@pytest.mark.parametrize("how", ["row", "tail", "whole chain", "nothing"])
async def test_tampering_with_the_store_is_named_by_the_verifier(
    tmp_path: Path, how: str, figure: Figure
) -> None:
    async with site(tmp_path) as here:
        async with here.gateway() as daemon:
            await here.grown(8)
            await stopped(daemon)
        last = tamper(daemon.store / "spool.db", TAMPER[how])
        code, said = await daemon.verb("spool", "verify")
        if how == "nothing":
            assert code == 0, said
        else:
            assert code == 1, said
            words = {"row": "at batch 5", "tail": f"batch {last - 1} and what", "whole chain": "another hash"}
            assert words[how] in said
    figure(f"{how}: {said.strip().splitlines()[-1]}")


def change_row(batches: list[list[Any]]) -> list[list[Any]]:
    batches[4][1] = batches[4][1].replace(b'"value":', b'"value": ', 1)
    return batches


def cut_tail(batches: list[list[Any]]) -> list[list[Any]]:
    return batches[:-2]


def write_anew(batches: list[list[Any]]) -> list[list[Any]]:
    """As a thief with time would: another value, and every later hash put right."""
    prev = hashlib.sha256(batches[3][1]).hexdigest()
    batches[4][1] = batches[4][1].replace(b'"seq":5', b'"seq":5', 1).replace(b'"time":"2', b'"time":"1', 1)
    for batch in batches[4:]:
        record = json.loads(batch[1])
        batch[1] = batch[1].replace(record["prev"].encode(), prev.encode(), 1)
        batch[2] = hashlib.sha256(batch[1]).digest()
        prev = batch[2].hex()
    return batches


TAMPER: dict[str, Callable[[list[list[Any]]], list[list[Any]]]] = {
    "row": change_row,
    "tail": cut_tail,
    "whole chain": write_anew,
    "nothing": lambda batches: batches,
}


def tamper(path: Path, change: Callable[[list[list[Any]]], list[list[Any]]]) -> int:
    """Put the changed batches in place of those that are there; the last seq there was."""
    with closing(sqlite3.connect(path)) as db:
        before = [list(row) for row in db.execute("SELECT seq, payload, hash FROM batch ORDER BY seq")]
        last = before[-1][0]
        after = change([list(row) for row in before])
        for seq, payload, hash_ in after:
            db.execute("UPDATE batch SET payload = ?, hash = ? WHERE seq = ?", (payload, hash_, seq))
        db.execute("DELETE FROM batch WHERE seq > ?", (after[-1][0],))
        db.commit()
    return int(last)


def send(platform: Platform, payload: bytes) -> None:
    platform._broker.publish(mqtt.Publish(ROOM + "requests", payload, qos=1))


def audits(daemon: Daemon, what: str) -> list[dict[str, Any]]:
    records = [json.loads(batch.payload) for batch in daemon.batches() if batch.kind == "audit"]
    return [record for record in records if record["what"] == what]


def stored(path: Path) -> dict[tuple[str, int, str], tuple[str, bytes]]:
    """(stream, seq, hash) -> kind and payload of all that the platform keeps."""
    sql = "SELECT stream, seq, sha256, kind, payload FROM batch"
    return {(stream, seq, sha256): (kind, payload) for stream, seq, sha256, kind, payload in rows(path, sql)}
