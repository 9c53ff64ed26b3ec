-- The store, as numbered migrations: each `-- migration N` runs once, in a transaction of its own, and leaves N in
-- user_version. A migration that was released never changes; the next one is added below it.

-- migration 1
-- One row: who this store is. `replaces` is the stream of the store whose place it took, if any.
CREATE TABLE store (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    stream   TEXT NOT NULL,
    mode     TEXT NOT NULL CHECK (mode IN ('real', 'test', 'simulated')),
    replaces TEXT
) STRICT;

-- Monotonic stamps compare only within one boot of the kernel.
CREATE TABLE boot (
    id      INTEGER PRIMARY KEY,
    boot_id TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE batch (
    seq     INTEGER PRIMARY KEY,
    kind    TEXT NOT NULL CHECK (kind IN ('readings', 'alarms', 'gaps', 'audit')),
    boot    INTEGER NOT NULL REFERENCES boot (id),
    time_ns INTEGER NOT NULL,           -- UTC
    mono_ns INTEGER NOT NULL,
    count   INTEGER NOT NULL,           -- readings, or records, in the payload
    payload BLOB NOT NULL,              -- exact bytes: what the chain hashes and the uplinks send
    hash    BLOB NOT NULL               -- SHA-256 of payload
) STRICT;

-- Alarms leave first; this finds them behind any backlog and costs readings nothing.
CREATE INDEX batch_urgent ON batch (kind, seq) WHERE kind <> 'readings';

-- What each uplink has settled: disjoint closed intervals that never touch.
CREATE TABLE settled (
    uplink TEXT NOT NULL,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL CHECK (last >= first),
    PRIMARY KEY (uplink, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE alarm (
    id   TEXT PRIMARY KEY,
    body BLOB NOT NULL                  -- JSON
) STRICT, WITHOUT ROWID;

-- What judging continues from after a restart: each state as it was when `seq` had been judged.
CREATE TABLE state (
    name TEXT PRIMARY KEY,
    seq  INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- migration 2
-- Settled or old readings, many to a zstd frame (daemon/packs.py). `hash` is that of the last payload in it, and
-- proves them all. Packs are disjoint; other kinds of batches may lie between their seqs, readings may not.
CREATE TABLE pack (
    first    INTEGER PRIMARY KEY,
    last     INTEGER NOT NULL CHECK (last >= first),
    since_ns INTEGER NOT NULL,          -- oldest time in it, UTC
    time_ns  INTEGER NOT NULL,          -- newest time in it
    batches  INTEGER NOT NULL,
    count    INTEGER NOT NULL,          -- readings
    hash     BLOB NOT NULL,
    frame    BLOB NOT NULL
) STRICT;

-- Of what is settled, what the platform receipted: only that counts for an archive. Rows as in `settled`.
CREATE TABLE receipted (
    uplink TEXT NOT NULL,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL CHECK (last >= first),
    PRIMARY KEY (uplink, first)
) STRICT, WITHOUT ROWID;

-- Seqs above the oldest that are no longer here; `reason` of a loss is that of its gap record.
CREATE TABLE gone (
    first  INTEGER PRIMARY KEY,
    last   INTEGER NOT NULL CHECK (last >= first),
    reason TEXT NOT NULL CHECK (reason IN ('pushed-out', 'delivered', 'damaged'))
) STRICT;

-- migration 3
-- SHA-256 of the rest of the row (StoreRows.row_hash); NULL where a version before it wrote the row.
ALTER TABLE alarm ADD COLUMN hash BLOB;
ALTER TABLE state ADD COLUMN hash BLOB;
