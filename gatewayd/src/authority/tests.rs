use std::fs;

use gateway_proto::{
    id::{OrganizationId, RelayId, ServerId},
    identity::{GatewayPublicKey, NoiseBinding},
    limits::ChannelLimits,
    policy::{
        Activation, AdminScope, ConnectionKind, ConnectionSecret, LocalEnd, PeerEntry, Policy, Secret, ServerName,
    },
    signed::RelayToken,
    succession::Succession,
};

use super::*;

pub(super) const NOW: u64 = 1_800_000_000;

pub(super) struct Fixture {
    directory: tempfile::TempDir,
    control: GatewayKey,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), control: GatewayKey::from_seed(&[1; 32]) }
    }

    fn open(&self) -> Authority {
        self.open_at(NOW)
    }

    fn open_at(&self, now: u64) -> Authority {
        Authority::open(Arc::new(StateDir::open(self.directory.path()).unwrap()), now).unwrap()
    }

    pub(super) fn enrolled(&self) -> Authority {
        let authority = self.open();
        let policy = self.policy(&authority, 1).sign(&self.control).unwrap();
        authority.enroll(self.enrollment(), policy, "token".into(), NOW).unwrap();
        authority
    }

    fn enrollment(&self) -> Enrollment {
        Enrollment {
            control: "https://control.example".into(),
            pin: None,
            policy_key: self.control.public(),
            trusted_keys: vec![],
            server_id: "srv".into(),
            server_name: "server".into(),
            organization_name: "organization".into(),
            enrolled_at: NOW,
        }
    }

    fn policy(&self, authority: &Authority, revision: u64) -> Policy {
        policy(authority.gateway_key().public(), self.control.public(), revision)
    }

    pub(super) fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }
}

fn policy(gateway: GatewayPublicKey, control: GatewayPublicKey, revision: u64) -> Policy {
    let peer = GatewayKey::from_seed(&[3; 32]);
    let server = ServerName {
        id: ServerId::new(1, [0; 10]),
        name: "server".into(),
        organization: OrganizationId::new(1, [0; 10]),
        organization_name: "organization".into(),
    };
    let entry = |peer, local| ConnectionEntry {
        id: connection(),
        kind: ConnectionKind::P2p,
        activation: Activation::Active,
        peer,
        local,
        endpoint: "ADT".into(),
        behavior: "hl7v2-mllp".into(),
        admin: AdminScope::default(),
        people: vec![],
        secrets: vec![ConnectionSecret { secret: Secret::from_bytes([6; 32]), until: None }],
        expires_at: None,
        staleness_secs: 100,
        max_streams: 8,
        limits: ChannelLimits::default(),
        require_post_quantum: false,
    };
    Policy {
        gateway,
        revision,
        issued_at: NOW - 10,
        server: server.clone(),
        control_keys: vec![control],
        relays: vec![],
        peers: vec![PeerEntry {
            key: peer.public(),
            noise: NoiseBinding::new(&peer, &NoiseKey::from_bytes([3; 32])),
            server,
            home_relay: None,
            pair_secret: Secret::from_bytes([4; 32]),
        }],
        connections: vec![
            entry(gateway, LocalEnd::Sender { port: 0 }).into(),
            entry(gateway, LocalEnd::Listener { engine: ([127, 0, 0, 1], 6661).into(), engine_channel: None }).into(),
        ],
    }
}

fn connection() -> ConnectionId {
    ConnectionId::new(1, [5; 10])
}

#[test]
fn before_the_enrolment_nothing_is_allowed_and_no_policy_is_taken() {
    let fixture = Fixture::new();
    let authority = fixture.open();
    assert_eq!(authority.authorize(connection(), true, NOW), Err(DeniedReason::Unknown));
    let envelope = fixture.policy(&authority, 1).sign(&fixture.control).unwrap();
    assert!(matches!(authority.accept(envelope, NOW), Err(AcceptError::NotEnrolled)));
}

#[test]
fn a_restart_runs_from_disk_within_the_staleness_budget_only() {
    let fixture = Fixture::new();
    drop(fixture.enrolled());
    let authority = fixture.open_at(NOW + 100);
    assert_eq!(authority.view().confirmed_at, NOW);
    assert!(authority.authorize(connection(), true, NOW + 100).is_ok());
    assert_eq!(authority.authorize(connection(), true, NOW + 101), Err(DeniedReason::Stale));
}

