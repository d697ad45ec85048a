-- The secret of a connection may be replaced while data flows: the one before it, from when on the sending gateway makes streams
-- with the new one, until when the one before is accepted, and which of the two comes next (Unix seconds).
ALTER TABLE connections ADD COLUMN old_secret TEXT;
ALTER TABLE connections ADD COLUMN secret_turns_at BIGINT;
ALTER TABLE connections ADD COLUMN old_secret_until BIGINT;
ALTER TABLE connections ADD COLUMN secret_due_at BIGINT;
-- Few are replaced at any time.
CREATE INDEX connections_by_secret_due ON connections (secret_due_at) WHERE secret_due_at IS NOT NULL;
