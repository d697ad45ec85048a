-- Through which provider of OpenID Connect a session was made (null: through none), and the ID token that the provider wants to be
-- reminded by when it ends there, sealed with the storage key (null: it was too long to be kept, or a person carried the code).
ALTER TABLE sessions ADD COLUMN issuer TEXT;
ALTER TABLE sessions ADD COLUMN id_token TEXT;
