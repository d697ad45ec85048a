//! What is planned for what is found.

mod channels;
mod grants;
mod partners;

use gateway_proto::{
    api::platform::{
        Agreement, Channel, ChannelDirection, DirectoryEntry, Grant, Organization, PeeringRequest, Server,
    },
    id::{GrantId, PeeringRequestId, TenantId},
    peering::{AgreementStatus, GrantStatus, PeeringStatus},
};

use super::*;
use crate::cmd::apply::partners::Remembered;

const SITE: &str = "
    [[server]]
    name = 'lab'
    [[channel]]
    server = 'lab'
    name = 'adt'
    engine = '127.0.0.1:6661'
    publish = 'ADT feed'
    [[peer]]
    organization = 'Clinic B'
    [[grant]]
    channel = 'lab/adt'
    to = 'Clinic B'
    expires = '90d'
";

fn site(text: &str) -> Site {
    Site::parse(text, 1_000).unwrap()
}

fn organization(n: u8) -> OrganizationId {
    OrganizationId::new(1, [n; 10])
}

/// An organization with nothing, that finds Clinic B in the directory.
fn nothing() -> Found {
    let own = Organization {
        id: organization(1),
        tenant_id: TenantId::new(1, [1; 10]),
        name: "Clinic A".into(),
        description: String::new(),
        discoverable: true,
        two_person_admin: false,
        created_at: 0,
    };
    let clinic_b = DirectoryEntry {
        id: organization(2),
        name: "Clinic B".into(),
        description: String::new(),
        relation: "none".into(),
    };
    Found {
        own,
        servers: Vec::new(),
        channels: Vec::new(),
        requests: Vec::new(),
        agreements: Vec::new(),
        grants: Vec::new(),
        directory: vec![clinic_b],
        behaviors: Vec::new(),
        following: BTreeMap::new(),
        remembered: Remembered::default(),
        now: 1_000,
    }
}

/// The same with the server, the channel and the agreement of [`SITE`].
fn everything() -> Found {
    Found {
        servers: vec![server()],
        channels: vec![channel()],
        agreements: vec![agreement(2, "Clinic B")],
        ..nothing()
    }
}

fn server() -> Server {
    Server {
        id: ServerId::new(1, [0; 10]),
        name: "lab".into(),
        gateway: None,
        gateway_version: None,
        online: false,
        last_seen_at: None,
        policy_revision: 0,
        applied_revision: 0,
        policy_problem: None,
        audit_alarm: false,
        runs_twice: None,
        created_at: 0,
    }
}

fn channel() -> Channel {
    Channel {
        id: ChannelId::new(1, [0; 10]),
        server_id: server().id,
        name: "adt".into(),
        direction: ChannelDirection::Listener,
        engine: "127.0.0.1:6661".into(),
        local_port: None,
        connection_id: None,
        feeds: None,
        behavior: "hl7v2-mllp".into(),
        published: true,
        public_name: "ADT feed".into(),
        public_description: String::new(),
        created_at: 0,
    }
}

fn agreement(peer: u8, name: &str) -> Agreement {
    Agreement {
        id: AgreementId::new(1, [peer; 10]),
        peer_id: organization(peer),
        peer_name: name.into(),
        status: AgreementStatus::Active,
        suspended_by_us: false,
        suspended_by_peer: false,
        created_at: 0,
        ended_at: None,
    }
}

fn grant(status: GrantStatus) -> Grant {
    Grant {
        id: GrantId::new(1, [0; 10]),
        agreement_id: agreement(2, "").id,
        channel_id: channel().id,
        endpoint: "ADT feed".into(),
        direction: "given".into(),
        peer_name: "Clinic B".into(),
        behavior: "hl7v2-mllp".into(),
        status,
        connection_id: None,
        expires_at: Some(7_777_000),
        max_streams: 64,
        bytes_per_second: None,
        receive_timeout_secs: None,
        behaviors: Vec::new(),
        staleness_secs: 259_200,
        require_post_quantum: false,
        created_at: 1_000,
        approved_at: None,
    }
}

/// Between the own organization and Clinic B.
fn request(direction: &str, status: PeeringStatus) -> PeeringRequest {
    PeeringRequest {
        id: PeeringRequestId::new(1, [0; 10]),
        direction: direction.into(),
        peer_id: organization(2),
        peer_name: "Clinic B".into(),
        message: String::new(),
        status,
        agreement_id: None,
        created_at: 0,
        expires_at: 0,
    }
}

