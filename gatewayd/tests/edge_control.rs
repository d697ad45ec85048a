//! Enrolment and the link to the control plane, over real sockets, against a stand-in that may misbehave.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "edge_control/proxy.rs"]
mod proxy;
#[path = "edge_control/stand_in.rs"]
mod stand_in;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use gateway_net::proxy::Proxy;
use gateway_proto::{
    api::{
        gateway::{ConnectionReport, Connectivity, Report, WatchEvent, WatchRequest},
        local::AuditHeld,
        refusal::{GatewayRefusal, RefusalReason},
    },
    audit::line::Head,
    id::RelayId,
    identity::GatewayKey,
    policy::{DeniedReason, Policy, RelayEntry},
};
use gatewayd::{
    audit::{AuditLog, Names},
    authority::{Authority, EnrollmentError},
    config::AuditConfig,
    control_client::{ControlClient, EnrollError, LinkTimes, ReportSource, enroll},
    path_actor::SessionIndex,
    relay_inbound::RelayInbox,
    relay_link::{LinkContext, link},
    routes::Routes,
    socket::TunnelSocket,
    store::StateDir,
};
use proxy::StandInProxy;
use stand_in::{Enrolling, StandIn, connection};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

fn open(directory: &Path) -> Authority {
    let state = StateDir::open(directory).unwrap();
    Authority::open(Arc::new(state), gateway_net::time::unix_secs()).unwrap()
}

