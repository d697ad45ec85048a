//! The policy compiler: what one gateway gets to know, from what the two organizations agreed.
//!
//! A policy gets a new revision only if its content changed; then the connections whose entries changed remember the
//! revision, which is how the platform knows when both ends have it in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gateway_proto::{
    id::{ConnectionId, ServerId},
    identity::{Context, GatewayPublicKey},
    peering::activation,
    policy::{
        Activation, AdminPerson, ConnectionEntry, LocalEnd, PeerEntry, Policy, PolicyDelta, RelayEntry, Secret,
        ServerName,
    },
    signed::{Envelope, RelayToken},
    succession::KeyRing,
};

use super::{Service, ServiceError, ServiceResult, Work, connections::secrets, grants::allows};
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
    let last = old.as_ref().map_or(0, |row| row.revision);
    // The gateway has a newer one, which nobody remembers.
    let is_raised = server.policy_floor > last;
    let revision = next_revision(last, server.policy_floor, work.now_ms());
    let rows = work.policy_connections(id).await?;
    let policy = build(work, &server, gateway, revision, &rows).await?;
    if let Some(in_force) = &in_force
        && !is_raised
        && same_content(&policy, in_force)
    {
        return Ok(false);
    }
    // Written to our end of every connection about which this policy says something else than the one before, those included
    // that are not in it any more.
    let Said { changed, introduced } = said(&policy, in_force.as_ref());
    work.put_revision(id, revision, &changed, &introduced).await?;
    let envelope =
        policy.sign(&work.signer().await?.key).map_err(|_| ServiceError::Internal("a policy has no JSON form"))?;
    let delta = match (&old, &in_force) {
        (Some(row), Some(in_force)) if in_force.gateway == gateway => delta(row, &envelope)?,
        _ => None,
    };
    let envelope = serde_json::to_string(&envelope).map_err(|_| ServiceError::Internal("an envelope has no JSON"))?;
    let same_keys = in_force.is_some_and(|in_force| in_force.control_keys == policy.control_keys);
    let keys_since = old.filter(|_| same_keys).map_or(revision, |row| row.keys_since);
    work.put_policy(&PolicyRow { server: id, revision, keys_since, envelope: Sealed(envelope), delta }).await?;
    Ok(true)
}

