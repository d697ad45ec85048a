//! The commands that speak with gatewayd over its Unix socket.

use std::{process::Stdio, time::Duration};

use gateway_proto::{
    api::{
        gateway::{Connectivity, EnrollmentCode, PathKind},
        local::{ConnectionStatus, ControlStatus, DEFAULT_SOCKET, Enrolled, PolicyStatus, RelayChanges, Status},
    },
    id::ConnectionId,
    identity::GatewayKey,
    limits::ChannelLimits,
    policy::{Activation, ConnectionKind},
};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::world::World;

const STATUS: &str = "GET /v1/status";

#[tokio::test]
async fn status_answers_by_exit_code_and_by_type() {
    let world = World::new();
    world.daemon.answer(STATUS, 200, &status(Connectivity::Connected, PathKind::Direct));
    let outcome = world.run(&["status", "--json"]).await;
    assert_eq!(outcome.json::<Status>(), status(Connectivity::Connected, PathKind::Direct));
    let outcome = world.run(&["status"]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.starts_with("CONNECTED  1 connection\n"), "no colours in a pipe: {outcome:?}");
}

#[tokio::test]
async fn status_that_is_not_connected_says_so_and_exits_with_one() {
    let world = World::new();
    world.daemon.answer(STATUS, 200, &status(Connectivity::NeverConnected, PathKind::Relayed));
    let outcome = world.run(&["status"]).await;
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stdout.starts_with("NOT CONNECTED  0 of 1 connections connected\n"), "{outcome:?}");
    assert_eq!(outcome.stderr, "");
    let outcome = world.run(&["status", "--json"]).await;
    assert_eq!(outcome.code, 1);
    let shown: Status = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(shown.connections[0].connectivity, Connectivity::NeverConnected);
}

#[tokio::test]
async fn waiting_ends_when_the_goal_is_reached() {
    let world = World::new();
    for (connectivity, path) in [
        (Connectivity::NeverConnected, PathKind::Relayed),
        (Connectivity::Connected, PathKind::Relayed),
        (Connectivity::Connected, PathKind::Direct),
    ] {
        world.daemon.answer(STATUS, 200, &status(connectivity, path));
    }
    let outcome = world.run(&["status", "--wait", "direct", "--timeout", "50s", "--connection", "ADT"]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(world.daemon.asked().len(), 3);
}

#[tokio::test]
async fn a_goal_that_is_not_reached_in_time_is_a_no_with_the_last_status() {
    let world = World::new();
    world.daemon.answer(STATUS, 200, &status(Connectivity::Connected, PathKind::Relayed));
    let outcome = world.run(&["status", "--wait", "direct", "--timeout", "1s"]).await;
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.stderr, "error: not connected on a direct path within 1 s\n");
    assert!(outcome.stdout.starts_with("CONNECTED  1 connection\n"), "{outcome:?}");
    let outcome = world.run(&["status", "--wait", "connected", "--timeout", "1s", "--connection", "ORU"]).await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.stdout.starts_with("NOT CONNECTED  there is no connection 'ORU' here\n"), "{outcome:?}");
}

#[tokio::test]
async fn watching_shows_one_status_per_line_until_the_reader_leaves() {
    let world = World::new();
    world.daemon.answer(STATUS, 200, &status(Connectivity::NeverConnected, PathKind::Relayed));
    world.daemon.answer(STATUS, 200, &status(Connectivity::Connected, PathKind::Direct));
    let mut child = world.command(&["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for connectivity in [Connectivity::NeverConnected, Connectivity::Connected] {
        let line = lines.next_line().await.unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Status>(&line).unwrap().connections[0].connectivity, connectivity);
    }
    drop(lines);
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn a_daemon_that_does_not_run_is_named_by_its_socket() {
    let world = World::new();
    for args in [&["status"][..], &["metrics"], &["status", "--wait", "connected", "--timeout", "1s"]] {
        let mut args = args.to_vec();
        args.extend(["--socket", "/nonexistent/gatewayd.sock"]);
        let outcome = world.run(&args).await;
        assert_eq!(outcome.code, 2, "{outcome:?}");
        assert!(
            outcome.stderr.starts_with("error: daemon not running: socket /nonexistent/gatewayd.sock: "),
            "{outcome:?}"
        );
        assert!(outcome.stderr.contains("--socket or GATEWAYD_SOCKET"), "{outcome:?}");
    }
    // A socket file that a killed daemon left behind.
    let stale = world.path("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let stale = stale.display().to_string();
    let outcome = world.run(&["status", "--socket", &stale]).await;
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(outcome.stderr.starts_with(&format!("error: daemon not running: socket {stale}: ")), "{outcome:?}");
}

#[tokio::test]
async fn the_daemon_is_looked_for_where_an_installed_one_listens() {
    let world = World::new();
    let output = world.command(&["--help"]).env_remove("GATEWAYD_SOCKET").output().await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains(DEFAULT_SOCKET), "{help}");
}

#[tokio::test]
async fn a_gateway_enrols_with_a_code_from_standard_input() {
    let world = World::new();
    let code = code();
    let enrolled = Enrolled {
        server_id: "srv_1".into(),
        server_name: "lab".into(),
        organization_name: "Clinic A".into(),
        key: GatewayKey::from_seed(&[1; 32]).public(),
    };
    world.daemon.answer("POST /v1/enroll", 200, &enrolled);
    let outcome = world.run_with_input(&["gateway", "enroll", "-"], &format!("{code}\n")).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("Enrolled as   lab\n") && !outcome.stdout.contains(&code), "{outcome:?}");
    assert_eq!(world.daemon.asked_once("POST /v1/enroll").body, json!({ "code": code }));
}

