-- A listener's end in the policy names the engine's channel it is for: policies of servers that have such channels are
-- compiled anew.
UPDATE servers SET stale = TRUE
WHERE gateway_key IS NOT NULL AND id IN (SELECT server_id FROM engine_links);
