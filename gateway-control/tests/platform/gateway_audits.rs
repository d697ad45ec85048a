//! Heads of gateways' audit logs: what was reported stays known, and what contradicts it is an alarm until a person acknowledges it.

use std::time::Duration;

use gateway_proto::{
    api::{
        gateway::{Report, WatchEvent, WatchRequest},
        platform::{AuditEntry, GatewayAudit, KeptHead, Server},
    },
    audit::{
        heads::{HeadFault, HeadReport, KEEP_SECS},
        line::Head,
    },
};
use serde_json::{Value, json};

use super::harness::{Control, Gateway, Org, Watch};

const LIMIT: Duration = Duration::from_secs(20);
/// The shortest time between two rounds.
const OFTEN: &str = "delivery_interval_secs = 2";

fn head(sequence: u64, hash: u8) -> Head {
    Head { sequence, hash: format!("{hash:02x}").repeat(32) }
}

fn report(head: Head, missing: Option<Head>) -> WatchRequest {
    let audit = Some(Box::new(HeadReport { head, at: 1_800_000_000_000, missing }));
    WatchRequest::Report(Report { audit, ..Report::default() })
}

/// A gateway of a server that watches.
async fn watched<'a>(control: &'a Control, gateway: &Gateway) -> (Org<'a>, Server, Watch) {
    let lab = control.organization("Lab").await;
    let server = lab.server("lis").await;
    lab.enroll(&server, gateway).await;
    let mut watch = gateway.watch(control).await;
    watch.policy().await;
    (lab, server, watch)
}

async fn known(org: &Org<'_>, server: &Server) -> GatewayAudit {
    org.get(&format!("/servers/{}/gateway-audit", server.id)).await
}