/// An enrolled gateway with its link running.
struct Gateway {
    authority: Authority,
    status: watch::Receiver<gateway_proto::api::local::ControlStatus>,
    reports: Arc<Mutex<Vec<ConnectionReport>>>,
    changed: Arc<Notify>,
    home_relay: watch::Sender<Option<RelayId>>,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Gateway {
    fn start(authority: Authority) -> Self {
        Self::start_through(authority, None)
    }

    fn start_through(authority: Authority, proxy: Option<Proxy>) -> Self {
        Self::start_with(authority, proxy, None)
    }

    fn start_with(authority: Authority, proxy: Option<Proxy>, audit: Option<AuditLog>) -> Self {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let changed = Arc::new(Notify::new());
        let (home_relay, home_receiver) = watch::channel(None);
        let shared = reports.clone();
        let source = ReportSource {
            connections: Arc::new(move || shared.lock().unwrap().clone()),
            engine: Arc::new(|| None),
            audit,
            changed: changed.clone(),
            home_relay: home_receiver,
        };
        let times = LinkTimes {
            heartbeat: Duration::from_millis(50),
            silence: Duration::from_secs(3),
            report: Duration::from_secs(3600),
            missing_policy: Duration::from_millis(300),
        };
        let client = ControlClient::new(authority.clone(), source, times, proxy);
        let (status, shutdown) = (client.status(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(client.run(shutdown.clone()));
        Self { authority, status, reports, changed, home_relay, tasks, shutdown }
    }

    async fn status(&mut self, wanted: impl FnMut(&gateway_proto::api::local::ControlStatus) -> bool) {
        within(self.status.wait_for(wanted)).await.unwrap();
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        within(self.tasks.join_next()).await.unwrap().unwrap();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("not within 10 s")
}

async fn linked() -> (tempfile::TempDir, StandIn, Gateway) {
    let directory = tempfile::tempdir().unwrap();
    let mut control = StandIn::start();
    let authority = open(directory.path());
    enroll(&control.code.to_string(), &authority, None).await.unwrap();
    let gateway = Gateway::start(authority);
    assert_eq!(control.heard_hello().await, 1);
    (directory, control, gateway)
}

#[tokio::test]
async fn an_enrolment_brings_policy_and_relay_token_and_may_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let control = StandIn::start();
    let authority = open(directory.path());
    let code = format!("  {}\n", control.code);
    let enrolled = enroll(&code, &authority, None).await.unwrap();
    assert_eq!((enrolled.server_name.as_str(), enrolled.key), ("Engine 1", authority.gateway_key().public()));
    assert!(authority.authorize(connection(), true, authority.now()).is_ok());
    assert!(authority.relay_token().borrow().is_some());
    enroll(&code, &authority, None).await.unwrap();
    drop(authority);
    let authority = open(directory.path());
    assert_eq!(authority.view().revision(), 1);
    assert_eq!(authority.enrollment().borrow().as_ref().unwrap().server_name, "Engine 1");
}

#[tokio::test]
async fn a_code_that_is_wrong_expired_or_used_by_another_gateway_is_refused_in_the_words_of_the_control_plane() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let control = StandIn::start();
    let (first, second) = (open(one.path()), open(two.path()));
    assert!(matches!(enroll("gwe1_abc", &first, None).await, Err(EnrollError::Code(_))));

    let refused = async |code: &str, gateway: &Authority, words: &str| {
        let error = enroll(code, gateway, None).await.unwrap_err();
        assert!(matches!(&error, EnrollError::CodeRefused(detail) if detail.contains(words)), "{error}");
    };
    let mut wrong = control.code.clone();
    wrong.secret = "00".repeat(16);
    refused(&wrong.to_string(), &first, "no such code").await;
    let code = control.code.to_string();
    control.enrolls(Enrolling::Expired);
    refused(&code, &first, "expired").await;
    control.enrolls(Enrolling::Honest);
    enroll(&code, &first, None).await.unwrap();
    refused(&code, &second, "used").await;
    assert!(second.enrollment().borrow().is_none());
}

#[tokio::test]
async fn a_lying_control_plane_enrols_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let control = StandIn::start();
    let authority = open(directory.path());
    let code = control.code.to_string();
    control.enrolls(Enrolling::OtherPolicyKey);
    assert!(matches!(enroll(&code, &authority, None).await, Err(EnrollError::PolicyKey { .. })));
    control.enrolls(Enrolling::ForgedPolicy);
    let error = enroll(&code, &authority, None).await.unwrap_err();
    assert!(matches!(error, EnrollError::NotInForce(EnrollmentError::Policy(_))), "{error}");
    assert!(authority.enrollment().borrow().is_none());
    assert!(!directory.path().join("enrollment.json").exists());
}

#[tokio::test]
async fn another_tls_key_than_the_code_names_is_told_apart_from_a_network_that_is_down() {
    let directory = tempfile::tempdir().unwrap();
    let control = StandIn::start();
    let authority = open(directory.path());
    let mut code = control.code.clone();
    code.pin = Some("ab".repeat(32));
    assert!(matches!(enroll(&code.to_string(), &authority, None).await, Err(EnrollError::Intercepted { .. })));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    code.control = format!("https://{free}");
    assert!(matches!(enroll(&code.to_string(), &authority, None).await, Err(EnrollError::Network { .. })));
    code.control = "http://control.example".into();
    assert!(matches!(enroll(&code.to_string(), &authority, None).await, Err(EnrollError::Address(_))));
}

#[tokio::test]
async fn a_new_policy_is_put_into_force_acknowledged_and_confirmed_by_heartbeats() {
    let (_directory, mut control, mut gateway) = linked().await;
    gateway.status(|status| status.connected && status.clock_skew_ms.is_some()).await;
    let key = gateway.authority.gateway_key().public();
    control.beats(Some(2));
    control.send_policy(&control.policy(key, 2));
    assert_eq!(control.heard_applied().await, 2);
    assert_eq!(gateway.authority.view().revision(), 2);

    let mut views = gateway.authority.subscribe();
    views.mark_unchanged();
    within(views.changed()).await.unwrap();
    let view = views.borrow().clone();
    assert!(view.revision() == 2 && view.problem.is_none());
    control.heard(|request| (request == WatchRequest::Heartbeat).then_some(())).await;
    gateway.stop().await;
}

#[tokio::test]
async fn forged_older_and_foreign_policies_are_reported_and_change_nothing() {
    let (_directory, mut control, gateway) = linked().await;
    let key = gateway.authority.gateway_key().public();
    let stranger = GatewayKey::from_seed(&[99; 32]);

    control.send_policy_signed_by(&control.policy(key, 7), &stranger);
    let (revision, reason) = control.heard_rejected().await;
    assert!(revision == 7 && reason.contains("not trusted"), "{reason}");

    control.send_policy(&control.policy(key, 0));
    let (revision, reason) = control.heard_rejected().await;
    assert!(revision == 0 && reason.contains("revisions never go back"), "{reason}");

    control.send_policy(&control.policy(stranger.public(), 8));
    let (revision, reason) = control.heard_rejected().await;
    assert!(revision == 8 && reason.contains("not for this one"), "{reason}");

    let view = gateway.authority.view();
    assert_eq!(view.revision(), 1);
    assert!(view.problem.is_some());
    assert_eq!(control.links(), 1, "a refused policy is no reason to connect again");
}

#[tokio::test]
async fn silence_ends_the_link_and_a_new_one_is_made() {
    let (_directory, mut control, mut gateway) = linked().await;
    gateway.status(|status| status.connected).await;
    control.beats(None);
    gateway.status(|status| !status.connected && status.problem.as_ref().is_some_and(|p| p.contains("silent"))).await;
    control.beats(Some(1));
    assert_eq!(control.heard_hello().await, 1);
    gateway.status(|status| status.connected && status.problem.is_none()).await;
}

#[tokio::test]
async fn a_policy_that_is_spoken_of_but_never_comes_is_asked_for_by_a_new_link() {
    let (_directory, mut control, mut gateway) = linked().await;
    control.beats(Some(5));
    let missing = |problem: &String| problem.contains("revision 5 but did not send it");
    gateway.status(|status| status.problem.as_ref().is_some_and(missing)).await;
    assert_eq!(control.heard_hello().await, 1);
    assert_eq!(gateway.authority.view().revision(), 1);
}

#[tokio::test]
async fn a_restart_without_the_control_plane_runs_from_disk() {
    let (directory, control, gateway) = linked().await;
    gateway.stop().await;
    drop(control);
    let mut gateway = Gateway::start(open(directory.path()));
    gateway.status(|status| status.problem.as_ref().is_some_and(|p| p.contains("cannot connect"))).await;
    let authority = &gateway.authority;
    assert!(authority.authorize(connection(), true, authority.now()).is_ok());
}

#[tokio::test]
async fn a_policy_that_was_signed_while_the_control_planes_clock_was_ahead_locks_nobody_out() {
    let (directory, mut control, gateway) = linked().await;
    let key = gateway.authority.gateway_key().public();
    let ahead = Policy { issued_at: gateway_net::time::unix_secs() + 7_200, ..control.policy(key, 2) };
    control.send_policy(&ahead);
    assert_eq!(control.heard_applied().await, 2);
    gateway.stop().await;
    let gateway = Gateway::start(open(directory.path()));
    assert!(gateway.authority.now() >= ahead.issued_at, "what ends is still decided by it");
    assert_eq!(control.heard_hello().await, 2);
}

#[tokio::test]
async fn a_gateway_whose_clock_was_set_back_links_by_the_time_it_heard_last() {
    let (directory, mut control, gateway) = linked().await;
    // As if this machine's clock were behind: the control plane's is two hours ahead of it.
    control.ahead(7_200);
    let key = gateway.authority.gateway_key().public();
    let now = gateway_net::time::unix_secs() + 7_200;
    control.send_policy(&Policy { issued_at: now, ..control.policy(key, 2) });
    assert_eq!(control.heard_applied().await, 2);
    gateway.stop().await;
    let _gateway = Gateway::start(open(directory.path()));
    assert_eq!(control.heard_hello().await, 2);
}

#[tokio::test]
async fn a_gateway_that_is_not_let_in_says_why() {
    let (_directory, mut control, mut gateway) = linked().await;
    let refusals = [
        (RefusalReason::PolicyKey, "does not know the policy key"),
        (RefusalReason::NotEnrolled, "knows no gateway with our key"),
        (RefusalReason::Clock, "the control plane's 1234 (Unix seconds)"),
    ];
    for (reason, words) in refusals {
        control.refuses(Some(GatewayRefusal { reason, now: 1234 }));
        control.sends_away("the disk of its database is full");
        gateway.status(|status| status.problem.as_ref().is_some_and(|problem| problem.contains(words))).await;
    }
    control.refuses(None);
    gateway.status(|status| status.connected).await;
    assert_eq!(control.heard_hello().await, 1);
}

#[tokio::test]
async fn the_words_with_which_a_link_is_closed_are_shown() {
    let (_directory, control, mut gateway) = linked().await;
    control.sends_away("the disk of its database is full");
    let words = "closed the link: the disk of its database is full";
    gateway.status(|status| status.problem.as_ref().is_some_and(|problem| problem.contains(words))).await;
}

#[tokio::test]
async fn a_removed_gateway_allows_nothing() {
    let (directory, control, mut gateway) = linked().await;
    control.send(WatchEvent::Removed);
    gateway.status(|status| status.problem.as_ref().is_some_and(|p| p.contains("removed this gateway"))).await;
    let denied = gateway.authority.authorize(connection(), true, gateway.authority.now());
    assert_eq!(denied, Err(DeniedReason::Unknown));
    assert!(directory.path().join("policy.json").exists());
}

#[tokio::test]
async fn a_relay_token_replaces_the_one_before_and_a_strangers_does_not() {
    let (_directory, control, gateway) = linked().await;
    let key = gateway.authority.gateway_key().public();
    let mut tokens = gateway.authority.relay_token();
    let fresh = control.relay_token(key, gateway_net::time::unix_secs() + 5);
    control.send(WatchEvent::RelayToken { token: "not.a-token".into() });
    control.send(WatchEvent::RelayToken { token: fresh.clone() });
    within(tokens.wait_for(|token| token.as_ref() == Some(&fresh))).await.unwrap();
}

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

#[tokio::test]
async fn a_gateway_that_is_not_enrolled_waits_and_links_once_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut control = StandIn::start();
    let mut gateway = Gateway::start(open(directory.path()));
    gateway.status(|status| status.problem.as_ref().is_some_and(|p| p.contains("not enrolled"))).await;
    enroll(&control.code.to_string(), &gateway.authority, None).await.unwrap();
    assert_eq!(control.heard_hello().await, 1);
    gateway.status(|status| status.connected && status.url.is_some()).await;
}

