"""Verifies what gateways say: chain, keys, seals. One file; needs Python and `cryptography`, nothing of ours.

    python verify.py platform.db [--root GATEWAY=KEY]...

It reads the SQLite file in which the bench's platform keeps payloads (tables `batch` and `seal`), and says of
each gateway and stream whether every byte is what was signed. Exit code 0: all is well; 1: it is not, each
finding a line; 2: wrong usage. As a module, `Witness` takes certificates and seals in any order.

The rules, for whoever writes a platform of their own:

1. A payload's hash is the SHA-256 of its bytes as sent (before compression). `prev` of batch n is the hash of
   batch n-1 of the same stream.
2. Keys come as audit records with `what` = `key`; `to` is a certificate. Its signature is made by the key
   `by` over the lines of KEY_LINES, each ended by a newline. The first is signed by itself: compare its id
   with the one that was noted when the gateway was enrolled.
3. A seal's signature is over the lines of SEAL_LINES. It holds batch `seq` to `hash`, and so all before it.
4. A key signs from the place its certificate names up to the place that its successor's certificate names. A
   seal outside is refused: whoever steals the key of today must not seal the past with it.
5. Nobody but the thief of a key, or a second gateway with a copy of it, lets one key certify two successors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sqlite3
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

KEY_LINES: Final = ("mode", "key", "alg", "public", "by", "stream", "seq", "hash", "time")
SEAL_LINES: Final = ("mode", "stream", "seq", "hash", "time", "key", "alg")
_ALGORITHM: Final = "ed25519"
_FIRST_PREV: Final = "0" * 64
_MOST_KEYS: Final = 100_000  # a key an hour: eleven years
_MOST_SEALS: Final = 10_000  # that wait for their key, or for their batch

Record = dict[str, Any]


class Refused(Exception):
    """Something signed does not hold; the message says why."""


def check_signature(head: str, lines: tuple[str, ...], record: Record, public: str) -> None:
    """Hold `record` against its signature by the key `public` (hex).

    Raises:
        Refused: it does not hold, or a member is missing.
    """
    try:
        if record["alg"] != _ALGORITHM:
            raise Refused(f"algorithm {record['alg']!r} is not known here")
        statement = "".join(f"{line}\n" for line in (head, *(record[name] for name in lines)))
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(record["signature"]), statement.encode())
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"a member is missing or not of its kind: {error}") from None
    except InvalidSignature:
        raise Refused("the signature does not hold") from None


@dataclass(frozen=True, slots=True)
class _Epoch:
    """What one key may sign: `stream` and `seq` are where it took over."""

    key: str
    public: str
    by: str
    mode: str
    stream: str
    seq: int
    hash: str


@dataclass(slots=True)
class Witness:
    """The keys and seals of one gateway.

    Attributes:
        root: id of the first key it may have; "" takes the first that comes, and says so in `trusted_first`.
        look: (stream, seq) -> the hashes of that batch that are here already.
        findings: what does not hold, a sentence each.
        sealed: (stream, seq) -> the hash that a valid seal or certificate gives it.
        reached: stream -> the highest seq under a valid seal.
    """

    root: str = ""
    findings: list[str] = field(default_factory=list)
    sealed: dict[tuple[str, int], str] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    trusted_first: bool = False
    held: int = 0  # seals
    most: int = _MOST_SEALS  # kept of each sort
    look: Callable[[str, int], Collection[str]] = lambda _stream, _seq: ()
    _epochs: dict[str, _Epoch] = field(default_factory=dict)
    _next: dict[str, str] = field(default_factory=dict)  # key -> the key it certified
    _waiting: list[Record] = field(default_factory=list)
    _orphans: dict[str, Record] = field(default_factory=dict)

    def take_certificate(self, record: Record) -> None:
        """A certificate, as the member `to` of an audit record `key` has it; repeats change nothing."""
        try:
            if record["key"] in self._epochs or len(self._epochs) >= _MOST_KEYS:
                return
            if record["by"] not in (record["key"], *self._epochs):
                if len(self._orphans) < self.most:
                    self._orphans[record["by"]] = record  # until the one who signed it comes
                return
            self._admit(record)
        except KeyError as error:
            self.find(f"a certificate lacks {error}")
            return
        except Refused as refused:
            self.find(f"the certificate of key {record.get('key')}: {refused}")
            return
        self._look_again(record["key"])

    def _admit(self, record: Record) -> None:
        key, by = record["key"], record["by"]
        if hashlib.sha256(bytes.fromhex(record["public"])).hexdigest()[:16] != key:
            raise Refused("it is not the id of its public key")
        if key == by:
            check_signature("pondwatch-key 1", KEY_LINES, record, record["public"])
            self._admit_root(key)
        else:
            check_signature("pondwatch-key 1", KEY_LINES, record, self._epochs[by].public)
            other = self._next.setdefault(by, key)
            if other != key:
                raise Refused(f"{by} has certified {other} already: two hands have its private key")
        self._enter(record)

    def _enter(self, record: Record) -> None:
        key, by = record["key"], record["by"]
        self._epochs[key] = _Epoch(
            key, record["public"], by, record["mode"], record["stream"], record["seq"], record["hash"]
        )
        self._hold(record)

    def trust_first(self) -> None:
        """Where the first key never came, trust the earliest that did; `trusted_first` says so."""
        signed = {record["key"] for record in self._orphans.values()}
        for by in [] if self._epochs or self.root else sorted(self._orphans.keys() - signed)[:1]:
            record = self._orphans.pop(by)
            self.trusted_first = True
            self._enter(record)
            self._look_again(record["key"])

    def _look_again(self, key: str) -> None:
        """What waited for `key`."""
        if (child := self._orphans.pop(key, None)) is not None:
            self.take_certificate(child)
        waiting, self._waiting = self._waiting, []
        for seal in waiting:
            self.take_seal(seal)

    def _admit_root(self, key: str) -> None:
        if self._epochs:
            raise Refused("a second first key: the gateway's keys were lost or replaced")
        if self.root and key != self.root:
            raise Refused(f"the first key must be {self.root}")
        if not self.root:
            self.root, self.trusted_first = key, True

    def take_seal(self, record: Record) -> bool:
        """A seal; whether it holds. One whose key is not known yet is looked at again when that comes."""
        epoch = self._epochs.get(str(record.get("key")))
        if epoch is None:
            self._waiting = [*self._waiting, record][-self.most :]
            return False
        try:
            check_signature("pondwatch-seal 1", SEAL_LINES, record, epoch.public)
            if record["mode"] != epoch.mode:
                raise Refused(f"it says {record['mode']}, its key is for {epoch.mode} data")  # noqa: TRY301 -- one place says so
            self._check_epoch(record["stream"], record["seq"], epoch)
        except Refused as refused:
            self.find(f"the seal of {record.get('time')} for batch {record.get('seq')}: {refused}")
            return False
        self._hold(record)
        self.held += 1
        return True

    def _check_epoch(self, stream: str, seq: int, epoch: _Epoch) -> None:
        after = self._epochs.get(self._next.get(epoch.key, ""))
        if epoch.stream == stream and seq < epoch.seq:
            raise Refused(f"its key signs only from {epoch.seq} on")
        if epoch.stream != stream and stream in self._streams_before(epoch):
            raise Refused("its stream had ended before its key began")
        if after is not None and after.stream == stream and seq > after.seq:
            raise Refused(f"its key was replaced at {after.seq}")

    def _streams_before(self, epoch: _Epoch) -> set[str]:
        """The streams in which earlier keys took over."""
        streams = set()
        while (before := self._epochs.get(epoch.by)) is not None and before.key != epoch.key:
            streams.add(before.stream)
            epoch = before
        return streams

    def _hold(self, record: Record) -> None:
        if not record["seq"]:
            return
        name = (record["stream"], record["seq"])
        known = self.look(*name)
        if known and record["hash"] not in known:
            self.find(f"batch {name[1]} of {name[0]} is not what was sealed")
        while len(self.sealed) >= self.most:  # the oldest fall out; newer ones cover them
            del self.sealed[next(iter(self.sealed))]
        if self.sealed.setdefault(name, record["hash"]) != record["hash"]:
            self.find(f"batch {name[1]} of {name[0]} was sealed with two hashes: a fork")
        self.reached[name[0]] = max(self.reached.get(name[0], 0), name[1])

    def find(self, sentence: str) -> None:
        """Note what does not hold; beyond `most` nothing new is noted."""
        if len(self.findings) < self.most:
            self.findings.append(sentence)

    def check(self, stream: str, seq: int, sha256: str) -> bool:
        """Whether a batch is what a seal says it is, if one says anything of it."""
        return self.sealed.get((stream, seq), sha256) == sha256

    @property
    def unknown(self) -> int:
        """Seals and certificates whose key never came."""
        return len(self._waiting) + len(self._orphans)


# -- a whole file ------------------------------------------------------------------------------------


class Kept(Protocol):
    """What a platform keeps of its gateways; each method in the order in which it came, or by number."""

    def gateways(self) -> Iterable[str]: ...

    def audits(self, gateway: str) -> Iterable[bytes]: ...

    def seals(self, gateway: str) -> Iterable[bytes]: ...

    def batches(self, gateway: str) -> Iterable[tuple[str, int, str, bytes]]:
        """(stream, seq, hash in hex, payload) by stream and seq, forks among them."""


class _File:
    """The SQLite file of the bench's platform."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def gateways(self) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT DISTINCT gateway FROM batch ORDER BY 1")]

    def audits(self, gateway: str) -> list[bytes]:
        return self._payloads("batch", gateway, "AND kind = 'audit' ORDER BY rowid")

    def seals(self, gateway: str) -> list[bytes]:
        return self._payloads("seal", gateway, "ORDER BY rowid")

    def batches(self, gateway: str) -> Iterable[tuple[str, int, str, bytes]]:
        batches = "SELECT stream, seq, sha256, payload FROM batch WHERE gateway = ? ORDER BY stream, seq"
        return self._db.execute(batches, (gateway,))

    def _payloads(self, table: str, gateway: str, rest: str) -> list[bytes]:
        rows = self._db.execute(f"SELECT payload FROM {table} WHERE gateway = ? {rest}", (gateway,))  # noqa: S608 -- our own words
        return [payload for (payload,) in rows]


