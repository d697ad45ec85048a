-- Admin connections: made from an offer, so without grant and channel, and without a sending server until it is accepted.
-- What was offered (admin_terms, JSON), until when it may be answered, and the end of its time-box.
CREATE TABLE connections_of_both_kinds (
    id TEXT NOT NULL PRIMARY KEY,
    grant_id TEXT UNIQUE REFERENCES grants (id),
    agreement_id TEXT NOT NULL REFERENCES agreements (id),
    channel_id TEXT REFERENCES channels (id),
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    ended BOOLEAN NOT NULL,
    auto_activate BOOLEAN NOT NULL,
    secret TEXT NOT NULL,
    sender_server_id TEXT REFERENCES servers (id),
    sender_organization TEXT NOT NULL REFERENCES organizations (id),
    sender_port BIGINT NOT NULL,
    sender_paused BOOLEAN NOT NULL,
    sender_revision BIGINT NOT NULL,
    listener_server_id TEXT NOT NULL REFERENCES servers (id),
    listener_organization TEXT NOT NULL REFERENCES organizations (id),
    listener_paused BOOLEAN NOT NULL,
    listener_revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    admin_terms TEXT,
    admin_answer_by BIGINT,
    admin_expires_at BIGINT,
    share_id TEXT
);
INSERT INTO connections_of_both_kinds
    (id, grant_id, agreement_id, channel_id, kind, status, ended, auto_activate, secret, sender_server_id,
     sender_organization, sender_port, sender_paused, sender_revision, listener_server_id, listener_organization,
     listener_paused, listener_revision, created_at, ended_at)
    SELECT id, grant_id, agreement_id, channel_id, kind, status, ended, auto_activate, secret, sender_server_id,
     sender_organization, sender_port, sender_paused, sender_revision, listener_server_id, listener_organization,
     listener_paused, listener_revision, created_at, ended_at FROM connections;
-- What refers to connections makes way for the new table, and comes back with it.
CREATE TABLE deliveries_kept (
    connection_id TEXT NOT NULL PRIMARY KEY,
    sender TEXT NOT NULL,
    listener TEXT NOT NULL,
    balance TEXT NOT NULL,
    is_open BOOLEAN NOT NULL
);
INSERT INTO deliveries_kept (connection_id, sender, listener, balance, is_open)
    SELECT connection_id, sender, listener, balance, is_open FROM deliveries;
DROP TABLE deliveries;
DROP TABLE connections;
ALTER TABLE connections_of_both_kinds RENAME TO connections;
CREATE TABLE deliveries (
    connection_id TEXT NOT NULL PRIMARY KEY REFERENCES connections (id),
    sender TEXT NOT NULL,
    listener TEXT NOT NULL,
    balance TEXT NOT NULL,
    is_open BOOLEAN NOT NULL
);
INSERT INTO deliveries (connection_id, sender, listener, balance, is_open)
    SELECT connection_id, sender, listener, balance, is_open FROM deliveries_kept;
DROP TABLE deliveries_kept;
CREATE INDEX deliveries_open ON deliveries (connection_id) WHERE is_open;
CREATE INDEX connections_of_sender ON connections (sender_organization, ended, id);
CREATE INDEX connections_of_listener ON connections (listener_organization, ended, id);
CREATE INDEX connections_sending ON connections (sender_server_id) WHERE NOT ended;
CREATE INDEX connections_receiving ON connections (listener_server_id) WHERE NOT ended;
CREATE INDEX connections_of_agreement ON connections (agreement_id) WHERE NOT ended;
CREATE INDEX connections_of_share ON connections (share_id) WHERE NOT ended;
CREATE INDEX connections_unanswered ON connections (admin_answer_by) WHERE status = 'provisioning' OR status = 'offered';
CREATE INDEX connections_ending ON connections (admin_expires_at) WHERE NOT ended;

-- A server shared with the partner of an agreement: operator, viewer or metrics.
CREATE TABLE server_shares (
    id TEXT NOT NULL PRIMARY KEY,
    agreement_id TEXT NOT NULL REFERENCES agreements (id),
    server_id TEXT NOT NULL REFERENCES servers (id),
    owner_organization TEXT NOT NULL REFERENCES organizations (id),
    peer_organization TEXT NOT NULL REFERENCES organizations (id),
    level TEXT NOT NULL,
    scope TEXT NOT NULL,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX server_shares_of_owner ON server_shares (owner_organization, id);
CREATE INDEX server_shares_of_peer ON server_shares (peer_organization, id);
CREATE INDEX server_shares_of_agreement ON server_shares (agreement_id) WHERE ended_at IS NULL;
CREATE INDEX server_shares_of_server ON server_shares (server_id) WHERE ended_at IS NULL;
CREATE INDEX server_shares_ending ON server_shares (expires_at) WHERE ended_at IS NULL;