#[tokio::test]
async fn the_command_enrols_the_running_daemon_with_a_code_from_standard_input() {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let mut control = StandIn::start();
    let (config, state) = (directory.path().join("gatewayd.toml"), directory.path().join("state"));
    let socket = state.join("gatewayd.sock");
    std::fs::write(&config, format!("state_dir = {state:?}\n[tunnel]\nlisten = \"127.0.0.1:0\"\n")).unwrap();
    let program = env!("CARGO_BIN_EXE_gatewayd");
    let mut daemon = tokio::process::Command::new(program)
        .args(["run", "--config"])
        .arg(&config)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
    assert!(within(lines.next_line()).await.unwrap().unwrap().contains("ready"));

    let mut enrolling = tokio::process::Command::new(program)
        .args(["enroll", "-", "--socket"])
        .arg(&socket)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    enrolling.stdin.take().unwrap().write_all(control.code.to_string().as_bytes()).await.unwrap();
    let output = within(enrolling.wait_with_output()).await.unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("enrolled as server 'Engine 1' of 'Clinic'"));
    assert_eq!(control.heard_hello().await, 1);
}

/// A control plane that can be reached through a proxy only, under a name that only the proxy knows.
async fn behind_a_proxy() -> (tempfile::TempDir, StandIn, StandInProxy, Authority) {
    let directory = tempfile::tempdir().unwrap();
    let mut control = StandIn::start();
    let proxy = StandInProxy::start(control.code.control.strip_prefix("https://").unwrap().parse().unwrap()).await;
    control.code.control = "https://control.invalid".into();
    let authority = open(directory.path());
    (directory, control, proxy, authority)
}

