-- Subscription tiers are data: a missing limit is none. New organizations get the initial tier; on a self-hosted platform
-- that is the one without limits, until its operator says otherwise.
CREATE TABLE tiers (
    name TEXT NOT NULL PRIMARY KEY,
    max_servers BIGINT,
    max_peers BIGINT,
    max_channels_per_server BIGINT,
    admin_read_write BOOLEAN NOT NULL,
    initial BOOLEAN NOT NULL
);
INSERT INTO tiers (name, max_servers, max_peers, max_channels_per_server, admin_read_write, initial)
    VALUES ('free', 2, 3, 5, FALSE, FALSE);
INSERT INTO tiers (name, max_servers, max_peers, max_channels_per_server, admin_read_write, initial)
    VALUES ('standard', 10, 25, 50, TRUE, FALSE);
INSERT INTO tiers (name, max_servers, max_peers, max_channels_per_server, admin_read_write, initial)
    VALUES ('enterprise', NULL, NULL, NULL, TRUE, TRUE);
CREATE TABLE organization_tiers (
    organization_id TEXT NOT NULL PRIMARY KEY REFERENCES organizations (id),
    tier TEXT NOT NULL REFERENCES tiers (name)
);
CREATE INDEX organization_tiers_by_tier ON organization_tiers (tier);
INSERT INTO organization_tiers (organization_id, tier) SELECT id, 'enterprise' FROM organizations;
