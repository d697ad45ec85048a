-- What strangers can make grow has an end: grants of a channel and connections of a server (null: as many as the platform bears).
ALTER TABLE tiers ADD COLUMN max_grants_per_channel BIGINT;
ALTER TABLE tiers ADD COLUMN max_connections_per_server BIGINT;
UPDATE tiers SET max_grants_per_channel = 50, max_connections_per_server = 100 WHERE name = 'free';
UPDATE tiers SET max_grants_per_channel = 500, max_connections_per_server = 1000 WHERE name = 'standard';
-- Counting what is open costs what is open, not what has ended.
CREATE INDEX grants_open ON grants (channel_id, id) WHERE status IN ('pending', 'requested', 'active');

-- Policies to compile, organization by organization: those by which something ends first, the oldest first. Unix milliseconds.
ALTER TABLE servers ADD COLUMN stale_since BIGINT NOT NULL DEFAULT 0;
ALTER TABLE servers ADD COLUMN stale_ends BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX servers_to_compile_first ON servers (organization_id, stale_since, id) WHERE stale AND stale_ends;
CREATE INDEX servers_to_compile_next ON servers (organization_id, stale_since, id) WHERE stale AND NOT stale_ends;
