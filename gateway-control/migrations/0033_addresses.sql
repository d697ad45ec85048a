-- Addresses of users are unique inside their organization, not on the whole platform: nobody can take another organization's
-- addresses, or find out which it has. `email` becomes what is unique: organization and address.
ALTER TABLE users ADD COLUMN address TEXT NOT NULL DEFAULT '';
UPDATE users SET address = email, email = organization_id || ' ' || email;
CREATE INDEX users_by_address ON users (address, id);