fn steps(text: &str, found: &Found) -> Vec<String> {
    let plan = plan(&site(text), found);
    assert_eq!(plan.refusals, Vec::<String>::new());
    plan.steps.iter().map(ToString::to_string).collect()
}

fn waits(text: &str, found: &Found) -> Vec<String> {
    plan(&site(text), found).waits
}

#[test]
fn what_stands_on_an_earlier_step_is_in_the_same_plan() {
    assert_eq!(
        steps(SITE, &nothing()),
        ["create the server 'lab'", "create the channel 'lab/adt'", "ask 'Clinic B' for an agreement"]
    );
    assert_eq!(waits(SITE, &nothing()), ["the grant of 'lab/adt' to 'Clinic B' waits for an agreement"]);
    let found = Found { agreements: vec![agreement(2, "Clinic B")], ..nothing() };
    let offer = "offer the channel 'lab/adt' to 'Clinic B'";
    assert_eq!(steps(SITE, &found), ["create the server 'lab'", "create the channel 'lab/adt'", offer]);
    let plan = plan(&site(SITE), &found);
    assert!(
        matches!(plan.steps[2], Step::OfferGrant { channel: Which::Made(0), expires_at: Some(7_777_000), .. }),
        "{plan:?}"
    );
    assert_eq!(steps(SITE, &everything()), [offer]);
    assert_eq!(waits(SITE, &everything()), Vec::<String>::new());
}

#[test]
fn what_differs_is_changed_and_only_that_is_sent() {
    let changed = Channel { engine: "127.0.0.1:7000".into(), ..channel() };
    let found = Found { channels: vec![changed], ..everything() };
    assert_eq!(steps(SITE, &found)[0], "change the channel 'lab/adt': engine 127.0.0.1:7000 → 127.0.0.1:6661");
    let found = Found { channels: vec![Channel { published: false, ..channel() }], ..everything() };
    let plan = plan(&site(SITE), &found);
    assert_eq!(plan.steps[0].to_string(), "change the channel 'lab/adt': published not published → 'ADT feed'");
    assert_eq!(plan.steps[1].to_string(), "offer the channel 'lab/adt' to 'Clinic B'");
    let only = UpdateChannel {
        name: None,
        engine: None,
        engine_channel: None,
        published: Some(true),
        public_name: None,
        public_description: None,
    };
    assert!(matches!(&plan.steps[0], Step::ChangeChannel { update, .. } if *update == only), "{plan:?}");
}

#[test]
fn a_name_is_the_one_that_the_platform_takes_for_the_same() {
    let text = SITE.replace("'lab'", "' LAB '").replace("'adt'", "'ＡＤＴ'").replace("'lab/adt'", "'Lab / ADT'");
    let text = text.replace("'127.0.0.1:6661'", "' 127.0.0.1:06661 '").replace("'ADT feed'", "' ADT feed  '");
    let text = text.replace("'Clinic B'", "'CLINIC\u{a0}b'");
    let found = Found { grants: vec![grant(GrantStatus::Active)], ..everything() };
    assert_eq!((steps(&text, &found), waits(&text, &found)), (Vec::new(), Vec::new()));
    // Written like this counts more than only meaning the same, where both are there from before.
    let twin = Server { id: ServerId::new(2, [9; 10]), name: "LAB".into(), ..server() };
    let found = Found { servers: vec![server(), twin.clone()], ..nothing() };
    assert_eq!(found.server("LAB").map(|server| server.id), Some(twin.id));
    assert_eq!(found.server("Lab").map(|server| server.id), Some(server().id));
}

#[test]
fn a_server_may_have_a_slash_in_its_name() {
    let text = SITE.replace("'lab'", "'a/b'").replace("'lab/adt'", "'a/b/adt'");
    let found = Found { agreements: vec![agreement(2, "Clinic B")], ..nothing() };
    assert_eq!(steps(&text, &found)[2], "offer the channel 'a/b/adt' to 'Clinic B'");
}