#[tokio::test]
async fn enrolment_and_link_go_through_the_proxy_and_the_status_names_it_without_the_password() {
    let (_directory, mut control, mut stand_in, authority) = behind_a_proxy().await;
    let proxy = stand_in.proxy("gateway:sesame@");
    enroll(&control.code.to_string(), &authority, Some(&proxy)).await.unwrap();
    assert_eq!(stand_in.asked().await, "control.invalid:443");
    let mut gateway = Gateway::start_through(authority, Some(proxy.clone()));
    assert_eq!(control.heard_hello().await, 1);
    gateway.status(|status| status.connected).await;
    assert_eq!(gateway.status.borrow().proxy, Some(proxy.to_string()));
    assert!(!format!("{:?}", gateway.status).contains("sesame"));
    gateway.stop().await;
}

#[tokio::test]
async fn a_wrong_password_for_the_proxy_is_told_as_such_by_enrolment_and_link() {
    let (_directory, control, stand_in, authority) = behind_a_proxy().await;
    let wrong = stand_in.proxy("gateway:wrong@");
    let error = enroll(&control.code.to_string(), &authority, Some(&wrong)).await.unwrap_err();
    assert!(matches!(&error, EnrollError::Proxy { proxy, .. } if *proxy == wrong.to_string()), "{error:?}");
    enroll(&control.code.to_string(), &authority, Some(&stand_in.proxy("gateway:sesame@"))).await.unwrap();
    let mut gateway = Gateway::start_through(authority, Some(wrong));
    let words = "wrong or missing user and password for the proxy";
    gateway.status(|status| status.problem.as_ref().is_some_and(|problem| problem.contains(words))).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_relay_link_asks_the_proxy_and_names_it_as_the_hop_that_refused() {
    let (_directory, control, mut stand_in, authority) = behind_a_proxy().await;
    let proxy = stand_in.proxy("gateway:sesame@");
    enroll(&control.code.to_string(), &authority, Some(&proxy)).await.unwrap();
    assert_eq!(stand_in.asked().await, "control.invalid:443");
    let any = "127.0.0.1:0".parse().unwrap();
    let (socket, _packets) =
        TunnelSocket::bind([any].into_iter(), Arc::new(Routes::default()), SessionIndex::default()).unwrap();
    let context = LinkContext {
        authority,
        proxy: Some(proxy.clone()),
        socket: socket.clone(),
        injector: socket.injector(),
        inbound: RelayInbox::new(socket.counters().clone()).0,
        changes: watch::Sender::new(0),
        network: watch::channel(0).1,
    };
    let relay = RelayEntry {
        id: RelayId::new(1, [1; 10]),
        url: "wss://relay.invalid:8443/relay".into(),
        tls_pin: None,
        stun: vec![],
        region: None,
    };
    let (handle, running) = link(relay, context, CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(running);
    assert_eq!(within(stand_in.asked()).await, "relay.invalid:8443");
    let mut state = handle.state();
    let state = within(state.wait_for(|state| state.problem.is_some())).await.unwrap();
    let expected = format!("the proxy '{proxy}' refused a tunnel to 'relay.invalid:8443' with HTTP status 403");
    assert!(state.problem.as_ref().unwrap().contains(&expected), "{:?}", state.problem);
}
