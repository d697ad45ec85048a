-- What the newest policy of a gateway changes in the one before, so that one entry among thousands is not sent with all the others.
-- Those of before are sent whole.
ALTER TABLE policies ADD COLUMN delta TEXT;
