-- What the overview asks for: fires that did not run, newest first. In a fleet that is well these are few.
CREATE INDEX fires_lost ON fires (to_at) WHERE verdict IN ('missed', 'skipped');
