-- Tenants: each has one organization that is the tenant itself, and may have others. So far every organization was its own.
CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    organization_id TEXT NOT NULL UNIQUE REFERENCES organizations (id),
    created_at BIGINT NOT NULL
);
INSERT INTO tenants (id, organization_id, created_at) SELECT tenant_id, id, created_at FROM organizations;
CREATE INDEX organizations_of_tenant ON organizations (tenant_id, id);
-- A removed organization keeps its row, so that the logs of others can name it.
ALTER TABLE organizations ADD COLUMN removed_at BIGINT;
