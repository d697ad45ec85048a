-- A mutating request that came with an Idempotency-Key: written in the transaction of its change, so that it is done once
-- whatever happens; the answer follows. Kept for a day.
CREATE TABLE idempotency_keys (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    idempotency_key TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    status BIGINT,
    answer TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, idempotency_key)
);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);

-- The request an audit entry was made by; part of the hash where it is not empty.
ALTER TABLE audit ADD COLUMN request_id TEXT NOT NULL DEFAULT '';
