-- A revision that a gateway has from a time that the storage does not remember, as after a restored backup: its next policy, which
-- may be compiled later and elsewhere, exceeds it. 0: there was none.
ALTER TABLE servers ADD COLUMN policy_floor BIGINT NOT NULL DEFAULT 0;
-- What waits for the gateway of a server, at either end.
CREATE INDEX connections_sender_provisioning ON connections (sender_server_id) WHERE status = 'provisioning';
CREATE INDEX connections_listener_provisioning ON connections (listener_server_id) WHERE status = 'provisioning';