/// What the next policy changes in a stored one, JSON.
fn delta(row: &PolicyRow, next: &Envelope) -> ServiceResult<Option<Sealed>> {
    let delta = PolicyDelta::between(row.revision, &envelope(row)?, next);
    let text = delta.map(|delta| serde_json::to_string(&delta)).transpose();
    Ok(text.map_err(|_| ServiceError::Internal("a delta has no JSON form"))?.map(Sealed))
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

/// What an envelope of the storage holds; whose signature it is, is for the gateway to judge.
pub(super) fn content(envelope: &Envelope) -> ServiceResult<Policy> {
    let content = envelope.open(Context::Policy, &[envelope.key]);
    content.map_err(|_| ServiceError::Internal("a stored policy has a wrong signature"))
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
    let pair_secrets = pair_secrets(work, gateway, rows).await?;
    let mut peers = BTreeMap::<GatewayPublicKey, PeerEntry>::new();
    let mut connections = Vec::new();
    for row in rows {
        // Also of a channel that became something else since it was granted.
        if !allows(&row.behaviors, &row.behavior) {
            continue;
        }
        let Some(activation) = activation(row.connection.status, row.agreement) else { continue };
        let (Some(key), Some(noise)) = (row.peer.gateway, row.peer.noise) else { continue };
        if key != gateway && !peers.contains_key(&key) {
            let pair_secret = pair_secrets.get(&key).cloned();
            let pair_secret = pair_secret.ok_or(ServiceError::Internal("a pair of gateways without a secret"))?;
            let name = server_name(&row.peer, &row.peer_organization_name);
            // A relay that left the map is nobody's home.
            let home_relay = row.peer.home_relay.filter(|id| relays.iter().any(|relay| relay.id == *id));
            peers.insert(key, PeerEntry { key, noise, server: name, home_relay, pair_secret });
        }
        for local in local_ends(server.id, row)? {
            connections.push(Arc::new(entry(row, activation, key, local)));
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

/// The secrets that a gateway has with the others of its policy; those it meets for the first time get one, all at once.
async fn pair_secrets(
    work: &mut Work,
    gateway: GatewayPublicKey,
    rows: &[PolicyConnectionRow],
) -> ServiceResult<BTreeMap<GatewayPublicKey, Secret>> {
    let mut known = work.pair_secrets(gateway).await?;
    let met = rows.iter().filter(|row| activation(row.connection.status, row.agreement).is_some());
    let new: BTreeMap<_, _> = met
        .filter_map(|row| row.peer.gateway)
        .filter(|key| *key != gateway && !known.contains_key(key))
        .map(|key| (key, Secret::from_bytes(gateway_net::random())))
        .collect();
    if !new.is_empty() {
        work.put_pair_secrets(gateway, &new).await?;
        known.extend(new);
    }
    Ok(known)
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
                engine_channel: row.engine_channel.clone(),
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
    let people = if local == LocalEnd::AdminOwner { people(row) } else { Vec::new() };
    let secrets = secrets(&row.connection, local.opens_streams());
    ConnectionEntry {
        id: row.connection.id,
        kind: row.connection.kind,
        activation,
        peer,
        local,
        endpoint: row.endpoint.clone(),
        behavior: row.behavior.clone(),
        admin: row.connection.admin.as_ref().map(|admin| admin.terms.scope).unwrap_or_default(),
        people,
        secrets,
        expires_at: row.expires_at,
        staleness_secs: row.staleness_secs,
        max_streams: row.max_streams,
        limits: row.limits,
        require_post_quantum: row.require_post_quantum,
    }
}

/// Those whose time is over stay until the next change: the gateway looks at the time itself.
fn people(row: &PolicyConnectionRow) -> Vec<AdminPerson> {
    let people = row.connection.admin.iter().flat_map(|admin| &admin.people);
    people.map(|person| person.entry.clone()).collect()
}

/// The connections of which a policy says something.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// Something else than the one in force.
    changed: Vec<ConnectionId>,
    /// Of these, what the one in force does not name.
    introduced: Vec<ConnectionId>,
}

/// What a policy says anew.
fn said(policy: &Policy, in_force: Option<&Policy>) -> Said {
    // Another gateway has nothing of the old policy in force.
    let in_force = in_force.filter(|old| old.gateway == policy.gateway);
    let (now, before) = (by_connection(policy), in_force.map(by_connection).unwrap_or_default());
    let all: BTreeSet<_> = now.keys().chain(before.keys()).copied().collect();
    let changed = all.into_iter().filter(|id| in_force.is_none() || now.get(id) != before.get(id)).collect();
    let introduced = now.keys().filter(|id| !before.contains_key(id)).copied().collect();
    Said { changed, introduced }
}

/// All that a policy says about one connection: its entries and the key and secret of its peer.
type About<'a> = (Vec<&'a ConnectionEntry>, Option<(GatewayPublicKey, &'a Secret)>);

/// The same of all of them: a policy may have thousands.
fn by_connection(policy: &Policy) -> BTreeMap<ConnectionId, About<'_>> {
    let secrets: BTreeMap<_, _> = policy.peers.iter().map(|peer| (peer.key, &peer.pair_secret)).collect();
    let mut all = BTreeMap::<ConnectionId, About<'_>>::new();
    for entry in &policy.connections {
        let peer = secrets.get(&entry.peer).map(|secret| (entry.peer, *secret));
        all.entry(entry.id).or_insert_with(|| (Vec::with_capacity(1), peer)).0.push(entry);
    }
    all
}

impl Work {
    /// Every policy says something else now: the reconciler compiles them all.
    pub(super) async fn all_policies_change(&mut self) -> ServiceResult<()> {
        let now_ms = self.now_ms();
        self.mark_all_stale(now_ms).await?;
        self.backlog = true;
        Ok(())
    }
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
mod tests;
