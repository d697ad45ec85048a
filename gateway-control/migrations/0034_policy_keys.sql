-- The keys that sign policies and relay tokens, oldest first. The first one is the file of the data directory (no seed here);
-- the seeds of the others are sealed with the storage key, and gone when the key has retired. `link` is the word of the key
-- before it.
CREATE TABLE policy_keys (
    number BIGINT NOT NULL PRIMARY KEY,
    public_key TEXT NOT NULL UNIQUE,
    sealed_seed TEXT,
    state TEXT NOT NULL,
    signs_from BIGINT NOT NULL,
    link TEXT,
    created_at BIGINT NOT NULL
);
-- Tokens of the operator and for registration, as hashes: what a rotation made, and until when what it replaced counts.
CREATE TABLE platform_tokens (
    kind TEXT NOT NULL,
    token_hash TEXT NOT NULL,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (kind, token_hash)
);
