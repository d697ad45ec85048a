-- A request of the platform's operator may carry an Idempotency-Key, too: a key belongs to its holder, who is a user, by id, or
-- 'operator'. Those of a user go with the user.
CREATE TABLE held_keys (
    holder TEXT NOT NULL,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    idempotency_key TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    status BIGINT,
    answer TEXT,
    etag TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (holder, idempotency_key)
);
INSERT INTO held_keys (holder, user_id, idempotency_key, request_hash, status, answer, etag, created_at)
SELECT user_id, user_id, idempotency_key, request_hash, status, answer, etag, created_at FROM idempotency_keys;
DROP TABLE idempotency_keys;
ALTER TABLE held_keys RENAME TO idempotency_keys;
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_of_user ON idempotency_keys (user_id);
