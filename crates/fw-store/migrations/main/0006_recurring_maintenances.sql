-- A maintenance with `every` is in force within windows alone: they begin by this schedule in `timezone`, and each
-- lasts `lasts` milliseconds. One with `source` holds the jobs of that source and no others; the files of the source
-- switch it on and off.
ALTER TABLE maintenances ADD COLUMN every TEXT;
ALTER TABLE maintenances ADD COLUMN timezone TEXT;
ALTER TABLE maintenances ADD COLUMN lasts INTEGER;
ALTER TABLE maintenances ADD COLUMN source TEXT;