#[test]
fn what_would_be_refused_is_told_before_anything_is_done_and_what_is_there_stays() {
    let mixed = "K\u{43b}иника";
    let text = SITE.replace("ADT feed", mixed);
    let refusals = plan(&site(&text), &nothing()).refusals;
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].starts_with("the channel 'lab/adt': publish mixes alphabets"), "{refusals:?}");
    // It was given before such names were refused: another port is all that is sent.
    let old = Channel { public_name: mixed.into(), engine: "127.0.0.1:7000".into(), ..channel() };
    let found = Found { channels: vec![old], ..everything() };
    assert_eq!(steps(&text, &found)[0], "change the channel 'lab/adt': engine 127.0.0.1:7000 → 127.0.0.1:6661");
    let text = format!("{SITE}\n[[peer]]\norganization = '{}'", organization(2));
    assert_eq!(plan(&site(&text), &everything()).refusals.len(), 1, "one partner by name and by id");
}

#[test]
fn a_kind_of_exchange_that_the_platform_does_not_have_is_told_before_anything_is_done() {
    let text = SITE.replace("name = 'adt'", "name = 'adt'\n    behavior = 'tcp'");
    let known = |names: &[&str]| Found { behaviors: names.iter().map(ToString::to_string).collect(), ..nothing() };
    let refusals = plan(&site(&text), &known(&["dicom", "http"])).refusals;
    assert_eq!(refusals, ["the channel 'lab/adt': behavior 'tcp' is none of this platform: known are dicom, http"]);
    assert_eq!(steps(&text, &known(&["http", "tcp"]))[1], "create the channel 'lab/adt'");
    // Of a channel that is there it never changes.
    let there = Found { channels: vec![channel()], servers: vec![server()], ..known(&["http"]) };
    assert!(waits(&text, &there)[0].contains("a channel's behavior never changes"), "{:?}", waits(&text, &there));
}

#[test]
fn a_partner_that_cannot_be_found_is_waited_for_and_stops_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut remembered = Remembered::load(&directory.path().join("site.toml")).unwrap();
    remembered.learn(organization(1), &[("Clinic C".to_owned(), organization(3))]).unwrap();
    let text = format!(
        "{SITE}\n[[peer]]\norganization = '{}'\n[[peer]]\norganization = 'Clinic C'\n[[peer]]\norganization = 'self'",
        organization(4)
    );
    let found = Found { remembered, ..everything() };
    let offer = "offer the channel 'lab/adt' to 'Clinic B'";
    assert_eq!(steps(&text, &found), ["ask 'self' for an agreement", offer]);
    let words = "cannot be found now: it can be asked once it is in the directory again, or may ask itself";
    assert_eq!(waits(&text, &found), [format!("'{}' {words}", organization(4)), format!("'Clinic C' {words}")]);
    // Found again, it is asked.
    let entry = |n: u8, name: &str| DirectoryEntry {
        id: organization(n),
        name: name.into(),
        description: String::new(),
        relation: "none".into(),
    };
    let found = Found { directory: vec![entry(3, "Clinic C"), entry(4, "Clinic D")], ..found };
    let asked = format!("ask '{}' (called 'Clinic D' now) for an agreement", organization(4));
    assert_eq!(steps(&text, &found)[..2], [asked, "ask 'Clinic C' for an agreement".to_owned()]);
}

#[test]
fn a_partner_stays_the_one_that_was_meant_whatever_others_call_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("site.toml");
    let learned = || {
        let mut remembered = Remembered::load(&file).unwrap();
        remembered.learn(organization(1), &plan(&site(SITE), &everything()).meant).unwrap();
        remembered
    };
    let agreements = vec![agreement(3, "Clinic B"), agreement(2, "Clinic B North")];
    let found = Found { agreements, remembered: learned(), ..everything() };
    let renamed = plan(&site(SITE), &found);
    let offered = agreement(2, "").id;
    assert!(matches!(&renamed.steps[..], [Step::OfferGrant { agreement_id, .. }] if *agreement_id == offered));
    let words = "offer the channel 'lab/adt' to 'Clinic B' (called 'Clinic B North' now)";
    assert_eq!(renamed.steps[0].to_string(), words);
    // Nor is another one asked or offered anything when the agreement with the right one is over.
    let found = Found { agreements: vec![agreement(3, "Clinic B")], remembered: learned(), ..everything() };
    let over = plan(&site(SITE), &found);
    let asked = organization(2);
    assert!(matches!(&over.steps[..], [Step::RequestPeering { id, .. }] if *id == asked), "{over:?}");
    // An id needs no memory.
    let text = SITE.replace("Clinic B", &organization(2).to_string());
    let found = Found { agreements: vec![agreement(3, "Clinic B"), agreement(2, "x")], ..everything() };
    let by_id = plan(&site(&text), &found);
    assert!(matches!(&by_id.steps[..], [Step::OfferGrant { agreement_id, .. }] if *agreement_id == offered));
}

