-- What the two ends of a connection counted, and how the two compare.
CREATE TABLE deliveries (
    connection_id TEXT NOT NULL PRIMARY KEY REFERENCES connections (id),
    -- JSON, see gateway-proto, balance.
    sender TEXT NOT NULL,
    listener TEXT NOT NULL,
    balance TEXT NOT NULL,
    -- A later look may say something else.
    is_open BOOLEAN NOT NULL
);
CREATE INDEX deliveries_open ON deliveries (connection_id) WHERE is_open;
