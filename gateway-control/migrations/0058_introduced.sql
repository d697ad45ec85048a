-- With which revision each gateway's policy began to name a connection: what it says of it may change with later ones, and whoever
-- refuses one of those has the connection in force all the same. Of those before, nothing older is known than what was said last.
ALTER TABLE connections ADD COLUMN sender_introduced BIGINT NOT NULL DEFAULT 0;
ALTER TABLE connections ADD COLUMN listener_introduced BIGINT NOT NULL DEFAULT 0;
UPDATE connections SET sender_introduced = sender_revision, listener_introduced = listener_revision;
