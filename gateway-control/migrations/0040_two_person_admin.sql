-- Admin connections that need a second person of the owner's side: whether an organization demands it (the tenant itself: for
-- all of its tenant), who offered and who approved each (JSON; null: one person is enough), and who shared a server.
ALTER TABLE organizations ADD COLUMN two_person_admin BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE connections ADD COLUMN admin_approval TEXT;
ALTER TABLE server_shares ADD COLUMN shared_by TEXT;
