use super::*;
use crate::{
    identity::{GatewayKey, NoiseKey},
    signed::SignedError,
    succession::Succession,
};

fn control() -> GatewayKey {
    GatewayKey::from_seed(&[1; 32])
}

fn gateway(n: u8) -> GatewayKey {
    GatewayKey::from_seed(&[n; 32])
}

fn server(n: u8) -> ServerName {
    ServerName {
        id: ServerId::new(1, [n; 10]),
        name: format!("server {n}"),
        organization: OrganizationId::new(1, [n; 10]),
        organization_name: format!("organization {n}"),
    }
}

pub(super) fn policy(revision: u64) -> Policy {
    let peer = gateway(3);
    Policy {
        gateway: gateway(2).public(),
        revision,
        issued_at: 1000,
        server: server(2),
        control_keys: vec![control().public()],
        relays: vec![],
        peers: vec![PeerEntry {
            key: peer.public(),
            noise: NoiseBinding::new(&peer, &NoiseKey::from_bytes([3; 32])),
            server: server(3),
            home_relay: None,
            pair_secret: Secret::from_bytes([4; 32]),
        }],
        connections: vec![Arc::new(ConnectionEntry {
            id: ConnectionId::new(1, [5; 10]),
            kind: ConnectionKind::P2p,
            activation: Activation::Active,
            peer: peer.public(),
            local: LocalEnd::Sender { port: 6661 },
            endpoint: "ADT feed".into(),
            behavior: "hl7v2-mllp".into(),
            admin: AdminScope::default(),
            people: vec![],
            secrets: vec![ConnectionSecret { secret: Secret::from_bytes([6; 32]), until: None }],
            expires_at: None,
            staleness_secs: 100,
            max_streams: 8,
            limits: ChannelLimits::default(),
            require_post_quantum: false,
        })],
    }
}

fn store() -> PolicyStore {
    PolicyStore::new(gateway(2).public(), control().public())
}

fn signed(policy: &Policy) -> Envelope {
    policy.sign(&control()).unwrap()
}

#[test]
fn revisions_go_up_and_never_back() {
    let mut store = store();
    assert_eq!(store.accept(&signed(&policy(5))), Ok(true));
    assert_eq!(store.accept(&signed(&policy(5))), Ok(false));
    let older = store.accept(&signed(&policy(4)));
    assert_eq!(older, Err(PolicyError::OlderRevision { offered: 4, current: 5 }));
    assert_eq!(store.accept(&signed(&policy(6))), Ok(true));
    assert_eq!(store.revision(), 6);
}

#[test]
fn the_same_revision_with_other_content_is_an_error_and_the_old_policy_stays() {
    let mut store = store();
    store.accept(&signed(&policy(5))).unwrap();
    let mut other = policy(5);
    other.connections.clear();
    assert_eq!(store.accept(&signed(&other)), Err(PolicyError::ConflictingRevision(5)));
    assert_eq!(store.current().unwrap().connections.len(), 1);
}

#[test]
fn a_policy_of_a_stranger_or_for_another_gateway_is_refused() {
    let forged = policy(1).sign(&gateway(9)).unwrap();
    assert!(matches!(store().accept(&forged), Err(PolicyError::Signed(SignedError::UnknownKey(_)))));
    let mut claimed = forged;
    claimed.key = control().public();
    assert_eq!(store().accept(&claimed), Err(PolicyError::Signed(SignedError::BadSignature)));
    let mut other = policy(1);
    other.gateway = gateway(7).public();
    assert_eq!(store().accept(&signed(&other)), Err(PolicyError::WrongGateway(gateway(7).public())));
}

#[test]
fn a_noise_key_that_the_peer_did_not_sign_is_refused() {
    let mut bad = policy(1);
    bad.peers[0].noise = NoiseBinding::new(&gateway(8), &NoiseKey::from_bytes([3; 32]));
    assert_eq!(store().accept(&signed(&bad)), Err(PolicyError::NoiseBinding(gateway(3).public())));
}