#[tokio::test]
async fn a_cut_code_is_refused_before_anything_is_asked_and_not_repeated() {
    let world = World::new();
    let cut = &code()[..40];
    let outcome = world.run(&["gateway", "enroll", cut]).await;
    assert_eq!(outcome.code, 64);
    assert!(outcome.stderr.contains("not a complete enrolment code") && !outcome.stderr.contains(cut), "{outcome:?}");
    assert!(world.daemon.asked().is_empty());
}

#[tokio::test]
async fn a_code_the_platform_refuses_is_a_no() {
    let world = World::new();
    let problem = json!({"code": "enrollment_code", "status": 422, "detail": "the code was used already"});
    world.daemon.answer("POST /v1/enroll", 422, &problem);
    let outcome = world.run(&["gateway", "enroll", &code()]).await;
    assert_eq!((outcome.code, outcome.stderr.as_str()), (1, "error: the code was used already [enrollment_code]\n"));
}

#[tokio::test]
async fn metrics_pass_through_and_have_no_json_form() {
    let world = World::new();
    world.daemon.answer_text("GET /v1/metrics", 200, "# TYPE gateway_up gauge\ngateway_up 1\n");
    let outcome = world.run(&["metrics"]).await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "# TYPE gateway_up gauge\ngateway_up 1\n"));
    assert_eq!(world.run(&["metrics", "--json"]).await.code, 64);
}

#[tokio::test]
async fn a_peer_is_probed_anew_by_its_name() {
    let world = World::new();
    world.daemon.answer_text("POST /v1/reconnect", 204, "");
    assert_eq!(world.run(&["reconnect", "lab"]).await.code, 0);
    assert_eq!(world.daemon.asked_once("POST /v1/reconnect").body, json!({"peer": "lab"}));
}

fn code() -> String {
    let policy_key = GatewayKey::from_seed(&[2; 32]).public();
    EnrollmentCode { control: "https://c.example".into(), pin: None, policy_key, secret: "ab".repeat(16) }.to_string()
}

fn status(connectivity: Connectivity, path: PathKind) -> Status {
    Status {
        version: "0.1.0".into(),
        key: GatewayKey::from_seed(&[1; 32]).public(),
        server: Some("lab".into()),
        organization: Some("Clinic A".into()),
        started_at: 1_760_000_000_000,
        control: ControlStatus {
            connected: true,
            url: None,
            last_heard_at: None,
            clock_skew_ms: None,
            proxy: None,
            problem: None,
        },
        policy: PolicyStatus { revision: 1, issued_at: None, confirmed_at: None, age_secs: None, problem: None },
        relays: Vec::new(),
        relay_changes: RelayChanges::default(),
        peers: Vec::new(),
        socket: None,
        port_mapping: None,
        relays_disagree: None,
        engine: None,
        audit: None,
        runs_twice: None,
        connections: vec![ConnectionStatus {
            id: ConnectionId::new(1, [0; 10]),
            endpoint: "ADT".into(),
            kind: ConnectionKind::P2p,
            role: "listener".into(),
            peer_server: "front desk".into(),
            peer_organization: "Self".into(),
            activation: Activation::Active,
            authorized: true,
            connectivity,
            path: Some(path),
            path_reason: "it is there".into(),
            rtt_ms: None,
            local_address: None,
            last_sent_at: None,
            last_received_at: None,
            bytes_sent: 0,
            bytes_received: 0,
            streams: 0,
            streams_finished: 0,
            streams_reset: 0,
            streams_refused: 0,
            streams_silent: 0,
            limits: ChannelLimits::default(),
            problem: None,
            waiting: None,
            warnings: vec![],
            exchange: None,
            admin: None,
            places: None,
            unobserved: false,
        }],
    }
}
