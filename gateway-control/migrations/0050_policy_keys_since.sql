-- The revision of the first policy of a server since the policy keys that it names changed last: whoever has confirmed it, or a
-- later one, knows those keys. Of a policy from before nobody remembers it: its own revision is taken.
ALTER TABLE policies ADD COLUMN keys_since BIGINT NOT NULL DEFAULT 0;
UPDATE policies SET keys_since = revision;
