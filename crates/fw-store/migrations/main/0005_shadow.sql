-- On which hosts a fire of verdict `shadow` would have run: a JSON list of names. NULL for all others.
ALTER TABLE fires ADD COLUMN hosts TEXT;