def verify(path: Path, roots: dict[str, str] | None = None) -> tuple[list[str], list[str]]:
    """All that a platform's file has: (what does not hold, what was found), sentences each."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return verify_kept(_File(db), roots or {})
    finally:
        db.close()


def verify_kept(kept: Kept, roots: dict[str, str]) -> tuple[list[str], list[str]]:
    """Likewise of anything that a platform keeps payloads in."""
    findings: list[str] = []
    said: list[str] = []
    for gateway in kept.gateways():
        witness = Witness(roots.get(gateway, ""), most=sys.maxsize)
        for payload in kept.audits(gateway):
            record = json.loads(payload)
            if record.get("what") == "key":
                witness.take_certificate(record["to"])
        for payload in kept.seals(gateway):
            witness.take_seal(json.loads(payload))
        witness.trust_first()
        chain = list(_chains(kept, gateway, witness, said))
        unknown = [f"{witness.unknown} signatures are by keys that never came"] if witness.unknown else []
        findings += [f"{gateway}: {each}" for each in (*witness.findings, *chain, *unknown)]
        first = ", trusted because it came first: compare it" if witness.trusted_first else ""
        said.append(f"{gateway}: first key {witness.root or 'none'}{first}")
    return findings, said


def _chains(kept: Kept, gateway: str, witness: Witness, said: list[str]) -> Iterator[str]:
    """What is wrong with the chains of a gateway."""
    before: dict[str, tuple[int, str]] = {}
    counts: dict[str, int] = defaultdict(int)
    for stream, seq, sha256, payload in kept.batches(gateway):
        counts[stream] += 1
        hashed = hashlib.sha256(payload).hexdigest()
        record = json.loads(payload)
        last, last_hash = before.get(stream, (0, _FIRST_PREV))
        if hashed != sha256 or record["seq"] != seq or record["stream"] != stream:
            yield f"stream {stream}: batch {seq} is not what was received"
        elif seq == last:
            yield f"stream {stream}: there are two batches {seq}: a fork"
        elif seq != last + 1:
            yield f"stream {stream}: batches {last + 1} to {seq - 1} are missing"
        elif record["prev"] != last_hash:
            yield f"stream {stream}: batch {seq} does not follow from the one before"
        if not witness.check(stream, seq, hashed):
            yield f"stream {stream}: batch {seq} is not what was sealed"
        before[stream] = (seq, hashed)
    for stream, seq in witness.reached.items():
        last, _ = before.get(stream, (0, ""))
        if seq > last:
            yield f"stream {stream}: sealed up to {seq}, received up to {last}: its end is missing"
    for stream, count in counts.items():
        sealed = f"sealed up to {witness.reached.get(stream, 0)}"
        said.append(f"{gateway}: stream {stream}, {count} batches up to {before[stream][0]}, {sealed}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path, help="the platform's SQLite file")
    parser.add_argument(
        "--root", action="append", default=[], metavar="GATEWAY=KEY", help="first key, as enrolled"
    )
    options = parser.parse_args(arguments)
    roots = dict(each.split("=", 1) for each in options.root if "=" in each)
    if len(roots) != len(options.root) or not options.path.is_file():
        parser.error("there must be a file, and roots are written GATEWAY=KEY")
    findings, said = verify(options.path, roots)
    for sentence in (*said, *findings):
        print(sentence)
    print("not everything holds" if findings else "everything holds")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
