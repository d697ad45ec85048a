-- Replicas of an older version that ran on beside a newer one made enrolment codes without an id, compiled policies without the
-- engine's channel, and kept names by older keys: the codes get their ids, the policies are compiled once more, and the next
-- start makes the keys of names anew.
UPDATE enrollment_codes SET id = 'enc_' || substr(secret_hash, 1, 32) WHERE id IS NULL;
UPDATE servers SET stale = TRUE
WHERE gateway_key IS NOT NULL AND id IN (SELECT server_id FROM engine_links);
DELETE FROM facts WHERE name = 'name_keys';
