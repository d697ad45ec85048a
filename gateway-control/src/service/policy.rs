//! The policy compiler: what one gateway gets to know, from what the two organizations agreed.
//!
//! A policy gets a new revision only if its content changed; then the connections whose entries changed remember the
//! revision, which is how the platform knows when both ends have it in force.

use std::collections::{BTreeMap, BTreeSet};

use gateway_proto::{
    id::{ConnectionId, ServerId},
    identity::{Context, GatewayPublicKey},
    peering::activation,
    policy::{
        Activation, AdminPerson, ConnectionEntry, ConnectionSecret, LocalEnd, PeerEntry, Policy, RelayEntry, Secret,
        ServerName,
    },
    signed::{Envelope, RelayToken},
    succession::KeyRing,
};

use super::{Service, ServiceError, ServiceResult, Work};
use crate::storage::{PolicyConnectionRow, PolicyRow, Sealed, ServerRow, Transaction};

/// Compiles the policy of one server; whether it has a new revision now.
pub(super) async fn compile(work: &mut Work, id: ServerId) -> ServiceResult<bool> {
    let Some(mut server) = work.server(id).await? else { return Ok(false) };
    if server.stale {
        server.stale = false;
        work.update_server(&server).await?;
    }
    let Some(gateway) = server.gateway else { return Ok(false) };
    let old = work.policy(id).await?;
    let in_force = match &old {
        Some(row) => open(row, &work.signer().await?.ring),
        None => None,
    };
    let floor = work.floors.get(&id).copied();
    let revision = next_revision(old.as_ref().map_or(0, |row| row.revision), floor.unwrap_or(0), work.now_ms());
    let rows = work.policy_connections(id).await?;
    let policy = build(work, &server, gateway, revision, &rows).await?;
    if let Some(in_force) = &in_force
        && floor.is_none()
        && same_content(&policy, in_force)
    {
        return Ok(false);
    }
    remember_revision(work, &policy, in_force.as_ref()).await?;
    let envelope =
        policy.sign(&work.signer().await?.key).map_err(|_| ServiceError::Internal("a policy has no JSON form"))?;
    let envelope = serde_json::to_string(&envelope).map_err(|_| ServiceError::Internal("an envelope has no JSON"))?;
    work.put_policy(&PolicyRow { server: id, revision, envelope: Sealed(envelope) }).await?;
    Ok(true)
}

/// Revisions are times, Unix milliseconds, unless that would not be higher than what was given out before or what the
/// gateway has: then one more. So a revision given after a backup was restored is higher than those given after the
/// backup was made, which nobody remembers.
fn next_revision(last: u64, floor: u64, now_ms: u64) -> u64 {
    now_ms.max(last.max(floor) + 1)
}

/// The policy in a stored envelope; none when the key that signed it was forgotten.
fn open(row: &PolicyRow, ring: &KeyRing) -> Option<Policy> {
    envelope(row).ok()?.open(Context::Policy, &ring.known()).ok()
}

/// The envelope of a stored policy.
pub(super) fn envelope(row: &PolicyRow) -> ServiceResult<Envelope> {
    serde_json::from_str(&row.envelope.0).map_err(|_| ServiceError::Internal("a stored envelope is unreadable"))
}

fn same_content(one: &Policy, other: &Policy) -> bool {
    let aligned = Policy { revision: other.revision, issued_at: other.issued_at, ..one.clone() };
    aligned == *other
}

async fn build(
    work: &mut Work,
    server: &ServerRow,
    gateway: GatewayPublicKey,
    revision: u64,
    rows: &[PolicyConnectionRow],
) -> ServiceResult<Policy> {
    let organization =
        work.organization(server.organization).await?.ok_or(ServiceError::Internal("a server without organization"))?;
    let relays = work.relays().await?;
    let pair_secrets = work.pair_secrets(gateway).await?;
    let mut peers = BTreeMap::<GatewayPublicKey, PeerEntry>::new();
    let mut connections = Vec::new();
    for row in rows {
        let Some(activation) = activation(row.connection.status, row.agreement) else { continue };
        let (Some(key), Some(noise)) = (row.peer.gateway, row.peer.noise) else { continue };
        if key != gateway && !peers.contains_key(&key) {
            let pair_secret = match pair_secrets.get(&key) {
                Some(known) => known.clone(),
                None => work.pair_secret(gateway, key, &Secret::from_bytes(gateway_net::random())).await?,
            };
            let name = server_name(&row.peer, &row.peer_organization_name);
            // A relay that left the map is nobody's home.
            let home_relay = row.peer.home_relay.filter(|id| relays.iter().any(|relay| relay.id == *id));
            peers.insert(key, PeerEntry { key, noise, server: name, home_relay, pair_secret });
        }
        for local in local_ends(server.id, row)? {
            connections.push(entry(row, activation, key, local));
        }
    }
    let relays = relays.into_iter().map(|relay| RelayEntry {
        id: relay.id,
        url: relay.url,
        tls_pin: relay.tls_pin,
        stun: relay.stun,
        region: relay.region,
    });
    Ok(Policy {
        gateway,
        revision,
        issued_at: work.now,
        server: server_name(server, &organization.name),
        control_keys: work.signer().await?.ring.named(),
        relays: relays.collect(),
        peers: peers.into_values().collect(),
        connections,
    })
}