async fn until(org: &Org<'_>, server: &Server, what: &str, is: impl Fn(&GatewayAudit) -> bool) -> GatewayAudit {
    let wait = async {
        loop {
            let audit = known(org, server).await;
            if is(&audit) {
                return audit;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("it was never {what}"))
}

fn is_newest(audit: &GatewayAudit, wanted: &Head) -> bool {
    audit.newest.as_ref().is_some_and(|newest| newest.head() == *wanted)
}

/// What the control plane asks the gateway for.
async fn asked(watch: &mut Watch) -> Head {
    let wait = async {
        loop {
            match watch.event().await.expect("the watch was closed") {
                WatchEvent::AuditHead { head } => return head,
                WatchEvent::Heartbeat { .. } => watch.send(&WatchRequest::Heartbeat).await,
                WatchEvent::Policy { .. }
                | WatchEvent::Delta { .. }
                | WatchEvent::RelayToken { .. }
                | WatchEvent::Succession { .. }
                | WatchEvent::RunsTwice(_)
                | WatchEvent::Removed => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("nothing was asked for")
}

async fn told(org: &Org<'_>) -> Vec<AuditEntry> {
    org.list("/audit?act=gateway.audit_differs&limit=200").await
}

#[tokio::test]
async fn a_log_that_goes_back_is_an_alarm_that_the_owner_and_the_auditor_see_and_a_person_ends() {
    let control = Control::start_with(OFTEN).await;
    let gateway = Gateway::new(1);
    let (lab, server, mut watch) = watched(&control, &gateway).await;
    watch.send(&report(head(10, 1), None)).await;
    until(&lab, &server, "entered", |audit| is_newest(audit, &head(10, 1))).await;
    watch.send(&report(head(50, 2), None)).await;
    until(&lab, &server, "entered", |audit| is_newest(audit, &head(50, 2)) && audit.alarm.is_none()).await;
    drop(watch);
    // The daemon comes back with a log whose newest lines are gone.
    let mut watch = gateway.watch(&control).await;
    watch.send(&report(head(49, 3), None)).await;
    assert_eq!(asked(&mut watch).await, head(50, 2));
    let audit = until(&lab, &server, "an alarm", |audit| audit.alarm.is_some()).await;
    let alarm = audit.alarm.unwrap();
    assert_eq!((alarm.fault, alarm.known.head(), alarm.times), (HeadFault::WentBack, head(50, 2), 1));
    assert_eq!(alarm.found.unwrap().head(), head(49, 3));
    let told = told(&lab).await;
    assert_eq!(told.len(), 1);
    assert!(told[0].detail.contains(&head(50, 2).hash) && told[0].detail.contains(&head(49, 3).hash), "{told:?}");
    assert_eq!(told[0].actor, format!("gateway {}", server.id));

    let (auditor, viewer, admin) = (lab.user("auditor").await, lab.user("viewer").await, lab.user("admin").await);
    assert!(known(&auditor, &server).await.alarm.is_some());
    let path = format!("/servers/{}/gateway-audit", server.id);
    assert_eq!(viewer.refused("GET", &path, None).await.code, "forbidden");
    // Who may not read logs sees that somebody who may should look.
    assert!(viewer.get::<Server>(&format!("/servers/{}", server.id)).await.audit_alarm);
    assert!(viewer.list::<Server>("/servers").await[0].audit_alarm);
    let stranger = control.organization("Stranger").await;
    assert_eq!(stranger.refused("GET", &path, None).await.code, "not_found");
    let acknowledge = format!("{path}/acknowledge");
    for (who, code) in [(&auditor, "forbidden"), (&stranger, "not_found")] {
        assert_eq!(who.refused("POST", &acknowledge, Some(json!({}))).await.code, code);
    }
    let token: Value = admin.post("/api-tokens", json!({"name": "t", "scopes": ["server", "read"]})).await;
    let by_token = Org { token: token["token"].as_str().unwrap().to_owned(), ..admin.again() };
    assert_eq!(by_token.refused("POST", &acknowledge, Some(json!({}))).await.code, "forbidden");

    // The gateway goes on with its new chain; it is asked for the old one until somebody has looked.
    watch.send(&report(head(60, 4), None)).await;
    let audit = until(&lab, &server, "entered", |audit| is_newest(audit, &head(60, 4))).await;
    assert!(audit.alarm.is_some());
    let heads: Vec<KeptHead> = auditor.list(&format!("{path}/heads")).await;
    let shown: Vec<_> = heads.iter().map(|kept| (kept.head.sequence, kept.current)).collect();
    assert_eq!(shown, [(49, true), (10, false)], "one an hour, and the first of each series");
    let done: GatewayAudit = admin.post(&acknowledge, json!({"note": "restored from a backup"})).await;
    assert!(done.alarm.is_none());
    assert!(!lab.list::<Server>("/servers").await[0].audit_alarm);
    assert_eq!(lab.refused("POST", &acknowledge, Some(json!({}))).await.code, "conflict");
    let entries: Vec<AuditEntry> = lab.list("/audit?act=gateway.audit_acknowledge").await;
    assert!(entries.len() == 1 && entries[0].detail.contains("restored from a backup"), "{entries:?}");
    drop(watch);
    let mut watch = gateway.watch(&control).await;
    watch.send(&report(head(61, 5), None)).await;
    assert_eq!(asked(&mut watch).await, head(60, 4));
}

#[tokio::test]
async fn what_the_gateway_itself_does_not_find_is_an_alarm_and_so_is_the_same_record_with_another_hash() {
    let control = Control::start_with(OFTEN).await;
    let (one, two) = (Gateway::new(1), Gateway::new(2));
    let (lab, server, mut watch) = watched(&control, &one).await;
    watch.send(&report(head(10, 1), None)).await;
    until(&lab, &server, "entered", |audit| is_newest(audit, &head(10, 1))).await;
    drop(watch);
    // It was written anew, and longer than before: only the gateway can see that.
    let mut watch = one.watch(&control).await;
    watch.send(&report(head(99, 2), None)).await;
    let wanted = asked(&mut watch).await;
    // About something else nobody asked.
    watch.send(&report(head(100, 3), Some(head(11, 9)))).await;
    watch.send(&report(head(100, 3), Some(wanted.clone()))).await;
    let audit = until(&lab, &server, "an alarm", |audit| audit.alarm.is_some()).await;
    let alarm = audit.alarm.unwrap();
    assert_eq!((alarm.fault, alarm.known.head(), alarm.found), (HeadFault::NotContained, wanted, None));

    let other = lab.server("second").await;
    lab.enroll(&other, &two).await;
    let mut watch = two.watch(&control).await;
    watch.policy().await;
    watch.send(&report(head(10, 1), None)).await;
    watch.send(&report(head(10, 2), None)).await;
    let audit = until(&lab, &other, "an alarm", |audit| audit.alarm.is_some()).await;
    assert_eq!(audit.alarm.unwrap().fault, HeadFault::OtherHash);
}

#[tokio::test]
async fn a_gateway_that_was_taken_over_neither_floods_nor_pushes_out_what_it_reported() {
    let control = Control::start_with(OFTEN).await;
    let gateway = Gateway::new(1);
    let (lab, server, mut watch) = watched(&control, &gateway).await;
    watch.send(&report(head(1000, 1), None)).await;
    until(&lab, &server, "entered", |audit| is_newest(audit, &head(1000, 1))).await;
    for number in 0..60 {
        watch.send(&report(head(1 + number % 7, 2), None)).await;
    }
    watch.send(&report(head(3, 9), None)).await;
    let audit = until(&lab, &server, "entered", |audit| is_newest(audit, &head(3, 9))).await;
    assert_eq!(audit.alarm.unwrap().known.head(), head(1000, 1));
    assert_eq!(told(&lab).await.len(), 1);
    let heads: Vec<KeptHead> = lab.list(&format!("/servers/{}/gateway-audit/heads", server.id)).await;
    assert_eq!(heads.len(), 2, "{heads:?}");
    // An hour later the log is told once more, and the history holds one more.
    control.clock.advance(Duration::from_secs(KEEP_SECS + 1));
    watch.send(&report(head(2, 9), None)).await;
    watch.send(&report(head(1, 9), None)).await;
    until(&lab, &server, "entered", |audit| is_newest(audit, &head(1, 9))).await;
    assert_eq!(told(&lab).await.len(), 2);
    // What cannot be a head ends the watch.
    for nonsense in
        [head(u64::MAX, 1), Head { sequence: 1, hash: "x".repeat(64) }, Head { sequence: 1, hash: String::new() }]
    {
        let mut watch = gateway.watch(&control).await.greeted().await;
        watch.send(&report(nonsense, None)).await;
        while watch.event().await.is_some() {}
    }
    assert!(known(&lab, &server).await.newest.unwrap().sequence < 1000);
}

#[tokio::test]
async fn a_gateway_that_was_installed_anew_begins_anew_and_the_alarm_of_the_one_before_it_stays() {
    let control = Control::start_with(OFTEN).await;
    let (old, new) = (Gateway::new(1), Gateway::new(2));
    let (lab, server, mut watch) = watched(&control, &old).await;
    watch.send(&report(head(10, 1), None)).await;
    watch.send(&report(head(9, 1), None)).await;
    until(&lab, &server, "an alarm", |audit| audit.alarm.is_some()).await;
    lab.enroll(&server, &new).await;
    let mut watch = new.watch(&control).await;
    watch.policy().await;
    watch.send(&report(head(2, 3), None)).await;
    let audit = until(&lab, &server, "of the new gateway", |audit| audit.gateway == Some(new.key.public())).await;
    assert_eq!(audit.alarm.unwrap().gateway, old.key.public());
    let heads: Vec<KeptHead> = lab.list(&format!("/servers/{}/gateway-audit/heads", server.id)).await;
    assert_eq!(heads.iter().filter(|kept| kept.current).count(), 1);
    assert_eq!(told(&lab).await.len(), 1, "another gateway is no contradiction");
}

#[tokio::test]
async fn what_was_reported_at_one_replica_is_known_at_another() {
    let one = Control::start().await;
    let Some(other) = one.replica().await else { return };
    let gateway = Gateway::new(1);
    let (lab, server, mut watch) = watched(&one, &gateway).await;
    watch.send(&report(head(70, 1), None)).await;
    watch.send(&WatchRequest::Heartbeat).await;
    // No round enters it within this time: the end of the watch does.
    drop(watch);
    until(&lab, &server, "entered", |audit| is_newest(audit, &head(70, 1))).await;
    let mut watch = gateway.watch(&other).await;
    watch.send(&report(head(69, 1), None)).await;
    assert_eq!(asked(&mut watch).await, head(70, 1));
    until(&lab, &server, "an alarm", |audit| audit.alarm.is_some()).await;
}