#[test]
fn a_process_carries_nothing_until_it_is_let_in_or_nobody_answers_and_a_second_one_waits_for_its_turn() {
    let authority = Fixture::new().enrolled();
    let allowed = || authority.authorize(connection(), true, NOW).map(drop);
    authority.ask_first();
    assert_eq!(allowed(), Err(DeniedReason::StandsBy));
    authority.stop_asking();
    assert_eq!(allowed(), Ok(()));
    let second = RunsTwice { is_second: true, since: 1, at: 2, address: None };
    authority.set_twice(second.clone());
    authority.stop_asking();
    authority.confirm(1, NOW + 1);
    assert_eq!((allowed(), authority.twice()), (Err(DeniedReason::StandsBy), Some(second.clone())));
    authority.take_part();
    assert_eq!((allowed(), authority.twice()), (Ok(()), None));
    let first = RunsTwice { is_second: false, ..second };
    authority.set_twice(first.clone());
    authority.take_part();
    assert_eq!((allowed(), authority.twice()), (Ok(()), Some(first)), "people are told for a while");
}

#[test]
fn a_connection_with_itself_has_two_entries_told_apart_by_role() {
    let authority = Fixture::new().enrolled();
    let sender = authority.authorize(connection(), true, NOW).unwrap();
    let listener = authority.authorize(connection(), false, NOW).unwrap();
    assert!(matches!(sender.local, LocalEnd::Sender { .. }));
    assert!(matches!(listener.local, LocalEnd::Listener { .. }));
}

#[test]
fn forged_older_and_foreign_policies_are_refused_and_the_old_one_stays_also_on_disk() {
    let fixture = Fixture::new();
    let authority = fixture.enrolled();
    let good = fixture.policy(&authority, 5).sign(&fixture.control).unwrap();
    assert!(authority.accept(good.clone(), NOW).unwrap());
    let stranger = GatewayKey::from_seed(&[9; 32]);
    let mut tampered = fixture.policy(&authority, 6).sign(&fixture.control).unwrap();
    tampered.signature = good.signature.clone();
    let offers = [
        fixture.policy(&authority, 6).sign(&stranger).unwrap(),
        tampered,
        fixture.policy(&authority, 4).sign(&fixture.control).unwrap(),
        policy(stranger.public(), fixture.control.public(), 6).sign(&fixture.control).unwrap(),
    ];
    for offer in offers {
        assert!(matches!(authority.accept(offer, NOW), Err(AcceptError::Policy(_))));
        assert_eq!(authority.view().revision(), 5);
        assert!(authority.view().problem.is_some());
    }
    assert_eq!(authority.state().load_policy().unwrap(), Some(good));
    assert!(authority.accept(fixture.policy(&authority, 6).sign(&fixture.control).unwrap(), NOW).unwrap());
    assert_eq!(authority.view().problem, None);
}

#[test]
fn a_damaged_policy_file_is_shown_allows_nothing_and_is_set_aside_once_a_good_one_comes() {
    let fixture = Fixture::new();
    drop(fixture.enrolled());
    fs::write(fixture.file("policy.json"), "{\"key\":").unwrap();
    let authority = fixture.open();
    let problem = authority.view().problem.clone().unwrap();
    assert!(problem.contains("policy.json is damaged"), "{problem}");
    assert_eq!(authority.authorize(connection(), true, NOW), Err(DeniedReason::Unknown));
    assert_eq!(fs::read(fixture.file("policy.json")).unwrap(), b"{\"key\":");

    assert!(authority.accept(fixture.policy(&authority, 2).sign(&fixture.control).unwrap(), NOW).unwrap());
    assert_eq!(fs::read(fixture.file("policy.json.rejected")).unwrap(), b"{\"key\":");
    drop(authority);
    assert_eq!(fixture.open().view().revision(), 2);
}

#[test]
fn a_forged_policy_file_allows_nothing() {
    let fixture = Fixture::new();
    let authority = fixture.enrolled();
    let forged = fixture.policy(&authority, 9).sign(&GatewayKey::from_seed(&[9; 32])).unwrap();
    authority.state().save_policy(&forged).unwrap();
    drop(authority);
    let authority = fixture.open();
    assert!(authority.view().policy.is_none());
    assert!(authority.view().problem.as_ref().unwrap().contains("not trusted"));
}

#[test]
fn only_the_revision_in_force_is_confirmed() {
    let authority = Fixture::new().enrolled();
    authority.confirm(2, NOW + 50);
    assert_eq!(authority.view().confirmed_at, NOW);
    authority.confirm(1, NOW + 50);
    assert_eq!(authority.view().confirmed_at, NOW + 50);
}

