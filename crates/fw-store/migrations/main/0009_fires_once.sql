-- One index of the ledger in place of two. `manual` is 0 for the fires of a schedule, which has one for
-- an instant; what was begun by hand at one instant is numbered from 1.
UPDATE fires SET manual = (SELECT count(*) FROM fires AS before
    WHERE before.job = fires.job AND before.from_at = fires.from_at
        AND before.manual > 0 AND before.id <= fires.id)
WHERE manual > 0;
DROP INDEX fires_once;
DROP INDEX fires_ledger;
CREATE UNIQUE INDEX fires_once ON fires (job, from_at, manual);