#[test]
fn the_own_organization_is_known_by_its_name_too() {
    let text = "[[peer]]\norganization = 'clinic a'";
    let found = Found { agreements: vec![agreement(1, "Self")], ..nothing() };
    assert_eq!((steps(text, &nothing()).len(), steps(text, &found).len()), (1, 0));
}

#[test]
fn what_a_partner_asked_for_itself_is_told_with_the_terms_that_the_file_has_otherwise() {
    let text = format!("{SITE}\nmax_streams = 5\nrequire_post_quantum = true");
    let found = |status| Found { grants: vec![grant(status)], ..everything() };
    let id = grant(GrantStatus::Active).id;
    let with = "with max_streams 64 instead of 5 and no post-quantum tunnel required";
    for (status, words) in [
        (
            GrantStatus::Requested,
            format!(
                "the partner asked for it itself {with}, which an approval cannot make what the file says: `gateway-ctl \
                 grant deny {id}` and apply again to offer it as the file says"
            ),
        ),
        (
            GrantStatus::Pending,
            format!(
                "it was offered {with}; `gateway-ctl grant withdraw {id}` and apply again to offer it as the file says"
            ),
        ),
        (
            GrantStatus::Active,
            format!(
                "it is in force {with}; the terms of a grant never change: `gateway-ctl grant revoke {id}` and apply again"
            ),
        ),
    ] {
        assert_eq!(waits(&text, &found(status)), [format!("'lab/adt' to 'Clinic B': {words}")]);
        assert_eq!(steps(&text, &found(status)), Vec::<String>::new());
    }
    let as_wanted = waits(SITE, &found(GrantStatus::Requested));
    assert!(as_wanted[0].contains("asked for it itself: decide"), "{as_wanted:?}");
    let offered = waits(SITE, &found(GrantStatus::Pending));
    assert_eq!(offered, ["'lab/adt' to 'Clinic B': the partner has not approved it yet"]);
    assert_eq!(waits(SITE, &found(GrantStatus::Active)), Vec::<String>::new());
    assert_eq!(steps(SITE, &found(GrantStatus::Revoked)).len(), 1);
}

#[test]
fn a_peering_request_that_waits_is_told_and_one_that_a_stranger_sent_settles_no_name() {
    let text = "[[peer]]\norganization = 'Clinic B'";
    for (direction, words, known) in [("incoming", "asked already", 0), ("outgoing", "has not answered", 1)] {
        let found =
            Found { requests: vec![request(direction, PeeringStatus::Pending)], directory: Vec::new(), ..nothing() };
        let plan = plan(&site(text), &found);
        assert!(plan.waits[0].contains(words) && plan.steps.is_empty(), "{plan:?}");
        assert_eq!(plan.meant.len(), known, "{direction}");
    }
    let unknown = Found { directory: Vec::new(), ..nothing() };
    assert!(waits(text, &unknown)[0].contains("is not in the directory"));
    let other = Agreement { peer_name: "CLINIC B".into(), ..agreement(3, "") };
    let two = Found { agreements: vec![other, agreement(2, "clinic b")], ..nothing() };
    let exact = Found { directory: Vec::new(), ..two };
    assert!(waits(text, &exact)[0].contains("more than one organization"));
}

#[test]
fn a_grant_with_other_limits_than_the_files_waits_for_a_person_and_what_the_file_leaves_out_is_not_compared() {
    let limited = Grant { bytes_per_second: Some(1_000), receive_timeout_secs: Some(60), ..grant(GrantStatus::Active) };
    let found = Found { grants: vec![limited], ..everything() };
    let left_out = waits(SITE, &found);
    assert!(!left_out.iter().any(|line| line.contains("bytes_per_second")), "{left_out:?}");
    let text = format!("{SITE}\nbytes_per_second = 2000\nreceive_timeout = '2m'\nbehaviors = ['hl7v2-mllp']");
    let words = "with bytes_per_second 1000 instead of 2000 and receive_timeout_secs 60 instead of 120 and behaviors any \
                 instead of hl7v2-mllp";
    let told = waits(&text, &found);
    assert!(told.iter().any(|line| line.contains(words)), "{told:?}");
    let plain = Found { grants: vec![grant(GrantStatus::Active)], ..everything() };
    let told = waits(&text, &plain);
    assert!(told.iter().any(|line| line.contains("no bytes_per_second instead of 2000")), "{told:?}");
}
