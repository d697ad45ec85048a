-- What gateways tell of the engines beside them: states, ports and counts, never a message or a credential.

-- How the gateway of a server gets on with its engine.
CREATE TABLE engines (
    server_id TEXT NOT NULL PRIMARY KEY REFERENCES servers (id),
    head TEXT NOT NULL,
    reported_at BIGINT NOT NULL
);

-- The channels of that engine, each as its gateway described it last.
CREATE TABLE engine_channels (
    server_id TEXT NOT NULL REFERENCES servers (id),
    engine_channel TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (server_id, engine_channel)
);

-- Which registered channel is which channel of the engine, and the state of the engine's end.
CREATE TABLE engine_links (
    channel_id TEXT NOT NULL PRIMARY KEY REFERENCES channels (id),
    server_id TEXT NOT NULL REFERENCES servers (id),
    engine_channel TEXT NOT NULL,
    state TEXT NOT NULL
);
CREATE UNIQUE INDEX engine_links_of_server ON engine_links (server_id, engine_channel);
