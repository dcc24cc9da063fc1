-- Times are milliseconds since the Unix epoch; ids are the 16 bytes of a UUID.

CREATE TABLE store (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    incarnation BLOB    NOT NULL,
    epoch       INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    alive_at    INTEGER
) STRICT;

-- `n` grows with each run: lists are paged by it.
CREATE TABLE runs (
    n           INTEGER PRIMARY KEY,
    id          BLOB    NOT NULL UNIQUE,
    seq         INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    counts      TEXT    NOT NULL,
    total       INTEGER NOT NULL,
    actor       TEXT    NOT NULL,
    job         TEXT,
    retry_of    BLOB,
    selector    TEXT    NOT NULL,
    command     TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;
CREATE INDEX runs_unfinished ON runs (n) WHERE finished_at IS NULL;
CREATE INDEX runs_finished ON runs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX runs_job ON runs (job, n) WHERE job IS NOT NULL;
CREATE INDEX runs_state ON runs (state, n);

-- All events of an unfinished run; of a finished one only the first, which is its plan.
CREATE TABLE events (
    run    INTEGER NOT NULL REFERENCES runs (n) ON DELETE CASCADE,
    seq    INTEGER NOT NULL,
    format INTEGER NOT NULL,
    body   BLOB    NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT;

-- The tasks of finished runs.
CREATE TABLE tasks (
    run            INTEGER NOT NULL REFERENCES runs (n) ON DELETE CASCADE,
    place          INTEGER NOT NULL,
    host           TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    reason         TEXT,
    message        TEXT,
    attempt        INTEGER NOT NULL,
    exit_code      INTEGER,
    signal         INTEGER,
    started_at     INTEGER,
    finished_at    INTEGER,
    stdout         INTEGER NOT NULL,
    stderr         INTEGER NOT NULL,
    stdout_sha256  TEXT,
    stderr_sha256  TEXT,
    stdout_dropped INTEGER NOT NULL,
    stderr_dropped INTEGER NOT NULL,
    left_behind    INTEGER NOT NULL,
    late           TEXT,
    PRIMARY KEY (run, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_host ON tasks (host, run);

-- The ledger. A row of several fires covers `from_at` to `to_at`; rows of one job do not overlap,
-- but for fires begun by hand, which belong to no instant of the schedule.
CREATE TABLE fires (
    id      INTEGER PRIMARY KEY,
    job     TEXT    NOT NULL,
    verdict TEXT    NOT NULL,
    reason  TEXT,
    from_at INTEGER NOT NULL,
    to_at   INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    run     BLOB,
    lag_ms  INTEGER,
    manual  INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX fires_once ON fires (job, from_at) WHERE manual = 0;
CREATE INDEX fires_ledger ON fires (job, from_at, id);
CREATE INDEX fires_pending ON fires (job) WHERE verdict = 'pending';
CREATE INDEX fires_age ON fires (to_at);

-- Kept apart from the ledger, so that it is read at once when the server starts.
CREATE TABLE last_fires (
    job TEXT    PRIMARY KEY,
    at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    name   TEXT    PRIMARY KEY,
    file   TEXT,
    text   TEXT    NOT NULL,
    paused INTEGER NOT NULL
) STRICT;

CREATE TABLE hosts (
    id            BLOB    PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    key           BLOB    NOT NULL UNIQUE,
    labels        TEXT    NOT NULL,
    agent_version TEXT,
    policy        TEXT,
    last_seen     INTEGER,
    offline_since INTEGER,
    joined_at     INTEGER NOT NULL,
    standing      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Apart from the hosts: facts are large and change seldom, `last_seen` is small and changes often.
CREATE TABLE facts (
    host BLOB PRIMARY KEY REFERENCES hosts (id) ON DELETE CASCADE,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE invitations (
    secret_sha256 BLOB    PRIMARY KEY,
    uses          INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    labels        TEXT    NOT NULL,
    actor         TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    name       TEXT    PRIMARY KEY,
    sha256     BLOB    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used  INTEGER
) STRICT;

CREATE TABLE secrets (
    name       TEXT    PRIMARY KEY,
    ciphertext BLOB    NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Done rows stay until they are swept, so that putting a notice again sends nothing twice.
CREATE TABLE notices (
    id       INTEGER PRIMARY KEY,
    run      BLOB    NOT NULL,
    job      TEXT    NOT NULL,
    hook     TEXT    NOT NULL,
    body     TEXT    NOT NULL,
    attempts INTEGER NOT NULL,
    next_at  INTEGER NOT NULL,
    done     INTEGER NOT NULL,
    UNIQUE (run, hook)
) STRICT;
CREATE INDEX notices_due ON notices (next_at) WHERE done = 0;
CREATE INDEX notices_done ON notices (next_at) WHERE done = 1;
