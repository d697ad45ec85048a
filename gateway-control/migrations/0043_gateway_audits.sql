-- Heads of the audit logs of gateways, as they reported them: the newest with what has to be looked at, and one of each hour.
CREATE TABLE gateway_audits (
    server_id TEXT NOT NULL PRIMARY KEY REFERENCES servers (id),
    -- JSON, see gateway-proto, audit/heads.
    book TEXT NOT NULL
);
CREATE TABLE gateway_audit_heads (
    server_id TEXT NOT NULL REFERENCES servers (id),
    entry BIGINT NOT NULL,
    gateway_key TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    hash TEXT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (server_id, entry)
);
CREATE INDEX gateway_audit_heads_by_time ON gateway_audit_heads (received_at);
ALTER TABLE servers ADD COLUMN audit_alarm BOOLEAN NOT NULL DEFAULT FALSE;
