use gateway_proto::{
    id::OrganizationId,
    identity::{GatewayKey, NoiseBinding, NoiseKey},
    limits::ChannelLimits,
    policy::{AdminScope, ConnectionKind, HL7V2_MLLP},
};

use super::*;

fn key(number: u8) -> GatewayKey {
    GatewayKey::from_seed(&[number; 32])
}

fn id(number: u8) -> ConnectionId {
    ConnectionId::new(1, [number; 10])
}

/// One connection with each of so many peers.
fn policy(peers: u8) -> Policy {
    let server = ServerName {
        id: ServerId::new(1, [0; 10]),
        name: String::new(),
        organization: OrganizationId::new(1, [0; 10]),
        organization_name: String::new(),
    };
    let peer = |number: u8| PeerEntry {
        key: key(number).public(),
        noise: NoiseBinding::new(&key(number), &NoiseKey::from_bytes([number; 32])),
        server: server.clone(),
        home_relay: None,
        pair_secret: Secret::from_bytes([number; 32]),
    };
    let connection = |number: u8| ConnectionEntry {
        id: id(number),
        kind: ConnectionKind::P2p,
        activation: Activation::Active,
        peer: key(number).public(),
        local: LocalEnd::Sender { port: 0 },
        endpoint: String::new(),
        behavior: HL7V2_MLLP.to_owned(),
        admin: AdminScope::default(),
        people: Vec::new(),
        secrets: Vec::new(),
        expires_at: None,
        staleness_secs: 60,
        max_streams: 1,
        limits: ChannelLimits::default(),
        require_post_quantum: true,
    };
    Policy {
        gateway: key(0).public(),
        revision: 1,
        issued_at: 1,
        server: server.clone(),
        control_keys: Vec::new(),
        relays: Vec::new(),
        peers: (1..=peers).map(peer).collect(),
        connections: (1..=peers).map(connection).map(Arc::new).collect(),
    }
}

#[test]
fn what_a_policy_says_anew_is_found_connection_by_connection() {
    let (before, mut now) = (policy(4), policy(4));
    let changed = |now: &Policy, before: Option<&Policy>| said(now, before).changed;
    assert_eq!(said(&now, Some(&before)), Said::default());
    Arc::make_mut(&mut now.connections[0]).endpoint = "renamed".to_owned();
    now.connections.remove(1);
    now.peers[2].pair_secret = Secret::from_bytes([9; 32]);
    let fifth = ConnectionEntry { id: id(5), ..(*now.connections[0]).clone() };
    now.connections.push(fifth.into());
    assert_eq!(changed(&now, Some(&before)), [id(1), id(2), id(3), id(5)], "renamed, gone, another secret, new");
    assert_eq!(said(&now, Some(&before)).introduced, [id(5)], "what is changed was there before");
    // Both ends at one server are one connection.
    let other_end = ConnectionEntry { local: LocalEnd::Sender { port: 7 }, ..(*before.connections[3]).clone() };
    now.connections.push(other_end.into());
    assert_eq!(changed(&now, Some(&before)).len(), 5);
    assert_eq!(changed(&before, None), [id(1), id(2), id(3), id(4)]);
    let other = Policy { gateway: key(9).public(), ..before.clone() };
    assert_eq!(changed(&other, Some(&before)).len(), 4, "another gateway has nothing in force");
    assert_eq!(said(&other, Some(&before)).introduced.len(), 4, "so all of it is new to it");
}

#[test]
fn revisions_never_go_back() {
    assert_eq!(next_revision(0, 0, 1_000), 1_000);
    assert_eq!(next_revision(1_000, 0, 1_000), 1_001, "two changes in a millisecond");
    assert_eq!(next_revision(5_000, 0, 1_000), 5_001, "the clock went back");
    assert_eq!(next_revision(1_000, 9_000, 2_000), 9_001, "a gateway knows more");
}
