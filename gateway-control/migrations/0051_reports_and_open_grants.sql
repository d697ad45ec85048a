-- A page of connections asks what was reported of each of them, at either end.
CREATE INDEX reports_of_connection ON reports (connection_id);
-- What an organization has open costs what is open: grants are never removed.
CREATE INDEX grants_open_of_owner ON grants (owner_organization, channel_id)
    WHERE status IN ('pending', 'requested', 'active');
