-- What several replicas of the control plane share, and what must not be used twice.

-- Facts about the platform as a whole, like the key that signs its policies.
CREATE TABLE facts (
    name TEXT NOT NULL PRIMARY KEY,
    content TEXT NOT NULL
);

-- Nonces of gateway assertions, for as long as an assertion is valid.
CREATE TABLE nonces (
    digest TEXT NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX nonces_by_end ON nonces (expires_at);

-- A used code answers its gateway again for a short time only.
ALTER TABLE enrollment_codes ADD COLUMN used_at BIGINT;

-- Revisions are times in Unix milliseconds: what changed lately is found by them.
CREATE INDEX policies_by_revision ON policies (revision);

-- Processes of the control plane on this database.
CREATE TABLE replicas (
    id TEXT NOT NULL PRIMARY KEY,
    heard_at BIGINT NOT NULL
);

-- Which replica the gateway of a server watches at.
CREATE TABLE watches (
    server_id TEXT NOT NULL PRIMARY KEY REFERENCES servers (id),
    replica_id TEXT NOT NULL,
    session BIGINT NOT NULL
);
CREATE INDEX watches_of_replica ON watches (replica_id);

-- The last report of a watching gateway about each of its connections.
CREATE TABLE reports (
    server_id TEXT NOT NULL REFERENCES servers (id),
    connection_id TEXT NOT NULL,
    report TEXT NOT NULL,
    reported_at BIGINT NOT NULL,
    PRIMARY KEY (server_id, connection_id)
);
