-- Enrolment codes have an id to be listed and revoked by, and end with the user who made them (null: not known, made before).
ALTER TABLE enrollment_codes ADD COLUMN id TEXT;
ALTER TABLE enrollment_codes ADD COLUMN issued_by TEXT;
UPDATE enrollment_codes SET id = 'enc_' || substr(secret_hash, 1, 32);
CREATE UNIQUE INDEX enrollment_codes_by_id ON enrollment_codes (id);
CREATE INDEX enrollment_codes_of_issuer ON enrollment_codes (issued_by);

-- What is over is shown to the other side under the names it had at its end (null: it is not over).
ALTER TABLE peering_requests ADD COLUMN from_kept_name TEXT;
ALTER TABLE peering_requests ADD COLUMN to_kept_name TEXT;
UPDATE peering_requests SET
    from_kept_name = (SELECT organizations.name FROM organizations WHERE organizations.id = from_organization),
    to_kept_name = (SELECT organizations.name FROM organizations WHERE organizations.id = to_organization)
    WHERE status IN ('declined', 'withdrawn', 'expired');
ALTER TABLE agreements ADD COLUMN first_kept_name TEXT;
ALTER TABLE agreements ADD COLUMN second_kept_name TEXT;
UPDATE agreements SET
    first_kept_name = (SELECT organizations.name FROM organizations WHERE organizations.id = first_organization),
    second_kept_name = (SELECT organizations.name FROM organizations WHERE organizations.id = second_organization)
    WHERE ended_at IS NOT NULL;
ALTER TABLE grants ADD COLUMN kept_endpoint TEXT;
UPDATE grants SET kept_endpoint = (SELECT channels.public_name FROM channels WHERE channels.id = channel_id)
    WHERE status NOT IN ('pending', 'requested', 'active');

-- Requests for a channel that wait, by the server they would be sent from.
CREATE INDEX grants_of_sender ON grants (sender_server_id) WHERE status IN ('pending', 'requested');
