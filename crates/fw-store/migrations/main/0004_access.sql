-- People who sign in. Without a hash someone has not set a password yet. `totp` is encrypted; a code counts
-- only when its step is later than `totp_step`, so that none counts twice.
CREATE TABLE users (
    name         TEXT    PRIMARY KEY,
    role         TEXT    NOT NULL,
    hash         TEXT,
    disabled     INTEGER NOT NULL,
    totp         BLOB,
    totp_pending BLOB,
    totp_step    INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    last_sign_in INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE recovery_codes (
    user   TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    sha256 BLOB NOT NULL,
    PRIMARY KEY (user, sha256)
) STRICT, WITHOUT ROWID;

-- From where someone has signed in: strangers who guess elsewhere do not slow them down there.
CREATE TABLE known_addresses (
    user    TEXT    NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    address TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (user, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX known_addresses_age ON known_addresses (at);

-- Each lets one person set a password, once. Without a user it makes the first one.
CREATE TABLE setup_links (
    sha256     BLOB    PRIMARY KEY,
    user       TEXT    REFERENCES users (name) ON DELETE CASCADE,
    expires_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX setup_links_user ON setup_links (user);

-- `id` is shown and never used again; only the hash of what the cookie holds is kept.
CREATE TABLE sessions (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256        BLOB    NOT NULL UNIQUE,
    user          TEXT    NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    address       TEXT    NOT NULL,
    agent         TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    used_at       INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    stepped_up_at INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_user ON sessions (user, id);
CREATE INDEX sessions_end ON sessions (expires_at);
CREATE INDEX sessions_use ON sessions (used_at);

-- Tokens that there are may do everything, as before. One with a user goes with that user.
ALTER TABLE tokens ADD COLUMN scopes TEXT NOT NULL DEFAULT '["read","run","admin","dangerous"]';
ALTER TABLE tokens ADD COLUMN selector TEXT;
ALTER TABLE tokens ADD COLUMN user TEXT REFERENCES users (name) ON DELETE CASCADE;
CREATE INDEX tokens_user ON tokens (user) WHERE user IS NOT NULL;

-- What was changed. Each row has the hash of the row before it in its own. `before` and `after` are JSON.
CREATE TABLE audit (
    n        INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    address  TEXT,
    action   TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    hosts    TEXT    NOT NULL,
    before   TEXT,
    after    TEXT,
    sha256   BLOB    NOT NULL
) STRICT;
CREATE INDEX audit_actor ON audit (actor, n);
CREATE INDEX audit_action ON audit (action, n);
CREATE INDEX audit_subject ON audit (subject, n);

CREATE TABLE audit_hosts (
    host TEXT    NOT NULL,
    n    INTEGER NOT NULL,
    PRIMARY KEY (host, n)
) STRICT, WITHOUT ROWID;

-- The newest row, kept apart: rows cut off at the end are missed.
CREATE TABLE audit_head (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    n      INTEGER NOT NULL,
    sha256 BLOB    NOT NULL
) STRICT;

CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are kept'); END;
CREATE TRIGGER audit_is_fixed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are fixed'); END;
