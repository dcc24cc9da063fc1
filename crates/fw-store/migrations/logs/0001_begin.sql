-- What each task wrote. A stream is one task on one host; its chunks follow each other without a hole.

CREATE TABLE streams (
    id             INTEGER PRIMARY KEY,
    run            BLOB    NOT NULL,
    host           BLOB    NOT NULL,
    node           INTEGER NOT NULL,
    attempt        INTEGER NOT NULL,
    stdout         INTEGER NOT NULL,
    stderr         INTEGER NOT NULL,
    stdout_dropped INTEGER NOT NULL,
    stderr_dropped INTEGER NOT NULL,
    chunks         INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    begun_at       INTEGER NOT NULL,
    UNIQUE (run, host, node, attempt)
) STRICT;
CREATE INDEX streams_age ON streams (begun_at);

-- A chunk begins where the one before it ends. `n` counts from 1 in each stream.
CREATE TABLE chunks (
    stream              INTEGER NOT NULL REFERENCES streams (id) ON DELETE CASCADE,
    n                   INTEGER NOT NULL,
    from_stdout         INTEGER NOT NULL,
    from_stderr         INTEGER NOT NULL,
    from_stdout_dropped INTEGER NOT NULL,
    from_stderr_dropped INTEGER NOT NULL,
    to_stdout           INTEGER NOT NULL,
    to_stderr           INTEGER NOT NULL,
    to_stdout_dropped   INTEGER NOT NULL,
    to_stderr_dropped   INTEGER NOT NULL,
    data                BLOB    NOT NULL,
    PRIMARY KEY (stream, n)
) STRICT;
