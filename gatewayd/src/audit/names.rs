//! From notes to records: who is behind an id, as the signed policy says at this moment or said just before.

use std::{collections::BTreeMap, sync::Arc};

use gateway_proto::{
    audit::{
        condense::{Condensed, Many},
        note::{Note, Noted, Refusable, Refusal, StreamKey, StreamRole},
        record::{Event, Refused, StreamEnded, StreamOf, StreamOpened, Streams},
    },
    id::ConnectionId,
    identity::GatewayPublicKey,
    policy::Policy,
};
use tokio::sync::watch;

use crate::authority::{Authority, PolicyView};

/// What a policy that is no longer in force said is remembered for so many ends of connections: streams that a new policy cuts
/// end after it.
const MAX_FORMER: usize = 4_096;

/// The names of the policy.
#[derive(Debug, Default)]
pub struct Names {
    views: Option<watch::Receiver<Arc<PolicyView>>>,
    ends: BTreeMap<(ConnectionId, bool), Named>,
    peers: BTreeMap<GatewayPublicKey, (String, String)>,
}

#[derive(Debug, Clone)]
struct Named {
    of: StreamOf,
    peer: GatewayPublicKey,
    is_current: bool,
}

impl Names {
    /// The names of the policy in force.
    pub fn of(authority: &Authority) -> Self {
        let mut views = authority.subscribe();
        views.mark_changed();
        Self { views: Some(views), ..Self::default() }
    }

    /// Looks whether there is another policy.
    pub(super) fn refresh(&mut self) {
        let Some(views) = &mut self.views else { return };
        if !views.has_changed().unwrap_or(false) {
            return;
        }
        let view = views.borrow_and_update().clone();
        let Some(policy) = view.policy.as_deref() else { return };
        self.learn(policy);
    }

    fn learn(&mut self, policy: &Policy) {
        self.peers = policy
            .peers
            .iter()
            .map(|peer| (peer.key, (peer.server.name.clone(), peer.server.organization_name.clone())))
            .collect();
        for named in self.ends.values_mut() {
            named.is_current = false;
        }
        let own = (policy.server.name.clone(), policy.server.organization_name.clone());
        for entry in &policy.connections {
            let opens = entry.local.opens_streams();
            let role = match (entry.kind.is_admin(), opens) {
                (false, true) => StreamRole::Sender,
                (false, false) => StreamRole::Listener,
                (true, true) => StreamRole::AdminUser,
                (true, false) => StreamRole::AdminOwner,
            };
            // Not a peer: ourselves.
            let (server, organization) = self.peers.get(&entry.peer).unwrap_or(&own).clone();
            let of = StreamOf {
                connection: entry.id,
                role,
                endpoint: entry.endpoint.clone(),
                behavior: entry.behavior.clone(),
                server,
                organization,
            };
            self.ends.insert((entry.id, opens), Named { of, peer: entry.peer, is_current: true });
        }
        if self.ends.len() > policy.connections.len() + MAX_FORMER {
            self.ends.retain(|_, named| named.is_current);
        }
    }

    /// The record of what happened, and its time.
    pub(super) fn event(&self, condensed: Condensed) -> (u64, Event) {
        match condensed {
            Condensed::One(Note { at, what }) => (at, self.one(what)),
            Condensed::Many(many) => (many.until, self.many(many)),
            Condensed::More(refusal, more, at) => (at, self.refused(refusal, more)),
        }
    }

    fn one(&self, what: Noted) -> Event {
        match what {
            Noted::Opened(key) => {
                Event::StreamOpened(StreamOpened { of: self.stream(key.connection, key.role), trace: trace(key) })
            }
            Noted::Ended(key, end) => Event::StreamEnded(StreamEnded {
                of: self.stream(key.connection, key.role),
                trace: trace(key),
                ending: end.ending,
                duration_ms: end.duration_ms,
                bytes_sent: end.bytes_sent,
                bytes_received: end.bytes_received,
                messages: end.messages,
            }),
            Noted::Refused(refusal) => self.refused(refusal, 0),
        }
    }

    fn many(&self, many: Many) -> Event {
        Event::Streams(Streams {
            of: self.stream(many.connection, many.role),
            since: many.since,
            opened: many.opened,
            ended: many.ended,
            bytes_sent: many.bytes_sent,
            bytes_received: many.bytes_received,
            messages: many.messages,
        })
    }

    fn refused(&self, refusal: Refusal, more: u64) -> Event {
        let named = refusal.connection.and_then(|(id, role)| self.ends.get(&(id, opens(role))));
        let key = refusal.peer.or(named.map(|named| named.peer));
        let (server, organization) = key.and_then(|key| self.peers.get(&key)).cloned().unwrap_or_else(|| {
            named.map(|named| (named.of.server.clone(), named.of.organization.clone())).unwrap_or_default()
        });
        let refused = Refused {
            by: refusal.by,
            reason: refusal.reason,
            key,
            server,
            organization,
            connection: refusal.connection.map(|(id, _)| id),
            role: refusal.connection.map(|(_, role)| role),
            endpoint: named.map(|named| named.of.endpoint.clone()).unwrap_or_default(),
            trace: if refusal.trace == 0 { String::new() } else { format!("{:016x}", refusal.trace) },
            more,
        };
        match refusal.what {
            Refusable::Stream => Event::StreamRefused(refused),
            Refusable::Tunnel => Event::TunnelRefused(refused),
            Refusable::Signal => Event::SignalRefused(refused),
        }
    }

    fn stream(&self, connection: ConnectionId, role: StreamRole) -> StreamOf {
        let named = self.ends.get(&(connection, opens(role))).map(|named| named.of.clone());
        let mut of = named.unwrap_or_else(|| StreamOf {
            connection,
            role,
            endpoint: String::new(),
            behavior: String::new(),
            server: String::new(),
            organization: String::new(),
        });
        of.role = role;
        of
    }
}

fn opens(role: StreamRole) -> bool {
    match role {
        StreamRole::Sender | StreamRole::AdminUser => true,
        StreamRole::Listener | StreamRole::AdminOwner => false,
    }
}

/// A stream's trace, as records have it.
pub(super) fn trace(key: StreamKey) -> String {
    format!("{:016x}", key.trace)
}