#[test]
fn after_a_removal_nothing_is_allowed_even_after_a_restart_until_a_policy_is_accepted() {
    let fixture = Fixture::new();
    let authority = fixture.enrolled();
    authority.removed();
    assert_eq!(authority.authorize(connection(), true, NOW), Err(DeniedReason::Unknown));
    authority.confirm(1, NOW);
    assert!(authority.view().policy.is_none());
    drop(authority);
    let authority = fixture.open();
    assert_eq!(authority.view().revision(), 0);
    assert!(authority.view().problem.is_some());
    assert!(fixture.file("policy.json").exists());
    assert!(authority.accept(fixture.policy(&authority, 1).sign(&fixture.control).unwrap(), NOW).unwrap());
    assert!(authority.authorize(connection(), true, NOW).is_ok());
}

#[test]
fn a_rotated_policy_key_is_trusted_after_a_restart_and_the_retired_one_is_not() {
    let fixture = Fixture::new();
    let authority = fixture.enrolled();
    let new_key = GatewayKey::from_seed(&[7; 32]);
    let signed_by_old = Policy { control_keys: vec![new_key.public()], ..fixture.policy(&authority, 2) };
    assert!(authority.accept(signed_by_old.sign(&fixture.control).unwrap(), NOW).unwrap());
    drop(authority);
    let authority = fixture.open();
    assert_eq!(authority.view().revision(), 2);
    let by_old = fixture.policy(&authority, 3).sign(&fixture.control).unwrap();
    assert!(authority.accept(by_old, NOW).is_err());
    let by_new = policy(authority.gateway_key().public(), new_key.public(), 3);
    assert!(authority.accept(by_new.sign(&new_key).unwrap(), NOW).unwrap());
    drop(authority);
    let authority = fixture.open();
    assert_eq!(authority.view().revision(), 3);
    let enrollment = authority.enrollment().borrow().clone().unwrap();
    assert_eq!(enrollment.trusted_keys, [new_key.public()]);
    assert_eq!(enrollment.audience(), new_key.public());
}

#[test]
fn a_crash_anywhere_in_a_rotation_of_keys_leaves_a_policy_that_verifies() {
    let fixture = Fixture::new();
    let authority = fixture.enrolled();
    let (old_key, new_key) = (fixture.control.public(), GatewayKey::from_seed(&[7; 32]));
    let enrollment = authority.enrollment().borrow().clone().unwrap();
    let rotated = Policy { control_keys: vec![new_key.public()], ..fixture.policy(&authority, 2) };
    let next = policy(authority.gateway_key().public(), new_key.public(), 3);
    // What is on disk after each of the three writes of the second step: keys, policy.
    let wider = Enrollment { trusted_keys: vec![old_key, new_key.public()], ..enrollment.clone() };
    let narrower = Enrollment { trusted_keys: vec![new_key.public()], ..enrollment };
    let (second, third) = (rotated.sign(&fixture.control).unwrap(), next.sign(&new_key).unwrap());
    let mut authority = authority;
    for (keys, policy, revision) in [(&wider, &second, 2), (&wider, &third, 3), (&narrower, &third, 3)] {
        authority.state().save_enrollment(keys).unwrap();
        authority.state().save_policy(policy).unwrap();
        drop(authority);
        authority = fixture.open();
        assert_eq!((authority.view().revision(), authority.view().problem.clone()), (revision, None));
    }
}

#[test]
fn a_policy_that_the_disk_does_not_take_is_in_force_but_not_acknowledged_until_it_is_saved() {
    let fixture = Fixture::new();
    let authority = fixture.enrolled();
    // A directory in the place of the file makes every write of it fail, also for root.
    fs::remove_file(fixture.file("policy.json")).unwrap();
    fs::create_dir_all(fixture.file("policy.json/full")).unwrap();
    let revoked = Policy { connections: vec![], ..fixture.policy(&authority, 2) };
    let result = authority.accept(revoked.sign(&fixture.control).unwrap(), NOW);
    assert!(matches!(result, Err(AcceptError::NotSaved(_))));
    assert_eq!(authority.authorize(connection(), true, NOW), Err(DeniedReason::Unknown));
    assert!(authority.save_pending(NOW).is_err());
    fs::remove_dir_all(fixture.file("policy.json")).unwrap();
    assert_eq!(authority.save_pending(NOW).unwrap(), Some(2));
    assert_eq!(authority.save_pending(NOW).unwrap(), None);
    assert_eq!(authority.view().problem, None);
    drop(authority);
    assert_eq!(fixture.open().view().revision(), 2);
}

#[test]
fn enrolling_again_with_the_same_code_keeps_a_newer_policy() {
    let fixture = Fixture::new();
    let authority = fixture.enrolled();
    authority.accept(fixture.policy(&authority, 3).sign(&fixture.control).unwrap(), NOW).unwrap();
    let first = fixture.policy(&authority, 1).sign(&fixture.control).unwrap();
    authority.enroll(fixture.enrollment(), first, "token".into(), NOW).unwrap();
    assert_eq!(authority.view().revision(), 3);
    drop(authority);
    assert_eq!(fixture.open().view().revision(), 3);
}