#[test]
fn a_control_key_that_the_policy_drops_is_not_trusted_any_more() {
    let mut store = store();
    let next = gateway(11);
    let mut rotated = policy(1);
    rotated.control_keys = vec![next.public()];
    assert_eq!(store.accept(&signed(&rotated)), Ok(true));
    assert!(matches!(store.accept(&signed(&policy(2))), Err(PolicyError::Signed(SignedError::UnknownKey(_)))));
    let mut by_next = policy(2);
    by_next.control_keys = vec![next.public()];
    assert_eq!(store.accept(&by_next.sign(&next).unwrap()), Ok(true));
}

#[test]
fn data_flows_only_while_active_unexpired_and_fresh() {
    let mut entry = (*policy(1).connections[0]).clone();
    assert_eq!(entry.authorize(1100, 1000), Ok(()));
    assert_eq!(entry.authorize(1101, 1000), Err(DeniedReason::Stale));
    assert_eq!(entry.next_deadline(1000), 1101);
    entry.expires_at = Some(1050);
    assert_eq!(entry.authorize(1050, 1000), Err(DeniedReason::Expired));
    assert_eq!(entry.next_deadline(1000), 1050);
    for (activation, reason) in [
        (Activation::Ready, DeniedReason::NotActive),
        (Activation::Paused, DeniedReason::Paused),
        (Activation::Suspended, DeniedReason::Suspended),
    ] {
        entry.activation = activation;
        assert_eq!(entry.authorize(1000, 1000), Err(reason));
    }
}

#[test]
fn a_connection_listed_twice_is_refused_unless_it_is_both_ends_of_a_self_connection() {
    let mut twice = policy(1);
    twice.connections.push(twice.connections[0].clone());
    assert!(matches!(store().accept(&signed(&twice)), Err(PolicyError::Inconsistent(_))));
    let mut own = policy(1);
    Arc::make_mut(&mut own.connections[0]).peer = own.gateway;
    let mut other_end = (*own.connections[0]).clone();
    other_end.local = LocalEnd::Listener { engine: "127.0.0.1:6661".parse().unwrap(), engine_channel: None };
    own.connections.push(other_end.into());
    assert_eq!(store().accept(&signed(&own)), Ok(true));
}

#[test]
fn a_stream_is_opened_with_the_first_secret_that_counts_and_taken_with_any_that_does() {
    let (old, new) = (Secret::from_bytes([6; 32]), Secret::from_bytes([7; 32]));
    let entry = |secrets: [(&Secret, Option<u64>); 2]| {
        let secrets = secrets.map(|(secret, until)| ConnectionSecret { secret: secret.clone(), until }).to_vec();
        ConnectionEntry { secrets, ..(*policy(1).connections[0]).clone() }
    };
    // The overlap is from 100 to 200: the sender turns in the middle.
    let sender = entry([(&old, Some(150)), (&new, None)]);
    let listener = entry([(&new, None), (&old, Some(200))]);
    for (now, used, taken) in [(149, &old, 2), (150, &new, 2), (199, &new, 2), (200, &new, 1)] {
        assert_eq!(sender.opening_secret(now), Some(used), "{now}");
        assert_eq!(listener.valid_secrets(now).count(), taken, "{now}");
        assert!(listener.valid_secrets(now).any(|secret| secret == used), "{now}");
    }
    let none = ConnectionEntry { secrets: Vec::new(), ..sender };
    assert_eq!(none.opening_secret(1), None);
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let text = format!("{:?}", policy(1));
    assert!(!text.contains(&"06".repeat(8)) && text.contains("masked"));
}

#[test]
fn an_end_that_does_not_fit_the_kind_of_its_connection_is_refused() {
    let mut wrong = policy(1);
    Arc::make_mut(&mut wrong.connections[0]).local = LocalEnd::AdminOwner;
    assert!(matches!(store().accept(&signed(&wrong)), Err(PolicyError::Inconsistent(_))));
    Arc::make_mut(&mut wrong.connections[0]).kind = ConnectionKind::AdminReadOnly;
    assert_eq!(store().accept(&signed(&wrong)), Ok(true));
    let mut wrong = policy(2);
    Arc::make_mut(&mut wrong.connections[0]).kind = ConnectionKind::AdminReadWrite;
    assert!(matches!(store().accept(&signed(&wrong)), Err(PolicyError::Inconsistent(_))));
}

