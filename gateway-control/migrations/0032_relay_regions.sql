-- Where a relay stands, in the operator's words; none: not said.
ALTER TABLE relays ADD COLUMN region TEXT;
