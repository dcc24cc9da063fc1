-- What the overview asks for. Fires that did not run, newest first: in a fleet that is well these are few.
CREATE INDEX fires_lost ON fires (to_at) WHERE verdict IN ('missed', 'skipped');
-- How many runs ended in which state since yesterday: counted in the index alone.
DROP INDEX runs_finished;
CREATE INDEX runs_finished ON runs (finished_at, state) WHERE finished_at IS NOT NULL;
