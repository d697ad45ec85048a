//! The local API over its Unix socket.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use gateway_proto::{
    api::{
        Problem,
        local::{AuditNewest, ControlStatus, EnrollBody, PolicyStatus, ReconnectBody, RelayChanges, Status},
    },
    audit::line::Head,
    identity::GatewayKey,
    netcheck::{NetcheckBody, Observations, Report, judge},
};
use gatewayd::{
    authority::Authority,
    local_api::{DaemonControl, LocalApi, serve_metrics},
    store::StateDir,
};
use reqwest::StatusCode;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

struct Daemon;

impl DaemonControl for Daemon {
    fn status(&self) -> Status {
        Status {
            version: "1".into(),
            key: GatewayKey::from_seed(&[1; 32]).public(),
            server: None,
            organization: None,
            started_at: 1,
            control: ControlStatus {
                connected: false,
                url: None,
                last_heard_at: None,
                clock_skew_ms: None,
                proxy: None,
                problem: None,
            },
            policy: PolicyStatus { revision: 0, issued_at: None, confirmed_at: None, age_secs: None, problem: None },
            relays: vec![],
            relay_changes: RelayChanges::default(),
            peers: vec![],
            connections: vec![],
            engine: None,
            audit: None,
            runs_twice: None,
            socket: None,
            port_mapping: None,
            relays_disagree: None,
        }
    }

    fn reconnect(&self, peer: &str) -> Result<(), String> {
        if peer == "Lab" { Ok(()) } else { Err(format!("no peer is called '{peer}'")) }
    }

    fn audit_newest(&self, _limit: usize, _act: String) -> BoxFuture<'_, Result<AuditNewest, String>> {
        Box::pin(std::future::ready(Ok(AuditNewest { lines: vec![], whole: true })))
    }

    fn audit_lines(&self, _from: u64) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn audit_head(&self) -> Head {
        Head { sequence: 0, hash: String::new() }
    }

    fn netcheck(&self, body: NetcheckBody) -> BoxFuture<'_, Report> {
        let mut report = judge(&Observations::default(), 1);
        report.proxy = body.control;
        Box::pin(std::future::ready(report))
    }

    fn last_netcheck(&self) -> Option<Report> {
        None
    }

    fn metrics(&self) -> String {
        "# EOF\n".into()
    }
}

struct Running {
    directory: tempfile::TempDir,
    client: reqwest::Client,
    shutdown: CancellationToken,
    tasks: JoinSet<std::io::Result<()>>,
}

fn open(directory: &Path) -> Authority {
    Authority::open(Arc::new(StateDir::open(directory).unwrap()), gateway_net::time::unix_secs()).unwrap()
}

fn start() -> Running {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory.path().join("state"));
    let path = directory.path().join("api.sock");
    let api = LocalApi::bind(&path, &authority).unwrap();
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(api.serve(Arc::new(Daemon), authority, None, shutdown.clone()));
    Running { client: gateway_net::http::unix_client(&path).unwrap(), directory, shutdown, tasks }
}

#[tokio::test]
async fn status_metrics_and_reconnect_are_answered() {
    let running = start();
    let client = &running.client;
    let status: Status = client.get("http://localhost/v1/status").send().await.unwrap().json().await.unwrap();
    assert_eq!(status, Daemon.status());
    let metrics = client.get("http://localhost/v1/metrics").send().await.unwrap();
    assert!(metrics.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert_eq!(metrics.text().await.unwrap(), "# EOF\n");
    let reconnect =
        |peer: &str| client.post("http://localhost/v1/reconnect").json(&ReconnectBody { peer: peer.into() }).send();
    assert_eq!(reconnect("Lab").await.unwrap().status(), StatusCode::NO_CONTENT);
    let refused = reconnect("Moon").await.unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    let problem: Problem = refused.json().await.unwrap();
    assert_eq!((problem.code.as_str(), problem.detail.as_str()), ("not_found", "no peer is called 'Moon'"));
}

#[tokio::test]
async fn a_look_at_the_network_takes_servers_by_host_and_port_only() {
    let running = start();
    let post = |body: serde_json::Value| running.client.post("http://localhost/v1/netcheck").json(&body).send();
    let answer = post(serde_json::json!({ "control": "control.example:443" })).await.unwrap();
    let report: Report = answer.json().await.unwrap();
    assert_eq!(report.proxy.as_deref(), Some("control.example:443"), "what was asked for arrived");
    let answer = post(serde_json::json!({ "stun": ["nonsense"] })).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Problem = answer.json().await.unwrap();
    assert_eq!(problem.detail, "'nonsense' is not HOST:PORT");
    let last = running.client.get("http://localhost/v1/netcheck").send().await.unwrap();
    assert_eq!(last.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn mistakes_of_clients_are_problems_and_never_repeat_the_code() {
    let running = start();
    let client = &running.client;
    let unknown = client.get("http://localhost/v2/status").send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert_eq!(unknown.json::<Problem>().await.unwrap().code, "not_found");
    let post = |body: String| {
        client.post("http://localhost/v1/enroll").header("content-type", "application/json").body(body).send()
    };
    for body in ["{\"code\": \"gwe1_secret\", \"x\": 1}", "gwe1_secret"] {
        let answer = post(body.to_owned()).await.unwrap();
        assert!(answer.status().is_client_error());
        let problem: Problem = answer.json().await.unwrap();
        assert!(problem.code == "invalid" && !problem.detail.contains("gwe1_secret"));
    }
    assert_eq!(post("x".repeat(100_000)).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    let body = EnrollBody { code: "gwe1_cut".into() };
    let cut = client.post("http://localhost/v1/enroll").json(&body).send().await.unwrap();
    assert_eq!(cut.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(cut.json::<Problem>().await.unwrap().detail.contains("copy it again"));
}

#[tokio::test]
async fn the_server_ends_in_time_even_if_a_client_stays() {
    let mut running = start();
    let path = running.directory.path().join("api.sock");
    let _idle = tokio::net::UnixStream::connect(&path).await.unwrap();
    running.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), running.tasks.join_next()).await.unwrap();
    ended.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn metrics_are_served_over_loopback_and_nothing_else_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_metrics(listener, Arc::new(Daemon), CancellationToken::new()));
    // Our own clients speak HTTPS only, so this one request is written by hand.
    assert!(get(address, "/metrics").await.ends_with("# EOF\n"));
    assert!(get(address, "/v1/status").await.starts_with("HTTP/1.1 404"));
}

async fn get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
