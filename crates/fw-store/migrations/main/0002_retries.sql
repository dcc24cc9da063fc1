-- Runs of jobs that failed and are tried again at `at`. A row is written with the end of its run, and
-- goes with the begin of the next try or when that is given up.
CREATE TABLE retries (
    run BLOB    PRIMARY KEY,
    job TEXT    NOT NULL,
    at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
