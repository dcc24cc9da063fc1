-- Rollouts and runbooks that were begun. `n` grows with each: lists are paged by it. `incarnation` is the life
-- of the store in which the last event was committed, `text_sha256` the hash of its text. `why` and `wave` are what its
-- events come to, for lists, which do not read them. One that has ended may be taken back, and goes on then.
CREATE TABLE changes (
    n           INTEGER PRIMARY KEY,
    id          BLOB    NOT NULL UNIQUE,
    origin      TEXT    NOT NULL,
    title       TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    why         TEXT,
    wave        INTEGER,
    actor       TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    text_sha256 BLOB    NOT NULL,
    incarnation BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;
CREATE INDEX changes_unfinished ON changes (n) WHERE finished_at IS NULL;
CREATE INDEX changes_finished ON changes (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX changes_origin ON changes (origin, n);
CREATE INDEX changes_undone ON changes (text_sha256) WHERE state = 'undone';

-- All events of each: they are few, and are what it was.
CREATE TABLE change_events (
    change INTEGER NOT NULL REFERENCES changes (n) ON DELETE CASCADE,
    seq    INTEGER NOT NULL,
    format INTEGER NOT NULL,
    body   BLOB    NOT NULL,
    PRIMARY KEY (change, seq)
) STRICT;

-- The rollout or runbook that a run is a part of.
ALTER TABLE runs ADD COLUMN change BLOB;
