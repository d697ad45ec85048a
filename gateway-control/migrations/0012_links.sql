-- What switches a device's behaviors on for another device. Gone with either of the two.
CREATE TABLE links (
    id TEXT NOT NULL PRIMARY KEY,
    source_device TEXT NOT NULL REFERENCES devices (id),
    source_organization TEXT NOT NULL REFERENCES organizations (id),
    target_device TEXT NOT NULL REFERENCES devices (id),
    -- Without: the platform's device.
    target_organization TEXT REFERENCES organizations (id),
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX links_of_pair ON links (source_device, target_device);
CREATE INDEX links_of_target ON links (target_device, id);
CREATE INDEX links_from_organization ON links (source_organization, id);
CREATE INDEX links_to_organization ON links (target_organization, id);

-- Executions of behaviors, counted by the gateways: per organization, device, behavior and day (UTC).
CREATE TABLE executions (
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    day TEXT NOT NULL,
    device_id TEXT NOT NULL REFERENCES devices (id),
    behavior TEXT NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (organization_id, day, device_id, behavior)
);
CREATE INDEX executions_by_day ON executions (day);
