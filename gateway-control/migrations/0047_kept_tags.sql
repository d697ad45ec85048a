-- The entity tag of an answer that is given again to a request with the same Idempotency-Key.
ALTER TABLE idempotency_keys ADD COLUMN etag TEXT;
