-- What a grant limits beside its open streams: payload in each direction, bytes per second, and how long a stream may be silent,
-- seconds (null: no limit), and the kinds of exchange that its connection may have, a JSON list (null: whatever its channel has).
ALTER TABLE grants ADD COLUMN bytes_per_second BIGINT;
ALTER TABLE grants ADD COLUMN receive_timeout_secs BIGINT;
ALTER TABLE grants ADD COLUMN behaviors TEXT;
