-- Types are TEXT, BIGINT and BOOLEAN only, so that the same text runs on SQLite and PostgreSQL.
-- Ids and keys are stored in their text form, times as Unix seconds, removed rows keep their history (removed_at).

CREATE TABLE organizations (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    search_key TEXT NOT NULL,
    discoverable BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX users_of_organization ON users (organization_id, id);

CREATE TABLE sessions (
    token_hash TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_end ON sessions (expires_at);
CREATE INDEX sessions_of_user ON sessions (user_id, expires_at);

CREATE TABLE servers (
    id TEXT NOT NULL PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    gateway_key TEXT UNIQUE,
    noise TEXT,
    gateway_version TEXT,
    last_seen_at BIGINT,
    home_relay TEXT,
    applied_revision BIGINT NOT NULL,
    policy_problem TEXT,
    stale BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    removed_at BIGINT
);
CREATE UNIQUE INDEX server_names ON servers (organization_id, name_key) WHERE removed_at IS NULL;
CREATE INDEX servers_of_organization ON servers (organization_id, id);
CREATE INDEX servers_to_compile ON servers (id) WHERE stale;

-- Keys of gateways that were removed: they are told so when they come back.
CREATE TABLE removed_gateways (
    gateway_key TEXT NOT NULL PRIMARY KEY,
    removed_at BIGINT NOT NULL
);

CREATE TABLE enrollment_codes (
    secret_hash TEXT NOT NULL PRIMARY KEY,
    server_id TEXT NOT NULL REFERENCES servers (id),
    expires_at BIGINT NOT NULL,
    used_by TEXT
);
CREATE INDEX enrollment_codes_of_server ON enrollment_codes (server_id);
CREATE INDEX enrollment_codes_by_end ON enrollment_codes (expires_at);

-- The newest signed policy of each server's gateway.
CREATE TABLE policies (
    server_id TEXT NOT NULL PRIMARY KEY REFERENCES servers (id),
    revision BIGINT NOT NULL,
    envelope TEXT NOT NULL
);

CREATE TABLE relays (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    url TEXT NOT NULL UNIQUE,
    tls_pin TEXT,
    stun TEXT NOT NULL
);

CREATE TABLE agreements (
    id TEXT NOT NULL PRIMARY KEY,
    first_organization TEXT NOT NULL REFERENCES organizations (id),
    second_organization TEXT NOT NULL REFERENCES organizations (id),
    status TEXT NOT NULL,
    first_suspends BOOLEAN NOT NULL,
    second_suspends BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX agreements_of_first ON agreements (first_organization, id);
CREATE INDEX agreements_of_second ON agreements (second_organization, id);

CREATE TABLE peering_requests (
    id TEXT NOT NULL PRIMARY KEY,
    from_organization TEXT NOT NULL REFERENCES organizations (id),
    to_organization TEXT NOT NULL REFERENCES organizations (id),
    message TEXT NOT NULL,
    status TEXT NOT NULL,
    agreement_id TEXT REFERENCES agreements (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX peering_requests_from ON peering_requests (from_organization, id);
CREATE INDEX peering_requests_to ON peering_requests (to_organization, id);
CREATE INDEX peering_requests_waiting ON peering_requests (expires_at) WHERE status = 'pending';

CREATE TABLE channels (
    id TEXT NOT NULL PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    server_id TEXT NOT NULL REFERENCES servers (id),
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    engine TEXT NOT NULL,
    behavior TEXT NOT NULL,
    published BOOLEAN NOT NULL,
    public_name TEXT NOT NULL,
    public_description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    removed_at BIGINT
);
CREATE UNIQUE INDEX channel_names ON channels (server_id, name_key) WHERE removed_at IS NULL;
CREATE INDEX channels_of_organization ON channels (organization_id, id);

CREATE TABLE grants (
    id TEXT NOT NULL PRIMARY KEY,
    agreement_id TEXT NOT NULL REFERENCES agreements (id),
    channel_id TEXT NOT NULL REFERENCES channels (id),
    owner_organization TEXT NOT NULL REFERENCES organizations (id),
    peer_organization TEXT NOT NULL REFERENCES organizations (id),
    status TEXT NOT NULL,
    answer_by BIGINT NOT NULL,
    expires_at BIGINT,
    max_streams BIGINT NOT NULL,
    staleness_secs BIGINT NOT NULL,
    require_post_quantum BOOLEAN NOT NULL,
    sender_server_id TEXT REFERENCES servers (id),
    sender_port BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX grants_of_agreement ON grants (agreement_id, id);
CREATE INDEX grants_of_channel ON grants (channel_id, id);
CREATE INDEX grants_of_owner ON grants (owner_organization, id);
CREATE INDEX grants_of_peer ON grants (peer_organization, id);
CREATE INDEX grants_waiting ON grants (answer_by) WHERE status IN ('pending', 'requested');
CREATE INDEX grants_ending ON grants (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE connections (
    id TEXT NOT NULL PRIMARY KEY,
    grant_id TEXT NOT NULL UNIQUE REFERENCES grants (id),
    agreement_id TEXT NOT NULL REFERENCES agreements (id),
    channel_id TEXT NOT NULL REFERENCES channels (id),
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    ended BOOLEAN NOT NULL,
    auto_activate BOOLEAN NOT NULL,
    secret TEXT NOT NULL,
    sender_server_id TEXT NOT NULL REFERENCES servers (id),
    sender_organization TEXT NOT NULL REFERENCES organizations (id),
    sender_port BIGINT NOT NULL,
    sender_paused BOOLEAN NOT NULL,
    sender_revision BIGINT NOT NULL,
    listener_server_id TEXT NOT NULL REFERENCES servers (id),
    listener_organization TEXT NOT NULL REFERENCES organizations (id),
    listener_paused BOOLEAN NOT NULL,
    listener_revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX connections_of_sender ON connections (sender_organization, ended, id);
CREATE INDEX connections_of_listener ON connections (listener_organization, ended, id);
CREATE INDEX connections_sending ON connections (sender_server_id) WHERE NOT ended;
CREATE INDEX connections_receiving ON connections (listener_server_id) WHERE NOT ended;
CREATE INDEX connections_of_agreement ON connections (agreement_id) WHERE NOT ended;

-- One rendezvous secret per pair of gateway keys, the smaller key first.
CREATE TABLE pair_secrets (
    first_key TEXT NOT NULL,
    second_key TEXT NOT NULL,
    secret TEXT NOT NULL,
    PRIMARY KEY (first_key, second_key)
);
CREATE INDEX pair_secrets_of_second ON pair_secrets (second_key);

-- Append-only: one hash chain per organization, so that each can verify and export its own; 'platform' for the rest.
CREATE TABLE audit (
    chain TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    id TEXT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    object TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (chain, sequence)
);
