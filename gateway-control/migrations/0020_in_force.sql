-- Since when each gateway has what its newest policy says about a connection in force; none: not yet, or not known.
ALTER TABLE connections ADD COLUMN sender_in_force_at BIGINT;
ALTER TABLE connections ADD COLUMN listener_in_force_at BIGINT;
-- A confirmation costs what it confirms, not what its gateway has.
CREATE INDEX connections_sender_waiting ON connections (sender_server_id) WHERE sender_in_force_at IS NULL;
CREATE INDEX connections_listener_waiting ON connections (listener_server_id) WHERE listener_in_force_at IS NULL;
CREATE INDEX connections_sender_ready ON connections (sender_server_id) WHERE status = 'ready';
CREATE INDEX connections_listener_ready ON connections (listener_server_id) WHERE status = 'ready';
-- A page of an organization's connections, those that ended too.
CREATE INDEX connections_sent ON connections (sender_organization, id);
CREATE INDEX connections_received ON connections (listener_organization, id);
