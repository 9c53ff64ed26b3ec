-- What consumers keep, in a schema of its own. Run again it changes nothing.
-- A batch is named by (stream_id, seq); that primary key is what makes a repeat harmless, whoever inserts it.
CREATE SCHEMA IF NOT EXISTS pondwatch;
SET search_path TO pondwatch;

CREATE TABLE IF NOT EXISTS stream (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site text NOT NULL, gateway text NOT NULL, stream text NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now(),
    UNIQUE (site, gateway, stream)
);
-- A channel measured in another mode is another channel: nothing simulated is ever plotted with what is real.
CREATE TABLE IF NOT EXISTS channel (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site text NOT NULL, gateway text NOT NULL, channel text NOT NULL, unit text NOT NULL, mode text NOT NULL,
    UNIQUE (site, gateway, channel, unit, mode)
);
CREATE TABLE IF NOT EXISTS batch (
    stream_id integer NOT NULL REFERENCES stream, seq bigint NOT NULL,
    kind text NOT NULL, mode text NOT NULL, sha256 bytea NOT NULL, prev bytea NOT NULL,
    payload bytea NOT NULL,  -- the exact bytes that were hashed
    received timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream_id, seq)
);
-- Other bytes under a name that is taken: kept, reported, never put in the place of the first.
CREATE TABLE IF NOT EXISTS fork (
    stream_id integer NOT NULL REFERENCES stream, seq bigint NOT NULL, sha256 bytea NOT NULL,
    kind text NOT NULL, payload bytea NOT NULL, received timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream_id, seq, sha256)
);
CREATE TABLE IF NOT EXISTS reading (
    time timestamptz NOT NULL, channel_id integer NOT NULL, value double precision, quality text NOT NULL,
    stream_id integer NOT NULL, seq bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS reading_channel_time ON reading (channel_id, time);
CREATE TABLE IF NOT EXISTS alarm (
    stream_id integer NOT NULL, seq bigint NOT NULL, id text NOT NULL, kind text NOT NULL, level text NOT NULL,
    condition text NOT NULL, response text NOT NULL, by text, role text, note text, pond text, channel text,
    time timestamptz NOT NULL, due timestamptz NOT NULL, zh text NOT NULL, en text NOT NULL,
    PRIMARY KEY (stream_id, seq)
);
CREATE INDEX IF NOT EXISTS alarm_id ON alarm (id);
CREATE TABLE IF NOT EXISTS gap (
    stream_id integer NOT NULL, seq bigint NOT NULL, of_stream text NOT NULL,
    from_seq bigint, to_seq bigint, reason text NOT NULL,
    PRIMARY KEY (stream_id, seq)
);
CREATE TABLE IF NOT EXISTS seal (
    stream_id integer NOT NULL REFERENCES stream, seq bigint NOT NULL, sha256 bytea NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (stream_id, seq, sha256)
);
-- What is no payload of version 1, or what this database cannot hold: never receipted, for a person to look at.
CREATE TABLE IF NOT EXISTS refused (
    sha256 bytea PRIMARY KEY, topic text NOT NULL, why text NOT NULL, payload bytea NOT NULL,
    received timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE OR REPLACE VIEW named_reading AS
    SELECT c.site, c.gateway, c.channel, c.mode, r.time, r.value, c.unit, r.quality
    FROM reading r JOIN channel c ON c.id = r.channel_id;

-- Each alarm as it stands: the newest change of the newest stream.
CREATE OR REPLACE VIEW alarm_now AS
    SELECT DISTINCT ON (s.site, s.gateway, a.id) s.site, s.gateway, a.*
    FROM alarm a JOIN stream s ON s.id = a.stream_id
    ORDER BY s.site, s.gateway, a.id, a.stream_id DESC, a.seq DESC;

-- What lacks between the first batch and the newest of each stream; a gap record may excuse it.
CREATE OR REPLACE VIEW hole AS
    SELECT s.site, s.gateway, s.stream, after + 1 AS from_seq, seq - 1 AS to_seq
    FROM (SELECT stream_id, seq, lag(seq, 1, 0::bigint) OVER (PARTITION BY stream_id ORDER BY seq) AS after
          FROM batch) b JOIN stream s ON s.id = b.stream_id
    WHERE seq > after + 1;

CREATE OR REPLACE VIEW chain_break AS
    SELECT s.site, s.gateway, s.stream, seq
    FROM (SELECT stream_id, seq, prev, lag(seq, 1, 0::bigint) OVER w AS after,
                 lag(sha256, 1, decode(repeat('00', 32), 'hex')) OVER w AS before
          FROM batch WINDOW w AS (PARTITION BY stream_id ORDER BY seq)) b JOIN stream s ON s.id = b.stream_id
    WHERE seq = after + 1 AND prev <> before;