#[test]
fn an_admin_connection_widens_nothing_unless_its_policy_says_so() {
    let mut entry = (*policy(1).connections[0]).clone();
    entry.kind = ConnectionKind::AdminReadOnly;
    entry.local = LocalEnd::AdminUser { port: 8443 };
    let json = serde_json::to_value(&entry).unwrap();
    assert_eq!(json["local"], serde_json::json!({"role": "admin_user", "port": 8443}));
    assert!(json.get("admin").is_none());
    assert_eq!(serde_json::from_value::<ConnectionEntry>(json).unwrap(), entry);
    entry.admin.patient_data = true;
    entry.local = LocalEnd::AdminOwner;
    let json = serde_json::to_value(&entry).unwrap();
    assert_eq!(json["local"], serde_json::json!({"role": "admin_owner"}));
    let scope = serde_json::json!({
        "patient_data": true, "probes": false, "extension_upload": false, "named_people": false,
    });
    assert_eq!(json["admin"], scope);
    assert_eq!(serde_json::from_value::<AdminScope>(serde_json::json!({})).unwrap(), AdminScope::default());
}

#[test]
fn a_listener_names_its_channel_of_the_engine_and_one_registered_by_hand_looks_as_it_always_did() {
    let engine = "127.0.0.1:6661".parse().unwrap();
    let by_hand = LocalEnd::Listener { engine, engine_channel: None };
    let json = serde_json::json!({"role": "listener", "engine": "127.0.0.1:6661"});
    assert_eq!(serde_json::to_value(&by_hand).unwrap(), json);
    assert_eq!(serde_json::from_value::<LocalEnd>(json).unwrap(), by_hand);
    assert_eq!(by_hand.engine_channel(), None);
    let linked = LocalEnd::Listener { engine, engine_channel: Some("a0".into()) };
    let json = serde_json::json!({"role": "listener", "engine": "127.0.0.1:6661", "engine_channel": "a0"});
    assert_eq!(serde_json::to_value(&linked).unwrap(), json);
    assert_eq!(serde_json::from_value::<LocalEnd>(json).unwrap().engine_channel(), Some("a0"));
}

#[test]
fn who_was_away_for_a_rotation_follows_the_old_key_to_the_new_one_and_never_back() {
    let (next, thief) = (gateway(11), gateway(12));
    let word =
        |to: &GatewayKey| Succession { from: control().public(), to: to.public(), at: 1 }.sign(&control()).unwrap();
    let mut store = store();
    let mut by_next = policy(1);
    by_next.control_keys = vec![next.public()];
    let envelope = by_next.sign(&next).unwrap();
    assert!(matches!(store.accept(&envelope), Err(PolicyError::Signed(_))), "nobody vouched for it");
    assert!(store.follow(&[word(&next)]));
    assert_eq!(store.accept(&envelope), Ok(true));
    // The old key is believed no more: neither its policies, nor its word for another.
    assert!(matches!(store.accept(&signed(&policy(2))), Err(PolicyError::Signed(SignedError::UnknownKey(_)))));
    assert!(!store.follow(&[word(&thief), word(&next)]));
    assert_eq!(store.trusted(), [next.public()]);
}

#[test]
fn a_policy_without_limits_says_nothing_of_them_and_limits_survive_its_signature() {
    let mut limited = policy(5);
    let text = serde_json::to_string(&limited).unwrap();
    assert!(!text.contains("limits"), "{text}");
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), limited, "one from before there were limits is read");
    let limits = ChannelLimits { bytes_per_second: Some(1_000), receive_timeout_secs: Some(60) };
    Arc::make_mut(&mut limited.connections[0]).limits = limits;
    let mut store = store();
    assert_eq!(store.accept(&signed(&limited)), Ok(true));
    let text = serde_json::to_string(&limited).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap().connections[0].limits, limits);
}
