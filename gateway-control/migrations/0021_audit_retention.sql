-- Where the log of a chain begins, once its oldest entries were removed: after the entry with this position and hash.
CREATE TABLE audit_anchors (
    chain TEXT NOT NULL PRIMARY KEY,
    sequence BIGINT NOT NULL,
    hash TEXT NOT NULL,
    removed_at BIGINT NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);
