//! What the gateway reports: its connections, its home relay and the head of its audit log.

use std::time::Duration;

use gateway_proto::{
    api::{
        gateway::{ConnectionReport, Connectivity, EndDetails, Report, WatchEvent, WatchRequest},
        local::AuditHeld,
    },
    audit::line::Head,
    id::RelayId,
};
use gatewayd::{
    audit::{AuditLog, Names},
    config::AuditConfig,
    control_client::enroll,
};
use tokio::task::JoinSet;

use crate::{
    Gateway, linked, open,
    stand_in::{StandIn, connection},
    within,
};

#[tokio::test]
async fn everything_is_reported_on_a_new_link_and_then_changes_when_they_happen() {
    let (_directory, mut control, mut gateway) = linked().await;
    let next = |request| if let WatchRequest::Report(report) = request { Some(report) } else { None };
    let first: Report = control.heard(next).await;
    assert_eq!(first, Report::default());

    let entry = ConnectionReport {
        id: connection(),
        connectivity: Connectivity::Connected,
        path: None,
        rtt_ms: Some(1.5),
        last_message_at: None,
        bytes_sent: 1,
        bytes_received: 2,
        streams: 1,
        problem: None,
        counts: None,
        details: Some(EndDetails { last_acknowledged_at: Some(5), ..EndDetails::default() }),
    };
    gateway.reports.lock().unwrap().push(entry.clone());
    gateway.changed.notify_one();
    assert_eq!(control.heard(next).await.connections, std::slice::from_ref(&entry));

    let relay = RelayId::new(1, [2; 10]);
    gateway.home_relay.send_replace(Some(relay));
    gateway.changed.notify_one();
    assert_eq!(control.heard(next).await, Report { home_relay: Some(relay), ..Report::default() });

    control.beats(None);
    gateway.status(|status| !status.connected).await;
    control.beats(Some(1));
    assert_eq!(
        control.heard(next).await,
        Report { home_relay: Some(relay), connections: vec![entry], ..Report::default() }
    );
}

#[tokio::test]
async fn the_head_of_the_audit_log_is_reported_and_what_was_reported_before_is_looked_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut control = StandIn::start();
    let authority = open(directory.path());
    enroll(&control.code.to_string(), &authority, None).await.unwrap();
    let config = AuditConfig { sync: Duration::ZERO, ..AuditConfig::default() };
    let (log, writer) = AuditLog::open(directory.path(), &config).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(Names::default()));
    // The first record is on the disk before anything is reported.
    within(async {
        while log.durable_head().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let gateway = Gateway::start_with(authority, None, Some(log.clone()));
    let next =
        |request| if let WatchRequest::Report(report) = request { report.audit.map(|audit| *audit) } else { None };
    let told = control.heard(next).await;
    assert_eq!((Some(told.head.clone()), told.missing), (log.durable_head(), None));
    control.send(WatchEvent::AuditHead { head: told.head.clone() });
    within(async {
        while log.compared().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(log.compared().unwrap().held, AuditHeld::Held);
    gateway.stop().await;

    // On a new link it is asked for what it does not hold: that is told at once, and the alarm stands.
    let authority = open(directory.path());
    let gateway = Gateway::start_with(authority, None, Some(log.clone()));
    let asked = Head { sequence: told.head.sequence + 5, ..told.head };
    control.heard(next).await;
    control.send(WatchEvent::AuditHead { head: asked.clone() });
    let told = control.heard(|request| next(request).filter(|told| told.missing.is_some())).await;
    assert_eq!(told.missing, Some(asked));
    assert_eq!((log.compared().unwrap().held, log.mismatches()), (AuditHeld::CutOff, 1));
    gateway.stop().await;
    drop(log);
    within(tasks.join_next()).await.unwrap().unwrap();
}
