-- Kinds of exchange: what a device can perform, what a channel carries. Operators add their own.
CREATE TABLE behaviors (
    name TEXT NOT NULL PRIMARY KEY,
    description TEXT NOT NULL
);
INSERT INTO behaviors (name, description) VALUES ('hl7v2-mllp', 'HL7 v2 messages over MLLP');
INSERT INTO behaviors (name, description) VALUES ('dicom', 'DICOM associations');
INSERT INTO behaviors (name, description) VALUES ('http', 'HTTP requests');
INSERT INTO behaviors (name, description) VALUES ('tcp', 'TCP connections of any content');
INSERT INTO behaviors (name, description) VALUES ('sftp', 'Files over SSH');
INSERT INTO behaviors (name, description) VALUES ('fhir-query', 'FHIR R4 search for one patient');
INSERT INTO behaviors (name, description) VALUES ('ihe-document-query', 'IHE: which documents there are about a patient');
INSERT INTO behaviors (name, description) VALUES ('ihe-document-retrieve', 'IHE: one of these documents');
-- Channels were free to name their behavior: what they named is known from now on.
INSERT INTO behaviors (name, description)
    SELECT DISTINCT behavior, '' FROM channels WHERE behavior NOT IN (SELECT name FROM behaviors);

-- Systems with an identity of their own. Without organization: the platform's, which everybody may link to.
CREATE TABLE devices (
    id TEXT NOT NULL PRIMARY KEY,
    organization_id TEXT REFERENCES organizations (id),
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    description TEXT NOT NULL,
    -- The server it is, or whose gateway reaches it.
    server_id TEXT REFERENCES servers (id),
    -- JSON, a list of names.
    behaviors TEXT NOT NULL,
    linkable_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    removed_at BIGINT
);
CREATE UNIQUE INDEX device_names ON devices (organization_id, kind, name_key)
    WHERE removed_at IS NULL AND organization_id IS NOT NULL;
CREATE UNIQUE INDEX system_device_names ON devices (name_key) WHERE removed_at IS NULL AND organization_id IS NULL;
CREATE INDEX devices_of_organization ON devices (organization_id, id);
CREATE INDEX devices_of_server ON devices (server_id);
-- Every organization has a device that is itself, and every server is a device: their ids differ in the prefix only.
INSERT INTO devices (id, organization_id, kind, name, name_key, description, behaviors, linkable_by, created_at)
    SELECT 'dev_' || substr(id, 5), id, 'application', name, name_key, '', '[]', 'organization', created_at
    FROM organizations;
INSERT INTO devices
    (id, organization_id, kind, name, name_key, description, server_id, behaviors, linkable_by, created_at, removed_at)
    SELECT 'dev_' || substr(id, 5), organization_id, 'server', name, name_key, '', id, '[]', 'organization', created_at,
    removed_at FROM servers;

-- What is known of the tokens of devices; the tokens themselves are not kept. Gone when they have ended.
CREATE TABLE device_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    device_id TEXT NOT NULL REFERENCES devices (id),
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    audience TEXT NOT NULL,
    kid TEXT NOT NULL,
    key_thumbprint TEXT,
    issued_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX device_tokens_of_device ON device_tokens (device_id, id);
CREATE INDEX device_tokens_of_organization ON device_tokens (organization_id, id);
CREATE INDEX device_tokens_by_end ON device_tokens (expires_at);

-- The keys that sign these tokens; the seed is sealed with the storage key, which is not in the database.
CREATE TABLE token_keys (
    kid TEXT NOT NULL PRIMARY KEY,
    public_key TEXT NOT NULL,
    sealed_seed TEXT NOT NULL,
    signs_from BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

-- How long such tokens live, seconds; one row.
CREATE TABLE token_terms (
    default_secs BIGINT NOT NULL,
    max_secs BIGINT NOT NULL
);
INSERT INTO token_terms (default_secs, max_secs) VALUES (900, 86400);
