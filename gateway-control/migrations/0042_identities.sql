-- Accounts at providers of OpenID Connect, linked to users: by issuer and subject, once in each organization, one of an
-- issuer for each user.
CREATE TABLE identities (
    id TEXT NOT NULL PRIMARY KEY,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    linked_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    UNIQUE (issuer, subject, organization_id),
    UNIQUE (user_id, issuer)
);
CREATE INDEX invitations_by_address ON invitations (email, id);