#[test]
fn an_enrolment_elsewhere_starts_a_new_row_of_revisions() {
    let mut fixture = Fixture::new();
    let authority = fixture.enrolled();
    authority.accept(fixture.policy(&authority, 30).sign(&fixture.control).unwrap(), NOW).unwrap();
    fixture.control = GatewayKey::from_seed(&[8; 32]);
    let first = fixture.policy(&authority, 1).sign(&fixture.control).unwrap();
    authority.enroll(fixture.enrollment(), first, "token".into(), NOW).unwrap();
    assert_eq!(authority.view().revision(), 1);
    assert!(fixture.file("policy.json.retired").exists());
}

#[test]
fn a_clock_set_back_reads_no_earlier_than_the_policy_and_the_control_plane_vouch_for() {
    let fixture = Fixture::new();
    let authority = fixture.enrolled();
    authority.observe_clock(gateway_net::time::unix_secs() + 5000);
    assert!(authority.now() >= gateway_net::time::unix_secs() + 5000);
    authority.removed();
    drop(authority);
    let authority = fixture.open_at(1);
    assert!(authority.now() >= gateway_net::time::unix_secs() + 5000 - 60);
}

#[test]
fn what_time_ended_while_the_control_plane_was_away_stays_ended_after_a_restart_with_the_clock_set_back() {
    let fixture = Fixture::new();
    let authority = fixture.enrolled();
    // The policy was signed ten seconds before NOW: 210 s later its budget of 100 s is used up.
    authority.save_clock(Instant::now() + Duration::from_secs(210));
    drop(authority);
    let authority = fixture.open_at(NOW + 1);
    assert_eq!(authority.view().confirmed_at, NOW, "it was not confirmed meanwhile");
    assert!(authority.now() >= NOW + 200);
    assert_eq!(authority.authorize(connection(), true, authority.now()), Err(DeniedReason::Stale));
}

#[test]
fn a_relay_token_of_another_gateway_or_signer_is_not_taken() {
    let fixture = Fixture::new();
    let authority = fixture.enrolled();
    let token = |key: GatewayPublicKey| RelayToken {
        key,
        org: OrganizationId::new(1, [0; 10]),
        relays: vec![RelayId::new(1, [0; 10])],
        iat: NOW,
        exp: NOW + 60,
    };
    let stranger = GatewayKey::from_seed(&[9; 32]);
    let ours = token(authority.gateway_key().public());
    assert!(authority.set_relay_token(ours.sign(&stranger).unwrap(), NOW).is_err());
    assert!(authority.set_relay_token(token(stranger.public()).sign(&fixture.control).unwrap(), NOW).is_err());
    assert_eq!(authority.relay_token().borrow().as_deref(), Some("token"));
    let good = ours.sign(&fixture.control).unwrap();
    // Its time is judged by the relay, whose clock is the better one.
    authority.set_relay_token(good.clone(), 1).unwrap();
    assert_eq!(authority.relay_token().borrow().as_deref(), Some(good.as_str()));
}

#[test]
fn a_gateway_that_missed_a_rotation_of_keys_comes_back_by_the_word_of_the_old_key() {
    let fixture = Fixture::new();
    let authority = fixture.enrolled();
    let gateway = authority.gateway_key().public();
    let (old_key, new_key) = (fixture.control.public(), GatewayKey::from_seed(&[7; 32]));
    let link = |from: &GatewayKey, to: &GatewayKey| {
        Succession { from: from.public(), to: to.public(), at: NOW }.sign(from).unwrap()
    };
    let by_new = policy(gateway, new_key.public(), 2).sign(&new_key).unwrap();
    assert!(authority.accept(by_new.clone(), NOW).is_err());
    authority.follow(&[link(&fixture.control, &new_key)]).unwrap();
    let trusted = || authority.enrollment().borrow().clone().unwrap().trusted_keys;
    assert_eq!(trusted(), [old_key, new_key.public()], "saved before the first policy needs it");
    assert!(authority.accept(by_new, NOW).unwrap());
    assert_eq!(trusted(), [new_key.public()]);
    // Whoever stole the old key leads nobody on.
    let thief = GatewayKey::from_seed(&[8; 32]);
    authority.follow(&[link(&fixture.control, &thief), link(&thief, &thief)]).unwrap();
    assert_eq!(trusted(), [new_key.public()]);
    drop(authority);
    let authority = fixture.open();
    assert_eq!(authority.view().revision(), 2);
    assert!(authority.accept(policy(gateway, thief.public(), 3).sign(&thief).unwrap(), NOW).is_err());
}