fn server_name(server: &ServerRow, organization_name: &str) -> ServerName {
    ServerName {
        id: server.id,
        name: server.name.clone(),
        organization: server.organization,
        organization_name: organization_name.to_owned(),
    }
}

/// Our ends of a connection: one, or both when a server is connected with itself.
fn local_ends(server: ServerId, row: &PolicyConnectionRow) -> ServiceResult<Vec<LocalEnd>> {
    let mut ends = Vec::with_capacity(1);
    if row.connection.sender.server == Some(server) {
        let port = row.connection.sender_port;
        ends.push(if row.engine.is_some() { LocalEnd::Sender { port } } else { LocalEnd::AdminUser { port } });
    }
    if row.connection.listener.server == Some(server) {
        ends.push(match &row.engine {
            Some(engine) => LocalEnd::Listener {
                engine: engine.parse().map_err(|_| ServiceError::Internal("a stored engine port is unreadable"))?,
            },
            None => LocalEnd::AdminOwner,
        });
    }
    Ok(ends)
}

fn entry(
    row: &PolicyConnectionRow,
    activation: Activation,
    peer: GatewayPublicKey,
    local: LocalEnd,
) -> ConnectionEntry {
    ConnectionEntry {
        id: row.connection.id,
        kind: row.connection.kind,
        activation,
        peer,
        local,
        endpoint: row.endpoint.clone(),
        behavior: row.behavior.clone(),
        admin: row.connection.admin.as_ref().map(|admin| admin.terms.scope).unwrap_or_default(),
        people: if local == LocalEnd::AdminOwner { people(row) } else { Vec::new() },
        secrets: vec![ConnectionSecret { secret: row.connection.secret.clone(), until: None }],
        expires_at: row.expires_at,
        staleness_secs: row.staleness_secs,
        max_streams: row.max_streams,
        require_post_quantum: row.require_post_quantum,
    }
}

/// Those whose time is over stay until the next change: the gateway looks at the time itself.
fn people(row: &PolicyConnectionRow) -> Vec<AdminPerson> {
    let people = row.connection.admin.iter().flat_map(|admin| &admin.people);
    people.map(|person| person.entry.clone()).collect()
}

/// Writes the revision to our end of every connection about which this policy says something else than the one before,
/// those included that are not in it any more.
async fn remember_revision(work: &mut Work, policy: &Policy, in_force: Option<&Policy>) -> ServiceResult<()> {
    // Another gateway has nothing of the old policy in force.
    let in_force = in_force.filter(|old| old.gateway == policy.gateway);
    let both = policy.connections.iter().chain(in_force.iter().flat_map(|old| &old.connections));
    for id in both.map(|entry| entry.id).collect::<BTreeSet<_>>() {
        if in_force.is_some_and(|old| about(old, id) == about(policy, id)) {
            continue;
        }
        let Some(mut connection) = work.connection(id).await? else { continue };
        for end in [&mut connection.sender, &mut connection.listener] {
            if end.server == Some(policy.server.id) {
                end.revision = policy.revision;
                end.in_force_at = None;
            }
        }
        work.update_connection(&connection).await?;
    }
    Ok(())
}

/// All that a policy says about one connection: its entries and the key and secret of its peer.
fn about(policy: &Policy, id: ConnectionId) -> (Vec<&ConnectionEntry>, Option<(GatewayPublicKey, &Secret)>) {
    let entries: Vec<_> = policy.connections.iter().filter(|entry| entry.id == id).collect();
    let peer = entries.first().and_then(|entry| policy.peer(&entry.peer)).map(|peer| (peer.key, &peer.pair_secret));
    (entries, peer)
}

impl Service {
    /// A fresh relay token for a server's gateway.
    pub(super) async fn relay_token(&self, tx: &mut dyn Transaction, server: &ServerRow) -> ServiceResult<String> {
        let key = server.gateway.ok_or(ServiceError::Internal("a relay token for no gateway"))?;
        let relays = tx.relays().await?.into_iter().map(|relay| relay.id).collect();
        let now = self.clock.unix_secs();
        let exp = now.saturating_add(self.settings.relay_token_secs);
        RelayToken { key, org: server.organization, relays, iat: now, exp }
            .sign(&self.signer(tx).await?.key)
            .map_err(|_| ServiceError::Internal("a relay token has no JSON form"))
    }
}

#[cfg(test)]
mod tests {
    use super::next_revision;

    #[test]
    fn revisions_never_go_back() {
        assert_eq!(next_revision(0, 0, 1_000), 1_000);
        assert_eq!(next_revision(1_000, 0, 1_000), 1_001, "two changes in a millisecond");
        assert_eq!(next_revision(5_000, 0, 1_000), 5_001, "the clock went back");
        assert_eq!(next_revision(1_000, 9_000, 2_000), 9_001, "a gateway knows more");
    }
}
