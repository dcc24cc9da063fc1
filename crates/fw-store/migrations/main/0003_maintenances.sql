-- Without a selector it covers everything. `until` is when it ends or ended; NULL until it is switched
-- off. Ids are never used again: people name them in scripts and chats.
CREATE TABLE maintenances (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    selector TEXT,
    reason   TEXT    NOT NULL,
    message  TEXT,
    actor    TEXT    NOT NULL,
    since    INTEGER NOT NULL,
    until    INTEGER,
    ended_by TEXT
) STRICT;
CREATE INDEX maintenances_end ON maintenances (until) WHERE until IS NOT NULL;
